"""The statistics of timings: medians and their ratios, the mean of the last steps, differences beside noise."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Of repeated measurements."""

    median: float
    low: float
    high: float


def summary(values: Iterable[float]) -> Summary | None:
    """None where there are no values."""
    kept = list(values)
    return Summary(statistics.median(kept), min(kept), max(kept)) if kept else None


def ratio(part: Summary | None, whole: Summary | None) -> float | None:
    """Of medians; None where there is nothing to hold against."""
    return part.median / whole.median if part and whole and whole.median else None


def tail_mean(losses: Sequence[tuple[int, float]], steps: int) -> float:
    """The mean over the last `steps` steps, of (steps done, mean loss since the entry before)."""
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
    """Of two sets of repetitions."""

    difference: float
    """Of the means."""
    noise: float
    """The largest difference between two repetitions of the base."""

    @property
    def within(self) -> bool:
        return abs(self.difference) <= self.noise


def comparison(values: Sequence[float], base: Sequence[float]) -> Comparison | None:
    """None where there are no values, or too few of the base to tell its noise."""
    if not values or len(base) < 2:
        return None
    return Comparison(statistics.fmean(values) - statistics.fmean(base), max(base) - min(base))
