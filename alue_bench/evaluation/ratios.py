"""Geometric means of ratios, such as speed-ups, with confidence intervals.

A ratio of two times is compared on the logarithmic scale: twice as fast and half as fast are then equally far from no
change, and the result does not depend on which of the two times is the denominator. The mean of the logarithms becomes
the geometric mean of the ratios (Fleming & Wallace 1986, How not to lie with statistics).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alue_bench.evaluation.intervals import Estimate, estimate


@dataclass(frozen=True)
class Ratio:
    """A geometric mean of ratios with its confidence interval."""

    mean: float
    interval: tuple[float, float] | None
    """The bounds of the interval at the confidence level LEVEL; None if there is only one ratio, or no interval was
    computed."""
    values: int
    """The number of ratios that the mean is taken over."""

    @classmethod
    def of_logarithms(cls, logarithm: Estimate) -> Ratio:
        """Return the geometric mean of ratios, given the mean of their logarithms with its interval."""
        bounds = logarithm.interval
        interval = None if bounds is None else (math.exp(bounds[0]), math.exp(bounds[1]))
        return cls(math.exp(logarithm.mean), interval, logarithm.values)


def geometric_mean(ratios: Sequence[float]) -> Ratio | None:
    """Return the geometric mean of paired ratios, with the t-interval of their logarithms.

    Args:
        ratios: One ratio for each seed, such as the baseline's time divided by the strategy's. Ratios that are not
            finite and positive are left out.

    Returns:
        The mean; None if no ratio is left.
    """
    logarithm = estimate([math.log(ratio) for ratio in ratios if math.isfinite(ratio) and ratio > 0])
    return None if logarithm is None else Ratio.of_logarithms(logarithm)
