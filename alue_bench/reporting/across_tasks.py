"""The results of strategies across tasks, computed from a comparison of runs.

Tasks are combined only if their runs have the same model, data source, hardware and number of folds. For each task
there is one set of comparable runs: the one with the most strategies. A task on which the baseline learnt nothing is
left out, since a strategy cannot lose there. The statistics are those of `evaluation.across_tasks`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.across_tasks import (
    FEWEST_TASKS,
    OverTasks,
    WinsTiesLosses,
    geometric_mean_over_tasks,
    over_tasks,
    performance_profile,
    wins_ties_losses,
)
from alue_bench.evaluation.ratios import Ratio
from alue_bench.reporting.comparison import ComparisonBlock, Run, StrategyResult, paired_runs
from alue_bench.reporting.numbers import several
from alue_bench.reporting.subjects import APART

if TYPE_CHECKING:
    import pandas as pd

DISTANCES = (0.0, 0.01, 0.02, 0.05, 0.1)
"""The distances from the best strategy for which tables show the share of tasks."""
NEEDED = ("run_id", "init_seed", "data_seed", "repeat", "fold")
"""The columns of the frame of runs that are read, besides the metrics."""


@dataclass(frozen=True, kw_only=True)
class StrategyAcross:
    """The results of one strategy across tasks, in comparison with the baseline."""

    strategy: str
    changes: Mapping[str, float]
    """The mean change of the score against the baseline, over common seeds, for each task."""
    change: OverTasks | None
    """The change of the score, in units of the tasks' metrics; None for the baseline itself."""
    share: OverTasks | None
    """The change as a share of what the baseline learnt (its score minus the trivial score); −0.02 is a loss of 2 %.
    None for the baseline, and if the trivial score of a task is unknown."""
    counts: WinsTiesLosses | None
    profile: tuple[float, ...]
    """The share of tasks on which the score is within each of the `distances` of the best strategy's score."""
    speed_up: Ratio | None
    """The geometric mean over tasks of the baseline's training time divided by the strategy's; None for the baseline,
    and if fewer than FEWEST_TASKS tasks have training times."""
    across_sessions: bool
    """True if the speed-up of a task compares training times of different sessions."""


@dataclass(frozen=True, kw_only=True)
class AcrossTasks:
    """The results of strategies across the tasks of one model."""

    model: str
    baseline: str
    conditions: Mapping[str, Any]
    """The values of the conditions in `APART`."""
    metrics: Mapping[str, str]
    """The metric of each task, such as f1_macro; its keys are the tasks that are combined."""
    distances: tuple[float, ...]
    """The distances of the performance profile."""
    relative: bool
    """True if the distances are shares of what the baseline learnt; False if they are in units of the metrics, since a
    trivial score is unknown."""
    rows: tuple[StrategyAcross, ...]
    """The results of the strategies, the baseline first."""
    notes: tuple[str, ...]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks that are combined."""
        return tuple(self.metrics)


def across_tasks(blocks: Iterable[ComparisonBlock], frame: pd.DataFrame) -> list[AcrossTasks]:
    """Return the results across tasks, for each model (and data source, hardware and number of folds).

    A model with fewer than FEWEST_TASKS tasks has no results, nor has a strategy that ran on fewer tasks.

    Args:
        blocks: The blocks of a comparison. Each holds the strategies for one task and model under one set of
            conditions.
        frame: The frame of the compared runs.
    """
    groups: dict[tuple[Any, ...], list[ComparisonBlock]] = {}
    for block in blocks:
        if not block.first_look and len(block.rows) > 1 and block.rows[0].strategy == block.baseline:
            key = (block.model, *(block.conditions[name] for name in APART))
            groups.setdefault(key, []).append(block)
    groups = {key: group for key, group in groups.items() if len({block.task for block in group}) >= FEWEST_TASKS}
    if not groups:
        return []
    metrics = {block.metric for group in groups.values() for block in group}
    columns = [name for name in (*NEEDED, *sorted(metrics)) if name in frame.columns]
    runs = {run["run_id"]: run for run in frame[columns].to_dict("records")}
    results = (_combined(group, runs) for _, group in sorted(groups.items(), key=lambda item: str(item[0])))
    return [result for result in results if result is not None]


@dataclass(frozen=True)
class _OnTask:
    """A strategy's paired results on one task."""

    row: StrategyResult
    differences: list[float]
    """The difference from the baseline's score, for each seed that both have."""
    score: float
    """The mean score; nan if it is undefined, or only known from the runs that were used to choose the strategy."""


def _combined(group: Sequence[ComparisonBlock], runs: Mapping[str, Run]) -> AcrossTasks | None:
    """Combine the tasks of one model; None if too few tasks are left.

    Args:
        group: The sets of comparable runs of the model, several for a task with several sets of conditions.
        runs: The runs by their ids.
    """
    chosen: dict[str, ComparisonBlock] = {}
    for block in group:
        if block.task not in chosen or _size(block) > _size(chosen[block.task]):
            chosen[block.task] = block
    notes = []
    if len(group) > len(chosen):
        notes.append(f"{several(len(group) - len(chosen), 'set')} of runs under other conditions left out")
    learnt = {task: _learnt(block) for task, block in chosen.items()}
    unlearnt = [task for task, block in chosen.items() if block.unlearnt is not None or (learnt[task] or 1) <= 0]
    if unlearnt:
        notes.append(f"left out, since {group[0].baseline} did not learn: {', '.join(unlearnt)}")
    chosen = {task: block for task, block in chosen.items() if task not in unlearnt}
    often = Counter(block.conditions["train_digest"] for block in chosen.values())
    shared = [task for task, block in chosen.items() if (rows := block.conditions["train_digest"]) and often[rows] > 1]
    if shared:
        notes.append(f"trained on the same rows, so not independent (choose one with -t): {', '.join(shared)}")
    if len(chosen) < FEWEST_TASKS:
        return None
    relative = all(learnt[task] is not None for task in chosen)
    unit = {task: (learnt[task] or 1.0) if relative else 1.0 for task in chosen}
    by_strategy = _by_strategy(chosen, runs)
    baseline = group[0].baseline
    few = [name for name, on in by_strategy.items() if name != baseline and _tasks_of(on) < FEWEST_TASKS]
    if few:
        notes.append(f"on fewer than {FEWEST_TASKS} tasks, left out: {', '.join(few)}")
    kept = {name: on for name, on in by_strategy.items() if name not in few}
    if len(kept) < 2:
        return None
    profiles = _profiles(kept, list(chosen), unit)
    block = next(iter(chosen.values()))
    return AcrossTasks(
        model=block.model,
        baseline=baseline,
        conditions={name: block.conditions[name] for name in APART},
        metrics={task: one.metric.removeprefix("test/") for task, one in chosen.items()},
        distances=DISTANCES,
        relative=relative,
        rows=tuple(
            _across(name, {} if name == baseline else on, unit if relative else None, profiles[name])
            for name, on in kept.items()
        ),
        notes=tuple(notes),
    )


def _size(block: ComparisonBlock) -> tuple[int, int]:
    return len(block.rows), sum(len(row.run_ids) for row in block.rows)


def _learnt(block: ComparisonBlock) -> float | None:
    """Return the baseline's score minus the trivial score; None if one of them is unknown."""
    score = block.rows[0].score
    return None if score is None or block.trivial_score is None else score.mean - block.trivial_score


def _by_strategy(chosen: Mapping[str, ComparisonBlock], runs: Mapping[str, Run]) -> dict[str, dict[str, _OnTask]]:
    """Return each strategy's results by task; the baseline's first, the others in the order of the first task."""
    by_strategy: dict[str, dict[str, _OnTask]] = {}
    for task, block in chosen.items():
        base = [runs[run_id] for run_id in block.rows[0].run_ids]
        for row in block.rows:
            pairs = paired_runs([runs[run_id] for run_id in row.run_ids], base) if row.difference else []
            differences = [_score(ours, block.metric) - _score(theirs, block.metric) for ours, theirs in pairs]
            finite = [difference for difference in differences if math.isfinite(difference)]
            # The scores that chose a strategy are too high on average, and would make the others look worse.
            score = math.nan if row.score is None or row.unconfirmed else row.score.mean
            by_strategy.setdefault(row.strategy, {})[task] = _OnTask(row, finite, score)
    return by_strategy


def _score(run: Run, metric: str) -> float:
    return float(run.get(metric, math.nan))


def _tasks_of(on: Mapping[str, _OnTask]) -> int:
    return sum(bool(one.differences) for one in on.values())


def _profiles(
    kept: Mapping[str, Mapping[str, _OnTask]], tasks: Sequence[str], unit: Mapping[str, float]
) -> dict[str, tuple[float, ...]]:
    """Return the performance profile of each strategy, at the DISTANCES.

    Args:
        kept: The results by strategy and task.
        tasks: The tasks.
        unit: For each task the difference of scores that counts as 1.
    """
    import numpy as np

    scores = np.array(
        [[on[task].score / unit[task] if task in on else math.nan for task in tasks] for on in kept.values()]
    )
    shares = performance_profile(scores, DISTANCES)
    return {name: tuple(map(float, shares[place])) for place, name in enumerate(kept)}


def _across(
    strategy: str, on: Mapping[str, _OnTask], unit: Mapping[str, float] | None, profile: tuple[float, ...]
) -> StrategyAcross:
    """Return the results of one strategy across tasks.

    Args:
        strategy: The name of the strategy.
        on: Its results by task; empty for the baseline.
        unit: For each task what the baseline learnt; None if it is unknown.
        profile: The strategy's performance profile.
    """
    differences = {task: one.differences for task, one in on.items() if one.differences}
    changes = {task: sum(values) / len(values) for task, values in differences.items()}
    times = [one.row.times for one in on.values() if one.row.times and one.row.times.ratios]
    across = any(time.across_sessions for time in times)
    speed_up = geometric_mean_over_tasks([time.ratios for time in times]) if len(times) >= FEWEST_TASKS else None
    if speed_up and across:  # the difference between two sessions is common to all tasks: resampling cannot show it
        speed_up = replace(speed_up, interval=None)
    relative = unit and [[value / unit[task] for value in values] for task, values in differences.items()]
    return StrategyAcross(
        strategy=strategy,
        changes=changes,
        change=over_tasks(list(differences.values())) if differences else None,
        share=over_tasks(relative) if relative else None,
        counts=wins_ties_losses(list(changes.values())) if differences else None,
        profile=profile,
        speed_up=speed_up,
        across_sessions=across,
    )
