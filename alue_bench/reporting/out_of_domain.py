"""The changes of score against a baseline strategy, in domain and out of domain.

In domain, a trained model is scored on the test split of its own task; out of domain, on the test split of another task
(option `--also-test`). The runs are those of one comparison (`ComparisonBlock`). The changes in and out of domain are
of the same metric and against the same baseline, so that they can be compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import AlueBenchError
from alue_bench.evaluation.additive import Additive, additive
from alue_bench.evaluation.domain_change import DomainChange, contrast, domain_change
from alue_bench.evaluation.intervals import Estimate, estimate, holm
from alue_bench.evaluation.predictions import GoldAndPredicted
from alue_bench.evaluation.significance import MIN_SEEDS
from alue_bench.reporting.comparison import ComparisonBlock, LoadTargets, Run, paired_runs
from alue_bench.running.elsewhere import PREFIX
from alue_bench.tracking.scores_elsewhere import digests_in

if TYPE_CHECKING:
    import pandas as pd

LoadTargetsElsewhere = Callable[[str, bool, str], GoldAndPredicted | None]
"""A function that reads the gold and predicted labels of a run on another task, such as
`tracking.reading.read_targets_elsewhere`. It takes the run's id, whether an example may have several labels, and the
name of the other task. It returns None if the run has no predictions on this task."""


@dataclass(frozen=True, kw_only=True)
class StrategyOutOfDomain:
    """The mean scores of a strategy in and out of domain, and its changes against the baseline."""

    strategy: str
    seeds: int
    inside: Estimate | None
    """The score on the task's own test split; None if it is undefined."""
    outside: Estimate | None
    """The score on the other task's test split; None if it is undefined."""
    change_inside: float | None = None
    """The mean difference from the baseline's score in domain, over the seeds with which both ran. None for the
    baseline itself, and without such seeds."""
    change_outside: float | None = None
    test: DomainChange | None = None
    """The test of whether the change out of domain differs from that in domain; None if it was not tested."""
    p_corrected: float | None = None
    """The p-value of `test`, corrected for the number of tests in all tables (Holm 1979); None without a test."""
    reason: str = ""
    """The reason why there is no test; empty if there is one, and for the baseline itself."""


@dataclass(frozen=True, kw_only=True)
class OutOfDomain:
    """The results of strategies for one task and model, in domain and on the test split of one other task."""

    task: str
    elsewhere: str
    """The name of the other task."""
    model: str
    metric: str
    baseline: str
    rows: tuple[StrategyOutOfDomain, ...]
    examples: int
    """The number of scored test examples of the other task."""
    left_out: int
    """The number of test examples of the other task that are not scored, since their gold label does not correspond to
    any label of the trained task."""
    trivial_inside: float | None
    """The score in domain of a baseline without a model; None if it is not known for this metric."""
    trivial_outside: float | None
    notes: tuple[str, ...] = ()


def out_of_domain(
    blocks: Iterable[ComparisonBlock], frame: pd.DataFrame, load: LoadTargets, load_elsewhere: LoadTargetsElsewhere
) -> list[OutOfDomain]:
    """Return the results in and out of domain for each comparison and each other task on which its models were scored.

    Args:
        blocks: The comparisons.
        frame: The frame of their runs, one row per run.
        load: The function that reads a run's predictions on the test split of the trained task.
        load_elsewhere: The function that reads a run's predictions on another task.
    """
    if "also_test" not in frame.columns or not frame["also_test"].notna().any():
        return []
    runs = {str(run["run_id"]): run for run in frame.to_dict("records")}
    return _with_corrected_p_values([table for block in blocks for table in _tables(block, runs, load, load_elsewhere)])


def _tables(
    block: ComparisonBlock, runs: Mapping[str, Run], load: LoadTargets, load_elsewhere: LoadTargetsElsewhere
) -> list[OutOfDomain]:
    block_runs = [runs[run_id] for row in block.rows for run_id in row.run_ids]
    names = sorted({name for run in block_runs for name in digests_in(run["also_test"])})
    tables = (_Scored(block, name, runs, load, load_elsewhere).table() for name in names)
    return [table for table in tables if table is not None]


class _Scored:
    """The runs of a comparison that were scored on one other task, with the same rows and labels."""

    def __init__(
        self,
        block: ComparisonBlock,
        elsewhere: str,
        runs: Mapping[str, Run],
        load: LoadTargets,
        load_elsewhere: LoadTargetsElsewhere,
    ) -> None:
        """Select the runs that were scored on the same rows and labels of the other task.

        If runs were scored on different rows or labels, only the runs with the most frequent rows and labels are kept.
        """
        self._block, self._elsewhere = block, elsewhere
        self._load, self._load_elsewhere = load, load_elsewhere
        self._metric = block.metric.removeprefix("test/")
        self._column = f"{PREFIX}{elsewhere}/{self._metric}"
        scored = {
            row.strategy: [
                run for run in (runs[run_id] for run_id in row.run_ids) if elsewhere in digests_in(run["also_test"])
            ]
            for row in block.rows
        }
        digests = Counter(
            digests_in(run["also_test"])[elsewhere] for strategy_runs in scored.values() for run in strategy_runs
        )
        (self._digest, kept), *_ = digests.most_common(1)
        self._others = digests.total() - kept
        self._runs = {
            strategy: [run for run in strategy_runs if digests_in(run["also_test"])[elsewhere] == self._digest]
            for strategy, strategy_runs in scored.items()
        }
        self._read: dict[tuple[str, str], Additive] = {}

    def table(self) -> OutOfDomain | None:
        """Return the results of all strategies; None if no run has a value of the metric on the other task."""
        all_runs = [run for strategy_runs in self._runs.values() for run in strategy_runs]
        if not any(math.isfinite(float(run.get(self._column, math.nan))) for run in all_runs):
            return None
        block, name = self._block, f"{PREFIX}{self._elsewhere}"
        base = self._runs.get(block.baseline, [])
        notes = []
        if self._others:
            notes.append(f"{self._others} runs were scored on other rows or labels of {self._elsewhere}: left out")
        lacking = sum(len(row.run_ids) for row in block.rows) - len(all_runs) - self._others
        if lacking:
            notes.append(f"{lacking} runs were not scored on {self._elsewhere}, and are left out")
        if block.unlearnt is not None:
            notes.append(f"{block.baseline} has learnt nothing in domain, so that changes against it mean nothing")
        primary = self._metric == all_runs[-1].get("primary_metric")
        return OutOfDomain(
            task=block.task,
            elsewhere=self._elsewhere,
            model=block.model,
            metric=self._metric,
            baseline=block.baseline,
            rows=tuple(
                self._row(strategy, strategy_runs, base)
                for strategy, strategy_runs in self._runs.items()
                if strategy_runs
            ),
            examples=int(_first_finite(all_runs, f"{name}/rows") or 0),
            left_out=int(_first_finite(all_runs, f"{name}/left_out_rows") or 0),
            trivial_inside=block.trivial_score,
            trivial_outside=_first_finite(all_runs, f"{name}/trivial_score") if primary else None,
            notes=tuple(notes),
        )

    def _row(self, strategy: str, runs: Sequence[Run], base: Sequence[Run]) -> StrategyOutOfDomain:
        metrics = (self._block.metric, self._column)
        inside, outside = (estimate([_value(run, metric) for run in runs]) for metric in metrics)
        row = StrategyOutOfDomain(strategy=strategy, seeds=len(runs), inside=inside, outside=outside)
        if strategy == self._block.baseline:
            return row
        pairs = [
            (run, other)
            for run, other in paired_runs(runs, base)
            if all(math.isfinite(_value(paired_run, metric)) for paired_run in (run, other) for metric in metrics)
        ]
        if not pairs:
            return replace(row, reason=f"no seed in common with {self._block.baseline}")
        changes = [sum(_value(a, m) - _value(b, m) for a, b in pairs) / len(pairs) for m in metrics]
        row = replace(row, change_inside=changes[0], change_outside=changes[1])
        if self._block.folds:
            return replace(row, reason="no test of a cross-validation, whose folds share train examples")
        if len(pairs) < MIN_SEEDS:
            return replace(row, reason=f"a test needs {MIN_SEEDS} seeds")
        try:
            contrasts = [
                contrast(
                    [self._test_results(a, where) for a, _ in pairs], [self._test_results(b, where) for _, b in pairs]
                )
                for where in ("inside", "outside")
            ]
            return replace(row, test=domain_change(*contrasts))
        except (AlueBenchError, ValueError) as error:
            return replace(row, reason=str(error))

    def _test_results(self, run: Run, where: str) -> Additive:
        """Return a run's results on a test split in the form that the significance test needs.

        The results of the baseline's runs are cached, since every strategy is compared with them.

        Args:
            run: The run, a row of the frame of runs.
            where: "inside" for the test split of the trained task, "outside" for that of the other task.

        Raises:
            ValueError: There are no predictions, or no test over examples for the metric.
            AlueBenchError: The predictions cannot be read.
        """
        key = (str(run["run_id"]), where)
        if key in self._read:
            return self._read[key]
        prefix = "test/" if where == "inside" else f"{PREFIX}{self._elsewhere}/"
        multilabel = math.isfinite(_value(run, f"{prefix}jaccard_samples"))
        if where == "inside":
            targets: GoldAndPredicted | None = self._load(key[0], multilabel)
        else:
            targets = self._load_elsewhere(key[0], multilabel, self._elsewhere)
        if targets is None:
            raise ValueError(f"run {key[0]} has no predictions on {self._elsewhere}")
        system = additive(self._metric, targets.gold, targets.predicted, targets.labels)
        if system is None:
            raise ValueError(f"there is no test of {self._metric} over examples")
        if run["strategy"] == self._block.baseline:
            self._read[key] = system
        return system


def _with_corrected_p_values(tables: list[OutOfDomain]) -> list[OutOfDomain]:
    """Return the tables with p-values that are corrected for the number of tests in all of them."""
    tested = [row for table in tables for row in table.rows if row.test and math.isfinite(row.test.p_value)]
    values = iter(holm([row.test.p_value for row in tested if row.test]))
    corrected = {id(row): value for row, value in zip(tested, values, strict=True)}
    return [
        replace(table, rows=tuple(replace(row, p_corrected=corrected.get(id(row))) for row in table.rows))
        for table in tables
    ]


def _value(run: Run, metric: str) -> float:
    value: Any = run.get(metric, math.nan)
    return math.nan if value is None else float(value)


def _first_finite(runs: Sequence[Run], metric: str) -> float | None:
    return next((value for run in runs if math.isfinite(value := _value(run, metric))), None)
