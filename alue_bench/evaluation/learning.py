"""Whether a model has learnt anything: its score against that of a predictor that ignores the text.

To keep the score of a model that has learnt nothing is no merit, so that nothing is recommended, and no setting is said
to keep the score, unless the score that the others are held against lies above the trivial one by more than chance
explains. Chance has two sources. Other examples would give another difference of the two scores; its standard error is
the jackknife's, on the same examples (Efron & Tibshirani 1993, chapter 11), and is recorded with each run. Other seeds
would give another score; their variance is that of the runs at hand, and unknown with one. Both variances add up, and
the bound is the one-sided 95 % bound of Student's t with Satterthwaite's degrees of freedom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.additive import additive
from alue_bench.evaluation.intervals import LEVEL
from alue_bench.evaluation.metrics import trivial_metrics, trivial_predictions
from alue_bench.task import Labels, TargetKind

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
    """A mean score over seeds against the trivial one."""

    score: float
    trivial: float
    bound: float
    """How far the score may lie above the trivial one by chance."""
    seeds: int

    @property
    def shown(self) -> bool:
        """Whether the score is above the trivial one by more than chance."""
        return self.score - self.trivial > self.bound

    def sentence(self, strategy: str, split: str) -> str:
        """Say of a score that is not above the trivial one that it is not."""
        chance = f" by more than chance (by up to {self.bound:.3f})" if self.score > self.trivial else ""
        return (
            f"{strategy} did not learn: its {split} score {self.score:.3f} is not above the trivial score "
            f"{self.trivial:.3f}{chance}"
        )

    def as_dict(self) -> dict[str, float]:
        """JSON-like."""
        return {"score": self.score, "trivial_score": self.trivial, "by_chance": self.bound, "seeds": self.seeds}


REMEDY = "try more data, more epochs or another --lr"


def learning(scores: Sequence[float], trivials: Sequence[float], errors: Sequence[float]) -> Learning | None:
    """Return how a mean score lies against the trivial one; None where that was not recorded.

    All three by seed. A score that is undefined, as the correlation of constant predictions, counts as the trivial one.
    A standard error that is undefined, or was not recorded, counts as 0: a score below the trivial one is not above it
    by whatever error.
    """
    import numpy as np
    from scipy.special import stdtrit

    known = [
        (score if math.isfinite(score) else base, base, error if math.isfinite(error) else 0.0)
        for score, base, error in zip(scores, trivials, errors, strict=True)
        if math.isfinite(base)
    ]
    if not known:
        return None
    own, base, error = (np.array(column) for column in zip(*known, strict=True))
    seeds = len(own)
    of_examples = float(np.square(error).mean())
    of_seeds = float((own - base).var(ddof=1)) / seeds if seeds > 1 else 0.0
    variance = of_examples + of_seeds
    # That of examples is known well: there are many.
    degrees = variance**2 / (of_seeds**2 / (seeds - 1)) if of_seeds else math.inf
    bound = float(stdtrit(degrees, LEVEL)) * math.sqrt(variance) if variance else 0.0
    return Learning(float(own.mean()), float(base.mean()), bound, seeds)
