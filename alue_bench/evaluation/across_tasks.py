"""Statistics over several tasks: the mean change of a strategy, with a two-level bootstrap, and performance profiles.

A strategy may lose a little on every task, too little on each one to be significant there. The question over all tasks
is different: how much does the strategy change the score on a task of this kind? For each task there are a few seeds,
and for each seed the difference between the strategy's score and the baseline's score. Tasks and seeds are both random:

    difference of seed s on task t = mean change + effect of task t + effect of seed s on task t

**The interval.** The bootstrap draws tasks with replacement, and for every drawn task its seeds with replacement. Task
means vary between tasks also because each is a mean over few seeds. Plain resampling on both levels would count this
variation twice. The effects of tasks are therefore shrunk, and both levels are scaled to their unbiased variances
(Carpenter, Goldstein & Rasbash 2003, A novel bootstrap procedure for assessing the relationship between class size and
achievement). If the estimated variance between tasks is below zero, it counts as zero. The standard deviation of the
resampled statistic is its standard error; the interval uses Student's t with one degree of freedom less than there are
tasks. Percentiles of the bootstrap are not used: with three to five tasks they cannot reach 95 %.

**What it assumes.** The tasks are a random sample of the tasks that the conclusion is about, and independent of each
other; seeds are independent within and between tasks; the change of a task is about as often above the mean as below
it. Every task counts the same, whatever its number of test examples or seeds. With fewer than `MIN_TASKS` tasks, no
conclusion about other tasks is possible, and a ValueError is raised.

**The interquartile mean** (IQM) is the mean of the middle half of the tasks. A single task with an extreme change
moves it less than the mean (Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice).

**The performance profile** is the share of tasks on which a strategy's score is within a distance of the best score of
any strategy, as a function of the distance (Dolan & Moré 2002, Benchmarking optimization software with performance
profiles; there with ratios of times).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.intervals import LEVEL, Estimate
from alue_bench.evaluation.ratios import Ratio

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MIN_TASKS = 3
"""The smallest number of tasks for a statement across tasks."""
RESAMPLES = 2000
"""The number of bootstrap resamples. The Monte-Carlo error of a standard error is then 1.6 %."""
TIE_WIDTH = 0.0005
"""The largest change of a score that counts as a tie; tables with three decimal places do not show such a change."""


@dataclass(frozen=True)
class MeanOverTasks:
    """The mean and the interquartile mean of a value over tasks, with their confidence intervals."""

    mean: Estimate
    """The mean; `Estimate.values` is the number of tasks."""
    iqm: Estimate
    """The mean of the middle half of the tasks."""


@dataclass(frozen=True)
class WinsTiesLosses:
    """The numbers of tasks on which a strategy's mean score is above, nearly equal to and below the baseline's."""

    wins: int
    ties: int
    losses: int


def interquartile_mean(values: Array) -> Array:
    """Return the mean of the middle half of the values along the last axis.

    If the number of values is not a multiple of four, the values at the edges of the middle half are weighted by the
    part that lies inside it.

    Args:
        values: The values, [..., n].

    Returns:
        The means, [...].
    """
    import numpy as np

    size = values.shape[-1]
    edges = np.clip(np.arange(size + 1) / size, 0.25, 0.75)
    return np.asarray(np.sort(values, axis=-1) @ (2 * np.diff(edges)))


def resampled_tasks(values: Sequence[Sequence[float]], *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Draw bootstrap resamples of the tasks' means, on the two levels of tasks and seeds.

    Args:
        values: For each task the values of its seeds, such as differences of scores; at least one value for each task.
        resamples: The number of resamples.
        seed: The seed of the draws.

    Returns:
        The resampled means, [resamples, tasks].
    """
    import numpy as np

    tasks, most = len(values), max(map(len, values))
    drawn, shares = _draws(resamples, tasks, most, seed)
    counts = np.array([len(of_task) for of_task in values])
    means = np.array([np.mean(of_task) for of_task in values])
    residuals = np.zeros((tasks, most))  # [tasks, seeds], zeros after the seeds of a task
    for task, of_task in enumerate(values):
        if len(of_task) > 1:  # scaled so that their mean square is the unbiased variance
            scale = math.sqrt(len(of_task) / (len(of_task) - 1))
            residuals[task, : len(of_task)] = scale * (np.asarray(of_task) - means[task])
    shift = means - means.mean()
    shift = shift * _shrinkage(means, (residuals**2).sum(axis=1) / counts**2)
    result = means.mean() + shift[drawn]
    drawn_seeds = (shares * counts[drawn][..., None]).astype("int64")
    drawn_residuals = residuals[drawn[..., None], drawn_seeds] * (np.arange(most) < counts[drawn][..., None])
    return np.asarray(result + drawn_residuals.sum(axis=-1) / counts[drawn])


@lru_cache(maxsize=4)
def _draws(resamples: int, tasks: int, max_seeds: int, seed: int) -> tuple[Array, Array]:
    """Draw the tasks of each resample, and random numbers by which the seeds of the drawn tasks will be selected.

    The draws are cached, because they are the same for all strategies with the same numbers of tasks and seeds.

    Args:
        resamples: The number of resamples.
        tasks: The number of tasks.
        max_seeds: The largest number of seeds of a task.
        seed: The seed of the draws.

    Returns:
        The indices of the drawn tasks, [resamples, tasks], and `max_seeds` random numbers for each of them, from 0 to
        below 1, [resamples, tasks, max_seeds].
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    return rng.integers(0, tasks, (resamples, tasks)), rng.random((resamples, tasks, max_seeds))


def _shrinkage(means: Array, seed_variances: Array) -> float:
    """Return the factor that scales the deviations of task means to the estimated variance between tasks.

    The mean square of the scaled deviations is the unbiased estimate of this variance.

    Args:
        means: The mean of each task, [tasks].
        seed_variances: The variance of each task's mean that is due to its seeds, [tasks]; 0 for a task with one seed,
            whose variation over seeds then counts as variation between tasks.
    """
    import numpy as np

    tasks = len(means)
    total = float(np.var(means, ddof=1)) if tasks > 1 else 0.0
    if not total:
        return 0.0
    between = max(0.0, total - float(seed_variances.mean()))
    return math.sqrt(between / total * tasks / max(1, tasks - 1))


def mean_over_tasks(values: Sequence[Sequence[float]], *, resamples: int = RESAMPLES, seed: int = 0) -> MeanOverTasks:
    """Return the mean and the interquartile mean over tasks, with intervals of the two-level bootstrap.

    Args:
        values: For each task the finite values of its seeds, such as differences from the baseline's score.
        resamples: The number of bootstrap resamples.
        seed: The seed of the bootstrap.

    Raises:
        ValueError: There are fewer than MIN_TASKS tasks, or a task has no value.
    """
    import numpy as np

    _check(values)
    drawn = resampled_tasks(values, resamples=resamples, seed=seed)
    means = np.array([np.mean(of_task) for of_task in values])
    return MeanOverTasks(
        mean=_estimate(float(means.mean()), drawn.mean(axis=1), len(values)),
        iqm=_estimate(float(interquartile_mean(means)), interquartile_mean(drawn), len(values)),
    )


def geometric_mean_over_tasks(ratios: Sequence[Sequence[float]], *, resamples: int = RESAMPLES, seed: int = 0) -> Ratio:
    """Return the geometric mean over tasks of ratios such as speed-ups, with an interval of the two-level bootstrap.

    Args:
        ratios: For each task the ratios of its seeds, finite and positive.
        resamples: The number of bootstrap resamples.
        seed: The seed of the bootstrap.

    Raises:
        ValueError: There are fewer than MIN_TASKS tasks, or a task has no ratio.
    """
    logarithms = [[math.log(ratio) for ratio in of_task] for of_task in ratios]
    return Ratio.of_logarithms(mean_over_tasks(logarithms, resamples=resamples, seed=seed).mean)


def _check(values: Sequence[Sequence[float]]) -> None:
    if len(values) < MIN_TASKS:
        raise ValueError(f"{len(values)} tasks: a statement across tasks needs at least {MIN_TASKS}")
    if not all(len(of_task) for of_task in values):
        raise ValueError("a task has no value; leave it out")


def _estimate(value: float, drawn: Array, tasks: int) -> Estimate:
    """Return a statistic with a t-interval, whose standard error is the standard deviation of the resampled statistic.

    Args:
        value: The statistic.
        drawn: The statistic of each resample, [resamples].
        tasks: The number of tasks.
    """
    from scipy.special import stdtrit

    return Estimate(value, float(stdtrit(tasks - 1, (1 + LEVEL) / 2)) * float(drawn.std(ddof=1)), tasks)


def wins_ties_losses(changes: Sequence[float], *, tie: float = TIE_WIDTH) -> WinsTiesLosses:
    """Count the tasks on which a strategy's score is above, nearly equal to and below the baseline's score.

    Args:
        changes: The strategy's mean score minus the baseline's mean score on each task.
        tie: The largest absolute change that counts as a tie.
    """
    wins, losses = sum(change > tie for change in changes), sum(change < -tie for change in changes)
    return WinsTiesLosses(wins, len(changes) - wins - losses, losses)


def performance_profile(scores: Array, distances: Sequence[float]) -> Array:
    """Return the share of tasks on which each strategy's score is within a distance of the best strategy's score.

    Args:
        scores: The mean scores, [strategies, tasks]; nan if a strategy has no score on a task. A missing score counts
            as not within any distance.
        distances: The distances, in the unit of the scores.

    Returns:
        The shares, [strategies, distances].
    """
    import numpy as np

    distance_to_best = np.fmax.reduce(scores, axis=0) - scores  # [strategies, tasks]
    # A distance of 0.02 includes a score that is 0.02 lower, whatever the rounding of the subtraction.
    return np.asarray((distance_to_best[..., None] <= np.asarray(distances) + 1e-9).mean(axis=1))
