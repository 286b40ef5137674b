"""Test of a model's score against that of a predictor that ignores the text: has it learnt anything?

To keep the score of a model that has learnt nothing is no merit, so that nothing is recommended, and no setting is said
to keep the score, unless the models that the others are held against have learnt something. A model has, where its
score lies above the trivial one by more than other examples could explain: the one-sided 95 % bound of the difference
between the two predictors, by the jackknife's standard error on the same examples (Efron & Tibshirani 1993, chapter
11), which is recorded with each run. Several seeds share their examples, so that their mean is no surer; at least half
of the seeds must be above. An interval of the mean over seeds would ask something else: where one seed of three fails
altogether, it reaches down to the trivial score, though two have learnt.

The trivial predictor is a constant. Where classes are rare, guesses may have a higher macro-F1 than it: that a score is
above it is necessary for having learnt, not sufficient.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.task import Labels, TargetKind
from alue_bench.evaluation.additive import additive
from alue_bench.evaluation.intervals import LEVEL
from alue_bench.evaluation.metrics import trivial_metrics, trivial_predictions

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Trivial:
    """A predictor that ignores the text, on a split."""

    score: float
    error: float
    """Standard error, over examples, of how much a model's score lies above it; nan where it cannot be told."""


def trivial(train: Array, gold: Array, predicted: Array, labels: Labels, metric: str) -> Trivial:
    """Return what ignoring the text scores on a split, and how uncertain its distance from `predicted` is.

    Args:
        train: The targets that the predictor knows, in the form of `evaluation.metrics.metrics`.
        gold: The targets of the split.
        predicted: What the model says of it.
        labels: The label space.
        metric: A name of `evaluation.metrics.metrics`.
    """
    score = trivial_metrics(train, gold, labels)[metric]
    return Trivial(score, _error(train, gold, predicted, labels, metric))


def _error(train: Array, gold: Array, predicted: Array, labels: Labels, metric: str) -> float:
    import numpy as np

    count = len(gold)
    if count < 2:
        return math.nan
    system = additive(metric, gold, predicted, labels)
    if system is None:  # a rank correlation: its standard error where there is none to be found
        return 1 / math.sqrt(count - 1)
    values = system.pseudo_values()
    if labels.kind is not TargetKind.REGRESSION:  # the correlation of a constant counts as 0 on any examples
        base = additive(metric, gold, trivial_predictions(train, count, labels).astype(gold.dtype), labels)
        assert base is not None
        values = values - base.pseudo_values()
    return float(np.std(values, ddof=1)) / math.sqrt(count)


@dataclass(frozen=True)
class Learning:
    """Scores of one setting, by seed, against the trivial one."""

    score: float
    """Mean over seeds."""
    trivial: float
    bound: float
    """The distance above the trivial score that chance explains; mean over seeds."""
    above: int
    """The number of seeds whose score is above the trivial one by more than that."""
    seeds: int

    @property
    def shown(self) -> bool:
        """True where at least half of the seeds learnt something."""
        return 2 * self.above >= self.seeds

    def sentence(self, strategy: str, split: str) -> str:
        """Say of a setting that has learnt nothing that it has not."""
        said = f"{strategy} did not learn: its {split} score {self.score:.3f} is"
        trivial = f"above the trivial score {self.trivial:.3f}"
        if self.above:
            return f"{said} {trivial} by more than chance with {self.above} of {self.seeds} seeds only"
        chance = f" by more than chance (by up to {self.bound:.3f})" if self.score > self.trivial else ""
        return f"{said} not {trivial}{chance}"

    def as_dict(self) -> dict[str, float]:
        """JSON-like."""
        return {
            "score": self.score,
            "trivial_score": self.trivial,
            "by_chance": self.bound,
            "seeds_above": self.above,
            "seeds": self.seeds,
        }


REMEDY = "try more data, more epochs or another --lr"


def learning(scores: Sequence[float], trivials: Sequence[float], errors: Sequence[float]) -> Learning | None:
    """Return how scores lie against the trivial one; None where that was not recorded.

    All three by seed. A score that is undefined, as the correlation of constant predictions, counts as the trivial one.
    A standard error that is undefined, or was not recorded, counts as 0: a score below the trivial one is not above it
    by whatever error.
    """
    from scipy.special import ndtri

    known = [
        (score if math.isfinite(score) else base, base, error if math.isfinite(error) else 0.0)
        for score, base, error in zip(scores, trivials, errors, strict=True)
        if math.isfinite(base)
    ]
    if not known:
        return None
    sure = float(ndtri(LEVEL))
    return Learning(
        score=statistics.fmean(score for score, _, _ in known),
        trivial=statistics.fmean(base for _, base, _ in known),
        bound=sure * statistics.fmean(error for _, _, error in known),
        above=sum(score - base > sure * error for score, base, error in known),
        seeds=len(known),
    )
