"""Analytic floating-point operations of fine-tuning, from a model's shapes and the lengths of the examples.

Counted are matrix products, a multiply-add as two operations, tokens without padding. For a layer of forward cost F:

- trained: 3 F (forward, gradient of its inputs, gradient of its weights);
- frozen, above something that trains: 2 F; its attention, which multiplies no weights, 3 times its part of F;
- frozen, with nothing below it that trains: 1 F;
- the lowest trained layer above frozen embeddings needs no gradient of its own input: the product that would carry it
  through the query, key and value projections is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.strategy import FreezePlan
from alue_bench.training.encoder_stack import EncoderStack

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class LayerCost:
    """Forward cost of one encoder layer, in FLOPs."""

    linear: float
    """Per token: products with weights."""
    projections: float
    """Per token: the part of `linear` that reads the layer's input, for queries, keys and values."""
    attention: float
    """Per pair of tokens that see each other: scores, and their product with the values."""
    window: int | None
    """How many tokens a query sees, where attention is local."""

    def pairs(self, lengths: np.ndarray[Any, Any]) -> float:
        """Pairs of tokens that see each other, over examples of these lengths (int64 [n])."""
        import numpy as np

        seen = lengths if self.window is None else np.minimum(lengths, self.window)
        return float((lengths * seen).sum())

    def pairs_of_first(self, lengths: np.ndarray[Any, Any]) -> float:
        """Those of each example's first token."""
        import numpy as np

        return float((lengths if self.window is None else np.minimum(lengths, self.window)).sum())


def layer_costs(stack: EncoderStack) -> list[LayerCost]:
    """From the linear modules of each layer and the width of its attention. The model may be on the meta device."""
    from torch import nn

    config: Any = stack.model.config
    hidden = int(config.hidden_size)
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * len(stack.layers)
    window = getattr(config, "local_attention", None) or getattr(config, "sliding_window", None)
    costs = []
    for layer, kind in zip(stack.layers, kinds, strict=True):
        weights = sum(m.weight.numel() for m in layer.modules() if isinstance(m, nn.Linear))
        # Attention as wide as the hidden size, which holds for every architecture we test.
        costs.append(
            LayerCost(2.0 * weights, 6.0 * hidden * hidden, 4.0 * hidden, window if "full" not in kind else None)
        )
    return costs


def head_forward(stack: EncoderStack, examples: int) -> float:
    """FLOPs of pooler and head, which read one vector of each example."""
    from torch import nn

    inside = {id(m) for part in (*stack.embeddings, *stack.layers) for m in part.modules()}
    linear = [m for m in stack.model.modules() if isinstance(m, nn.Linear) and id(m) not in inside]
    return 2.0 * examples * sum(m.weight.numel() for m in linear)


def training_flops(
    stack: EncoderStack,
    plan: FreezePlan,
    lengths: np.ndarray[Any, Any],
    epochs: int,
    *,
    prefix_cached: bool = False,
    head_reads_first: bool = False,
) -> float:
    """FLOPs of the training steps over examples of these lengths (int64 [n]), without dev evaluation.

    prefix_cached: the frozen prefix is computed once, not in every epoch. Whoever computed it, its cost counts.
    head_reads_first: the last layer is computed for the first token of each example, its keys and values for all.

    Embeddings are looked up, not multiplied; the small projection that some architectures put behind them is left out.
    """
    tokens, examples = float(lengths.sum()), len(lengths)
    each_epoch = 3.0 * head_forward(stack, examples)
    once = 0.0
    trains_below = not plan.embeddings
    costs = layer_costs(stack)
    for index, cost in enumerate(costs):
        linear, read, attention = cost.linear * tokens, cost.projections * tokens, cost.attention * cost.pairs(lengths)
        if head_reads_first and index == len(costs) - 1:
            kept = 2 / 3 * cost.projections  # keys and values
            linear = kept * tokens + (cost.linear - kept) * examples
            read = kept * tokens + (cost.projections - kept) * examples
            attention = cost.attention * cost.pairs_of_first(lengths)
        trained = index not in plan.frozen_layers
        backward = trained or trains_below
        needed = linear * (1 + backward + trained) + attention * (1 + 2 * backward)
        if trained and not trains_below:
            needed -= read
        if prefix_cached and not backward:
            once += needed
        else:
            each_epoch += needed
        trains_below = trains_below or trained
    return once + each_epoch * epochs
