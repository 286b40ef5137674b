"""Layer dropping: layers are removed from the model before fine-tuning.

Source: Sajjad, Dalvi, Durrani & Nakov 2023, "On the effect of dropping layers of pre-trained transformer models",
Computer Speech & Language 77, section 3.1. Three of its ways to choose the layers are implemented:

- `drop-topK` drops the K highest layers. The authors find this simplest way to be the best or nearly so: up to 40 % of
  the layers can be dropped while up to 98 % of the quality is kept.
- `drop-alternateK` drops every other layer from the highest downwards, K in total and at most half of the layers ("even
  alternate").
- `drop-symmetricK` drops K layers in the middle and keeps as many below as above them, one more below if the number of
  kept layers is odd.

Without a number, the latter two drop half of the layers.

Cost: only the remaining layers cost time. With twelve layers, drop-top4 trains in 8/12 of the time. Unlike frozen
layers, dropped layers cost nothing at inference either. Recorded FLOPs are relative to full fine-tuning of the complete
model, but the recorded number of parameters is that of the smaller model.

When it does not help: some tasks lose much more than others, so measure yours. A small model has no layers to spare.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alue_bench import DoesNotFit, EncoderShape, FreezePlan, Strategy, StrategyFamily, UsageError

SOURCE = "Sajjad et al. 2023, On the effect of dropping layers of pre-trained transformer models, section 3.1"
WAYS = ("top", "alternate", "symmetric")


@dataclass(frozen=True)
class LayerDropping(Strategy):
    """A strategy that removes layers, chosen in one of three ways, and trains the whole remaining model."""

    way: str
    """The name of the way to choose the layers that are removed, one of WAYS."""
    count: int | None
    """The number of layers that are removed; None for half of the layers, rounded down."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "drop-top4" or "drop-alternate"."""
        return f"drop-{self.way}{'' if self.count is None else self.count}"

    def kept_layers(self, shape: EncoderShape) -> tuple[int, ...]:
        """Return the indices of the layers that are kept; raise DoesNotFit if the model has too few layers."""
        layers, count = shape.layers, shape.layers // 2 if self.count is None else self.count
        # Every other layer from the highest downwards: with an odd number of layers, the lowest one stays.
        most = layers // 2 if self.way == "alternate" else layers - 1
        if not 0 < count <= most:
            raise DoesNotFit(f"{self.name} drops {count or 'none'} of {layers} layers; it can drop 1 to {most}")
        if self.way == "top":
            dropped = range(layers - count, layers)
        elif self.way == "alternate":
            dropped = range(layers - 1, layers - 1 - 2 * count, -2)
        else:
            below = (layers - count + 1) // 2
            dropped = range(below, below + count)
        return tuple(layer for layer in range(layers) if layer not in dropped)

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a freeze plan that freezes nothing: the whole remaining model trains."""
        return FreezePlan(shape)


_DROP = re.compile(r"drop-(top|alternate|symmetric)(\d{1,4})?")


def parse(name: str) -> LayerDropping | None:
    """Return the strategy that a name such as `drop-top4` stands for, or None for a name of another family."""
    match = _DROP.fullmatch(name)
    if match is None:
        return None
    strategy = LayerDropping(match[1], int(match[2]) if match[2] else None)
    if strategy.count == 0:
        raise UsageError(f"strategy {name!r} drops no layer; use full")
    if strategy.way == "top" and strategy.count is None:
        raise UsageError(f"strategy {name!r} does not say how many layers; write drop-top4, for example")
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} must be written {strategy.name!r}")
    return strategy


FAMILIES = (
    StrategyFamily(
        grammar="drop-top<K>, drop-alternate, drop-alternate<K>, drop-symmetric, drop-symmetric<K>",
        title="K layers are removed before fine-tuning: the highest, every other one, or the middle ones",
        source=SOURCE,
        examples=("drop-top1", "drop-top4", "drop-alternate", "drop-alternate4", "drop-symmetric", "drop-symmetric4"),
        parse=parse,
    ),
)
