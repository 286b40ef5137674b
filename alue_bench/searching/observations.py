"""The dev scores of runs, and the estimated loss of score of a freezing setting against full fine-tuning.

A measured difference of scores is uncertain for two reasons: other seeds give other scores, and so would other
examples. Differences are taken between runs with the same seed, which have the same initial head and the same order of
the data. The variance of these differences over seeds is pooled over all settings that were run with several seeds, and
shrunk towards a prior value, since the variance of three seeds alone is a poor estimate (Smyth 2004, Linear models and
empirical Bayes methods). The variance over examples comes from the delete-a-group jackknife (Efron & Tibshirani 1993,
chapter 11; Kott 2001). It needs no random numbers, works for every metric that is a smooth function of its examples,
and takes into account that both settings are evaluated on the same examples. The interaction of seeds and examples
contributes to both variances, so that the standard error is slightly too large rather than too small.
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
"""The prior value of the standard deviation of a run's score over seeds, as a share of the score."""
PRIOR_WEIGHT = 4.0
"""The weight of the prior on the variance over seeds, in degrees of freedom."""
SMALLEST_SCORE = 1e-6
"""The smallest score by which variances are scaled, so that a score of 0 does not make variances 0."""


@dataclass(frozen=True)
class Evaluation:
    """The score of one run on a split, and the values from which the score's uncertainty is computed."""

    candidate: str
    """The name of the run's freezing setting."""
    replicate: int
    """The index of the run's seed: 0 for the first seed of the search, 1 for the second, and so on."""
    score: float
    left_out: tuple[float, ...] = ()
    """The scores for the jackknife: the first is computed without the first group of examples, the second without the
    second group, and so on. The groups are the same in every run."""
    short: bool = False
    """True if the run was a low-fidelity run, which has fewer epochs."""
    trivial: float = math.nan
    """The score of a baseline that ignores the text, on the same examples; nan if it was not recorded."""
    trivial_error: float = math.nan
    """The standard error, over examples, of the difference between `score` and `trivial`."""


@dataclass(frozen=True)
class Loss:
    """The amount by which a freezing setting's mean score is below full fine-tuning's, with its uncertainty."""

    mean: float
    standard_error: float
    degrees: float
    """The degrees of freedom of the t distribution."""
    pairs: int
    """The number of seeds with which both the freezing setting and full fine-tuning were run."""

    def upper(self, level: float) -> float:
        """Return the one-sided upper confidence bound of the loss; `level` is the probability that it is wrong."""
        return self.mean + self._reach(level)

    def lower(self, level: float) -> float:
        """Return the one-sided lower confidence bound of the loss; `level` is the probability that it is wrong."""
        return self.mean - self._reach(level)

    def _reach(self, level: float) -> float:
        from scipy.stats import t

        return float(t.ppf(1 - level, self.degrees)) * self.standard_error


@dataclass(frozen=True)
class SeedNoise:
    """The estimated variance, over seeds, of the difference of scores between two freezing settings."""

    variance: float
    degrees: float

    @property
    def of_one_run(self) -> float:
        """The variance of one run's score over seeds."""
        return self.variance / 2


def left_out_scores(
    count: int, score: Callable[[np.ndarray[Any, Any]], float], groups: int = GROUPS
) -> tuple[float, ...]:
    """Return the jackknife scores: for each group of examples, the score computed without this group.

    Example number i belongs to the group i mod `groups`, so that runs on the same split have the same groups.

    Args:
        count: The number of examples.
        score: A function that takes an array of example indices, and returns the score on these examples.
        groups: The number of groups; fewer if there are fewer examples.
    """
    import numpy as np

    group = np.arange(count) % min(groups, count)
    return tuple(defined(score(np.flatnonzero(group != left))) for left in range(min(groups, count)))


def left_out_by_sums(
    parts: np.ndarray[Any, Any], value: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], groups: int = GROUPS
) -> tuple[float, ...]:
    """Return the jackknife scores for a metric that can be computed from sums over examples.

    The result is that of `left_out_scores`.

    Args:
        parts: The summands: a row of p numbers for each of the n examples, `[n, p]`.
        value: A function that computes scores, `[...]`, from sums of rows, `[..., p]`.
        groups: The number of groups; fewer if there are fewer examples.
    """
    import numpy as np

    groups = min(groups, len(parts))
    kept = parts.sum(axis=0) - np.stack([parts[group::groups].sum(axis=0) for group in range(groups)])
    return tuple(defined(float(score)) for score in value(kept))


def defined(score: float) -> float:
    """Return the score, or 0 if it is undefined, for example the correlation of constant predictions."""
    return score if math.isfinite(score) else 0.0


def by_replicate(evaluations: Iterable[Evaluation], candidate: str) -> dict[int, Evaluation]:
    """Return a freezing setting's evaluations by the index of the seed (`replicate`).

    Low-fidelity runs, which have fewer epochs, are left out.
    """
    return {e.replicate: e for e in evaluations if e.candidate == candidate and not e.short}


def learning_of(evaluations: Mapping[int, Evaluation]) -> Learning | None:
    """Test whether runs have learnt anything: compare their scores with those of a baseline that ignores the text.

    Return None if the baseline's score was not recorded.
    """
    runs = list(evaluations.values())
    return learning([e.score for e in runs], [e.trivial for e in runs], [e.trivial_error for e in runs])


def mean_score(evaluations: Mapping[int, Evaluation]) -> float:
    """Return the mean score over seeds, given evaluations by the index of the seed."""
    return sum(e.score for e in evaluations.values()) / len(evaluations)


def seed_noise(evaluations: Sequence[Evaluation], reference: str) -> SeedNoise:
    """Estimate the variance, over seeds, of the difference of scores between a freezing setting and full fine-tuning.

    The variance is pooled over all settings, and shrunk towards a prior value.

    A setting contributes if it and full fine-tuning were run with at least two common seeds.

    Args:
        evaluations: The scores of runs.
        reference: The name of the freezing setting that is full fine-tuning.
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
    """Estimate a freezing setting's loss of score against full fine-tuning, over the seeds with which both were run.

    Args:
        base: Full fine-tuning's evaluations, keyed by the index of the seed.
        own: The freezing setting's evaluations, keyed by the index of the seed.
        noise: The variance of score differences over seeds.

    Returns:
        The loss; None if no seed was run with both.
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
