"""The results of strategies across tasks, computed from a comparison of runs.

Tasks are combined only if their runs have the same model, data source, hardware and number of folds. If a task has
several sets of comparable runs, the set with the most strategies is used. A task on which the baseline learnt nothing
is left out, since no strategy can lose anything there. The statistics are computed by `evaluation.across_tasks`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.across_tasks import (
    MIN_TASKS,
    MeanOverTasks,
    WinsTiesLosses,
    geometric_mean_over_tasks,
    mean_over_tasks,
    performance_profile,
    wins_ties_losses,
)
from alue_bench.evaluation.ratios import Ratio
from alue_bench.reporting.comparison import ComparisonBlock, Run, StrategyResult, paired_runs
from alue_bench.reporting.numbers import number_with_noun
from alue_bench.reporting.subjects import BLOCK_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

DISTANCES = (0.0, 0.01, 0.02, 0.05, 0.1)
"""The distances from the best score. For each of them, a performance profile has the share of tasks on which a strategy
is at most this far below the best score."""
NEEDED = ("run_id", "init_seed", "data_seed", "repeat", "fold")
"""The columns of the frame of runs that this module reads, besides the metrics."""


@dataclass(frozen=True, kw_only=True)
class StrategyAcross:
    """The results of one strategy across tasks, in comparison with the baseline."""

    strategy: str
    changes: Mapping[str, float]
    """The mean change of the score against the baseline, over the seeds with which both ran, for each task."""
    change: MeanOverTasks | None
    """The mean and the interquartile mean of `changes`, in the units of the metrics; None for the baseline itself."""
    share: MeanOverTasks | None
    """The change as a share of what the baseline learnt; −0.02 is a loss of 2 %. What it learnt is its score minus the
    trivial score, which is the score of a baseline without a model. None for the baseline itself, and if the
    trivial score of a task is unknown."""
    counts: WinsTiesLosses | None
    profile: tuple[float, ...]
    """For each of `AcrossTasks.distances`, the share of tasks on which the score is at most this far below the best. A
    task on which the strategy has no score counts as farther away."""
    speed_up: Ratio | None
    """The geometric mean over tasks of the baseline's training time divided by the strategy's; None for the baseline,
    and if fewer than MIN_TASKS tasks have training times."""
    across_sessions: bool
    """True if the speed-up on a task compares training times of different sessions (executions of a command)."""


@dataclass(frozen=True, kw_only=True)
class AcrossTasks:
    """The results of strategies across the tasks of one model."""

    model: str
    baseline: str
    conditions: Mapping[str, Any]
    """The data source, hardware and number of folds of the runs, by the names in `BLOCK_COLUMNS`."""
    metrics: Mapping[str, str]
    """The metric of each task, such as f1_macro; its keys are the tasks that are combined."""
    distances: tuple[float, ...]
    """The distances of the performance profile."""
    relative: bool
    """True if the distances are shares of what the baseline learnt; False if they are in units of the metrics,
    since the score of a baseline without a model is unknown for some task."""
    rows: tuple[StrategyAcross, ...]
    """The results of the strategies, the baseline first."""
    notes: tuple[str, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks that are combined."""
        return tuple(self.metrics)


def across_tasks(blocks: Iterable[ComparisonBlock], frame: pd.DataFrame) -> list[AcrossTasks]:
    """Return the results across tasks for each combination of model, data source, hardware and number of folds.

    A model is left out if the baseline was compared with another strategy on fewer than MIN_TASKS tasks. A strategy
    is left out if it has seeds in common with the baseline on fewer than MIN_TASKS tasks. Low-fidelity runs of a
    search are not used.

    Args:
        blocks: The blocks of a comparison. Each holds the strategies for one task and model under one set of
            conditions.
        frame: The frame of the compared runs, one row per run.
    """
    groups: dict[tuple[Any, ...], list[ComparisonBlock]] = {}
    for block in blocks:
        if not block.low_fidelity and len(block.rows) > 1 and block.rows[0].strategy == block.baseline:
            key = (block.model, *(block.conditions[name] for name in BLOCK_COLUMNS))
            groups.setdefault(key, []).append(block)
    groups = {key: group for key, group in groups.items() if len({block.task for block in group}) >= MIN_TASKS}
    if not groups:
        return []
    metrics = {block.metric for group in groups.values() for block in group}
    columns = [name for name in (*NEEDED, *sorted(metrics)) if name in frame.columns]
    runs = {run["run_id"]: run for run in frame[columns].to_dict("records")}
    results = (_combined(group, runs) for _, group in sorted(groups.items(), key=lambda item: str(item[0])))
    return [result for result in results if result is not None]


@dataclass(frozen=True)
class _TaskResult:
    """The result of a strategy on one task, with its differences from the baseline."""

    row: StrategyResult
    differences: list[float]
    """The difference from the baseline's score, for each seed (and fold) with which both ran."""
    score: float
    """The mean score; nan if it is undefined, or if the strategy or the baseline only has runs that were used to choose
    it."""


def _combined(group: Sequence[ComparisonBlock], runs: Mapping[str, Run]) -> AcrossTasks | None:
    """Return the results of one model across tasks; None if too few tasks, or only the baseline, are left.

    Args:
        group: The sets of comparable runs of the model. A task has several sets if its runs differ in conditions.
        runs: The runs by their ids.
    """
    chosen: dict[str, ComparisonBlock] = {}
    for block in group:
        if block.task not in chosen or _size(block) > _size(chosen[block.task]):
            chosen[block.task] = block
    notes = []
    if len(group) > len(chosen):
        notes.append(f"{number_with_noun(len(group) - len(chosen), 'set')} of runs under other conditions left out")
    learnt = {task: _learnt(block) for task, block in chosen.items()}
    unlearnt = [task for task, block in chosen.items() if block.unlearnt is not None or (learnt[task] or 1) <= 0]
    if unlearnt:
        notes.append(f"left out, since {group[0].baseline} did not learn: {', '.join(unlearnt)}")
    chosen = {task: block for task, block in chosen.items() if task not in unlearnt}
    often = Counter(block.conditions["train_digest"] for block in chosen.values())
    shared = [task for task, block in chosen.items() if (rows := block.conditions["train_digest"]) and often[rows] > 1]
    if shared:
        notes.append(f"trained on the same rows, so not independent (choose one with -t): {', '.join(shared)}")
    if len(chosen) < MIN_TASKS:
        return None
    relative = all(learnt[task] is not None for task in chosen)
    unit = {task: (learnt[task] or 1.0) if relative else 1.0 for task in chosen}
    by_strategy = _by_strategy(chosen, runs)
    baseline = group[0].baseline
    few = [name for name, on in by_strategy.items() if name != baseline and _number_of_tasks(on) < MIN_TASKS]
    if few:
        notes.append(f"on fewer than {MIN_TASKS} tasks, left out: {', '.join(few)}")
    included = {name: on for name, on in by_strategy.items() if name not in few}
    if len(included) < 2:
        return None
    profiles = _profiles(included, list(chosen), unit)
    block = next(iter(chosen.values()))
    return AcrossTasks(
        model=block.model,
        baseline=baseline,
        conditions={name: block.conditions[name] for name in BLOCK_COLUMNS},
        metrics={task: compared.metric.removeprefix("test/") for task, compared in chosen.items()},
        distances=DISTANCES,
        relative=relative,
        rows=tuple(
            _across(name, {} if name == baseline else on, unit if relative else None, profiles[name])
            for name, on in included.items()
        ),
        notes=tuple(notes),
    )


def _size(block: ComparisonBlock) -> tuple[int, int]:
    return len(block.rows), sum(len(row.run_ids) for row in block.rows)


def _learnt(block: ComparisonBlock) -> float | None:
    """Return the baseline's score minus that of a baseline without a model; None if either is unknown."""
    score = block.rows[0].score
    return None if score is None or block.trivial_score is None else score.mean - block.trivial_score


def _by_strategy(chosen: Mapping[str, ComparisonBlock], runs: Mapping[str, Run]) -> dict[str, dict[str, _TaskResult]]:
    """Return the result of each strategy on each task, by strategy and task.

    The baseline comes first. The other strategies have the order in which they appear in the tasks' comparisons.
    """
    by_strategy: dict[str, dict[str, _TaskResult]] = {}
    for task, block in chosen.items():
        base = [runs[run_id] for run_id in block.rows[0].run_ids]
        for row in block.rows:
            pairs = paired_runs([runs[run_id] for run_id in row.run_ids], base) if row.difference else []
            differences = [_score(ours, block.metric) - _score(theirs, block.metric) for ours, theirs in pairs]
            finite = [difference for difference in differences if math.isfinite(difference)]
            # Scores by which a strategy was chosen are too high on average, and would be unfair to other strategies.
            score = math.nan if row.score is None or row.unconfirmed else row.score.mean
            by_strategy.setdefault(row.strategy, {})[task] = _TaskResult(row, finite, score)
    return by_strategy


def _score(run: Run, metric: str) -> float:
    return float(run.get(metric, math.nan))


def _number_of_tasks(by_task: Mapping[str, _TaskResult]) -> int:
    return sum(bool(result.differences) for result in by_task.values())


def _profiles(
    kept: Mapping[str, Mapping[str, _TaskResult]], tasks: Sequence[str], unit: Mapping[str, float]
) -> dict[str, tuple[float, ...]]:
    """Return the performance profile of each strategy: a share of tasks for each distance in DISTANCES.

    Args:
        kept: The results by strategy and task.
        tasks: The names of the tasks.
        unit: For each task, the difference between two scores that counts as a distance of 1.
    """
    import numpy as np

    scores = np.array(
        [
            [by_task[task].score / unit[task] if task in by_task else math.nan for task in tasks]
            for by_task in kept.values()
        ]
    )
    shares = performance_profile(scores, DISTANCES)
    return {name: tuple(map(float, shares[position])) for position, name in enumerate(kept)}


def _across(
    strategy: str, by_task: Mapping[str, _TaskResult], unit: Mapping[str, float] | None, profile: tuple[float, ...]
) -> StrategyAcross:
    """Return the results of one strategy across tasks.

    Args:
        strategy: The name of the strategy.
        by_task: The strategy's results by task; empty for the baseline.
        unit: For each task what the baseline learnt (its score minus the trivial score); None if any is unknown.
        profile: The strategy's performance profile.
    """
    differences = {task: result.differences for task, result in by_task.items() if result.differences}
    changes = {task: sum(values) / len(values) for task, values in differences.items()}
    times = [result.row.times for result in by_task.values() if result.row.times and result.row.times.ratios]
    across = any(time.across_sessions for time in times)
    speed_up = geometric_mean_over_tasks([time.ratios for time in times]) if len(times) >= MIN_TASKS else None
    if speed_up and across:  # resampling tasks cannot reveal a difference in speed that is common to a whole session
        speed_up = replace(speed_up, interval=None)
    relative = unit and [[value / unit[task] for value in values] for task, values in differences.items()]
    return StrategyAcross(
        strategy=strategy,
        changes=changes,
        change=mean_over_tasks(list(differences.values())) if differences else None,
        share=mean_over_tasks(relative) if relative else None,
        counts=wins_ties_losses(list(changes.values())) if differences else None,
        profile=profile,
        speed_up=speed_up,
        across_sessions=across,
    )
