"""The section of a report page with the results of strategies across tasks."""

from __future__ import annotations

from alue_bench.evaluation.intervals import Estimate
from alue_bench.reporting import across_charts
from alue_bench.reporting.across_table import distance_names, title
from alue_bench.reporting.across_tasks import AcrossTasks, StrategyAcross, across_tasks
from alue_bench.reporting.comparison_table import change_text
from alue_bench.reporting.content import Cell, Column, Gallery, Item, Paragraph, ReportTable, Row, RowGroup
from alue_bench.reporting.numbers import MISSING, decimal, number_with_noun, percent, signed
from alue_bench.reporting.subjects import ComparableRuns
from alue_bench.reporting.training_times import ACROSS_SESSIONS_MARK, ratio_text

MAX_ROWS = 100
"""The largest number of strategies in a table."""
INTRO = (
    "Every task counts the same. The interval comes from a bootstrap over tasks and seeds: if these tasks are a random "
    "sample of tasks of a kind, it holds for tasks of this kind. It is not corrected for the number of strategies."
)


def section_items(block: ComparableRuns, prefix: str) -> list[Item]:
    """Return tables and figures of the results across tasks, for each model with enough tasks (`across_tasks`).

    Args:
        block: A set of comparable runs.
        prefix: The text with which the names of the pictures begin; it makes the names unique on the page.
    """
    items: list[Item] = []
    results = across_tasks([subject.compared for subject in block.subjects], block.runs)
    for number, result in enumerate(results, start=1):
        items += [
            _changes(result),
            *([Paragraph("; ".join(result.notes) + ".")] if result.notes else []),
            Gallery(
                [
                    across_charts.changes(result, name=f"{prefix}-{number}-changes", figure_title=title(result)),
                    across_charts.profile(result, name=f"{prefix}-{number}-profile", figure_title=title(result)),
                ]
            ),
            _profiles(result),
        ]
    return items


def _changes(result: AcrossTasks) -> ReportTable:
    columns = [
        Column("Δ score", explained="mean over tasks of the change for the same seeds; ± half-width of its interval"),
        Column("IQM", explained="mean of the middle half of the tasks"),
    ]
    if result.relative:
        columns += [
            Column("Δ of learnt", explained="change divided by what the baseline learnt: its score − trivial score"),
            Column("IQM of learnt"),
        ]
    columns += [
        Column("higher / same / lower", explained="numbers of tasks by the mean change"),
        Column("speed-up", explained="geometric mean over tasks, of pairs of runs of one session"),
        Column("tasks"),
    ]
    rows = [_row(result, row) for row in result.rows if row.change]
    metrics = ", ".join(f"{task} ({metric})" for task, metric in result.metrics.items())
    limit_text = (
        f"; shown: {MAX_ROWS} of {number_with_noun(len(rows), 'strategy', 'strategies')}"
        if len(rows) > MAX_ROWS
        else ""
    )
    group = RowGroup(result.model, rows[:MAX_ROWS], f"against {result.baseline}; {metrics}{limit_text}")
    return ReportTable("Changes across tasks", "model, strategy", columns, [group])


def _row(result: AcrossTasks, row: StrategyAcross) -> Row:
    assert row.change
    assert row.counts
    cells = [_score_cell(row.change.mean), _score_cell(row.change.iqm)]
    if result.relative:
        shares = (row.share.mean, row.share.iqm) if row.share else (None, None)
        cells += [Cell(change_text(share) or MISSING) for share in shares]
    cells.append(Cell(f"{row.counts.wins} / {row.counts.ties} / {row.counts.losses}"))
    mark = f" {ACROSS_SESSIONS_MARK} times of different sessions" if row.speed_up and row.across_sessions else ""
    text, _, interval = ratio_text(row.speed_up).partition(" ")
    cells.append(Cell(text or MISSING, detail=f"{interval}{mark}".strip()))
    return Row(row.strategy, [*cells, Cell(str(len(row.changes)))])


def _score_cell(value: Estimate) -> Cell:
    return Cell(signed(value.mean), detail="" if value.half_width is None else f"± {decimal(value.half_width)}")


def _profiles(result: AcrossTasks) -> ReportTable:
    of = "what was learnt" if result.relative else "the metric's range from 0 to 1"
    columns = [Column(name) for name in distance_names(result)]
    rows = [Row(row.strategy, [Cell(percent(share)) for share in row.profile]) for row in result.rows[:MAX_ROWS]]
    remark = f"distances in per cent of {of}; a task without a run of the strategy counts as not within"
    return ReportTable(
        "Share of tasks within a distance of the best strategy", "strategy", columns, [RowGroup("", rows, remark)]
    )
