"""The results of strategies across tasks as text tables, and as flat records for CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.across_tasks import MIN_TASKS
from alue_bench.evaluation.intervals import LEVEL, Estimate
from alue_bench.reporting.across_tasks import AcrossTasks, StrategyAcross
from alue_bench.reporting.comparison_table import TextTable, change_text, latex_tables, markdown_tables
from alue_bench.reporting.numbers import decimal, number_with_noun, percent, signed
from alue_bench.reporting.training_times import ACROSS_SESSIONS_MARK, ratio_text

if TYPE_CHECKING:
    import pandas as pd

NO_RESULTS = (
    f"no results across tasks. They need runs of a baseline and another strategy on at least {MIN_TASKS} tasks with "
    "one model, and a baseline that learnt something on each"
)
"""The sentence for users if no model has enough tasks."""


def across_tables(results: Sequence[AcrossTasks]) -> list[TextTable]:
    """Return three tables for each model: mean changes over all tasks, performance profiles, and changes per task."""
    return [table for result in results for table in (_summary(result), _profile(result), _per_task(result))]


def across_legend(results: Sequence[AcrossTasks]) -> list[str]:
    """Return lines that explain the columns of the tables of `across_tables`; empty without results."""
    if not results:
        return []
    lines = [
        f"Across tasks: change against the baseline with the same seeds, as a mean over tasks, ± {LEVEL:.0%} interval "
        "of a bootstrap over tasks and seeds. If the tasks are a random sample of tasks of a kind, it holds for tasks "
        "of this kind. IQM: mean of the middle half of the tasks. Intervals are not corrected for several strategies.",
    ]
    if any(result.relative for result in results):
        lines.append(
            "Of what was learnt: the change divided by the baseline's score minus the trivial score (baseline "
            "without a model)."
        )
    if any(row.speed_up for result in results for row in result.rows):
        lines.append("Speed-up: geometric mean over tasks, of pairs of runs of one session.")
    if any(row.speed_up and row.across_sessions for result in results for row in result.rows):
        lines.append(f"{ACROSS_SESSIONS_MARK} times of different sessions are compared on at least one task.")
    return lines


def across_records(results: Sequence[AcrossTasks]) -> list[dict[str, Any]]:
    """Return a flat dict for each strategy of each model, with None for missing values."""
    return [_record(result, row) for result in results for row in result.rows]


def across_as_json(results: Sequence[AcrossTasks]) -> str:
    """Return the results across tasks as JSON, with the records of `across_records`."""
    return json.dumps({"level": LEVEL, "across_tasks": across_records(results)}, ensure_ascii=False, indent=2)


def across_frame(results: Sequence[AcrossTasks]) -> pd.DataFrame:
    """Return the records of `across_records` as a data frame; the changes per task are one column of JSON texts."""
    import pandas as pd

    rows = [row | {"changes": json.dumps(row["changes"], ensure_ascii=False)} for row in across_records(results)]
    return pd.DataFrame(rows)


def across_as_csv(results: Sequence[AcrossTasks]) -> str:
    """Return the results across tasks as CSV, with the rows of `across_frame`."""
    return str(across_frame(results).to_csv(index=False))


def across_as_markdown(results: Sequence[AcrossTasks]) -> str:
    """Return the tables of `across_tables` as Markdown; empty without results."""
    return markdown_tables(across_tables(results), across_legend(results)) if results else ""


def across_as_latex(results: Sequence[AcrossTasks]) -> str:
    """Return the tables of `across_tables` as LaTeX code for the package booktabs; empty without results."""
    return latex_tables(across_tables(results), across_legend(results)) if results else ""


# Tables ------------------------------------------------------------------------------------------------------------


def title(result: AcrossTasks) -> str:
    """Return a heading with the model and the number of tasks."""
    return f"Across {number_with_noun(len(result.tasks), 'task')}, {result.model}"


def _summary(result: AcrossTasks) -> TextTable:
    columns = ["strategy", "tasks", f"Δ {result.baseline}", "IQM"]
    if result.relative:
        columns += ["Δ of learnt", "IQM of learnt"]
    columns += ["higher/same/lower", "speed-up"]
    facts = [f"{result.conditions['data_source'] or 'unknown'} data", ", ".join(_with_metrics(result))]
    return TextTable(
        title=f"{title(result)}: change against {result.baseline}",
        subtitle="; ".join(facts),
        columns=tuple(columns),
        rows=tuple(_summary_row(result, row) for row in result.rows if row.change),
        notes=result.notes,
    )


def _with_metrics(result: AcrossTasks) -> list[str]:
    return [f"{task} ({metric})" for task, metric in result.metrics.items()]


def _summary_row(result: AcrossTasks, row: StrategyAcross) -> tuple[str, ...]:
    assert row.change
    assert row.counts
    cells = [row.strategy, str(len(row.changes)), _points(row.change.mean), _points(row.change.iqm)]
    if result.relative:
        cells += [change_text(share) for share in ((row.share.mean, row.share.iqm) if row.share else (None, None))]
    cells.append(f"{row.counts.wins}/{row.counts.ties}/{row.counts.losses}")
    cells.append(
        ratio_text(row.speed_up) + (f" {ACROSS_SESSIONS_MARK}" if row.speed_up and row.across_sessions else "")
    )
    return tuple(cells)


def _points(value: Estimate) -> str:
    return signed(value.mean) + (f" ± {decimal(value.half_width)}" if value.half_width is not None else "")


def _profile(result: AcrossTasks) -> TextTable:
    of = "what was learnt" if result.relative else "the metric's range from 0 to 1"
    return TextTable(
        title=f"{title(result)}: share of tasks within a distance of the best strategy",
        subtitle=f"distances in per cent of {of}; a task without a run of the strategy counts as not within",
        columns=("strategy", *distance_names(result)),
        rows=tuple((row.strategy, *(percent(share) for share in row.profile)) for row in result.rows),
        notes=(),
    )


def distance_names(result: AcrossTasks) -> list[str]:
    """Return the headings of the columns of a performance profile, such as "best" and "≤ 2 %"."""
    return ["best" if not distance else f"≤ {percent(distance)}" for distance in result.distances]


def _per_task(result: AcrossTasks) -> TextTable:
    return TextTable(
        title=f"{title(result)}: change on each task",
        subtitle=f"mean over the seeds that the strategy and {result.baseline} both have",
        columns=("strategy", *result.tasks),
        rows=tuple(
            (row.strategy, *(signed(row.changes[task]) if task in row.changes else "" for task in result.tasks))
            for row in result.rows
            if row.change
        ),
        notes=(),
    )


def _record(result: AcrossTasks, row: StrategyAcross) -> dict[str, Any]:
    record: dict[str, Any] = {
        "model": result.model,
        "strategy": row.strategy,
        "baseline": result.baseline,
        "tasks": len(row.changes) if row.change else len(result.tasks),
    }
    for name, value in (("change", row.change), ("share_of_learnt", row.share)):
        for kind in ("mean", "iqm"):
            estimate: Estimate | None = getattr(value, kind) if value else None
            record[f"{name}_{kind}"] = estimate.mean if estimate else None
            record[f"{name}_{kind}_half_width"] = estimate.half_width if estimate else None
    interval = row.speed_up.interval if row.speed_up else None
    record |= {
        "wins": row.counts.wins if row.counts else None,
        "ties": row.counts.ties if row.counts else None,
        "losses": row.counts.losses if row.counts else None,
        "speed_up": row.speed_up.mean if row.speed_up else None,
        "speed_up_low": interval[0] if interval else None,
        "speed_up_high": interval[1] if interval else None,
        "times_of_one_session": not row.across_sessions if row.speed_up else None,
        "distances_are_of_learnt": result.relative,
    }
    for distance, share in zip(result.distances, row.profile, strict=True):
        record[f"within_{100 * distance:g}_percent"] = share
    for name, value in result.conditions.items():
        record[name] = value.item() if hasattr(value, "item") else value
    return record | {"changes": dict(row.changes)}
