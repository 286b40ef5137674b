"""Layers chosen by position or by lot, as points of comparison for a searched setting.

- `last-quarter`: the top quarter of the layers trains, everything below is frozen. Lee, Tang & Lin 2019, "What Would
  Elsa Do? Freezing Layers During Transformer Fine-Tuning", find that this keeps some nine tenths of the quality of full
  fine-tuning. All of the frozen part is prefix: with its outputs computed once, it costs next to nothing.
- `random-K-seedS`: K layers frozen that chance picks, and the embeddings where layer 0 is among them. A control: a
  searched setting that does no better than these has found nothing about its layers. When it does not help: always; it
  is not meant to.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from alue_bench import DoesNotFit, EncoderShape, FreezePlan, Strategy, StrategyFamily, UsageError


@dataclass(frozen=True)
class LastQuarter(Strategy):
    """The top quarter of the layers, rounded up, trains with the head; embeddings and layers below stay."""

    @property
    def name(self) -> str:
        return "last-quarter"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        trained = -(-shape.layers // 4)
        return FreezePlan(shape, frozenset(range(shape.layers - trained)), embeddings=shape.layers > trained)


@dataclass(frozen=True)
class RandomLayers(Strategy):
    """`frozen` layers stay as pre-trained, drawn without replacement by a generator seeded with `seed`."""

    frozen: int
    seed: int

    @property
    def name(self) -> str:
        return f"random-{self.frozen}-seed{self.seed}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        if self.frozen > shape.layers:
            raise DoesNotFit(f"{self.name} freezes {self.frozen} layers, but the model has only {shape.layers}")
        drawn = frozenset(random.Random(self.seed).sample(range(shape.layers), self.frozen))
        return FreezePlan(shape, drawn, embeddings=0 in drawn)


_RANDOM = re.compile(r"random-(\d{1,4})-seed(\d{1,9})")


def parse_random(name: str) -> RandomLayers | None:
    match = _RANDOM.fullmatch(name)
    if match is None:
        return None
    strategy = RandomLayers(int(match[1]), int(match[2]))
    if strategy.frozen == 0:
        raise UsageError(f"strategy {name!r} freezes no layer; say full")
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} is written {strategy.name!r}")
    return strategy


FAMILIES = (
    StrategyFamily(
        grammar="last-quarter",
        title="Only the top quarter of the layers trains, with the head",
        source="Lee, Tang & Lin 2019, What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning",
        examples=("last-quarter",),
        parse=lambda name: LastQuarter() if name == "last-quarter" else None,
    ),
    StrategyFamily(
        grammar="random-<K>-seed<S>",
        title="K layers drawn by lot stay frozen: a control",
        source="a control, to tell what a searched choice of layers is worth",
        examples=("random-7-seed0", "random-7-seed1"),
        parse=parse_random,
    ),
)
