"""Two simple baselines: train only the top quarter of the layers, or freeze randomly drawn layers.

- `last-quarter`: the top quarter of the layers is trained, and everything below it is frozen. Lee, Tang & Lin 2019,
  "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning", find that this keeps about nine tenths of the
  quality of full fine-tuning. The outputs of the frozen layers are computed once and cached, so that these layers cost
  almost nothing.
- `random-K-seedS`: K random layers are frozen, and the embeddings too if layer 0 is among them. This is a control for
  a search: if the layers that the search froze are no better than random ones, the search has learnt nothing about the
  layers. (`random-K` in `random_layers` is a different strategy: it trains K random layers.)
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from alue_bench import DoesNotFit, EncoderShape, FreezePlan, Strategy, StrategyFamily, UsageError


@dataclass(frozen=True)
class LastQuarter(Strategy):
    """A strategy that trains the top quarter of the layers (rounded up), the pooler and the head."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, "last-quarter"."""
        return "last-quarter"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a freeze plan that freezes the embeddings and all layers below the top quarter."""
        trained = -(-shape.layers // 4)
        return FreezePlan(shape, frozenset(range(shape.layers - trained)), embeddings=shape.layers > trained)

    def meaning(self, shape: EncoderShape) -> str:
        """Return a sentence with the number of frozen layers, such as "last-quarter freezes bottom 9 of 12 layers"."""
        frozen = self.freeze_plan(shape).bottom
        return f"{self.name} freezes {f'bottom {frozen}' if frozen else 'none'} of {shape.layers} layers"


@dataclass(frozen=True)
class RandomLayers(Strategy):
    """A strategy that freezes random layers, drawn without replacement."""

    frozen: int
    """The number of frozen layers."""
    seed: int
    """The random seed from which the layers are drawn; it does not depend on the run's seeds."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "random-7-seed0"."""
        return f"random-{self.frozen}-seed{self.seed}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a plan that freezes randomly drawn layers; raise DoesNotFit if the model has too few layers."""
        if self.frozen > shape.layers:
            raise DoesNotFit(f"{self.name} freezes {self.frozen} layers, but the model has only {shape.layers}")
        drawn = frozenset(random.Random(self.seed).sample(range(shape.layers), self.frozen))
        return FreezePlan(shape, drawn, embeddings=0 in drawn)


_RANDOM = re.compile(r"random-(\d{1,4})-seed(\d{1,9})")


def parse_random(name: str) -> RandomLayers | None:
    """Return the strategy for a name such as `random-7-seed0`, or None for a name of another form.

    Raises:
        UsageError: The number of layers is 0, or a number has leading zeros.
    """
    match = _RANDOM.fullmatch(name)
    if match is None:
        return None
    strategy = RandomLayers(int(match[1]), int(match[2]))
    if strategy.frozen == 0:
        raise UsageError(f"strategy {name!r} freezes no layer; use full")
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} must be written {strategy.name!r}")
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
        title="K randomly drawn layers stay frozen: a control",
        source="no publication; a control for layers chosen by a search",
        examples=("random-7-seed0", "random-7-seed1"),
        parse=parse_random,
    ),
)
