"""The number of seeds that a plan probably needs for a verdict, from the variances of finished runs.

The verdict in question is that the strategy's loss of score is within the margin. If the true loss is zero, this
verdict has a probability of 80 % with this number of seeds (`evaluation.significance.seeds_within_margin`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from alue_bench.contract.errors import AlueBenchError, UnavailableError
from alue_bench.contract.spec import RunSpec
from alue_bench.evaluation.margins import Margins
from alue_bench.evaluation.significance import MAX_SEEDS, MIN_SEEDS, CrossedTestResult, seeds_within_margin
from alue_bench.reporting.comparison import BASELINE, all_rows, compare
from alue_bench.reporting.numbers import decimal
from alue_bench.studies.invocation import StoreLocation
from alue_bench.tracking.connection import open_store
from alue_bench.tracking.reading import Results, read_results, read_targets

if TYPE_CHECKING:
    from alue_bench.evaluation.predictions import GoldAndPredicted

MAX_RUNS_READ = 60
"""The largest number of runs of one task and model whose predictions are read. Reading one takes some milliseconds."""
MAX_STRATEGIES = 3
"""The largest number of other strategies whose variances are used if no planned strategy has finished runs."""


@dataclass(frozen=True)
class NeededSeeds:
    """The number of seeds that a strategy that loses no score probably needs for the verdict "within the margin"."""

    strategy: str
    number: int | None
    """The number of seeds; None if more than `MAX_SEEDS` would be needed."""
    observed: int
    """The number of finished seeds from which the variances were estimated."""
    margin: float
    """The margin in the unit of the metric."""


@dataclass(frozen=True)
class SeedAdvice:
    """The numbers of seeds that the strategies probably need for a verdict on one task and model."""

    task: str
    model: str
    needed: tuple[NeededSeeds, ...] = field(default=())
    """The number of seeds for each strategy; empty if there are too few finished runs to estimate it."""

    def as_dict(self) -> dict[str, object]:
        """Return the values as JSON-like data."""
        return {"task": self.task, "model": self.model, "needed": [vars(one) for one in self.needed]}

    def sentence(self) -> str:
        """Return a sentence with the numbers of seeds, or with the reason why they are unknown."""
        where = f"{self.task}/{self.model}"
        if not self.needed:
            return (
                f"{where}: not known, since the store has no {MIN_SEEDS} common seeds of {BASELINE} and another "
                "strategy"
            )
        parts = [
            f"{f'about {one.number}' if one.number else f'more than {MAX_SEEDS} (the test set is too small)'} for "
            f"{one.strategy} (from {one.observed} finished)"
            for one in self.needed
        ]
        return f"{where}, margin {decimal(self.needed[0].margin, 4)}: {', '.join(parts)}"


def seeds_for_plan(specs: Iterable[RunSpec], store: StoreLocation, margins: Margins) -> list[SeedAdvice]:
    """Return the number of seeds that each task and model of a plan probably needs for a verdict.

    Args:
        specs: The planned runs. Runs of a cross-validation are left out, since their repetitions are folds, not seeds.
        store: The MLflow store and experiment with finished runs. Nothing is created if they do not exist.
        margins: The margin for each metric.
    """
    planned: dict[tuple[str, str, str], list[str]] = {}
    for spec in specs:
        if spec.strategy != BASELINE and spec.fold is None:
            planned.setdefault((spec.task, spec.model, spec.data.source), []).append(spec.strategy)
    if not planned:
        return []
    results = _finished_runs(store, sorted({task for task, _, _ in planned}))
    return [
        SeedAdvice(
            task, model, () if results is None else _needed_seeds(results, (task, model, source), wanted, margins)
        )
        for (task, model, source), wanted in planned.items()
    ]


def describe_seeds(advice: Sequence[SeedAdvice], margins: Margins) -> list[str]:
    """Return lines of text that state the numbers of seeds; an empty list if there is no advice."""
    if not advice:
        return []
    heading = f"seeds that would probably show a loss of zero to be within the margin ({margins}; see --margin):"
    return [heading, *(f"  {one.sentence()}" for one in advice)]


def _finished_runs(store: StoreLocation, tasks: Sequence[str]) -> Results | None:
    """Return the finished runs of some tasks; None if the store or experiment does not exist or cannot be read."""
    try:
        return read_results(open_store(store.uri, store.experiment), tasks=tasks)
    except AlueBenchError:
        return None


def _needed_seeds(
    results: Results, key: tuple[str, str, str], wanted: Sequence[str], margins: Margins
) -> tuple[NeededSeeds, ...]:
    """Return the number of seeds that each strategy probably needs for a verdict, for one task and model.

    Args:
        results: Finished runs.
        key: The task, the model and the data source.
        wanted: The planned strategies. If none of them has finished runs, up to MAX_STRATEGIES other strategies are
            used.
        margins: The margin for each metric.
    """
    frame = results.frame
    part = frame[(frame[["task", "model", "data_source"]] == list(key)).all(axis=1) & frame["fold"].isna()]
    others = part[part["strategy"] != BASELINE]["strategy"].value_counts()
    chosen = [name for name in dict.fromkeys(wanted) if name in others.index] or list(others.index[:MAX_STRATEGIES])
    part = part[part["strategy"].isin([BASELINE, *chosen])]
    # The frame has a column for every metric of every task; those of other tasks are empty here.
    recorded = margins.of_recorded([name for name in part.columns if part[name].notna().any()])
    best: dict[str, NeededSeeds] = {}
    reads = count()

    def load(run_id: str, multilabel: bool) -> GoldAndPredicted:
        if next(reads) >= MAX_RUNS_READ:
            raise UnavailableError(f"the predictions of {MAX_RUNS_READ} runs are enough")
        return read_targets(results, run_id, multilabel)

    for block, row in all_rows(compare(part, load, margins=recorded)):
        test = row.difference.test if row.difference else None
        if block.low_fidelity or not isinstance(test, CrossedTestResult):
            continue
        if test.seeds < MIN_SEEDS or block.margin_size is None:
            continue
        if row.strategy not in best or test.seeds > best[row.strategy].observed:
            number = seeds_within_margin(test, block.margin_size)
            best[row.strategy] = NeededSeeds(row.strategy, number, test.seeds, block.margin_size)
    return tuple(best.values())
