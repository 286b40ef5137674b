"""Sweeps in a table of finished runs: for each task, the cells of a grid and the other strategies beside it.

A cell is a pair of numbers of frozen bottom and top layers. All runs of a task have the same conditions: equal
examples, hyper-parameters, model and hardware (`comparison.CONDITIONS`). The number of examples of a probe may differ,
since only strategies that choose by a probe use it. Runs of cross-validations and the short runs of a search are left
out.

A score that is undefined, the correlation of constant predictions, counts as the trivial score, that of a baseline that
ignores the text.
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

FEWEST_CELLS = 6
"""The smallest number of cells of a grid that counts as a sweep."""
FULL: Cell = (0, 0)
"""The cell of full fine-tuning."""
TRIVIAL = "test/trivial_score"


@dataclass(frozen=True)
class Scored:
    """The scores and the cost of one finished run."""

    dev: float
    """The dev score of the selected epoch."""
    test: float
    """The test score."""
    cost: float
    """The training FLOPs, as a share of those of full fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class SweptTask:
    """The finished runs of one task and model under the same conditions, among them those of a grid with `full`."""

    task: str
    model: str
    metric: str
    cells: Mapping[Cell, Mapping[int, Scored]]
    """The runs of each cell of the grid, by seed."""
    others: Sequence[Run]
    """The runs of strategies that are no cell of a grid."""
    example: Run
    """A run of the grid, whose values state the conditions."""
    trivial: float
    """The test score of a baseline that ignores the text."""
    left_out: int = 0
    """The number of sets of runs under other conditions, which are not part of this value."""

    @property
    def learnt(self) -> float:
        """The mean test score of full fine-tuning minus the trivial score."""
        return self.score(FULL) - self.trivial

    def score(self, cell: Cell) -> float:
        """Return the mean test score of a cell over seeds."""
        return fmean(one.test for one in self.cells[cell].values())

    def cost(self, cell: Cell) -> float:
        """Return the mean training FLOPs of a cell, as a share of those of full fine-tuning."""
        return fmean(one.cost for one in self.cells[cell].values())

    def loss(self, cell: Cell) -> float:
        """Return the mean loss of test score against full fine-tuning over the seeds of both, as a share of `learnt`.

        The result is nan if they have no seed in common.
        """
        seeds = self.cells[FULL].keys() & self.cells[cell].keys()
        if not seeds:
            return math.nan
        return fmean(self.cells[FULL][seed].test - self.cells[cell][seed].test for seed in seeds) / self.learnt


def swept_tasks(frame: pd.DataFrame) -> tuple[list[SweptTask], list[str]]:
    """Find the sweeps in a table of finished runs.

    For each task and model, the set of comparable runs with the most cells is used. A task on which full fine-tuning
    learnt nothing is left out, since freezing cannot lose anything there; so is one without a trivial score.

    Args:
        frame: The finished runs, as in `Results.frame`.

    Returns:
        The sweeps, sorted by task and model, and a note for each task that is left out.
    """
    found, notes = [], []
    usable = frame[frame["folds"].isna() & frame["first_look"].isna()]
    for (task, model), of_both in usable.groupby(["task", "model"], sort=True):
        other = of_both["other_hyper"]
        alike = other.map(partial(without_setting, name=ROWS), na_action="ignore")
        of_both = of_both.assign(**{ROWS: other.map(rows_of), "other_hyper": alike})
        sets = [part for _, part in of_both.groupby(list(CONDITIONS), dropna=False, sort=True)]
        swept = [part for part in sets if _is_sweep(part)]
        if not swept:
            continue
        runs = max(swept, key=lambda part: (_cells_in(part), len(part)))
        table = grid.cells(runs)
        unlearnt = grid.nothing_learnt(table)
        if unlearnt is not None:
            notes.append(f"{task}, {model}: left out, since full fine-tuning learnt nothing")
            continue
        sweep = _swept(str(task), str(model), runs, len(swept) - 1)
        if sweep.learnt > 0:
            found.append(sweep)
        elif math.isnan(sweep.learnt):
            notes.append(f"{task}, {model}: left out, since its runs have no trivial score; repeat them with --rerun")
        else:
            notes.append(f"{task}, {model}: left out, since full fine-tuning is not above the trivial test score")
    return found, notes


def _is_sweep(runs: pd.DataFrame) -> bool:
    return cell_name(FULL) in set(runs["strategy"]) and _cells_in(runs) >= FEWEST_CELLS


def _cells_in(runs: pd.DataFrame) -> int:
    return sum(cell_of(str(name)) is not None for name in runs["strategy"].unique())


def _swept(task: str, model: str, runs: pd.DataFrame, left_out: int) -> SweptTask:
    cells: dict[Cell, dict[int, Scored]] = {}
    others: list[Run] = []
    records: list[Run] = [dict(run) for run in runs.to_dict("records")]
    for run in records:
        cell = cell_of(str(run["strategy"]))
        if cell is None:
            others.append(run)
        else:
            cells.setdefault(cell, {})[int(run["seed"])] = scored(run)
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


def scored(run: Run) -> Scored:
    """Return the scores and the cost of a run, with the trivial score in place of an undefined one.

    Args:
        run: A row of the frame of finished runs.
    """
    dev, test = _number(run, grid.DEV), _number(run, grid.TEST)
    return Scored(
        dev=dev if math.isfinite(dev) else _number(run, grid.TRIVIAL),
        test=test if math.isfinite(test) else _number(run, TRIVIAL),
        cost=_number(run, grid.FLOPS),
    )


def _number(run: Mapping[Any, Any], name: str) -> float:
    return float(run.get(name, math.nan))
