"""Two implementations of a model's forward pass. Both can start at any layer and end at any layer.

- `LibraryForward` calls transformers' own modules and works for any architecture. When it starts from cached hidden
  states, it skips the embeddings and the lowest layers.
- `LeanForward` (`training/bert/forward.py`) replaces the layers of BERT-like models by the hand-written ones in
  `training/bert/layer.py`, which use the same parameters.

In this module, `states` are hidden states from which a forward pass starts: the input of a layer, `[batch, tokens,
hidden]`, or of the head, which is `[batch, 1, hidden]` if only the first token is computed in the last layer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from alue_bench.contract.errors import DoesNotFit
from alue_bench.data.batches import Batch
from alue_bench.training.architecture.encoder_stack import EncoderStack, LastLayer
from alue_bench.training.device.random_state import set_torch_random_state, torch_random_state

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Forward(Protocol):
    """An implementation of a model's forward pass. Call its methods under autocast unless the number format is fp32."""

    name: str
    """The implementation's name, which is recorded with every run."""
    last_layer: LastLayer
    """The way in which the last layer is computed, which affects the number of FLOPs. If it is "whole", the output of
    the last layer is `[batch, tokens, hidden]`; otherwise only the first token is computed, `[batch, 1, hidden]`."""
    recordable: bool
    """True if a training step can be captured as a CUDA graph, that is, if it never waits for a value on the GPU."""

    def prefix(self, batch: Batch, depth: int, states: Tensor | None = None, start: int = 0) -> Tensor:
        """Compute the embeddings and the layers below layer `depth`, and return the input of layer `depth`.

        Args:
            batch: The examples.
            depth: The index of the first layer that is not computed. If it is the number of layers, the input of the
                head is returned.
            states: The input of layer `start`, `[batch, tokens, hidden]`; None starts from the token ids.
            start: The index of the first layer to compute if `states` is given.

        Returns:
            The hidden states, `[batch, tokens, hidden]`; `[batch, 1, hidden]` after the last layer unless `last_layer`
            is "whole".
        """
        ...

    def logits(self, batch: Batch, depth: int = 0, states: Tensor | None = None) -> Tensor:
        """Compute the logits of a batch, from the token ids or from stored hidden states.

        Args:
            batch: The examples.
            depth: The index of the layer that takes `states` as input; 0 without `states`.
            states: The input of layer `depth`, in the shape that `prefix` returns; None starts from the token ids.

        Returns:
            The logits, `[batch, outputs]`, or `[batch, tokens, outputs]` if the head reads every token, to tag words or
            find spans.
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

    def refresh_weight_copies(self) -> None:
        """Update internal copies of parameters.

        Call this after weights, or the set of trainable parameters, have changed.
        """
        ...


def has_lean_forward(stack: EncoderStack) -> bool:
    """Return whether `choose_forward` returns a `LeanForward` for this model."""
    from alue_bench.training.bert.forward import LeanForward

    return LeanForward.fits(stack)


def last_layer_of(stack: EncoderStack, device: str) -> LastLayer:
    """Return the way in which a model's last layer is computed by the forward pass that `choose_forward` selects.

    Args:
        stack: The model, possibly on the meta device.
        device: The type of the device on which the model will run: "cpu", "cuda", "mps" or "xpu".
    """
    from alue_bench.training.bert.forward import LeanForward

    return LeanForward.last_layer_on(device, stack) if LeanForward.fits(stack) else "whole"


def choose_forward(stack: EncoderStack, compute: torch.dtype) -> Forward:
    """Return the forward pass for a model: `LeanForward` for unmodified BERT-like models, else `LibraryForward`.

    Args:
        stack: The model.
        compute: The number format of matrix products.
    """
    from alue_bench.training.bert.forward import LeanForward

    return LeanForward(stack, compute) if LeanForward.fits(stack) else LibraryForward(stack)


class LibraryForward:
    """A forward pass through transformers' own modules, for any architecture. See `Forward`.

    If transformers gets a padding mask on an accelerator, it waits for the device to find out whether anything is
    padded. To avoid this, a batch without padding is passed without a mask. A padded batch is passed with the final
    attention mask, which transformers would otherwise compute from the padding mask. Both are done only if the
    architecture accepts such a mask (`_takes_ready_masks`).
    """

    name = "library"
    last_layer: LastLayer = "whole"
    recordable = False  # some architectures wait for values on the device; capturing is not tried for any of them

    def __init__(self, stack: EncoderStack) -> None:
        """Prepare a model for this forward pass; turn off its cache of attention keys and values."""
        self.stack = stack
        self._ready_masks: bool | None = None
        config: Any = stack.model.config
        if getattr(config, "use_cache", False):
            config.use_cache = False  # decoders cache keys and values for generation, which is never done here

    def generators(self) -> list[torch.Generator]:
        """Return an empty list, because transformers draws from the default generator only."""
        return []

    def logits(self, batch: Batch, depth: int = 0, states: Tensor | None = None) -> Tensor:
        """Compute the logits of a batch, from the token ids or from stored hidden states; see `Forward.logits`."""
        self._try_masks(batch)
        if states is None:
            return self._call(batch)
        with self._starting_from(depth, states):
            return self._call(batch)

    def prefix(self, batch: Batch, depth: int, states: Tensor | None = None, start: int = 0) -> Tensor:
        """Compute the input of layer `depth`, `[batch, tokens, hidden]`; for the arguments, see `Forward.prefix`.

        Raises:
            DoesNotFit: A layer consists of several modules, so that a forward pass cannot end between layers.
        """
        entries = self.stack.entries
        if not entries:
            raise DoesNotFit("each of its layers is several modules")
        self._try_masks(batch)
        captured: list[Tensor] = []

        def keep_input(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
            captured.append(args[0] if args else options["hidden_states"])
            raise StopForward

        def keep_output(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
            output = forward(*args, **options)
            captured.append(output[0] if isinstance(output, tuple) else output)
            raise StopForward

        last, capture = (entries[depth], keep_input) if depth < len(entries) else (entries[-1], keep_output)
        beginning = nullcontext() if states is None else self._starting_from(start, states)
        with beginning, replaced_forward_methods({last: capture}), suppress(StopForward):
            self._call(batch)
        return captured[0]

    def seed(self, seed: int) -> None:
        """Seed torch's default generators, which dropout draws from."""
        import torch

        torch.manual_seed(seed)

    def random_state(self) -> dict[str, Tensor]:
        """Return the state of torch's default generators, the only ones that this forward pass draws from."""
        return torch_random_state(next(self.stack.model.parameters()).device.type)

    def set_random_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state that `random_state` returned."""
        set_torch_random_state(state)

    def refresh_weight_copies(self) -> None:
        """Do nothing, because this implementation keeps no copies of parameters."""

    def _call(self, batch: Batch) -> Tensor:
        return self._logits(batch.input_ids, self._mask(batch), batch.token_type_ids)

    def _logits(self, input_ids: Tensor, mask: Tensor | None, token_type_ids: Tensor | None) -> Tensor:
        inputs = {"input_ids": input_ids, "attention_mask": mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        logits: Tensor = self.stack.model(**inputs).logits
        return logits

    def _mask(self, batch: Batch) -> Tensor | None:
        """Return the attention mask to pass to transformers for a batch.

        This is the padding mask, int64 [batch, tokens]. If the architecture accepts ready-made masks, it is the final
        attention mask, bool [batch, 1, tokens, tokens], or None for a batch without padding.
        """
        if not self._ready_masks:
            return batch.attention_mask
        return _ready_mask(batch.attention_mask) if batch.is_padded else None

    def _try_masks(self, batch: Batch) -> None:
        """Set `_ready_masks` at the first call: True on an accelerator if the model accepts ready-made masks."""
        if self._ready_masks is None:
            self._ready_masks = batch.input_ids.device.type != "cpu" and self._takes_ready_masks(batch)

    def _takes_ready_masks(self, batch: Batch) -> bool:
        """Return whether the model accepts an attention mask `[batch, 1, tokens, tokens]` in place of a padding mask.

        The logits must be the same with either mask, and without padding also without any mask. This is tried with a
        few tokens of the batch. Architectures with sliding-window attention are excluded: they would use the ready-made
        mask instead of their windows, and a trial with few tokens would not reveal this.
        """
        import torch

        model: Any = self.stack.model
        names = vars(sys.modules[type(model).__module__])
        mask_functions = [name for name in names if name.startswith("create_") and name.endswith("_mask")]
        if "create_bidirectional_mask" not in mask_functions or any("sliding" in name for name in mask_functions):
            return False
        if getattr(model.config, "_attn_implementation", None) != "sdpa":
            return False
        ids, types = (
            None if tensor is None else tensor[:1, :4].repeat(2, 1)
            for tensor in (batch.input_ids, batch.token_type_ids)
        )
        assert ids is not None
        whole = torch.ones_like(ids)
        padded = whole.clone()
        padded[1, -1 if batch.side == "right" else 0] = 0
        modes = [(module, module.training) for module in model.modules()]
        try:
            with torch.no_grad():
                model.eval()
                pairs = [(padded, _ready_mask(padded)), (whole, None)]

                def logits(mask: Tensor, given: Tensor | None) -> Tensor:
                    return _without_padding(self._logits(ids, given, types), mask)

                return all(torch.allclose(logits(mask, mask), logits(mask, ready), 1e-3, 1e-3) for mask, ready in pairs)
        except (RuntimeError, TypeError, ValueError, AttributeError):  # the architecture does not accept such a mask
            return False
        finally:
            for module, mode in modes:
                module.training = mode

    @contextmanager
    def _starting_from(self, depth: int, states: Tensor) -> Iterator[None]:
        """Within the `with` block, make the model use `states` as input of layer `depth`, and skip what comes before.

        The embeddings and the layers below `depth` are skipped. Modules that run between the skipped layers still run,
        but their results are not used.
        """
        entries, tuples = self.stack.entries, self.stack.returns_tuple

        def embeddings(forward: Callable[..., Any], *args: Any, **options: Any) -> Tensor:
            return states

        def skip(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
            return (states, None) if tuples else states

        def begin(forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
            if args:
                return forward(states, *args[1:], **options)
            return forward(**{**options, "hidden_states": states})

        changed: dict[nn.Module, Callable[..., Any]] = dict.fromkeys(self.stack.inputs_only, embeddings)
        changed |= dict.fromkeys(entries[:depth], skip)
        if depth < len(entries):
            changed[entries[depth]] = begin
        with replaced_forward_methods(changed):
            yield


def _ready_mask(mask: Tensor) -> Tensor:
    """Convert a padding mask, int64 [batch, tokens], to an attention mask, bool [batch, 1, tokens, tokens]."""
    tokens = mask.shape[1]
    return mask.bool()[:, None, None, :].expand(-1, 1, tokens, tokens)


def _without_padding(logits: Tensor, mask: Tensor) -> Tensor:
    """Remove the logits of padding tokens if there are logits for each token; else return the logits unchanged."""
    return logits[mask.bool()] if logits.ndim > 2 else logits


@contextmanager
def replaced_forward_methods(changed: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Inside the `with` block, replace the `forward` method of modules.

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


class StopForward(Exception):
    """An exception that ends a forward pass early, once the required hidden states are computed."""
