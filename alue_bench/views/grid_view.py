"""The terminal view of a sweep's grid, during the sweep and at its end.

A grid is a table of results, with a row for each number of frozen bottom layers and a column for each number of frozen
top layers.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from alue_bench.contract.cells import Cell, cell_of
from alue_bench.executors.outcome import Outcome
from alue_bench.planning import variation
from alue_bench.planning.build import Plan, PlannedRun
from alue_bench.planning.grid import SETTING_AXES
from alue_bench.reporting import grid
from alue_bench.reporting.numbers import decimal, percent
from alue_bench.views.console import PlainConsole, styled
from alue_bench.views.progress import LiveProgress, PlainProgress
from alue_bench.views.tables import SAMPLE_NOTE
from alue_bench.views.wide_tables import Fitted

if TYPE_CHECKING:
    import pandas as pd
    from rich.text import Text

MEASURES = (grid.DEV, grid.TEST, grid.SECONDS, grid.FLOPS, grid.TRIVIAL, grid.TRIVIAL_ERROR)
"""The names of the recorded metrics that the functions of `alue_bench.reporting.grid` need."""
WAITING, RUNNING, FAILED = "·", "▶", "✗"
"""The marks that stand for a run without a score in the table of results: not started, running, failed."""


def table_of(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Return the outcomes of runs as a table that the functions of `alue_bench.reporting.grid` accept.

    Each run has one row. Failed runs have no score.
    """
    import pandas as pd

    rows = [
        {
            "task": outcome.spec.task,
            "model": outcome.spec.model,
            "strategy": outcome.spec.strategy,
            "seed": outcome.spec.seed,
            "repeat": outcome.spec.fold.repeat if outcome.spec.fold else None,
            "fold": outcome.spec.fold.number if outcome.spec.fold else None,
            **{name: getattr(outcome.spec.hyper, name) for name in SETTING_AXES},
            **{name: outcome.metrics.get(name) for name in MEASURES},
            "primary_metric": outcome.planned.inputs.task.primary,
            "data_source": outcome.spec.data.source,
        }
        for outcome in outcomes
    ]
    return pd.DataFrame(rows)


def grid_progress_of(plan: Plan, console: PlainConsole) -> PlainProgress | GridProgress:
    """Return the display of a sweep's progress.

    On a terminal or in a notebook, it is a grid that is updated in place; elsewhere, lines are printed.
    """
    return GridProgress(plan, console) if console.is_live else PlainProgress(plan, console)


class GridProgress(LiveProgress):
    """A display of a sweep's progress: the grid of the current run with the scores so far, above a progress bar.

    A grid shows scores by the numbers of frozen bottom and top layers. The bar covers the whole sweep.
    """

    def __init__(self, plan: Plan, console: PlainConsole) -> None:
        """Prepare an empty grid for each task, model and combination of varied hyper-parameters in the list of runs."""
        super().__init__(plan, console)
        self._cells: dict[tuple[str, ...], dict[Cell, list[str | float]]] = {}
        for planned in plan.runs:
            cell = cell_of(planned.spec.strategy)
            if cell is not None:
                self._cells.setdefault(self._grid_of(planned), {}).setdefault(cell, [])
        self._at: tuple[str, ...] | None = None
        self._now: set[Cell] = set()

    def table_above_bar(self) -> RenderableType | None:
        """Return the table of scores of the current run's grid; None if the run is not part of a grid."""
        cells = self._cells.get(self._at) if self._at else None
        if not cells or self._at is None:
            return None
        title = f"{' '.join(self._at)}: test scores so far"
        return _grid_table(title, {cell: self._cell_text(cell, values) for cell, values in cells.items()})

    def started(self, planned: PlannedRun) -> None:
        """Mark a run as running in the table of scores, and show this table."""
        self._at = self._grid_of(planned)
        cell = cell_of(planned.spec.strategy)
        if cell is not None:
            self._now.add(cell)
        super().started(planned)

    def ended(self, outcome: Outcome) -> None:
        """Write the score of a run that has ended into the table of scores."""
        cell = cell_of(outcome.spec.strategy)
        if cell is not None:
            self._now.discard(cell)
            self._at = self._grid_of(outcome.planned)
            self._cells[self._at][cell].append(
                FAILED if outcome.status == "failed" else outcome.metrics.get(grid.TEST, float("nan"))
            )
        super().ended(outcome)

    def _grid_of(self, planned: PlannedRun) -> tuple[str, ...]:
        """Return the key of a run's grid: the task, the model and the values of hyper-parameters that vary."""
        settings = variation.describe(variation.settings_of(planned.spec.hyper, self._varied))
        return tuple(filter(None, (planned.spec.task, planned.spec.model, settings)))

    def _cell_text(self, cell: Cell, values: Sequence[str | float]) -> Text:
        numbers = [value for value in values if not isinstance(value, str)]
        if cell in self._now:
            return styled(RUNNING, "bold yellow")
        if numbers:
            return styled(_number(statistics.fmean(numbers)), "green")
        return styled(FAILED, "red") if values else styled(WAITING, "dim")


def grid_result(group: grid.GridResults, recommendation: grid.Recommendation | None) -> RenderableType:
    """Return the view of a finished grid: scores and times, the Pareto front and the recommendation.

    Args:
        group: The grid, that is, the results of one task and model with the same hyper-parameters.
        recommendation: The recommended freezing setting; None if there is none.
    """
    placed = group.cells[group.cells["bottom"].notna()]
    parts: list[RenderableType] = []
    for title, column in ((f"{group.metric}, test", "test_score"), ("training time in seconds", "train_s")):
        shown = {}
        for _, row in placed.iterrows():
            chosen = recommendation is not None and row["strategy"] == recommendation.strategy
            shown[int(row["bottom"]), int(row["top"])] = styled(_number(row[column]), "reverse" if chosen else "")
        if len(shown) > 1:
            parts.append(_grid_table(f"{group.title}: {title}", shown))
    parts.append(_front(group))
    if recommendation is not None:
        first, *others = recommendation.sentences()
        parts.append(styled(f"Recommended: {first}.", "bold"))
        parts += [styled(f"{one}.") for one in others]
    elif (why := grid.nothing_learnt(group.cells)) is not None:
        parts.append(styled(f"Nothing learnt: {why.sentence()}.", "bold yellow"))
    if recommendation is not None and (warning := grid.collapsed_sentence(group.cells)):
        parts.append(styled(f"{warning}.", "yellow"))
    if group.sample:
        parts.append(styled(SAMPLE_NOTE, "yellow"))
    return Group(*parts)


def _front(group: grid.GridResults) -> RenderableType:
    table = Table()
    table.add_column("strategy", no_wrap=True)
    for column in ("dev", "test", "train s", "FLOPs ÷ full"):
        table.add_column(column, justify="right", no_wrap=True)
    for _, row in grid.pareto_front(group.cells).iterrows():
        share = "" if row["flops_share"] != row["flops_share"] else percent(row["flops_share"])
        table.add_row(
            row["strategy"], decimal(row["dev_score"]), decimal(row["test_score"]), decimal(row["train_s"], 1), share
        )
    return Group(styled(f"{group.title}: Pareto front of dev score and training time", "bold"), Fitted(table))


def _grid_table(title: str, cells: dict[Cell, Text]) -> RenderableType:
    """Return a grid as a table, with more frozen bottom layers upwards and more frozen top layers to the right."""
    tops = sorted({top for _, top in cells})
    table = Table(box=None, padding=(0, 1), show_edge=False)
    table.add_column("bottom↑ top→", justify="right", style="dim")
    for top in tops:
        table.add_column(str(top), justify="right", no_wrap=True, header_style="dim")
    for bottom in sorted({bottom for bottom, _ in cells}, reverse=True):
        table.add_row(str(bottom), *(cells.get((bottom, top), "") for top in tops))
    return Group(styled(title, "bold"), Fitted(table))


def _number(value: float) -> str:
    if value != value:
        return "?"
    return decimal(value).replace("0.", ".", 1) if abs(value) < 1 else decimal(value, 2 if value < 10 else 0)
