"""Significance tests for the difference between two strategies, over seeds and test examples.

A difference between two mean scores is uncertain for two reasons: other seeds would have given other models, and other
test examples would have given other scores. The scores form a table of seeds × examples with two crossed random
factors, because the models of all seeds predict the same examples. `crossed_test` is the test for this table, and
reports state its result. It is based on the model

    difference of seed s on example i  =  difference + seed effect + example effect + rest

The variance components come from the two-way analysis of variance without replication (Searle, Casella & McCulloch
1992), and the degrees of freedom from Satterthwaite (1946). For metrics that are not means, such as macro-F1, the
jackknife gives a value for each example. A test that treats the seeds × examples scores as independent observations
finds differences where there are none.

Tests over examples alone, or over seeds alone, answer other questions. `approximate_randomisation` (Noreen 1989; Dror
et al. 2018) tests whether *these trained models* differ on other examples. `paired_bootstrap` (Efron & Tibshirani 1993;
Koehn 2004; with resampled seeds: Sellam et al. 2022) gives intervals without a normal approximation. A bootstrap that
resamples seeds needs many seeds: with three seeds it underestimates the variance over seeds by a third, and does not
correct for this as a t quantile would.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.additive import Additive
from alue_bench.evaluation.intervals import LEVEL, loss_bound

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

POWER = 0.8
"""The power (probability of finding a true difference) that a test must have with the number of seeds that is proposed
to the user (Card et al. 2020)."""
MIN_SEEDS = 3
"""The smallest number of seeds with which there is a verdict on a difference. With two seeds the variance between seeds
is known so imprecisely that the test's false-positive rate is about twice the nominal one; with three or more seeds,
this is not so (tests/test_significance.py)."""
MAX_SEEDS = 200
"""The largest number of seeds that is proposed to the user for a verdict."""
CHUNK = 2**21
"""The largest number of elements in an array of resampled values; resamples are computed in portions of this size."""


@dataclass(frozen=True, kw_only=True)
class CrossedTestResult:
    """The result of a test of whether two systems, with the same seeds and examples, differ in their mean scores."""

    difference: float
    """The mean difference over seeds."""
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
    examples: int
    """The number of examples."""
    seed_variance: float
    """The variance component of seeds: the variance of the effect that a seed has on all examples alike."""
    example_variance: float
    """The variance component of examples: the variance of the effect that an example has for all seeds alike."""
    residual_variance: float
    """The remaining variance component: the variance that is specific to one seed on one example."""

    @property
    def loss_bound(self) -> float:
        """The one-sided upper confidence bound, at the level LEVEL, of the loss of score (-`difference`)."""
        return loss_bound(self.difference, self.error, self.degrees)

    @property
    def seed_share(self) -> float | None:
        """The share of the mean difference's variance that more seeds would reduce; None if the variance is 0."""
        by_seed = self.seed_variance / self.seeds + self.residual_variance / (self.seeds * self.examples)
        whole = by_seed + self.example_variance / self.examples
        return by_seed / whole if whole > 0 else None


def crossed_test(values: Sequence[Additive], base: Sequence[Additive]) -> CrossedTestResult:
    """Test the difference between the mean scores of two systems over seeds and examples.

    Args:
        values: The results of one system for each seed; at least two seeds.
        base: The results of the other system, for the same seeds in the same order. All results are on the same
            examples in the same order.

    Raises:
        ValueError: There are fewer than two seeds or fewer than two examples.
    """
    import numpy as np

    scores = np.array([a.score - b.score for a, b in zip(values, base, strict=True)])
    table = np.stack([a.pseudo_values() - b.pseudo_values() for a, b in zip(values, base, strict=True)])
    return crossed_test_of(scores, table)


def crossed_test_of(scores: Array, table: Array) -> CrossedTestResult:
    """Test the difference between the mean scores of two systems, given the differences for seeds and examples.

    The test is the same as in `crossed_test`.

    Args:
        scores: The difference of the scores for each seed, [seeds].
        table: The difference of the two systems' jackknife pseudo-values (see `Additive.pseudo_values`) for each seed
            and example, [seeds, examples].

    Raises:
        ValueError: There are fewer than two seeds or fewer than two examples.
    """
    from scipy.special import stdtr, stdtrit  # the functions in scipy.stats check more and are a hundred times slower

    seeds, examples = table.shape
    if seeds < 2 or examples < 2:
        raise ValueError(f"{seeds} seeds and {examples} examples have no variance; at least two of each are needed")
    by_seed, by_example, grand = table.mean(axis=1), table.mean(axis=0), table.mean()
    of_seeds = examples * float(((scores - scores.mean()) ** 2).sum()) / (seeds - 1)
    of_examples = seeds * float(((by_example - grand) ** 2).sum()) / (examples - 1)
    rest = table - by_seed[:, None] - by_example[None, :] + grand
    of_rest = float((rest**2).sum()) / ((seeds - 1) * (examples - 1))

    difference = float(scores.mean())
    # The variance of the mean: the mean squares of seeds and of examples both contain the mean square of the residuals,
    # which is therefore subtracted once. The result is at least as large as each of the two, because a variance
    # component cannot be negative.
    squares = max(of_seeds + of_examples - of_rest, of_seeds, of_examples)
    error = math.sqrt(squares / (seeds * examples))
    degrees = _satterthwaite(of_seeds, of_examples, of_rest, squares, seeds, examples)
    certain = math.nan if difference else 1.0
    p_value = float(2 * stdtr(degrees, -abs(difference) / error)) if error > 0 else certain
    return CrossedTestResult(
        difference=difference,
        half_width=float(stdtrit(degrees, (1 + LEVEL) / 2)) * error,
        error=error,
        p_value=p_value,
        degrees=degrees,
        seeds=seeds,
        examples=examples,
        seed_variance=max(0.0, (of_seeds - of_rest) / examples),
        example_variance=max(0.0, (of_examples - of_rest) / seeds),
        residual_variance=of_rest,
    )


def _satterthwaite(
    of_seeds: float, of_examples: float, of_rest: float, squares: float, seeds: int, examples: int
) -> float:
    """Return the degrees of freedom of a sum of mean squares by Satterthwaite (1946); at least `seeds` - 1.

    Args:
        of_seeds: The mean square of seeds.
        of_examples: The mean square of examples.
        of_rest: The mean square of the residuals.
        squares: The sum of mean squares: the largest of `of_seeds` + `of_examples` - `of_rest`, `of_seeds` and
            `of_examples`.
        seeds: The number of seeds.
        examples: The number of examples.
    """
    free = seeds - 1
    below = of_seeds**2 / free + of_examples**2 / (examples - 1) + of_rest**2 / (free * (examples - 1))
    return max(float(free), squares**2 / below) if below > 0 else float(free)


# The number of seeds -----------------------------------------------------------------------------------------------


def power(observed: CrossedTestResult, difference: float, seeds: int, *, tests: int = 1) -> float:
    """Return the probability that `crossed_test` finds a true difference of the given size.

    The result is rough if the variance components were estimated from few seeds.

    Args:
        observed: The result of a test, whose variance components are used.
        difference: The true difference between the mean scores.
        seeds: The number of seeds of the planned test.
        tests: The number of tests. The significance level is divided by it, to correct for multiple testing.
    """
    import numpy as np

    return float(_powers(observed, difference, np.array([seeds]), tests)[0])


def seeds_needed(observed: CrossedTestResult, difference: float, *, tests: int = 1) -> int | None:
    """Return the smallest number of seeds with which `crossed_test` finds a true difference with probability POWER.

    Only numbers above the number of seeds of `observed` are considered.

    Args:
        observed: The result of a test, whose variance components are used.
        difference: The true difference between the mean scores.
        tests: The number of tests. The significance level is divided by it, to correct for multiple testing.

    Returns:
        The number of seeds. None if no number up to MAX_SEEDS suffices, because the test set is too small or the
        difference too close to zero.
    """
    import numpy as np

    numbers = np.arange(max(MIN_SEEDS, observed.seeds + 1), MAX_SEEDS + 1)
    if not difference:
        return None
    enough = numbers[_powers(observed, difference, numbers, tests) >= POWER]
    return int(enough[0]) if len(enough) else None


def seeds_within_margin(observed: CrossedTestResult, margin: float) -> int | None:
    """Return the smallest number of seeds with which a system without loss of score would probably be within a margin.

    A system is within the margin if the one-sided upper confidence bound of its loss of score is below the margin. With
    the returned number of seeds, this happens with a probability of at least POWER if the true loss is zero.

    Args:
        observed: The result of a test, whose variance components are used.
        margin: The margin, as an absolute difference of scores.

    Returns:
        The number of seeds, at least MIN_SEEDS. None if no number up to MAX_SEEDS suffices, because the test set is
        too small for the margin.
    """
    import numpy as np
    from scipy.special import nctdtr, stdtrit

    def shown(seeds: int) -> bool:
        error, degrees = _expected_error(observed, np.array([seeds]))
        if not error[0] > 0:
            return True
        missed = nctdtr(degrees[0], margin / error[0], stdtrit(degrees[0], LEVEL))
        return not missed > 1 - POWER  # scipy returns nan for some margins of dozens of standard errors

    # The probability grows with the number of seeds, which permits a binary search.
    numbers = range(MIN_SEEDS, MAX_SEEDS + 1)
    place = bisect_left(numbers, True, key=shown)
    return numbers[place] if place < len(numbers) else None


def detectable(observed: CrossedTestResult, *, tests: int = 1) -> float:
    """Return the smallest true difference that `crossed_test` would find with probability POWER, with these seeds.

    Args:
        observed: The result of a test, whose variance components and number of seeds are used.
        tests: The number of tests. The significance level is divided by it, to correct for multiple testing.
    """
    import numpy as np
    from scipy.special import nctdtrinc

    error, degrees = _expected_error(observed, np.array([observed.seeds]))
    bound = _two_sided(degrees, tests)
    return float(nctdtrinc(degrees[0], 1 - POWER, bound[0]) * error[0]) if error[0] > 0 else 0.0


def _powers(observed: CrossedTestResult, difference: float, seeds: Array, tests: int) -> Array:
    """Return the power of `crossed_test` for each number in `seeds`, by the noncentral t distribution."""
    import numpy as np
    from scipy.special import nctdtr

    error, degrees = _expected_error(observed, seeds)
    with np.errstate(divide="ignore"):
        return np.where(error > 0, 1 - nctdtr(degrees, abs(difference) / error, _two_sided(degrees, tests)), 1.0)


def _two_sided(degrees: Array, tests: int) -> Array:
    """Return the critical t of the two-sided test for each number of degrees of freedom."""
    from scipy.special import stdtrit

    critical: Array = stdtrit(degrees, 1 - (1 - LEVEL) / tests / 2)
    return critical


def _expected_error(observed: CrossedTestResult, seeds: Array) -> tuple[Array, Array]:
    """Return the expected standard error and degrees of freedom of `crossed_test` for each number in `seeds`."""
    import numpy as np

    by_seed = (observed.seed_variance + observed.residual_variance / observed.examples) / seeds
    of_examples = observed.example_variance / observed.examples
    variance = by_seed + of_examples
    # Degrees of freedom by Satterthwaite's formula: seeds - 1, or more if the variance over examples is larger.
    below = by_seed**2 / (seeds - 1) + of_examples**2 / (observed.examples - 1)
    degrees = np.maximum(seeds - 1.0, np.divide(variance**2, below, out=np.zeros_like(below), where=below > 0))
    return np.sqrt(variance), degrees


# Resampling of examples --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BootstrapResult:
    """The result of a bootstrap test of the difference between two mean scores."""

    difference: float
    interval: tuple[float, float]
    """The percentile interval of the difference, at the confidence level LEVEL."""
    p_value: float
    """The two-sided p-value, from the bootstrap distribution shifted to zero."""


def paired_bootstrap(
    values: Sequence[Additive],
    base: Sequence[Additive],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    resample_seeds: bool = False,
) -> BootstrapResult:
    """Test the difference between the mean scores of two systems by the paired bootstrap.

    Examples are drawn with replacement, the same ones for all runs.

    Args:
        values: The results of one system for each seed.
        base: The results of the other system, for the same seeds in the same order, on the same examples.
        resamples: The number of resamples.
        seed: The seed of the random generator.
        resample_seeds: Whether seeds are drawn with replacement too, not only examples.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    observed = _mean_difference(values, base)
    rows, counts = _distinct_examples([*values, *base])
    total = int(counts.sum())
    drawn = []
    for size in _chunks(resamples, len(counts)):
        weights = rng.multinomial(total, counts / total, size=size).astype("float64")
        differences = np.stack(
            [
                a.value(weights @ rows[place]) - b.value(weights @ rows[len(values) + place])
                for place, (a, b) in enumerate(zip(values, base, strict=True))
            ]
        )
        if resample_seeds:
            chosen = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=size)
            drawn.append((differences * chosen.T).sum(axis=0) / len(values))
        else:
            drawn.append(differences.mean(axis=0))
    all_drawn = np.concatenate(drawn)
    # The metric may be undefined on a resample, for example a label's F1 if no drawn example has the label.
    defined = all_drawn[np.isfinite(all_drawn)]
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(defined) else (math.nan, math.nan)
    beyond = int((np.abs(defined - observed) >= abs(observed) - 1e-12).sum())
    p_value = (beyond + 1) / (len(defined) + 1)
    return BootstrapResult(difference=observed, interval=(float(low), float(high)), p_value=p_value)


def approximate_randomisation(
    values: Sequence[Additive], base: Sequence[Additive], *, resamples: int = 10_000, seed: int = 0
) -> float:
    """Return the two-sided p-value, over examples, of the difference between the scores of two sets of trained models.

    The null hypothesis is that the two systems are exchangeable. To simulate it, the two systems' predictions for an
    example are exchanged with probability 1/2, for all seeds together.

    Args:
        values: The results of one system for each seed.
        base: The results of the other system, for the same seeds in the same order, on the same examples.
        resamples: The number of random exchanges.
        seed: The seed of the random generator.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    observed = abs(_mean_difference(values, base))
    rows, counts = _distinct_examples([*values, *base])
    pairs = len(values)
    totals = [counts @ part for part in rows]
    # An exchange has an effect only for examples on which the two systems' predictions differ.
    differing = np.zeros(len(counts), dtype=bool)
    for place in range(pairs):
        differing |= (rows[place] != rows[pairs + place]).any(axis=1)
    exchange = [rows[pairs + place][differing] - rows[place][differing] for place in range(pairs)]
    beyond = defined = 0
    for size in _chunks(resamples, int(differing.sum())):
        exchanged = rng.binomial(counts[differing], 0.5, size=(size, int(differing.sum()))).astype("float64")
        change = np.zeros(size)
        for place, (a, b) in enumerate(zip(values, base, strict=True)):
            moved = exchanged @ exchange[place]
            change += a.value(totals[place] + moved) - b.value(totals[pairs + place] - moved)
        beyond += int((np.abs(change / pairs) >= observed - 1e-12).sum())
        defined += int(np.isfinite(change).sum())
    return (beyond + 1) / (defined + 1)


def _mean_difference(values: Sequence[Additive], base: Sequence[Additive]) -> float:
    return sum(a.score - b.score for a, b in zip(values, base, strict=True)) / len(values)


def _distinct_examples(systems: Sequence[Additive]) -> tuple[list[Array], Array]:
    """Group the examples so that, in each system, all examples of a group have the same row of numbers.

    Drawing n examples is equivalent to drawing from the u groups in proportion to their sizes, and u is small: with two
    labels and one seed, there are at most eight groups.

    Returns:
        For each system the rows of the u groups, [u, p], where p is the length of a row; and the sizes of the groups,
        [u].
    """
    import numpy as np

    joined = np.ascontiguousarray(np.concatenate([system.parts for system in systems], axis=1))
    as_bytes = joined.view([("", f"V{joined.itemsize * joined.shape[1]}")]).ravel()
    _, first, counts = np.unique(as_bytes, return_index=True, return_counts=True)
    return [system.parts[first] for system in systems], counts


def _chunks(resamples: int, width: int) -> Iterator[int]:
    """Divide the resamples into portions with at most `CHUNK` elements each, and yield the size of each portion.

    A portion has at least one resample, whatever its number of elements.

    Args:
        resamples: The number of all resamples.
        width: The number of elements of a resample.
    """
    size = max(1, CHUNK // max(1, width))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
