"""The test of whether a change of score differs between in-domain and out-of-domain data, for the same trained models.

Two strategies are compared by their difference on the task's own test set, and by their difference on the test set of
another task. The models of a seed are the same on both test sets, and the examples of the two sets are independent. The
difference of the two differences is uncertain for these reasons:

    other seeds        would give other models; both differences may change in a similar way (paired by seed)
    other examples     would give other scores, independently in each of the two test sets

The variance over seeds is computed from the difference of differences of each seed, so it includes the covariance of
both test sets. The variance components of examples come from each set's table of seeds × examples, as in
`evaluation.significance.crossed_test`, and the degrees of freedom from Satterthwaite (1946).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.additive import Additive
from alue_bench.evaluation.intervals import LEVEL

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Contrast:
    """The difference between two systems' scores on one test set, for each seed and example."""

    scores: Array
    """The difference between the scores for each seed, [seeds]."""
    table: Array
    """The difference of the two systems' jackknife pseudo-values (see `Additive.pseudo_values`), [seeds, examples]."""


@dataclass(frozen=True, kw_only=True)
class DomainChange:
    """The difference between two systems on the test set out of domain, compared with their difference in domain."""

    difference: float
    """The mean difference out of domain, minus the mean difference in domain."""
    half_width: float
    """Half the width of the difference's confidence interval at the confidence level LEVEL."""
    error: float
    """The standard error of the difference."""
    p_value: float
    """The two-sided p-value; nan if nothing varies and the difference is not zero."""
    degrees: float
    """The degrees of freedom."""
    seeds: int
    """The number of seeds."""


def contrast(values: Sequence[Additive], base: Sequence[Additive]) -> Contrast:
    """Return the difference between two systems' scores on one test set.

    Args:
        values: The results of one system for each seed.
        base: The results of the other system, for the same seeds in the same order, on the same examples.
    """
    import numpy as np

    pairs = list(zip(values, base, strict=True))
    return Contrast(
        np.array([a.score - b.score for a, b in pairs]),
        np.stack([a.pseudo_values() - b.pseudo_values() for a, b in pairs]),
    )


def domain_change(inside: Contrast, outside: Contrast) -> DomainChange:
    """Test whether the difference between two systems is larger or smaller out of domain than in domain.

    Args:
        inside: The difference between the systems on the test set in domain.
        outside: The difference between the systems on the test set out of domain, for the same seeds in the same order.

    Raises:
        ValueError: There are fewer than two seeds, or fewer than two examples in a test set, or the seeds differ in
            number.
    """
    from scipy.special import stdtr, stdtrit

    seeds = len(inside.scores)
    sizes = [part.table.shape for part in (inside, outside)]
    if seeds < 2 or any(rows != seeds or examples < 2 for rows, examples in sizes):
        raise ValueError(f"tables of seeds × examples {sizes}: at least two of each, and equal seeds, are needed")
    changes = outside.scores - inside.scores
    difference = float(changes.mean())
    # The mean square of seeds, and for each test set the mean squares of examples and of residuals. All are divided
    # so that they are contributions to the variance of the difference.
    of_seeds = float(((changes - difference) ** 2).sum()) / (seeds - 1) / seeds
    parts = [_mean_squares(part.table) for part in (inside, outside)]
    of_examples = sum(part.examples for part in parts)
    # The mean squares of seeds and of examples both contain the mean square of the residuals, which is therefore
    # subtracted once. A variance component of examples cannot be negative, and the result is not smaller than the
    # variance that examples alone explain.
    variance = max(of_seeds + sum(max(0.0, part.examples - part.residual) for part in parts), of_examples)
    error = math.sqrt(variance)
    squares = [(of_seeds, seeds - 1)]
    for part in parts:
        squares += [(part.examples, part.count - 1), (part.residual, (seeds - 1) * (part.count - 1))]
    uncertainty = sum(square**2 / freedom for square, freedom in squares)
    degrees = max(seeds - 1.0, variance**2 / uncertainty) if uncertainty > 0 else seeds - 1.0
    certain = math.nan if difference else 1.0
    return DomainChange(
        difference=difference,
        half_width=float(stdtrit(degrees, (1 + LEVEL) / 2)) * error,
        error=error,
        p_value=float(2 * stdtr(degrees, -abs(difference) / error)) if error > 0 else certain,
        degrees=degrees,
        seeds=seeds,
    )


@dataclass(frozen=True)
class _MeanSquares:
    """The mean squares of examples and of residuals in a table of seeds × examples, divided by the table's size."""

    examples: float
    residual: float
    """The mean square of the residuals, divided by the size of the table."""
    count: int
    """The number of examples."""


def _mean_squares(table: Array) -> _MeanSquares:
    seeds, count = table.shape
    by_seed, by_example, grand = table.mean(axis=1), table.mean(axis=0), table.mean()
    examples = seeds * float(((by_example - grand) ** 2).sum()) / (count - 1)
    rest = table - by_seed[:, None] - by_example[None, :] + grand
    of_rest = float((rest**2).sum()) / ((seeds - 1) * (count - 1))
    return _MeanSquares(examples / (seeds * count), of_rest / (seeds * count), count)
