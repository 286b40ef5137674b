"""AutoFreeze: adaptive freezing from the bottom, by the change of accumulated gradients.

Source: Liu, Agarwal & Venkataraman 2021, "AutoFreeze: Automatically Freezing Model Blocks to Accelerate Fine-tuning",
arXiv 2102.01386, section 4, and the authors' published code for details that the paper leaves open:

- All layers are trained at first. There are five evaluation points per epoch (the authors' code has 20 in 4 epochs). At
  each point, the gradients of each layer since the last point are summed. η = |norm before − norm now| / norm before
  compares the norm of this sum with that of the last point and measures how much the layer still changes.
- At each point, take the median η of the layers that are still trained. All layers below the lowest one whose η reaches
  the median are frozen, together with the embeddings. The frozen part is therefore contiguous, it only grows, and the
  top layer is always trained.
- The outputs of the frozen part are cached, each time computed from those of the shallower part (section 5).

Differences from the source: the norm is the Euclidean norm of a layer's summed gradient (the authors' code adds up
absolute values). If a layer's norm is not finite, as fp16 may cause, or has no previous value, nothing is frozen at
that point. `autofreeze-pP` uses the P-th percentile instead of the median: the higher P is, the earlier layers are
frozen.

Cost: a step costs as much as in full fine-tuning at first, and less after each evaluation point that freezes layers.
Summing the gradients costs one more pass over the weights at each step, and memory for a copy of the gradients. Each
time the frozen part grows, the newly frozen layers are computed once over the train split. No other run can use the
cached outputs, because the layers were trained in this run before they were frozen.

When it does not help: in short training runs, which leave little to save after the first evaluation points. The rule
compares layers with each other, so that noise freezes layers as readily as convergence does: about the lower half of
the training layers is always below the median. Inspect the norms in `freezing.csv`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from alue_bench import EncoderShape, FreezePlan, Revisions, Strategy, StrategyFamily, TrainingProgress, UsageError

MEDIAN = 50


@dataclass(frozen=True)
class AutoFreeze(Strategy):
    """A strategy that repeatedly freezes all layers below the lowest layer whose gradient still changes much."""

    percentile: int = MEDIAN
    """The percentile of the changes η, from 1 to 100: layers below the lowest layer whose η reaches it are frozen."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "autofreeze" or "autofreeze-p75"."""
        return "autofreeze" + (f"-p{self.percentile}" if self.percentile != MEDIAN else "")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return the freeze plan for the start of training, in which everything is trained."""
        return FreezePlan(shape)

    def revisions(self) -> Revisions:
        """Return the points at which the freeze plan may change: five per epoch, with the layers' gradient norms."""
        return Revisions(per_epoch=5, gradient_norms=True, prefix_only_grows=True)

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        """Return the freeze plan after an evaluation point.

        The new plan also freezes lower layers whose gradients change little.
        """
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
    """Return the relative change η of a gradient norm; None if it cannot be computed.

    This is so if `before` is 0, or one of the norms is missing or not finite.
    """
    if before is None or now is None or not math.isfinite(before) or not math.isfinite(now) or before == 0:
        return None
    return abs(before - now) / before


def _percentile(values: list[float], percent: int) -> float:
    """Return a percentile of the values, linearly interpolated between the two nearest values."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def parse(name: str) -> AutoFreeze | None:
    """Return the strategy that `autofreeze` or `autofreeze-p<P>` stands for, or None for any other name."""
    match = re.fullmatch(r"autofreeze(?:-p(\d{1,4}))?", name)
    if match is None:
        return None
    strategy = AutoFreeze(MEDIAN if match[1] is None else int(match[1]))
    if not 0 < strategy.percentile <= 100:
        raise UsageError(f"strategy {name!r}: the percentile must be 1 to 100")
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} must be written {strategy.name!r}")
    return strategy


FAMILIES = (
    StrategyFamily(
        grammar="autofreeze, autofreeze-p<P>",
        title="Layers are frozen from the bottom once their gradients change less than the median (or percentile P)",
        source="Liu, Agarwal & Venkataraman 2021, AutoFreeze, arXiv 2102.01386, section 4",
        examples=("autofreeze", "autofreeze-p75"),
        parse=parse,
    ),
)
