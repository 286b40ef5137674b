"""The statistics of measured times and losses: medians, ratios, final losses, and differences compared with noise."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """The median, minimum and maximum of repeated measurements."""

    median: float
    low: float
    high: float


def summary(values: Iterable[float]) -> Summary | None:
    """Return the median, minimum and maximum of some values, or None if there are no values."""
    known = list(values)
    return Summary(statistics.median(known), min(known), max(known)) if known else None


def ratio(part: Summary | None, whole: Summary | None) -> float | None:
    """Return the median of `part` divided by the median of `whole`; None if one is missing or the divisor is 0."""
    return part.median / whole.median if part and whole and whole.median else None


def tail_mean(losses: Sequence[tuple[int, float]], steps: int) -> float:
    """Return the mean loss over the last `steps` steps of a training.

    Args:
        losses: Pairs of the number of steps done so far and the mean loss of the steps since the previous pair.
        steps: The number of steps at the end of the training.
    """
    end = losses[-1][0]
    before, weighted = 0, []
    for done, loss in losses:
        inside = done - max(before, end - steps)
        if inside > 0:
            weighted.append((inside, loss))
        before = done
    return sum(weight * loss for weight, loss in weighted) / sum(weight for weight, _ in weighted)


@dataclass(frozen=True)
class Comparison:
    """The difference between repeated measurements and those of a baseline, and the noise of the baseline."""

    difference: float
    """The mean of the measurements minus the mean of the baseline's measurements."""
    noise: float
    """The largest difference between two measurements of the baseline."""

    @property
    def within(self) -> bool:
        """True if the absolute difference is at most the noise."""
        return abs(self.difference) <= self.noise


def comparison(values: Sequence[float], base: Sequence[float]) -> Comparison | None:
    """Compare repeated measurements with those of a baseline, `base`.

    None is returned if there are no measurements, or fewer than two of the baseline.
    """
    if not values or len(base) < 2:
        return None
    return Comparison(statistics.fmean(values) - statistics.fmean(base), max(base) - min(base))
