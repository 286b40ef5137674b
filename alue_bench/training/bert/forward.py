"""The forward pass of BERT-like models through hand-written layers, without computations whose result is unused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from alue_bench.data.batches import Batch
from alue_bench.training.architecture.encoder_stack import EncoderStack, LastLayer
from alue_bench.training.bert import few_kernels
from alue_bench.training.bert.dropout import DropoutMasks, StepDropout
from alue_bench.training.bert.few_kernels import HiddenStates, masks_needed, product_widens
from alue_bench.training.bert.layer import BatchShape, LayerWeights, encoder_layer, first_token_layer, is_bert_layer
from alue_bench.training.device.random_state import set_torch_random_state, torch_random_state

HEADS = (
    "BertForSequenceClassification",
    "RobertaForSequenceClassification",
    "XLMRobertaForSequenceClassification",
    "ElectraForSequenceClassification",
)
"""The model classes that this forward pass supports and whose heads read only the first token."""
TAGGING_HEADS = (
    "BertForTokenClassification",
    "RobertaForTokenClassification",
    "XLMRobertaForTokenClassification",
    "ElectraForTokenClassification",
)
"""The model classes that this forward pass supports and whose heads (dropout and a linear classifier) read every
token."""
LAYERS_SEED = 1 << 40
"""The number added to a seed to get the seed of the layers' dropout, which must differ from that of torch's default
generator."""


class LeanForward:
    """A forward pass through the layers of `training/bert/layer.py`, for models of the BERT family. See `Forward`.

    Embeddings, pooler and classifier are transformers' modules. The last layer is computed for the first token only,
    unless the head reads every token, to tag words. On an accelerator, the layers are those of
    `training/bert/few_kernels.py`.
    """

    name = "lean"
    recordable = True

    def __init__(self, stack: EncoderStack, compute: torch.dtype) -> None:
        """Prepare the layers of a model for the hand-written forward pass.

        Args:
            stack: The model, for which `fits` must return True.
            compute: The number format of matrix products. The parameters stay in fp32.
        """
        self.stack = stack
        self._model: Any = stack.model
        self._base: Any = getattr(stack.model, str(self._model.base_model_prefix))
        self._layers = [LayerWeights(layer, compute) for layer in stack.layers]
        self._device = next(stack.model.parameters()).device.type
        self.last_layer = self.last_layer_on(self._device, stack)
        self._masks: DropoutMasks | StepDropout
        if self._device == "cpu":
            self._masks = DropoutMasks(LAYERS_SEED)
        else:
            self._masks = StepDropout(LAYERS_SEED, next(stack.model.parameters()).device)
            product_widens(self._device, compute)
        self.seed(0)

    @staticmethod
    def last_layer_on(device: str, stack: EncoderStack) -> LastLayer:
        """Return the way in which this forward pass computes a model's last layer on a device.

        Args:
            device: The kind of device: "cpu", "cuda", "mps" or "xpu".
            stack: The model.
        """
        if stack.reads_tokens:
            return "whole"
        return "reordered" if device == "cpu" else "first"

    @staticmethod
    def fits(stack: EncoderStack) -> bool:
        """Return whether this forward pass supports a model.

        Its class must be in `HEADS` or `TAGGING_HEADS`, and its layers unmodified.
        """
        return type(stack.model).__name__ in HEADS + TAGGING_HEADS and all(
            is_bert_layer(layer) for layer in stack.layers
        )

    def prefix(self, batch: Batch, depth: int, states: Tensor | None = None, start: int = 0) -> Tensor:
        """Compute the embeddings and the layers below layer `depth`, and return the input of layer `depth`.

        Args:
            batch: The examples.
            depth: The index of the first layer that is not computed. If it is the number of layers, the input of the
                head is returned.
            states: The input of layer `start`, `[batch, tokens, hidden]`; None starts from the token ids.
            start: The index of the first layer to compute if `states` is given.

        Returns:
            The hidden states, fp32 `[batch, tokens, hidden]`; after the last layer `[batch, 1, hidden]` unless
            `last_layer` is "whole".
        """
        embedded = self._embedded(batch) if states is None else states
        shape = _shape_of(batch)
        return self._run_layers(embedded, shape, start, depth)

    def logits(self, batch: Batch, depth: int = 0, states: Tensor | None = None) -> Tensor:
        """Compute the logits of a batch, from the token ids or from stored hidden states.

        Args:
            batch: The examples.
            depth: The index of the layer that takes `states` as input; 0 without `states`.
            states: The input of layer `depth`, in the shape that `prefix` returns; None starts from the token ids.

        Returns:
            The logits, `[batch, outputs]`, or `[batch, tokens, outputs]` if the head reads every token.
        """
        self._refresh(depth)
        last = self.prefix(batch, len(self._layers), states, depth)  # [batch, 1, hidden], or [batch, tokens, hidden]
        if self.stack.reads_tokens:
            tags: Tensor = self._model.classifier(self._model.dropout(last))
            return tags
        pooler = getattr(self._base, "pooler", None)
        if pooler is None:  # the classifier selects the first token itself
            logits: Tensor = self._model.classifier(last)
        else:
            logits = self._model.classifier(self._model.dropout(pooler(last)))
        return logits

    def seed(self, seed: int) -> None:
        """Seed torch's default generators (dropout of embeddings and head) and the generator of the layers' dropout."""
        torch.manual_seed(seed)  # dropout of embeddings and head, in transformers' modules
        # On a GPU, two generators with the same seed give the same numbers, so the layers get another seed.
        self._masks.seed(seed + LAYERS_SEED)

    def generators(self) -> list[torch.Generator]:
        """Return the torch generators from which the layers' dropout masks are drawn; none on a CPU."""
        return self._masks.generators()

    def random_state(self) -> dict[str, Tensor]:
        """Return the state of torch's default generators and the position in the sequence of dropout masks."""
        masks = {f"masks/{name}": value for name, value in self._masks.state().items()}
        return torch_random_state(self._device) | masks

    def set_random_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state that `random_state` returned."""
        set_torch_random_state(state)
        masks = {name: value for name, value in state.items() if name.startswith("masks/")}
        self._masks.set_state({name.removeprefix("masks/"): value for name, value in masks.items()})

    def refresh_weight_copies(self) -> None:
        """Update the low-precision copies of weights.

        Call this after weights, or the set of trainable parameters, have changed.
        """
        for weights in self._layers:
            weights.refresh_if_changed()

    def _embedded(self, batch: Batch) -> Tensor:
        """Compute the output of the embeddings for a batch, fp32 `[batch, tokens, hidden]`."""
        types = {} if batch.token_type_ids is None else {"token_type_ids": batch.token_type_ids}
        embedded: Tensor = self._base.embeddings(input_ids=batch.input_ids, **types)
        project = getattr(self._base, "embeddings_project", None)
        return (embedded if project is None else project(embedded)).float()

    def _run_layers(self, states: Tensor, shape: BatchShape, start: int, depth: int) -> Tensor:
        """Run `states`, `[batch, tokens, hidden]`, through layers `start` to `depth - 1`.

        The result is `[batch, tokens, hidden]`, but after the last layer of the model `[batch, 1, hidden]` unless
        `last_layer` is "whole".
        """
        if start == depth:
            return states
        flat = states.reshape(shape.examples * shape.tokens, -1)
        end = min(depth, len(self._layers) - (self.last_layer != "whole"))
        # Autocast is off: the layers choose the number format of each product.
        with torch.autocast(flat.device.type, enabled=False):
            if isinstance(self._masks, StepDropout):
                return self._with_few_kernels(flat, shape, start, depth, self._masks)
            for weights in self._layers[start:end]:
                flat = encoder_layer(flat, weights, shape, self._masks)
            if depth > end:
                return first_token_layer(flat, self._layers[-1], shape, self._masks).unsqueeze(1)
        return flat.view(shape.examples, shape.tokens, -1)

    def _with_few_kernels(self, flat: Tensor, shape: BatchShape, start: int, depth: int, masks: StepDropout) -> Tensor:
        """Run hidden states through layers `start` to `depth - 1` with the accelerator's layers (`few_kernels.py`).

        Args:
            flat: The input of layer `start`, fp32 `[n, d]`.
            shape: The shape and padding of the batch.
            start: The index of the first layer to run.
            depth: The index after that of the last layer to run.
            masks: The source of dropout masks.
        """
        last = len(self._layers) - (self.last_layer != "whole")
        counts: dict[float, int] = {}
        for index, weights in enumerate(self._layers[start:depth], start):
            for p, count in masks_needed(shape, weights, first_only=index == last).items():
                counts[p] = counts.get(p, 0) + count
        masks.draw(counts)
        dtype = self._layers[start].dtype
        if shape.padding is not None:  # fused attention takes it in the format of its other inputs
            shape = replace(shape, padding=shape.padding.to(dtype))
        hidden = HiddenStates.of(flat, dtype)
        for weights in self._layers[start : min(depth, last)]:
            hidden = few_kernels.encoder_layer(hidden, weights, shape, masks)
        if depth > last:
            return few_kernels.first_token_layer(hidden, self._layers[-1], shape, masks).unsqueeze(1)
        return hidden.fp32.view(shape.examples, shape.tokens, -1)

    def _refresh(self, depth: int) -> None:
        """Update the low-precision copies of the weights of layer `depth` and all higher layers."""
        if isinstance(self._masks, StepDropout):
            pairs = [weights.copies for weights in self._layers[depth:]]
            copies, masters = ([tensor for pair in pairs for tensor in pair[side]] for side in (0, 1))
            if copies:
                torch._foreach_copy_(copies, masters)
        else:
            for weights in self._layers[depth:]:
                weights.refresh()


def _shape_of(batch: Batch) -> BatchShape:
    """Return the shape of a batch and its attention bias at padding, for the layers of this package."""
    examples, tokens = batch.attention_mask.shape
    padding = None
    if batch.tokens < examples * tokens:
        lowest = torch.finfo(torch.float32).min
        padding = (batch.attention_mask[:, None, None, :] == 0).float() * lowest
    return BatchShape(examples, tokens, padding)
