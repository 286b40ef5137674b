"""Statistics over seeds: means with t-intervals, effect sizes, and p-values corrected for multiple testing.

The seed of a fine-tuning run determines the classification head's initial weights, the order of the data and dropout.
Scores vary between seeds by as much as published improvements (Dodge et al. 2020, arXiv 2002.06305). The interval of a
mean over few seeds therefore needs a quantile of Student's t distribution, not 1.96.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEVEL = 0.95
"""The confidence level of all intervals."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval."""

    mean: float
    half_width: float | None
    """Half the width of the interval; None for a single value, which has no interval."""
    values: int
    """The number of values that the mean is taken over."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The bounds of the interval; None for a single value."""
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean of the finite values with its t-interval at the level LEVEL; None if no value is finite."""
    import numpy as np
    from scipy.special import stdtrit

    finite = np.asarray([value for value in values if math.isfinite(value)], dtype="float64")
    if not len(finite):
        return None
    mean = float(finite.mean())
    if len(finite) == 1:
        return Estimate(mean, None, 1)
    error = float(finite.std(ddof=1)) / math.sqrt(len(finite))
    return Estimate(mean, float(stdtrit(len(finite) - 1, (1 + LEVEL) / 2)) * error, len(finite))


def loss_bound(difference: float, error: float, degrees: float) -> float:
    """Return the one-sided upper confidence bound, at the level LEVEL, of a system's loss of score.

    The loss is the score of another system, with which the system is compared, minus the system's own score.

    Args:
        difference: The mean difference of the scores, the system's minus the other system's; the loss is its negative.
        error: The standard error of the difference.
        degrees: The degrees of freedom of the standard error.
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees, LEVEL)) * error - difference


def cohens_d(differences: Sequence[float]) -> float | None:
    """Return the paired effect size d_z (Cohen 1988): the mean of the differences divided by their standard deviation.

    Args:
        differences: The difference of two scores for each seed.

    Returns:
        The effect size; None for fewer than two seeds, or if all differences are the same.
    """
    import numpy as np

    if len(differences) < 2:
        return None
    deviation = float(np.std(differences, ddof=1))
    # Differences that should be equal may differ in their last bits, from the rounding of the subtraction.
    return float(np.mean(differences)) / deviation if deviation > 1e-12 else None


def probability_of_improvement(values: Sequence[float], base: Sequence[float]) -> float:
    """Return the probability that a run drawn from `values` has a higher score than a run drawn from `base`.

    Ties count half (Agarwal et al. 2021).

    Args:
        values: The scores of one system's runs.
        base: The scores of the other system's runs; the runs are not paired.
    """
    import numpy as np

    ours, theirs = np.asarray(values)[:, None], np.asarray(base)[None, :]
    wins: Any = (ours > theirs) + 0.5 * (ours == theirs)
    return float(wins.mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple testing (Holm 1979), in the given order.

    The correction controls the family-wise error rate, that is, the probability that any true null hypothesis is
    rejected. It holds for dependent tests too. It is implemented here because scipy corrects for the false discovery
    rate only.
    """
    import numpy as np

    given = np.asarray(p_values, dtype="float64")
    order = np.argsort(given, kind="stable")
    steps = given[order] * np.arange(len(given), 0, -1)
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(given) else steps
    return [float(value) for value in corrected]
