"""The scores of runs, and the estimated loss of score of a freezing setting against full fine-tuning.

A measured difference of scores is uncertain for two reasons: other seeds give other scores, and so would other
examples. Differences are taken between runs with the same seed, which have the same order of the data. Their
uncertainty is computed as in the crossed test (`evaluation.significance`), which reports use, too. In a search, the
examples are divided into groups, and the jackknife leaves out one group after the other (Efron & Tibshirani 1993,
chapter 11; Kott 2001). The jackknife works for every metric that is a smooth function of its examples, and takes into
account that both settings are evaluated on the same examples.

The variance over seeds is estimated from the compared runs alone. It is not pooled with the variance of other settings:
some frozen settings vary several times as much over seeds as others, and a pooled variance would be too small for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.learning import Learning, learning
from alue_bench.evaluation.significance import crossed_test_of

if TYPE_CHECKING:
    import numpy as np

GROUPS = 20
"""The number of groups into which the jackknife divides the dev examples."""
CHOOSING_EVERY = 4
"""One of every `CHOOSING_EVERY` groups of examples is used to choose the candidates to test. The other groups are used
to test them, so that a candidate that was chosen because some dev examples happen to suit it is not tested on these
examples."""
PRIOR_SD = 0.02
"""The assumed standard deviation of a run's score over seeds, as a share of the score. It is used to choose settings,
but not to test them."""
MIN_SCORE_SCALE = 1e-6
"""The smallest score by which variances are scaled. It replaces smaller scores, since a score of 0 would make the
variances 0."""


@dataclass(frozen=True)
class Evaluation:
    """The score of one run on a split, and the values from which the score's uncertainty is computed."""

    candidate: str
    """The name of the run's freezing setting."""
    replicate: int
    """The index of the run's seed: 0 for the first seed of the search, 1 for the second, and so on."""
    score: float
    jackknife_scores: tuple[float, ...] = ()
    """The scores for the jackknife: the first is computed without the first group of examples, the second without the
    second group, and so on. The groups are the same in every run."""
    short: bool = False
    """True if the run was a low-fidelity run, which has fewer epochs."""
    trivial: float = math.nan
    """The score of a baseline without a model, on the same examples; nan if it was not recorded."""
    trivial_error: float = math.nan
    """The standard error, over examples, of the difference between `score` and `trivial`; nan if it was not
    recorded."""


@dataclass(frozen=True)
class Loss:
    """Full fine-tuning's mean score minus a freezing setting's mean score, with the uncertainty of this difference."""

    mean: float
    """The mean loss over the seeds; negative if the freezing setting has the higher score."""
    standard_error: float
    """The standard error of the mean; nan if there is only one pair of runs."""
    pairs: int
    """The number of seeds with which both the freezing setting and full fine-tuning were run."""
    groups: int = 0
    """The number of groups of examples from which the variance over examples was estimated; 0 if it was not
    estimated."""
    of_examples: float = 0.0
    """The part of the squared standard error that is due to examples."""

    def upper(self, level: float) -> float:
        """Return the one-sided upper confidence bound; the true loss is above it with probability `level`."""
        return self.mean + self._bound_distance(level)

    def lower(self, level: float) -> float:
        """Return the one-sided lower confidence bound; the true loss is below it with probability `level`."""
        return self.mean - self._bound_distance(level)

    def _bound_distance(self, level: float) -> float:
        """Return the distance of a bound from the mean: the standard error times a quantile of Student's t.

        The quantile is the mean of the quantile for seeds and the quantile for examples, weighted by their parts of the
        variance (Cochran & Cox 1957, Experimental designs, section 4.14). This is conservative. With Satterthwaite's
        degrees of freedom instead, the bound would be wrong too often if the variance over three or four seeds happens
        to be small.
        """
        from scipy.special import stdtrit

        if self.standard_error == 0:
            return 0.0
        quantile = float(stdtrit(self.pairs - 1, 1 - level))
        if self.groups > 1:
            share = min(1.0, self.of_examples / self.standard_error**2)
            quantile += share * (float(stdtrit(self.groups - 1, 1 - level)) - quantile)
        return quantile * self.standard_error


def jackknife_scores(
    count: int, score: Callable[[np.ndarray[Any, Any]], float], groups: int = GROUPS
) -> tuple[float, ...]:
    """Return the jackknife scores: for each group of examples, the score computed without this group.

    Example number i belongs to the group i mod `groups`, so that runs on the same split have the same groups.

    Args:
        count: The number of examples.
        score: A function that takes an array of example indices, and returns the score on these examples.
        groups: The number of groups. If there are fewer examples, each example is a group.
    """
    import numpy as np

    group = np.arange(count) % min(groups, count)
    return tuple(or_zero(score(np.flatnonzero(group != left))) for left in range(min(groups, count)))


def jackknife_scores_by_sums(
    parts: np.ndarray[Any, Any], value: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], groups: int = GROUPS
) -> tuple[float, ...]:
    """Return the jackknife scores for a metric that can be computed from sums over examples.

    The result is the same as from `jackknife_scores`.

    Args:
        parts: The summands: a row of p numbers for each of the n examples, `[n, p]`.
        value: A function that computes scores, `[...]`, from sums of rows, `[..., p]`.
        groups: The number of groups. If there are fewer examples, each example is a group.
    """
    import numpy as np

    groups = min(groups, len(parts))
    kept = parts.sum(axis=0) - np.stack([parts[group::groups].sum(axis=0) for group in range(groups)])
    return tuple(or_zero(float(score)) for score in value(kept))


def or_zero(score: float) -> float:
    """Return the score, or 0 if it is undefined (nan), for example the correlation of constant predictions."""
    return score if math.isfinite(score) else 0.0


def by_replicate(evaluations: Iterable[Evaluation], candidate: str) -> dict[int, Evaluation]:
    """Return a freezing setting's evaluations by the index of the seed (`replicate`).

    Low-fidelity runs, which have fewer epochs, are left out.
    """
    return {e.replicate: e for e in evaluations if e.candidate == candidate and not e.short}


@lru_cache(maxsize=256)
def restrict_examples(evaluation: Evaluation, *, choosing: bool) -> Evaluation:
    """Return a run's score on the examples for choosing candidates, or on the other examples, which are for testing.

    Every group of examples whose index is divisible by `CHOOSING_EVERY` is for choosing. The score on a part of the
    groups is the mean of these groups' `contributions`. If there are fewer than 2 * `CHOOSING_EVERY` groups, the
    evaluation is returned unchanged.

    Args:
        evaluation: The score of the run, with the scores for the jackknife.
        choosing: Whether to return the score on the examples for choosing.
    """
    import numpy as np

    if len(evaluation.jackknife_scores) < 2 * CHOOSING_EVERY:
        return evaluation
    parts = contributions(evaluation)
    parts = parts[(np.arange(len(parts)) % CHOOSING_EVERY == 0) == choosing]
    left_out = (parts.sum() - parts) / (len(parts) - 1)
    return replace(evaluation, score=float(parts.mean()), jackknife_scores=tuple(map(float, left_out)))


def learning_of(evaluations: Mapping[int, Evaluation]) -> Learning | None:
    """Test whether runs have learnt anything, by comparing their scores with those of a baseline without a model.

    Args:
        evaluations: The scores of the runs, by the index of the seed.

    Returns:
        The comparison; None if the baseline's score was not recorded.
    """
    runs = list(evaluations.values())
    return learning([e.score for e in runs], [e.trivial for e in runs], [e.trivial_error for e in runs])


def mean_score(evaluations: Mapping[int, Evaluation]) -> float:
    """Return the mean score over seeds. The evaluations are keyed by the index of the seed."""
    return sum(e.score for e in evaluations.values()) / len(evaluations)


def has_learnt(evaluation: Evaluation) -> bool:
    """Return whether a run's score is significantly above the score of a baseline without a model.

    The result is True if the baseline's score was not recorded.
    """
    learnt = learning_of({evaluation.replicate: evaluation})
    return learnt is None or learnt.has_learnt


def paired_loss(base: Mapping[int, Evaluation], candidate: Mapping[int, Evaluation]) -> Loss | None:
    """Estimate a freezing setting's loss of score against full fine-tuning, over the seeds with which both were run.

    Args:
        base: Full fine-tuning's evaluations, keyed by the index of the seed.
        candidate: The freezing setting's evaluations, keyed by the index of the seed.

    Returns:
        The loss; None if there is no seed with which both were run.
    """
    import numpy as np

    shared = sorted(base.keys() & candidate.keys())
    if not shared:
        return None
    by_seed = np.array([candidate[r].score - base[r].score for r in shared])
    mean = -float(by_seed.mean())
    if len(shared) == 1:
        return Loss(mean, math.nan, 1)
    if all(len(e[r].jackknife_scores) > 1 for e in (base, candidate) for r in shared):
        table = np.array([contributions(candidate[r]) - contributions(base[r]) for r in shared])
        test = crossed_test_of(by_seed, table)
        return Loss(mean, test.error, len(shared), table.shape[1], test.example_variance / table.shape[1])
    error = float(by_seed.std(ddof=1)) / math.sqrt(len(shared))
    return Loss(mean, error, len(shared))


def contributions(evaluation: Evaluation) -> np.ndarray[Any, Any]:
    """Return the jackknife pseudo-value of each group of examples, [groups]: the group's contribution to the score."""
    import numpy as np

    left_out = np.array(evaluation.jackknife_scores)
    return np.asarray(len(left_out) * evaluation.score - (len(left_out) - 1) * left_out)
