"""The noise of the scores in a grid of freezing settings: the standard deviation of a single run's score.

With several seeds (or folds), the noise is the residual of an additive model: score = setting + seed + noise. The
effect of a seed on all settings alike is no noise here, since it changes no difference between settings.

With one seed, neighbours in the grid take the place of repetitions: the score of a setting is compared with the
straight line through the scores of its two neighbours in a row or column (Gasser, Sroka & Jennen-Steinmetz 1986,
Biometrika 73). Scores change smoothly with the numbers of frozen layers, except for single sudden drops. The noise is
therefore computed from the median of the deviations from these lines, which single drops hardly change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MIN_NEIGHBOURS = 6
"""The smallest number of deviations (of a score from the line through the scores of two neighbours) from which the
noise is estimated. A setting with two neighbours in its row and two in its column has two deviations."""
SD_PER_MEDIAN = 1.4826
"""The standard deviation of a normal distribution with mean 0, divided by the median of its absolute value."""


def noise_over_seeds(scores: Array) -> float | None:
    """Return the standard deviation of a run's score, from settings with several runs.

    Args:
        scores: The scores [settings, runs]. A column has the runs with one seed (and fold); no score is missing.

    Returns:
        The standard deviation; None if there are fewer than two settings or two columns.
    """
    settings, runs = scores.shape
    if settings < 2 or runs < 2:
        return None
    rest = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0, keepdims=True) + scores.mean()
    return math.sqrt(float((rest**2).sum()) / ((settings - 1) * (runs - 1)))


def noise_of_neighbours(scores: Mapping[tuple[int, int], float]) -> float | None:
    """Return the standard deviation of a run's score, from settings with one run each.

    Args:
        scores: The score by the numbers of frozen bottom and top layers.

    Returns:
        The standard deviation; None if there are fewer than `MIN_NEIGHBOURS` deviations.
    """
    import statistics

    distances = []
    for axis in (0, 1):
        lines: dict[int, list[tuple[int, float]]] = {}
        for cell, score in scores.items():
            lines.setdefault(cell[1 - axis], []).append((cell[axis], score))
        for line in map(sorted, lines.values()):
            for (before, low), (here, score), (after, high) in zip(line, line[1:], line[2:], strict=False):
                share = (here - before) / (after - before)
                expected = (1 - share) * low + share * high
                distances.append((score - expected) / math.sqrt(1 + share**2 + (1 - share) ** 2))
    if len(distances) < MIN_NEIGHBOURS:
        return None
    return SD_PER_MEDIAN * statistics.median(map(abs, distances))
