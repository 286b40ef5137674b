"""Layer dropping: layers are removed from the model before fine-tuning.

Source: Sajjad, Dalvi, Durrani & Nakov 2023, "On the effect of dropping layers of pre-trained transformer models",
Computer Speech & Language 77, section 3.1. Three of its ways to choose the layers are implemented:

- `drop-topK` drops the K highest layers. The authors find that this is the best way or nearly the best: with up to 40 %
  of the layers dropped, up to 98 % of the quality is kept.
- `drop-alternateK` drops every other layer, from the highest downwards, until K layers are dropped. K is at most half
  of the number of layers. The authors call this "even alternate".
- `drop-symmetricK` drops K layers in the middle. As many layers are kept below them as above; if the number of kept
  layers is odd, there is one more below.

`drop-alternate` and `drop-symmetric`, without a number, drop half of the layers.

Cost: only the remaining layers cost time. With twelve layers, `drop-top4` trains in 8/12 of the time. Unlike frozen
layers, dropped layers cost nothing at inference either. The recorded share of FLOPs (`flops/train_vs_full`) is relative
to full fine-tuning of the complete model, but the recorded number of parameters is that of the smaller model.

When it does not help: on some tasks, the score falls much more than on others; measure it on your task. A small model
may need all of its layers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alue_bench import DoesNotFit, EncoderShape, FreezePlan, Strategy, StrategyFamily, UsageError

SOURCE = "Sajjad et al. 2023, On the effect of dropping layers of pre-trained transformer models, section 3.1"
WAYS = ("top", "alternate", "symmetric")


@dataclass(frozen=True)
class LayerDropping(Strategy):
    """A strategy that removes layers from the model, and trains everything that remains."""

    way: str
    """The position of the removed layers, one of `WAYS`; see the docstring of this module."""
    count: int | None
    """The number of layers that are removed; None for half of the layers, rounded down."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "drop-top4" or "drop-alternate"."""
        return f"drop-{self.way}{'' if self.count is None else self.count}"

    def kept_layers(self, shape: EncoderShape) -> tuple[int, ...]:
        """Return the indices of the layers that are kept; raise DoesNotFit if the model has too few layers."""
        layers, count = shape.layers, shape.layers // 2 if self.count is None else self.count
        # If the number of layers is odd, dropping every other layer from the highest downwards keeps the lowest one.
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
    """Return the strategy for a name such as `drop-top4`, or None for a name of another form.

    Raises:
        UsageError: The number of layers is 0, is missing after `drop-top`, or has leading zeros.
    """
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
