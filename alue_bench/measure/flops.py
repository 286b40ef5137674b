"""Analytic floating-point operations of fine-tuning, from a model's shapes and the lengths of the examples.

Counted are matrix products, a multiply-add as two operations, tokens without padding. Per layer of forward cost F, a
trained layer costs 3 F (forward, gradient of its inputs, gradient of its weights); a frozen layer above something that
trains costs 2 F; a frozen layer of the prefix costs 1 F. The lowest trained layer's input gradient is counted too,
where embeddings below it train; where they do not, it is not needed and not counted.
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
    """Forward cost of one encoder layer: linear·tokens + attention·tokens² for an example of that many tokens."""

    linear: float
    attention: float
    window: int | None
    """Tokens a query can see, where attention is local."""


def layer_costs(stack: EncoderStack) -> list[LayerCost]:
    """From the linear modules of each layer and the width of its attention. The model may be on the meta device."""
    from torch import nn

    config: Any = stack.model.config
    hidden = int(config.hidden_size)
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * len(stack.layers)
    window = getattr(config, "sliding_window", None) or getattr(config, "local_attention", None)
    costs = []
    for layer, kind in zip(stack.layers, kinds, strict=True):
        weights = sum(m.weight.numel() for m in layer.modules() if isinstance(m, nn.Linear))
        # Scores (queries × keys) and their product with the values: 2 · 2 · tokens² · width. Heads may be narrower
        # together than the hidden size; every supported architecture's are not.
        costs.append(LayerCost(2.0 * weights, 4.0 * hidden, window if "full" not in kind else None))
    return costs


def layer_forward(cost: LayerCost, lengths: np.ndarray[Any, Any]) -> float:
    """FLOPs of one layer over examples of these lengths (int64 [n])."""
    import numpy as np

    seen = lengths if cost.window is None else np.minimum(lengths, cost.window)
    return float(cost.linear * lengths.sum() + cost.attention * (lengths * seen).sum())


def head_forward(stack: EncoderStack, examples: int) -> float:
    """FLOPs of pooler and head, which read one vector of each example."""
    from torch import nn

    inside = {id(m) for part in (*stack.embeddings, *stack.layers) for m in part.modules()}
    linear = [m for m in stack.model.modules() if isinstance(m, nn.Linear) and id(m) not in inside]
    return 2.0 * examples * sum(m.weight.numel() for m in linear)


def training_flops(stack: EncoderStack, plan: FreezePlan, lengths: np.ndarray[Any, Any], epochs: int) -> float:
    """FLOPs of the training steps over examples of these lengths (int64 [n]), without dev evaluation.

    The embeddings are looked up, not multiplied; those of an architecture that projects them are counted as frozen or
    trained like a layer would be.
    """
    total = 3.0 * head_forward(stack, len(lengths))
    gradient_below = not plan.embeddings
    for index, cost in enumerate(layer_costs(stack)):
        trained = index not in plan.frozen_layers
        passes = 1 + (1 if gradient_below else 0) + (1 if trained else 0)
        total += passes * layer_forward(cost, lengths)
        gradient_below = gradient_below or trained
    return total * epochs
