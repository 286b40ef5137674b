"""Scores of runs, and the loss of a candidate against full fine-tuning with its uncertainty.

A measured difference of scores is uncertain for two reasons: other seeds give other scores, and so would other
examples. Seeds are paired, since the same seed gives the same head and the same order of the data. Their variance is
pooled over all candidates that ran with several seeds and moderated by a prior, since the variance of three seeds alone
is a poor estimate (Smyth 2004, Linear models and empirical Bayes methods). The variance over examples comes from the
delete-a-group jackknife (Efron & Tibshirani 1993, chapter 11; Kott 2001). It needs no random numbers, works for every
metric that is a smooth function of its examples, and takes into account that both settings saw the same examples. The
interaction of seeds and examples is counted in both variances, so that the standard error is slightly too large rather
than too small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.learning import Learning, learning

if TYPE_CHECKING:
    import numpy as np

GROUPS = 20
"""The number of groups into which the jackknife divides the dev examples."""
PRIOR_SD = 0.02
"""The prior standard deviation of one run's score over seeds, as a share of the score."""
PRIOR_WEIGHT = 4.0
"""The weight of the prior, in degrees of freedom."""
SMALLEST_SCORE = 1e-6
"""The smallest score that is used as a scale."""


@dataclass(frozen=True)
class Evaluation:
    """The dev score of one run."""

    candidate: str
    replicate: int
    """The number of the seed, counted from 0."""
    score: float
    left_out: tuple[float, ...] = ()
    """The scores without the first, second, … group of examples; the groups are the same in every run."""
    short: bool = False
    """True if it was a low-fidelity run, with fewer epochs than the setting in question."""
    trivial: float = math.nan
    """The score of a baseline that ignores the text, on the same examples; nan if it was not recorded."""
    trivial_error: float = math.nan
    """The standard error, over examples, of the score's distance from the trivial score."""


@dataclass(frozen=True)
class Loss:
    """The amount by which a candidate's mean score is below full fine-tuning's, in units of the score."""

    mean: float
    standard_error: float
    degrees: float
    """The degrees of freedom of the t distribution."""
    pairs: int
    """The number of seeds with which both were run."""

    def upper(self, level: float) -> float:
        """Return the bound that the loss exceeds with a probability of at most `level`."""
        return self.mean + self._reach(level)

    def lower(self, level: float) -> float:
        """Return the bound that the loss falls below with a probability of at most `level`."""
        return self.mean - self._reach(level)

    def _reach(self, level: float) -> float:
        from scipy.stats import t

        return float(t.ppf(1 - level, self.degrees)) * self.standard_error


@dataclass(frozen=True)
class SeedNoise:
    """The variance of paired differences over seeds, with its degrees of freedom."""

    variance: float
    degrees: float

    @property
    def of_one_run(self) -> float:
        """The variance of one run's score over seeds."""
        return self.variance / 2


def left_out_scores(
    count: int, score: Callable[[np.ndarray[Any, Any]], float], groups: int = GROUPS
) -> tuple[float, ...]:
    """Return the scores without each group of examples.

    Example i belongs to group i mod `groups`, so that runs on the same split have the same groups.

    Args:
        count: The number of examples.
        score: A function that returns the score of the examples with the given indices `[m]`.
        groups: The number of groups.
    """
    import numpy as np

    group = np.arange(count) % min(groups, count)
    return tuple(defined(score(np.flatnonzero(group != left))) for left in range(min(groups, count)))


def left_out_by_sums(
    parts: np.ndarray[Any, Any], value: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], groups: int = GROUPS
) -> tuple[float, ...]:
    """Return the scores without each group of examples, for a metric that is a function of sums over examples.

    Args:
        parts: The summands `[n, p]` of the n examples.
        value: A function from sums `[..., p]` to scores `[...]`.
        groups: The number of groups.
    """
    import numpy as np

    groups = min(groups, len(parts))
    kept = parts.sum(axis=0) - np.stack([parts[group::groups].sum(axis=0) for group in range(groups)])
    return tuple(defined(float(score)) for score in value(kept))


def defined(score: float) -> float:
    """Return a score, or 0 where it is undefined, as the correlation of a constant prediction is."""
    return score if math.isfinite(score) else 0.0


def by_replicate(evaluations: Iterable[Evaluation], candidate: str) -> dict[int, Evaluation]:
    """Return a candidate's evaluations as a dict keyed by the index of the seed, without low-fidelity runs."""
    return {e.replicate: e for e in evaluations if e.candidate == candidate and not e.short}


def learning_of(evaluations: Mapping[int, Evaluation]) -> Learning | None:
    """Judge whole runs against the trivial score; return None if that was not recorded."""
    runs = list(evaluations.values())
    return learning([e.score for e in runs], [e.trivial for e in runs], [e.trivial_error for e in runs])


def mean_score(evaluations: Mapping[int, Evaluation]) -> float:
    """Return the mean score over seeds."""
    return sum(e.score for e in evaluations.values()) / len(evaluations)


def seed_noise(evaluations: Sequence[Evaluation], reference: str) -> SeedNoise:
    """Estimate the noise of seeds, pooled over all candidates with at least two pairs and moderated by the prior.

    Args:
        evaluations: The scores of runs.
        reference: The name of full fine-tuning.
    """
    base = by_replicate(evaluations, reference)
    scale = max(abs(mean_score(base)), SMALLEST_SCORE) if base else 1.0
    squares, degrees = 2 * (PRIOR_SD * scale) ** 2 * PRIOR_WEIGHT, PRIOR_WEIGHT
    for name in dict.fromkeys(e.candidate for e in evaluations):
        if name == reference:
            continue
        own = by_replicate(evaluations, name)
        differences = [base[r].score - own[r].score for r in own if r in base]
        if len(differences) > 1:
            centre = sum(differences) / len(differences)
            squares += sum((d - centre) ** 2 for d in differences)
            degrees += len(differences) - 1
    return SeedNoise(squares / degrees, degrees)


def paired_loss(base: Mapping[int, Evaluation], own: Mapping[int, Evaluation], noise: SeedNoise) -> Loss | None:
    """Return the loss of a candidate over the seeds that it shares with full fine-tuning.

    Args:
        base: Full fine-tuning's evaluations, by the number of the seed.
        own: The candidate's evaluations, by the number of the seed.
        noise: The noise of seeds.

    Returns:
        None if no seed was run with both.
    """
    import numpy as np

    shared = sorted(base.keys() & own.keys())
    if not shared:
        return None
    mean = float(np.mean([base[r].score - own[r].score for r in shared]))
    of_seeds = noise.variance / len(shared)
    of_examples, groups = 0.0, min((len(e[r].left_out) for e in (base, own) for r in shared), default=0)
    if groups > 1:
        parts = np.mean([np.subtract(base[r].left_out, own[r].left_out) for r in shared], axis=0)  # [groups]
        of_examples = float((groups - 1) / groups * np.square(parts - parts.mean()).sum())
    variance = of_seeds + of_examples
    if variance == 0:
        return Loss(mean, 0.0, noise.degrees, len(shared))
    # Degrees of freedom of a sum of two estimated variances, by Welch and Satterthwaite
    degrees = variance**2 / (of_seeds**2 / noise.degrees + (of_examples**2 / (groups - 1) if groups > 1 else 0.0))
    return Loss(mean, math.sqrt(variance), degrees, len(shared))
