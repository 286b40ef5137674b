"""Scores of runs, and how much a candidate loses against full fine-tuning.

Two things make a measured difference of scores uncertain: other seeds give other scores, and other examples would.
Seeds are paired, as the same seed gives the same head and the same order of the data. Their variance is estimated over
all candidates that ran with several seeds, and moderated by a prior, as single variances of three seeds are worth
little (Smyth 2004, Linear models and empirical Bayes methods). The variance over examples is that of the
delete-a-group jackknife (Efron & Tibshirani 1993, chapter 11; Kott 2001), which needs no random numbers, works for
every metric that is a smooth function of its examples, and takes into account that both settings saw the same ones.
What seeds and examples do together is counted in both: the standard error is a little too large rather than too small.
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
"""Into how many groups the dev examples are dealt for the jackknife."""
PRIOR_SD = 0.02
"""Of one run's score over seeds, as a part of the score: what is believed before any seed was repeated."""
PRIOR_WEIGHT = 4.0
"""How many degrees of freedom that belief is worth."""
SMALLEST_SCORE = 1e-6


@dataclass(frozen=True)
class Evaluation:
    """The dev score of one run."""

    candidate: str
    replicate: int
    """Which seed, counted from 0."""
    score: float
    left_out: tuple[float, ...] = ()
    """The scores without the first, second, … group of examples; the groups are the same in every run."""
    short: bool = False
    """Whether the run had fewer epochs than the setting in question."""
    trivial: float = math.nan
    """The score of ignoring the text on the same examples; nan where it was not recorded."""
    trivial_error: float = math.nan
    """Standard error, over examples, of how far the score lies above that."""


@dataclass(frozen=True)
class Loss:
    """How much lower a candidate's mean score is than full fine-tuning's, in units of the score."""

    mean: float
    standard_error: float
    degrees: float
    """Of freedom, for the t distribution."""
    pairs: int
    """Seeds that both were run with."""

    def upper(self, level: float) -> float:
        """What the loss exceeds with a probability of `level` at most."""
        return self.mean + self._reach(level)

    def lower(self, level: float) -> float:
        """What the loss falls below with a probability of `level` at most."""
        return self.mean - self._reach(level)

    def _reach(self, level: float) -> float:
        from scipy.stats import t

        return float(t.ppf(1 - level, self.degrees)) * self.standard_error


@dataclass(frozen=True)
class SeedNoise:
    """The variance of paired differences over seeds."""

    variance: float
    degrees: float

    @property
    def of_one_run(self) -> float:
        return self.variance / 2


def left_out_scores(
    count: int, score: Callable[[np.ndarray[Any, Any]], float], groups: int = GROUPS
) -> tuple[float, ...]:
    """The score of all but one group of `count` examples, group by group; `score` is given the indices kept [m].

    Example i belongs to group i mod `groups`, so that runs on the same split have the same groups.
    """
    import numpy as np

    group = np.arange(count) % min(groups, count)
    return tuple(defined(score(np.flatnonzero(group != left))) for left in range(min(groups, count)))


def left_out_by_sums(
    parts: np.ndarray[Any, Any], value: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]], groups: int = GROUPS
) -> tuple[float, ...]:
    """The same for a metric of sums over examples: `parts` [n, p], and `value` from sums [..., p] to scores [...]."""
    import numpy as np

    groups = min(groups, len(parts))
    kept = parts.sum(axis=0) - np.stack([parts[group::groups].sum(axis=0) for group in range(groups)])
    return tuple(defined(float(score)) for score in value(kept))


def defined(score: float) -> float:
    """A score that is not a number (a constant prediction has no correlation) explains nothing: it counts as 0."""
    return score if math.isfinite(score) else 0.0


def by_replicate(evaluations: Iterable[Evaluation], candidate: str) -> dict[int, Evaluation]:
    """Whole runs of a candidate."""
    return {e.replicate: e for e in evaluations if e.candidate == candidate and not e.short}


def learning_of(evaluations: Mapping[int, Evaluation]) -> Learning | None:
    """Judge whole runs against the trivial score; None where that was not recorded."""
    runs = list(evaluations.values())
    return learning([e.score for e in runs], [e.trivial for e in runs], [e.trivial_error for e in runs])


def mean_score(evaluations: Mapping[int, Evaluation]) -> float:
    return sum(e.score for e in evaluations.values()) / len(evaluations)


def seed_noise(evaluations: Sequence[Evaluation], reference: str) -> SeedNoise:
    """Pooled over all candidates with two pairs or more, and moderated by the prior."""
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
    """None where no seed was run with both."""
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
    # Welch and Satterthwaite's degrees of freedom of a sum of two estimated variances
    degrees = variance**2 / (of_seeds**2 / noise.degrees + (of_examples**2 / (groups - 1) if groups > 1 else 0.0))
    return Loss(mean, math.sqrt(variance), degrees, len(shared))
