"""Freezing that grows from the bottom, as gradients come to rest.

Source: Liu, Agarwal & Venkataraman 2021, "AutoFreeze: Automatically Freezing Model Blocks to Accelerate Fine-tuning",
arXiv 2102.01386, section 4, and the authors' published code for what the paper leaves open:

- Everything trains at first. At evaluation points, five in an epoch (the code's 20 in 4 epochs), each layer's gradients
  since the last point are added up, and η = |norm before − norm now| / norm before tells how much it still changes.
- Of the layers that train, those below the lowest whose η reaches the median of them all are frozen, and the embeddings
  with them. So the frozen part is contiguous, only grows, and the top layer always trains.
- The outputs of the frozen part are stored, each time from those of the shallower one (their section 5).

Ours: the norm is the Euclidean one of a layer's summed gradient (the code adds up absolute values); a norm that is not
finite, as fp16 may give, or that was not taken before, freezes nothing. `autofreeze-pP` takes the P-th percentile in
place of the median: the higher, the sooner more is frozen.

Cost: as full fine-tuning at first, then less and less. The sum of gradients costs one more pass over the weights at
each step, and a copy of them in memory. Each growth computes the new layers once over the train split, and the store
keeps what no other run can use: a frozen layer's weights are those of this run.

When it does not help: in short trainings, where there is little left to save once it has seen enough; and its rule
compares layers with each other, so that it freezes on noise as readily as on rest: about the lower half of what trains
is always below the median. Look at the norms in `freezing.csv`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from alue_bench import EncoderShape, FreezePlan, Revisions, Strategy, StrategyFamily, TrainingProgress, UsageError

MEDIAN = 50


@dataclass(frozen=True)
class AutoFreeze(Strategy):
    """Layers below the lowest whose gradient still changes much are frozen."""

    percentile: int = MEDIAN

    @property
    def name(self) -> str:
        return "autofreeze" + (f"-p{self.percentile}" if self.percentile != MEDIAN else "")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape)

    def revisions(self) -> Revisions:
        return Revisions(per_epoch=5, gradient_norms=True, prefix_only_grows=True)

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        if len(progress.norms) < 2:
            return plan
        before, now = (norms.layers[plan.bottom :] for norms in progress.norms[-2:])
        changes = [_change(*pair) for pair in zip(before, now, strict=True)]
        if any(change is None for change in changes):
            return plan
        threshold = _percentile([change for change in changes if change is not None], self.percentile)
        lowest = next(place for place, change in enumerate(changes) if change is not None and change >= threshold)
        frozen = plan.bottom + lowest
        return FreezePlan(plan.shape, frozenset(range(frozen)), embeddings=frozen > 0)


def _change(before: float | None, now: float | None) -> float | None:
    """By what part a norm has changed; None where that cannot be told."""
    if before is None or now is None or not math.isfinite(before) or not math.isfinite(now) or before == 0:
        return None
    return abs(before - now) / before


def _percentile(values: list[float], percent: int) -> float:
    """Between the two nearest of the sorted values, in proportion."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def parse(name: str) -> AutoFreeze | None:
    match = re.fullmatch(r"autofreeze(?:-p(\d{1,4}))?", name)
    if match is None:
        return None
    strategy = AutoFreeze(MEDIAN if match[1] is None else int(match[1]))
    if not 0 < strategy.percentile <= 100:
        raise UsageError(f"strategy {name!r}: the percentile must be 1 to 100")
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} is written {strategy.name!r}")
    return strategy


FAMILIES = (
    StrategyFamily(
        grammar="autofreeze, autofreeze-p<P>",
        title="Layers are frozen from the bottom as their gradients come to rest (median of changes, or percentile P)",
        source="Liu, Agarwal & Venkataraman 2021, AutoFreeze, arXiv 2102.01386, section 4",
        examples=("autofreeze", "autofreeze-p75"),
        parse=parse,
    ),
)
