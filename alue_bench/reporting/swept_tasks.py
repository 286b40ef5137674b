"""Sweeps in a table of finished runs: for each task, the freezing settings of a grid and the other strategies.

A freezing setting, or cell of a grid, is a pair (bottom, top) of numbers of frozen layers. All runs of a task have the
same conditions: equal examples, hyper-parameters, model and hardware (`comparison.CONDITIONS`). Only the number of
examples of a probe may differ, since it matters only to strategies that choose their layers by a probe. Runs of
cross-validations and low-fidelity runs of a search are left out.

An undefined score (a correlation of constant predictions) counts as the trivial score, which is the score of a baseline
without a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from alue_bench.contract.cells import Cell, cell_name, cell_of
from alue_bench.reporting import grid
from alue_bench.reporting.comparison import CONDITIONS, Run
from alue_bench.reporting.probe_rows import ROWS, rows_of
from alue_bench.tracking.reproduction import without_setting

if TYPE_CHECKING:
    import pandas as pd

MIN_CELLS = 6
"""The smallest number of freezing settings that counts as a sweep."""
FULL: Cell = (0, 0)
"""The freezing setting of full fine-tuning: no frozen layers."""
TRIVIAL = "test/trivial_score"


@dataclass(frozen=True)
class ScoredRun:
    """The scores and the cost of one finished run."""

    dev: float
    """The dev score of the selected epoch."""
    test: float
    """The test score."""
    cost: float
    """The training FLOPs, as a share of those of full fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class SweptTask:
    """The finished runs of one task and model under the same conditions.

    Among them are runs of `full` and of a grid of freezing settings (numbers of frozen bottom and top layers).
    """

    task: str
    model: str
    metric: str
    cells: Mapping[Cell, Mapping[int, ScoredRun]]
    """The scores and costs of the runs of each freezing setting of the grid, by seed."""
    others: Sequence[Run]
    """The runs of all other strategies, such as selectors."""
    example: Run
    """A run of full fine-tuning. Its columns show the conditions that all these runs share."""
    trivial: float
    """The test score of a baseline without a model."""
    left_out: int = 0
    """The number of sweeps of the same task and model under other conditions, which were not used."""

    @property
    def learnt(self) -> float:
        """The mean test score of full fine-tuning minus `trivial`, the score of a baseline without a model."""
        return self.score(FULL) - self.trivial

    def score(self, cell: Cell) -> float:
        """Return the mean test score of a freezing setting over seeds."""
        return fmean(result.test for result in self.cells[cell].values())

    def cost(self, cell: Cell) -> float:
        """Return the mean training FLOPs of a freezing setting, as a share of those of full fine-tuning."""
        return fmean(result.cost for result in self.cells[cell].values())

    def loss(self, cell: Cell) -> float:
        """Return the mean loss of a freezing setting's test score against full fine-tuning, as a share of `learnt`.

        The mean is taken over the seeds with which both ran; it is nan if there are none.
        """
        seeds = self.cells[FULL].keys() & self.cells[cell].keys()
        if not seeds:
            return math.nan
        return fmean(self.cells[FULL][seed].test - self.cells[cell][seed].test for seed in seeds) / self.learnt


def swept_tasks(frame: pd.DataFrame) -> tuple[list[SweptTask], list[str]]:
    """Find the sweeps in a table of finished runs.

    For each task and model, the set of comparable runs with the most freezing settings is used. A task on which full
    fine-tuning learnt nothing is left out, since freezing cannot lose anything there. So is a task for which
    the trivial score (of a baseline without a model) was not recorded.

    Args:
        frame: The finished runs, as in `Results.frame`.

    Returns:
        The sweeps, sorted by task and model, and a note for each swept task and model that is left out.
    """
    sweeps, notes = [], []
    usable = frame[frame["folds"].isna() & frame["first_look"].isna()]
    for (task, model), group in usable.groupby(["task", "model"], sort=True):
        other = group["other_hyper"]
        alike = other.map(partial(without_setting, name=ROWS), na_action="ignore")
        group = group.assign(**{ROWS: other.map(rows_of), "other_hyper": alike})
        sets = [part for _, part in group.groupby(list(CONDITIONS), dropna=False, sort=True)]
        swept = [part for part in sets if _is_sweep(part)]
        if not swept:
            continue
        runs = max(swept, key=lambda part: (_cells_in(part), len(part)))
        table = grid.cell_table(runs)
        unlearnt = grid.nothing_learnt(table)
        if unlearnt is not None:
            notes.append(f"{task}, {model}: left out, since full fine-tuning learnt nothing")
            continue
        sweep = _swept(str(task), str(model), runs, len(swept) - 1)
        if sweep.learnt > 0:
            sweeps.append(sweep)
        elif math.isnan(sweep.learnt):
            notes.append(f"{task}, {model}: left out, since its runs have no trivial score; repeat them with --rerun")
        else:
            notes.append(f"{task}, {model}: left out, since full fine-tuning is not above the trivial test score")
    return sweeps, notes


def _is_sweep(runs: pd.DataFrame) -> bool:
    return cell_name(FULL) in set(runs["strategy"]) and _cells_in(runs) >= MIN_CELLS


def _cells_in(runs: pd.DataFrame) -> int:
    return sum(cell_of(str(name)) is not None for name in runs["strategy"].unique())


def _swept(task: str, model: str, runs: pd.DataFrame, left_out: int) -> SweptTask:
    cells: dict[Cell, dict[int, ScoredRun]] = {}
    others: list[Run] = []
    records: list[Run] = [dict(run) for run in runs.to_dict("records")]
    for run in records:
        cell = cell_of(str(run["strategy"]))
        if cell is None:
            others.append(run)
        else:
            cells.setdefault(cell, {})[int(run["seed"])] = scored_run(run)
    example = next(run for run in records if run["strategy"] == cell_name(FULL))
    return SweptTask(
        task=task,
        model=model,
        metric=str(example["primary_metric"]),
        cells=cells,
        others=others,
        example=example,
        trivial=_number(example, TRIVIAL),
        left_out=left_out,
    )


def scored_run(run: Run) -> ScoredRun:
    """Return the scores and the cost of a run, with the trivial score in place of an undefined one.

    Args:
        run: A row of the frame of finished runs.
    """
    dev, test = _number(run, grid.DEV), _number(run, grid.TEST)
    return ScoredRun(
        dev=dev if math.isfinite(dev) else _number(run, grid.TRIVIAL),
        test=test if math.isfinite(test) else _number(run, TRIVIAL),
        cost=_number(run, grid.FLOPS),
    )


def _number(run: Mapping[Any, Any], name: str) -> float:
    return float(run.get(name, math.nan))
