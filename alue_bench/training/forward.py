"""Two implementations of the forward pass of a model, which can start or end at any layer.

- `LibraryForward` calls transformers' own modules and works for any architecture. To start from cached hidden states,
  it skips the embeddings and the lowest layers and passes the states to the layer above them.
- `LeanForward` (`training/bert/forward.py`) uses the layers of the BERT family written out in `training/bert/layer.py`,
  over the same parameters.

In this module, `states` is the input of layer `depth`: `[batch, tokens, hidden]`. If `depth` is the number of layers,
it is the input of the head, which may be `[batch, 1, hidden]` if the head reads only the first token.
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
    """An implementation of a model's forward pass. Call its methods under autocast unless in fp32."""

    name: str
    """The implementation's name, recorded with every run."""
    head_reads_first: bool
    """True if the head reads only the first token; the last layer's output is then `[batch, 1, hidden]`."""
    recordable: bool
    """True if a training step can be captured as a CUDA graph, that is, if it never waits for a value on the GPU."""

    def prefix(self, batch: Batch, depth: int, states: Tensor | None = None, start: int = 0) -> Tensor:
        """Compute the input of layer `depth`.

        Args:
            batch: The examples.
            depth: The number of layers to compute, from the lowest; all layers give the input of the head.
            states: The input of layer `start`, `[batch, tokens, hidden]`; None starts from the token ids.
            start: The index of the layer whose input `states` is.

        Returns:
            The hidden states, `[batch, tokens, hidden]`; `[batch, 1, hidden]` after the last layer if
            `head_reads_first`.
        """
        ...

    def logits(self, batch: Batch, depth: int = 0, states: Tensor | None = None) -> Tensor:
        """Compute the logits.

        Args:
            batch: The examples.
            depth: The index of the layer whose input `states` is.
            states: The input of layer `depth`, in the shape that `prefix` returns; None starts from the token ids.

        Returns:
            The logits, `[batch, outputs]`.
        """
        ...

    def seed(self, seed: int) -> None:
        """Seed the random generators from which dropout masks are drawn."""
        ...

    def generators(self) -> list[torch.Generator]:
        """Return the random generators used for dropout, in addition to the device's default generator."""
        ...

    def random_state(self) -> dict[str, Tensor]:
        """Return the state of each random generator that the forward pass draws from, by name."""
        ...

    def set_random_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state that `random_state` returned."""
        ...

    def follow(self) -> None:
        """Update internal copies of parameters. Call this after weights or the set of trainable parameters changed."""
        ...


def reads_first_only(stack: EncoderStack) -> bool:
    """Return whether `choose_forward` returns a forward pass that computes the last layer for the first token only."""
    from alue_bench.training.bert.forward import LeanForward

    return LeanForward.fits(stack) and LeanForward.head_reads_first


def choose_forward(stack: EncoderStack, compute: torch.dtype, *, recorded: bool = False) -> Forward:
    """Return a `LeanForward` if the model is an unmodified member of the BERT family, else a `LibraryForward`.

    Args:
        stack: The model.
        compute: The number format of matrix products.
        recorded: Whether training steps will be captured as CUDA graphs, if the chosen forward pass is `recordable`.
    """
    from alue_bench.training.bert.forward import LeanForward

    return LeanForward(stack, compute, recorded=recorded) if LeanForward.fits(stack) else LibraryForward(stack)


class LibraryForward:
    """A forward pass through transformers' own modules, for any architecture. See `Forward`."""

    name = "library"
    head_reads_first = False
    recordable = False  # transformers' attention reads from the GPU whether anything is padded

    def __init__(self, stack: EncoderStack) -> None:
        """Wrap a model and turn off its key/value cache."""
        self.stack = stack
        config: Any = stack.model.config
        if getattr(config, "use_cache", False):
            config.use_cache = False  # decoders cache keys and values for generation, which is never done here

    def generators(self) -> list[torch.Generator]:
        """Return an empty list: transformers draws from the default generator only."""
        return []

    def logits(self, batch: Batch, depth: int = 0, states: Tensor | None = None) -> Tensor:
        """Compute the logits, `[batch, outputs]`: see `Forward.logits`."""
        if states is None:
            return self._call(batch)
        with self._starting_from(depth, states):
            return self._call(batch)

    def prefix(self, batch: Batch, depth: int, states: Tensor | None = None, start: int = 0) -> Tensor:
        """Compute the input of layer `depth`, `[batch, tokens, hidden]`: see `Forward.prefix`.

        Raises:
            DoesNotFit: A layer consists of several modules, so that a forward pass cannot end between layers.
        """
        entries = self.stack.entries
        if not entries:
            raise DoesNotFit("each of its layers is several modules")
        captured: list[Tensor] = []

        def keep_input(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
            captured.append(args[0] if args else options["hidden_states"])
            raise Reached

        def keep_output(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
            output = forward(*args, **options)
            captured.append(output[0] if isinstance(output, tuple) else output)
            raise Reached

        where, keep = (entries[depth], keep_input) if depth < len(entries) else (entries[-1], keep_output)
        begun = nullcontext() if states is None else self._starting_from(start, states)
        with begun, in_place({where: keep}), suppress(Reached):
            self._call(batch)
        return captured[0]

    def seed(self, seed: int) -> None:
        """Seed torch's default generators, which dropout draws from."""
        import torch

        torch.manual_seed(seed)

    def random_state(self) -> dict[str, Tensor]:
        """Return the state of torch's default generators: see `torch_random_state`."""
        return torch_random_state(next(self.stack.model.parameters()).device.type)

    def set_random_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state that `random_state` returned."""
        set_torch_random_state(state)

    def follow(self) -> None:
        """Do nothing, because this implementation keeps no copies of parameters."""

    def _call(self, batch: Batch) -> Tensor:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if batch.token_type_ids is not None:
            inputs["token_type_ids"] = batch.token_type_ids
        logits: Tensor = self.stack.model(**inputs).logits
        return logits

    @contextmanager
    def _starting_from(self, depth: int, states: Tensor) -> Iterator[None]:
        """Skip the embeddings and the layers below `depth`, and replace the input of layer `depth` by `states`.

        Modules that run between the skipped layers still run, but their results are not used.
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
    """Replace the `forward` method of modules inside the context.

    Hooks cannot be used, because some architectures call `forward` of their layers directly, which skips hooks.
    Replacements can be nested.

    Args:
        changed: The replacement for each module: a function that gets the module's previous `forward` as its first
            argument, followed by the arguments of the call.
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
    """An exception that ends a forward pass early, raised as soon as the required states are computed."""
