"""Two ways through a model, split where its frozen prefix ends.

- `LibraryForward`: the library's own modules, for any architecture. To start from stored states, embeddings and the
  lowest layers are passed over: for the time being they hand on what they are given.
- `LeanForward`: the BERT family's layers as written out in `bert_layer.py`, over the same parameters.

`states` are what layer `depth` reads: [b, s, d]. With `depth` the number of all layers, they are what the head reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from alue_bench.data.batches import Batch
from alue_bench.training.encoder_stack import EncoderStack
from alue_bench.training.random_state import set_torch_random_state, torch_random_state

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
    from alue_bench.training.lean_forward import LeanForward

    return LeanForward.fits(stack) and LeanForward.head_reads_first


def choose_forward(stack: EncoderStack, compute: torch.dtype, *, recorded: bool = False) -> Forward:
    """The lean way where the model is of the BERT family and nothing in it was exchanged, else the library's.

    recorded: whether its training steps are to be recorded, where they can be.
    """
    from alue_bench.training.lean_forward import LeanForward

    return LeanForward(stack, compute, recorded=recorded) if LeanForward.fits(stack) else LibraryForward(stack)


class LibraryForward:
    """The library's own modules."""

    name = "library"
    head_reads_first = False
    recordable = False  # its attention looks whether anything is padded

    def __init__(self, stack: EncoderStack) -> None:
        self.stack = stack
        self._tuples: bool | None = None
        """Whether layers hand on a tuple, its first element the states."""

    def generators(self) -> list[torch.Generator]:
        return []

    def logits(self, batch: Batch, depth: int = 0, states: Tensor | None = None) -> Tensor:
        if states is None:
            return self._call(batch)
        with self._starting_from(depth, states):
            return self._call(batch)

    def prefix(self, batch: Batch, depth: int, states: Tensor | None = None, start: int = 0) -> Tensor:
        found: list[Tensor] = []

        def keep_input(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            found.append(args[0] if args else options["hidden_states"])
            raise _Reached

        def keep_output(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)
            raise _Reached

        layers = self.stack.layers
        hook = (
            layers[depth].register_forward_pre_hook(keep_input, with_kwargs=True)
            if depth < len(layers)
            else layers[-1].register_forward_hook(keep_output)
        )
        try:
            if states is None:
                self._call(batch)
            else:
                with self._starting_from(start, states):
                    self._call(batch)
        except _Reached:
            pass
        finally:
            hook.remove()
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
        """Embeddings give `states`, the lowest layers hand them on."""
        tuples = self._layers_return_tuples()

        def embeddings(*args: Any, **options: Any) -> Tensor:
            return states

        def layer(hidden_states: Tensor, *args: Any, **options: Any) -> Any:
            return (hidden_states, None) if tuples else hidden_states

        def joined(embedded: Tensor, hidden_states: Tensor, *args: Any, **options: Any) -> Tensor:
            return hidden_states

        changed: list[tuple[nn.Module, Callable[..., Any]]] = [
            (module, embeddings) for module in self.stack.inputs_only
        ]
        changed += [(module, layer) for module in self.stack.layers[:depth]]
        changed += [(module, joined) for module in self.stack.joins_first_layer if depth > 0]
        for module, forward in changed:
            module.forward = forward
        try:
            yield
        finally:
            for module, _ in changed:
                del module.forward

    def _layers_return_tuples(self) -> bool:
        if self._tuples is None:
            import torch

            seen: list[bool] = []
            hook = self.stack.layers[0].register_forward_hook(
                lambda module, args, output: seen.append(isinstance(output, tuple))
            )
            device = next(self.stack.model.parameters()).device
            try:
                with torch.no_grad():
                    self.stack.model(input_ids=torch.zeros((1, 2), dtype=torch.long, device=device))
            finally:
                hook.remove()
            self._tuples = seen[0]
        return self._tuples


class _Reached(Exception):
    """Ends a forward pass where enough was computed."""
