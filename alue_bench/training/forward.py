"""Two ways through a model, split where its frozen prefix ends.

- `LibraryForward`: the library's own modules, for any architecture. To start from stored states, embeddings and the
  lowest layers are passed over, and the layer above them is given the states.
- `LeanForward`: the BERT family's layers as written out in `bert_layer.py`, over the same parameters.

`states` are what layer `depth` reads: [b, s, d]. With `depth` the number of all layers, they are what the head reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from alue_bench.contract.errors import DoesNotFit
from alue_bench.data.batches import Batch
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.device.random_state import set_torch_random_state, torch_random_state

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Forward(Protocol):
    """A way through a model. Call it under autocast where the precision asks for it."""

    name: str
    """Recorded with every run."""
    head_reads_first: bool
    """Whether the head reads the first token only: the states behind the last layer are then [b, 1, d]."""
    recordable: bool
    """Whether a training step through it can be recorded and replayed: it waits for no value of the device's."""

    def prefix(self, batch: Batch, depth: int, states: Tensor | None = None, start: int = 0) -> Tensor:
        """The states that layer `depth` reads, from the texts, or from the states that layer `start` reads."""
        ...

    def logits(self, batch: Batch, depth: int = 0, states: Tensor | None = None) -> Tensor:
        """[b, outputs], from the texts, or from the states that layer `depth` reads."""
        ...

    def seed(self, seed: int) -> None:
        """Begin the sequence of dropout masks that belongs to a seed."""
        ...

    def generators(self) -> list[torch.Generator]:
        """Those that it draws from now, beside the device's default one."""
        ...

    def random_state(self) -> dict[str, Tensor]:
        """Where the sequences of random numbers are that this way draws from, by name."""
        ...

    def set_random_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        ...

    def follow(self) -> None:
        """What trains has changed, or weights were put in place of others: take note."""
        ...


def reads_first_only(stack: EncoderStack) -> bool:
    """Whether the way that would be chosen computes the last layer for the first token alone."""
    from alue_bench.training.bert.forward import LeanForward

    return LeanForward.fits(stack) and LeanForward.head_reads_first


def choose_forward(stack: EncoderStack, compute: torch.dtype, *, recorded: bool = False) -> Forward:
    """The lean way where the model is of the BERT family and nothing in it was exchanged, else the library's.

    recorded: whether its training steps are to be recorded, where they can be.
    """
    from alue_bench.training.bert.forward import LeanForward

    return LeanForward(stack, compute, recorded=recorded) if LeanForward.fits(stack) else LibraryForward(stack)


class LibraryForward:
    """The library's own modules."""

    name = "library"
    head_reads_first = False
    recordable = False  # its attention looks whether anything is padded

    def __init__(self, stack: EncoderStack) -> None:
        self.stack = stack
        config: Any = stack.model.config
        if getattr(config, "use_cache", False):
            config.use_cache = False  # a decoder's keys and values, kept for a next word that is never asked for

    def generators(self) -> list[torch.Generator]:
        return []

    def logits(self, batch: Batch, depth: int = 0, states: Tensor | None = None) -> Tensor:
        if states is None:
            return self._call(batch)
        with self._starting_from(depth, states):
            return self._call(batch)

    def prefix(self, batch: Batch, depth: int, states: Tensor | None = None, start: int = 0) -> Tensor:
        """Raises DoesNotFit where a layer is not one module."""
        entries = self.stack.entries
        if not entries:
            raise DoesNotFit("each of its layers is several modules")
        found: list[Tensor] = []

        def keep_input(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
            found.append(args[0] if args else options["hidden_states"])
            raise Reached

        def keep_output(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
            output = forward(*args, **options)
            found.append(output[0] if isinstance(output, tuple) else output)
            raise Reached

        where, keep = (entries[depth], keep_input) if depth < len(entries) else (entries[-1], keep_output)
        begun = nullcontext() if states is None else self._starting_from(start, states)
        with begun, in_place({where: keep}), suppress(Reached):
            self._call(batch)
        return found[0]

    def seed(self, seed: int) -> None:
        import torch

        torch.manual_seed(seed)

    def random_state(self) -> dict[str, Tensor]:
        return torch_random_state(next(self.stack.model.parameters()).device.type)

    def set_random_state(self, state: Mapping[str, Tensor]) -> None:
        set_torch_random_state(state)

    def follow(self) -> None:
        """Nothing is remembered here."""

    def _call(self, batch: Batch) -> Tensor:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if batch.token_type_ids is not None:
            inputs["token_type_ids"] = batch.token_type_ids
        logits: Tensor = self.stack.model(**inputs).logits
        return logits

    @contextmanager
    def _starting_from(self, depth: int, states: Tensor) -> Iterator[None]:
        """Pass over embeddings and the lowest layers, and give layer `depth` these states, whatever it would have got.

        What runs between the lowest layers is not passed over; what it computes is not used.
        """
        entries, tuples = self.stack.entries, self.stack.returns_tuple

        def embeddings(forward: Callable[..., Any], *args: Any, **options: Any) -> Tensor:
            return states

        def hand_on(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
            return (states, None) if tuples else states

        def begin(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
            if args:
                return forward(states, *args[1:], **options)
            return forward(**{**options, "hidden_states": states})

        changed: dict[nn.Module, Callable[..., Any]] = dict.fromkeys(self.stack.inputs_only, embeddings)
        changed |= dict.fromkeys(entries[:depth], hand_on)
        if depth < len(entries):
            changed[entries[depth]] = begin
        with in_place(changed):
            yield


@contextmanager
def in_place(changed: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Call these functions in place of the modules' `forward`, which they get as their first argument.

    Not hooks: some architectures call `forward` of their layers directly. Modules that are changed already are changed
    on top of that.
    """
    before = {module: vars(module).get("forward") for module in changed}
    for module, function in changed.items():
        module.forward = partial(function, module.forward)
    try:
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                del module.forward
            else:
                module.forward = forward


class Reached(Exception):
    """Ends a forward pass where enough was computed."""
