"""Means over seeds with t-intervals, and how large an effect is in units of what chance does.

A run's seed draws the head's initial weights, the order of the data and dropout; scores vary with it by as much as
published improvements (Dodge et al. 2020, arXiv 2002.06305), so a mean of few seeds needs Student's t, not 1.96.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEVEL = 0.95
"""Of all intervals."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; None where one value gives no interval."""

    mean: float
    half_width: float | None
    values: int
    """How many values the mean is of."""

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean of the finite values with its t-interval (LEVEL); None where there are none."""
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


def cohens_d(differences: Sequence[float]) -> float | None:
    """Paired effect size: the mean of the differences, seed by seed, in their standard deviations (Cohen 1988, d_z).

    None with less than two seeds, or where all differences are the same.
    """
    import numpy as np

    if len(differences) < 2:
        return None
    deviation = float(np.std(differences, ddof=1))
    # Equal differences of scores that are not equal are so up to the last bits of a subtraction.
    return float(np.mean(differences)) / deviation if deviation > 1e-12 else None


def probability_of_improvement(values: Sequence[float], base: Sequence[float]) -> float:
    """How often a run drawn from `values` beats one drawn from `base`, ties counted half (Agarwal et al. 2021)."""
    import numpy as np

    ours, theirs = np.asarray(values)[:, None], np.asarray(base)[None, :]
    wins: Any = (ours > theirs) + 0.5 * (ours == theirs)
    return float(wins.mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): the chance that any true null hypothesis among them is rejected
    stays below the level, whatever the dependence between them. In the order given.

    A step-down over sorted values; scipy has corrections of the false discovery rate only.
    """
    import numpy as np

    given = np.asarray(p_values, dtype="float64")
    order = np.argsort(given, kind="stable")
    steps = given[order] * np.arange(len(given), 0, -1)
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(given) else steps
    return [float(value) for value in corrected]
