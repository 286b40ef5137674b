"""AutoFreeze: during training, more and more bottom layers are frozen, namely those whose gradients change little.

Source: Liu, Agarwal & Venkataraman 2021, "AutoFreeze: Automatically Freezing Model Blocks to Accelerate Fine-tuning",
arXiv 2102.01386, section 4, and the authors' published code for details that the paper leaves open:

- All layers are trained at first. There are five evaluation points per epoch (the authors' code has 20 in 4 epochs).
  Between two evaluation points, the gradients of each layer are summed, and the norm of the sum is taken. The relative
  change η = |norm before − norm now| / norm before of this norm, from one evaluation point to the next, measures how
  much the layer still changes.
- At each evaluation point, the median η of the layers that are still trained is computed. All layers below the lowest
  layer whose η reaches the median are frozen, together with the embeddings. The frozen part is therefore contiguous and
  only grows, and the top layer is always trained.
- The outputs of the frozen part are cached. When the frozen part grows, its new outputs are computed from the cached
  ones (section 5).

Differences from the source: the norm is the Euclidean norm of a layer's summed gradient (the authors' code adds up
absolute values). Nothing is frozen at an evaluation point at which a layer has no previous norm, or a norm that is not
finite, as may happen with fp16. `autofreeze-pP` uses the P-th percentile instead of the median. With a higher P,
layers are frozen sooner.

Cost: a step costs as much as in full fine-tuning at first, and less after each evaluation point that freezes layers.
Summing the gradients costs one more pass over the weights at each step, and memory for a copy of the gradients. Each
time the frozen part grows, the newly frozen layers are computed once for the whole train split. Runs with other
settings cannot use the cached outputs, because the layers were trained before they were frozen.

When it does not help: in short training runs, in which few steps remain after the first evaluation points. The rule
compares layers only with each other: about half of the training layers are always below the median, so that layers are
frozen even if their gradients differ only by noise. Inspect the norms in the file `freezing.csv` of a run.
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
    """The percentile of the layers' changes η that is used as the threshold, from 1 to 100.

    Layers below the lowest layer whose η reaches the threshold are frozen."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "autofreeze" or "autofreeze-p75"."""
        return "autofreeze" + (f"-p{self.percentile}" if self.percentile != MEDIAN else "")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return the freeze plan for the start of training, in which everything is trained."""
        return FreezePlan(shape)

    def revisions(self) -> Revisions:
        """Return the points of training at which `revise` is called: five per epoch, with gradient norms."""
        return Revisions(per_epoch=5, gradient_norms=True, prefix_only_grows=True)

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        """Return the freeze plan after an evaluation point, which may freeze further layers from the bottom upwards."""
        if len(progress.norms) < 2:
            return plan
        before, now = (norms.layers[plan.bottom :] for norms in progress.norms[-2:])
        changes = [_change(*pair) for pair in zip(before, now, strict=True)]
        if any(change is None for change in changes):
            return plan
        threshold = _percentile([change for change in changes if change is not None], self.percentile)
        newly_frozen = next(index for index, change in enumerate(changes) if change is not None and change >= threshold)
        frozen = plan.bottom + newly_frozen
        return FreezePlan(plan.shape, frozenset(range(frozen)), embeddings=frozen > 0)


def _change(before: float | None, now: float | None) -> float | None:
    """Return the relative change η of a gradient norm.

    It is None if `before` is 0, or if one of the norms is None or not finite.
    """
    if before is None or now is None or not math.isfinite(before) or not math.isfinite(now) or before == 0:
        return None
    return abs(before - now) / before


def _percentile(values: list[float], percent: int) -> float:
    """Return a percentile of the values, linearly interpolated between the two nearest values."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def parse(name: str) -> AutoFreeze | None:
    """Return the strategy for a name such as `autofreeze` or `autofreeze-p75`, or None for a name of another form.

    Raises:
        UsageError: The percentile is not from 1 to 100, is 50 (written `autofreeze`) or has leading zeros.
    """
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
