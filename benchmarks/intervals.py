"""The statistics of scores: means with t-intervals, and differences paired by seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its t-interval."""

    mean: float
    half_width: float | None
    """Half the width of the interval; None if there is only one value."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The lower and upper end of the interval; None if there is only one value."""
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)

    @property
    def sign(self) -> int:
        """The sign of the mean if the interval excludes zero; 0 if it includes zero or there is no interval."""
        if self.interval is None:
            return 0
        low, high = self.interval
        return int(low > 0) - int(high < 0)


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean with its t-interval; None if there are no values."""
    from scipy.stats import sem, t

    if not values:
        return None
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Estimate(mean, None)
    return Estimate(mean, float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * sem(values)))


def paired_difference(values: Mapping[int, float], base: Mapping[int, float]) -> Estimate | None:
    """Return the mean of the differences paired by seed, over the seeds that both have.

    Args:
        values: The values by seed.
        base: The values to subtract, by seed.
    """
    return estimate([values[seed] - base[seed] for seed in sorted(values.keys() & base.keys())])


def relative_change(values: Mapping[int, float], base: Mapping[int, float]) -> float | None:
    """Return the relative change of the mean compared with the base's mean; None if one has no values."""
    return statistics.fmean(values.values()) / statistics.fmean(base.values()) - 1 if values and base else None
