"""Whether a difference between two strategies is more than chance, seeds and test examples both considered.

A difference between two mean scores is uncertain for two reasons: other seeds would have given other models, and other
test examples other scores. The scores form a table of seeds × examples, in which both are random: every seed's models
answer the same examples. `crossed_test` is the test of that table, and the one whose verdict is shown:

    difference of seed s on example i  =  difference + seed effect + example effect + rest

Its variance components come from the two-way analysis of variance without replication (Searle, Casella & McCulloch
1992), its degrees of freedom from Satterthwaite (1946), and per-example values of a metric that is no mean, such as
macro-F1, from the jackknife. Treating seeds × examples as that many independent observations finds differences where
there are none; testing examples alone, or seeds alone, answers another question each:

`approximate_randomisation` (Noreen 1989; Dror et al. 2018) asks whether *these trained models* differ on other
examples; `paired_bootstrap` (Efron & Tibshirani 1993; Koehn 2004; with seeds resampled as well: Sellam et al. 2022)
gives intervals without a normal approximation, but needs many seeds where it resamples them: with three it takes a
third too little variance and no t.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.additive import Additive
from alue_bench.evaluation.intervals import LEVEL

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

POWER = 0.8
"""The chance to find a difference that is there, in what is said of the number of seeds (Card et al. 2020)."""
FEWEST_SEEDS = 3
"""For a verdict. With two, the seeds' variance is known so badly that the test finds differences where there are none
about twice as often as it should; with three and more it does not (tests/test_significance.py)."""
MOST_SEEDS = 200
"""Beyond which no number of seeds is proposed."""
CHUNK = 2**21
"""Numbers in an array of resamples."""


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """A difference of mean scores over the same seeds and the same examples."""

    difference: float
    half_width: float
    """Of its interval (LEVEL)."""
    p_value: float
    """Two-sided. nan where nothing varies and the difference is not zero."""
    degrees: float
    seeds: int
    examples: int
    seed_variance: float
    """Components, of one seed on one example: what differs between seeds on all examples alike,"""
    example_variance: float
    """between examples for all seeds alike,"""
    rest_variance: float
    """and in neither way."""

    @property
    def seed_share(self) -> float | None:
        """The part of the mean difference's variance that more seeds would make smaller."""
        by_seed = self.seed_variance / self.seeds + self.rest_variance / (self.seeds * self.examples)
        whole = by_seed + self.example_variance / self.examples
        return by_seed / whole if whole > 0 else None


def crossed_test(values: Sequence[Additive], base: Sequence[Additive]) -> Crossed:
    """Both by seed, in the same order, at least two seeds; all on the same examples in the same order."""
    import numpy as np

    scores = np.array([a.score - b.score for a, b in zip(values, base, strict=True)])
    table = np.stack([a.pseudo_values() - b.pseudo_values() for a, b in zip(values, base, strict=True)])
    return crossed_test_of(scores, table)


def crossed_test_of(scores: Array, table: Array) -> Crossed:
    """The same from the differences of each seed [S] and their pseudo-values by example [S, n]."""
    from scipy.special import stdtr, stdtrit  # scipy.stats asks more questions, and takes a hundred times as long

    seeds, examples = table.shape
    if seeds < 2 or examples < 2:
        raise ValueError(f"{seeds} seeds and {examples} examples have no variance; at least two of each are needed")
    by_seed, by_example, grand = table.mean(axis=1), table.mean(axis=0), table.mean()
    of_seeds = examples * float(((scores - scores.mean()) ** 2).sum()) / (seeds - 1)
    of_examples = seeds * float(((by_example - grand) ** 2).sum()) / (examples - 1)
    rest = table - by_seed[:, None] - by_example[None, :] + grand
    of_rest = float((rest**2).sum()) / ((seeds - 1) * (examples - 1))

    difference = float(scores.mean())
    # Of the mean: mean squares of seeds and of examples hold the rest's once each, so once too often together. Not
    # below either of the two: a component cannot be negative.
    squares = max(of_seeds + of_examples - of_rest, of_seeds, of_examples)
    error = math.sqrt(squares / (seeds * examples))
    degrees = _satterthwaite(of_seeds, of_examples, of_rest, squares, seeds, examples)
    certain = math.nan if difference else 1.0
    p_value = float(2 * stdtr(degrees, -abs(difference) / error)) if error > 0 else certain
    return Crossed(
        difference=difference,
        half_width=float(stdtrit(degrees, (1 + LEVEL) / 2)) * error,
        p_value=p_value,
        degrees=degrees,
        seeds=seeds,
        examples=examples,
        seed_variance=max(0.0, (of_seeds - of_rest) / examples),
        example_variance=max(0.0, (of_examples - of_rest) / seeds),
        rest_variance=of_rest,
    )


def _satterthwaite(
    of_seeds: float, of_examples: float, of_rest: float, squares: float, seeds: int, examples: int
) -> float:
    """Degrees of freedom of a sum of mean squares; at least those of the seeds."""
    free = seeds - 1
    below = of_seeds**2 / free + of_examples**2 / (examples - 1) + of_rest**2 / (free * (examples - 1))
    return max(float(free), squares**2 / below) if below > 0 else float(free)


# How many seeds ----------------------------------------------------------------------------------------------------


def power(found: Crossed, difference: float, seeds: int, *, tests: int = 1) -> float:
    """The chance that the crossed test finds a true difference of this size with this many seeds, given the variance
    components that were found, and as one of so many tests. Components estimated from few seeds are rough, and so is
    this."""
    import numpy as np

    return float(_powers(found, difference, np.array([seeds]), tests)[0])


def seeds_needed(found: Crossed, difference: float, *, tests: int = 1) -> int | None:
    """The least number of seeds, beyond those there are, that finds a difference of this size with POWER; None where
    none up to MOST_SEEDS does: the test set is too small for it, or the difference too close to zero."""
    import numpy as np

    numbers = np.arange(max(FEWEST_SEEDS, found.seeds + 1), MOST_SEEDS + 1)
    if not difference:
        return None
    enough = numbers[_powers(found, difference, numbers, tests) >= POWER]
    return int(enough[0]) if len(enough) else None


def detectable(found: Crossed, *, tests: int = 1) -> float:
    """The smallest difference that the test finds with POWER, with the seeds there are."""
    import numpy as np
    from scipy.special import nctdtrinc

    error, degrees, bound = _expected(found, np.array([found.seeds]), tests)
    return float(nctdtrinc(degrees[0], 1 - POWER, bound[0]) * error[0]) if error[0] > 0 else 0.0


def _powers(found: Crossed, difference: float, seeds: Array, tests: int) -> Array:
    """By the noncentral t distribution, for each number of seeds."""
    import numpy as np
    from scipy.special import nctdtr

    error, degrees, bound = _expected(found, seeds, tests)
    with np.errstate(divide="ignore"):
        return np.where(error > 0, 1 - nctdtr(degrees, abs(difference) / error, bound), 1.0)


def _expected(found: Crossed, seeds: Array, tests: int) -> tuple[Array, Array, Array]:
    """Standard error, degrees of freedom and the bound that t must exceed, with each number of seeds."""
    import numpy as np
    from scipy.special import stdtrit

    by_seed = (found.seed_variance + found.rest_variance / found.examples) / seeds
    of_examples = found.example_variance / found.examples
    variance = by_seed + of_examples
    # Degrees of freedom as Satterthwaite would have them: those of the seeds, and more where examples vary more.
    below = by_seed**2 / (seeds - 1) + of_examples**2 / (found.examples - 1)
    degrees = np.maximum(seeds - 1.0, np.divide(variance**2, below, out=np.zeros_like(below), where=below > 0))
    return np.sqrt(variance), degrees, stdtrit(degrees, 1 - (1 - LEVEL) / tests / 2)


# Over examples, by resampling --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Bootstrapped:
    """A difference of mean scores with its percentile interval (LEVEL)."""

    difference: float
    interval: tuple[float, float]
    p_value: float
    """Two-sided, of the bootstrap distribution moved to zero."""


def paired_bootstrap(
    values: Sequence[Additive],
    base: Sequence[Additive],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    resample_seeds: bool = False,
) -> Bootstrapped:
    """Draws examples with replacement, the same ones for all runs; `resample_seeds`: seeds as well.

    values, base: by seed, in the same order, on the same examples. seed: of the draws.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    observed = _mean_difference(values, base)
    rows, counts = _distinct([*values, *base])
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
    # The metric is undefined on some resamples: a label's F1 where the label is in none of its examples.
    defined = all_drawn[np.isfinite(all_drawn)]
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(defined) else (math.nan, math.nan)
    beyond = int((np.abs(defined - observed) >= abs(observed) - 1e-12).sum())
    p_value = (beyond + 1) / (len(defined) + 1)
    return Bootstrapped(difference=observed, interval=(float(low), float(high)), p_value=p_value)


def approximate_randomisation(
    values: Sequence[Additive], base: Sequence[Additive], *, resamples: int = 10_000, seed: int = 0
) -> float:
    """The two-sided p-value of a difference for these trained models, over examples.

    Where the two systems are alike, it makes no difference which of them gave which answer: the answers to each example
    are exchanged by a coin, for all seeds together. values, base: as for `paired_bootstrap`.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    observed = abs(_mean_difference(values, base))
    rows, counts = _distinct([*values, *base])
    pairs = len(values)
    totals = [counts @ part for part in rows]
    # Only what the two answered differently makes a difference when exchanged.
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


def _distinct(systems: Sequence[Additive]) -> tuple[list[Array], Array]:
    """Examples that are alike for all systems, once: each system's rows of them [u, p], and how many there are [u].

    Drawing u groups with their sizes is the same as drawing n examples, and u is small: with two labels and one seed
    there are eight ways to be answered.
    """
    import numpy as np

    joined = np.ascontiguousarray(np.concatenate([system.parts for system in systems], axis=1))
    as_bytes = joined.view([("", f"V{joined.itemsize * joined.shape[1]}")]).ravel()
    _, first, counts = np.unique(as_bytes, return_index=True, return_counts=True)
    return [system.parts[first] for system in systems], counts


def _chunks(resamples: int, width: int) -> Iterator[int]:
    size = max(1, CHUNK // max(1, width))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
