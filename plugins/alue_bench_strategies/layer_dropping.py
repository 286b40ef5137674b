"""Layers removed before fine-tuning.

Source: Sajjad, Dalvi, Durrani & Nakov 2023, "On the effect of dropping layers of pre-trained transformer models",
Computer Speech & Language 77, section 3.1. Of its ways to choose, three:

- `drop-topK`: the K highest layers. Their finding: the simplest, and the best or nearly so; up to 40 % of the layers
  can go while up to 98 % of the quality stays.
- `drop-alternateK`: every other layer from the highest down, K of them ("even alternate"). At most half.
- `drop-symmetricK`: K in the middle, as many kept below as above them; one more below where the rest is odd.

Without a number the latter two drop half of the layers.

Cost: what is left of the layers, in training and ever after: of twelve layers drop-top4 trains in 8/12 of the time and,
unlike frozen layers, they cost nothing at inference either. The model is a smaller one: FLOPs are compared with a full
fine-tuning of the whole model, and parameters are those that are left.

When it does not help: some tasks lose much more than others, so measure yours; and a small model has no layers to
spare.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alue_bench import DoesNotFit, EncoderShape, FreezePlan, Strategy, StrategyFamily, UsageError

SOURCE = "Sajjad et al. 2023, On the effect of dropping layers of pre-trained transformer models, section 3.1"
WAYS = ("top", "alternate", "symmetric")


@dataclass(frozen=True)
class LayerDropping(Strategy):
    """`count` layers are removed, chosen in one of three ways; all that is left trains."""

    way: str
    count: int | None
    """None: half of the layers, rounded down."""

    @property
    def name(self) -> str:
        return f"drop-{self.way}{'' if self.count is None else self.count}"

    def kept_layers(self, shape: EncoderShape) -> tuple[int, ...]:
        layers, count = shape.layers, shape.layers // 2 if self.count is None else self.count
        # Every other layer from the highest down: of one layer more than twice as many, the lowest stays.
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
        return FreezePlan(shape)


_DROP = re.compile(r"drop-(top|alternate|symmetric)(\d{1,4})?")


def parse(name: str) -> LayerDropping | None:
    match = _DROP.fullmatch(name)
    if match is None:
        return None
    strategy = LayerDropping(match[1], int(match[2]) if match[2] else None)
    if strategy.count == 0:
        raise UsageError(f"strategy {name!r} drops no layer; say full")
    if strategy.way == "top" and strategy.count is None:
        raise UsageError(f"strategy {name!r} does not say how many layers; say drop-top4, for example")
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} is written {strategy.name!r}")
    return strategy


FAMILIES = (
    StrategyFamily(
        grammar="drop-top<K>, drop-alternate, drop-alternate<K>, drop-symmetric, drop-symmetric<K>",
        title="K layers are removed before fine-tuning: the highest, every other one, or those in the middle",
        source=SOURCE,
        examples=("drop-top1", "drop-top4", "drop-alternate", "drop-alternate4", "drop-symmetric", "drop-symmetric4"),
        parse=parse,
    ),
)
