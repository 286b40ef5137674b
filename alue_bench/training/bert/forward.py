"""The way through a model of the BERT family that computes what is needed and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alue_bench.data.batches import Batch
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.bert.dropout import DropoutMasks
from alue_bench.training.bert.layer import BatchShape, LayerWeights, encoder_layer, first_token_layer, is_bert_layer
from alue_bench.training.device.random_state import set_torch_random_state, torch_random_state

HEADS = (
    "BertForSequenceClassification",
    "RobertaForSequenceClassification",
    "XLMRobertaForSequenceClassification",
    "ElectraForSequenceClassification",
)
"""Those that read the first token only."""
LAYERS_SEED = 1 << 40


class LeanForward:
    """See `forward.Forward`.

    compute: the number format of products; the model's parameters stay fp32. recorded: whether steps through it are to
    be recorded.
    """

    name = "lean"
    head_reads_first = True
    recordable = True

    def __init__(self, stack: EncoderStack, compute: torch.dtype, *, recorded: bool = False) -> None:
        self.stack = stack
        self._model: Any = stack.model
        self._base: Any = getattr(stack.model, str(self._model.base_model_prefix))
        self._layers = [LayerWeights(layer, compute) for layer in stack.layers]
        self._device = next(stack.model.parameters()).device.type
        self._masks = DropoutMasks(LAYERS_SEED, self._device, in_bulk=not recorded)
        self.seed(0)

    @staticmethod
    def fits(stack: EncoderStack) -> bool:
        """Whether the model is exactly such a one."""
        return type(stack.model).__name__ in HEADS and all(is_bert_layer(layer) for layer in stack.layers)

    def prefix(self, batch: Batch, depth: int, states: Tensor | None = None, start: int = 0) -> Tensor:
        embedded = self._embedded(batch) if states is None else states
        shape = _shape_of(batch)
        return self._through(embedded, shape, start, depth)

    def logits(self, batch: Batch, depth: int = 0, states: Tensor | None = None) -> Tensor:
        for weights in self._layers[depth:]:
            weights.refresh()
        last = self.prefix(batch, len(self._layers), states, depth)  # [b, 1, d]
        pooler = getattr(self._base, "pooler", None)
        if pooler is None:  # the head pools by itself
            logits: Tensor = self._model.classifier(last)
        else:
            logits = self._model.classifier(self._model.dropout(pooler(last)))
        return logits

    def seed(self, seed: int) -> None:
        torch.manual_seed(seed)  # dropout of embeddings and head, by the library's modules
        # Of another seed: on a GPU, generators of one seed give the same numbers.
        self._masks.seed(seed + LAYERS_SEED)

    def generators(self) -> list[torch.Generator]:
        return self._masks.generators()

    def random_state(self) -> dict[str, Tensor]:
        masks = {f"masks/{name}": value for name, value in self._masks.state().items()}
        return torch_random_state(self._device) | masks

    def set_random_state(self, state: Mapping[str, Tensor]) -> None:
        set_torch_random_state(state)
        masks = {name: value for name, value in state.items() if name.startswith("masks/")}
        self._masks.go_to({name.removeprefix("masks/"): value for name, value in masks.items()})

    def follow(self) -> None:
        for weights in self._layers:
            weights.follow()

    def _embedded(self, batch: Batch) -> Tensor:
        types = {} if batch.token_type_ids is None else {"token_type_ids": batch.token_type_ids}
        embedded: Tensor = self._base.embeddings(input_ids=batch.input_ids, **types)
        project = getattr(self._base, "embeddings_project", None)
        return (embedded if project is None else project(embedded)).float()

    def _through(self, states: Tensor, shape: BatchShape, start: int, depth: int) -> Tensor:
        """Layers `start` to `depth` - 1: [b, s, d] to [b, s, d], or to [b, 1, d] behind the last one."""
        if start == depth:
            return states
        flat = states.reshape(shape.examples * shape.tokens, -1)
        whole = min(depth, len(self._layers) - 1)
        # Without autocast: number formats are chosen product by product.
        with torch.autocast(flat.device.type, enabled=False):
            for weights in self._layers[start:whole]:
                flat = encoder_layer(flat, weights, shape, self._masks)
            if depth > whole:
                return first_token_layer(flat, self._layers[-1], shape, self._masks).unsqueeze(1)
        return flat.view(shape.examples, shape.tokens, -1)


def _shape_of(batch: Batch) -> BatchShape:
    examples, tokens = batch.attention_mask.shape
    padding = None
    if batch.tokens < examples * tokens:
        lowest = torch.finfo(torch.float32).min
        padding = (batch.attention_mask[:, None, None, :] == 0).float() * lowest
    return BatchShape(examples, tokens, padding)
