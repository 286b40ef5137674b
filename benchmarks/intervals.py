"""The statistics of scores: means with their t-intervals, differences paired by seed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean, and half the width of its t-interval; None where one value gives no interval."""

    mean: float
    half_width: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)

    @property
    def sign(self) -> int:
        """1 or -1 where the whole interval lies above or below zero, 0 where it holds zero or there is none."""
        if self.interval is None:
            return 0
        low, high = self.interval
        return int(low > 0) - int(high < 0)


def estimate(values: Sequence[float]) -> Estimate | None:
    """The mean with its t-interval; None where there are no values."""
    from scipy.stats import sem, t

    if not values:
        return None
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Estimate(mean, None)
    return Estimate(mean, float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * sem(values)))


def paired_difference(values: Mapping[int, float], base: Mapping[int, float]) -> Estimate | None:
    """The mean of the differences seed by seed, over the seeds that both have."""
    return estimate([values[seed] - base[seed] for seed in sorted(values.keys() & base.keys())])


def relative_change(values: Mapping[int, float], base: Mapping[int, float]) -> float | None:
    """By which part the mean changes against the base's."""
    return statistics.fmean(values.values()) / statistics.fmean(base.values()) - 1 if values and base else None
