"""The effects of torch's operations: launched kernels, waits for the device, random numbers, written arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

aten = torch.ops.aten

ALLOCATIONS = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})
"""Operations that take memory and do not write to it."""
METADATA = frozenset({"_unsafe_view", "lift_fresh", "_local_scalar_dense", "_fused_sdp_choice", "is_same_size"})
"""Operations without a kernel. Views are told by their schema."""
WAITING = frozenset(
    {
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "is_nonzero",
        "_unique2",
        "unique_consecutive",
        "unique_dim",
        "bincount",
    }
)
"""Operations that bring a value to the host, or whose output has a size that is a value on the device."""
INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})


@dataclass(frozen=True)
class Kind:
    """The properties of an operation."""

    name: str
    """The name without namespace and overload, such as "addmm"."""
    launches: bool
    """True if the operation runs on the device: all but views, allocations and questions about shapes."""
    is_view: bool
    waits: bool
    draws: bool
    """True if random numbers are drawn, from the default generator unless one is given."""
    written: tuple[int | str, ...]
    """The arguments that are written to: positions, and names of keyword arguments."""

    def targets(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
        """Yield the tensors that a call of the operation writes to."""
        for place in self.written:
            if isinstance(place, str):
                yield from tensors_in((kwargs.get(place),))
            elif place < len(args):
                yield from tensors_in((args[place],))


@cache
def kind_of(operation: Any) -> Kind:
    """Return the properties of an operation, read from its schema."""
    schema = operation._schema
    name = schema.name.rpartition("::")[2]
    written: list[int | str] = []
    for place, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written.append(argument.name if argument.kwarg_only else place)
    is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
    waits = name in WAITING or (name == "repeat_interleave" and operation._overloadname == "Tensor")
    return Kind(
        name=name,
        launches=not (is_view or name in ALLOCATIONS or name in METADATA),
        is_view=is_view,
        waits=waits,
        draws=torch.Tag.nondeterministic_seeded in operation.tags,
        written=tuple(written),
    )


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors among arguments or results, which may be nested in lists and tuples."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def with_each(change: Any, value: Any) -> Any:
    """Return arguments or results with a function applied to each value that is neither list nor tuple nor dict."""
    if isinstance(value, list | tuple):
        return type(value)(with_each(change, part) for part in value) if value else value
    if isinstance(value, dict):
        return {name: with_each(change, part) for name, part in value.items()}
    return change(value)
