"""The ranking of selectors as text tables, and as flat records for CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from alue_bench.evaluation.intervals import LEVEL
from alue_bench.reporting.comparison_table import TextTable, markdown_tables
from alue_bench.reporting.numbers import decimal, number_with_noun, percent, seconds, signed, signed_percent
from alue_bench.reporting.selector_ranking import HIGHEST, ChosenRun, RankedSelector, SelectorRanking, TaskAverage

COLUMNS = ("selector, layers", "tasks", "regret", "advantage", "correlation", "loss", "FLOPs", "probe", "probe FLOPs")


def ranking_tables(rankings: Sequence[SelectorRanking]) -> list[TextTable]:
    """Return three tables for each model: the ranking over tasks, the regret on each task, the effects of freezing."""
    return [
        table
        for ranking in rankings
        for table in (_summary(ranking), _per_task(ranking), _effects(ranking))
        if table.rows
    ]


def ranking_legend(rankings: Sequence[SelectorRanking]) -> list[str]:
    """Return the lines that explain the tables of `ranking_tables`; empty without rankings."""
    if not rankings:
        return []
    control = rankings[0].control
    return [
        "Regret: test score of the best cell of the grid that needs no more FLOPs than the selector's run (chosen by "
        "dev over the other seeds), minus the selector's, as a share of what full fine-tuning learnt. Below zero, the "
        "selector was better.",
        f"Advantage: test score minus that of {control} with as many layers and the same seed, as the same share.",
        "Correlation: Spearman's, of the scores of layers with the measured loss by freezing each block of layers.",
        "Loss: test score of full fine-tuning with the same seed minus the selector's, as the same share.",
        "FLOPs: relative to full fine-tuning, with those of the probe. Probe: the time of choosing.",
        f"±: {LEVEL:.0%} interval over tasks and seeds, for tasks of this kind; not corrected for several selectors.",
        f"{HIGHEST}: cells of the grid that train the highest layers only. Its score of a layer is the layer's number.",
    ]


def ranking_as_markdown(rankings: Sequence[SelectorRanking]) -> str:
    """Return the tables of `ranking_tables` with their legend as Markdown."""
    return markdown_tables(ranking_tables(rankings), ranking_legend(rankings))


def ranking_as_json(rankings: Sequence[SelectorRanking]) -> str:
    """Return the rankings as JSON: the rows over tasks, each run, the effects of freezing and the notes."""
    return json.dumps(
        {
            "level": LEVEL,
            "selectors": [
                {
                    "model": ranking.model,
                    "control": ranking.control,
                    "tasks": list(ranking.tasks),
                    "ranking": [_record(row) for row in (*ranking.families, *ranking.rows)],
                    "runs": [run_record(run) for run in ranking.runs],
                    "freezing_effects": {
                        task: [
                            {"layers": list(effect.layers), "change": effect.change, "pairs": effect.pairs}
                            for effect in effects
                        ]
                        for task, effects in ranking.effects.items()
                    },
                    "notes": list(ranking.notes),
                }
                for ranking in rankings
            ],
        },
        ensure_ascii=False,
        indent=2,
    )


def ranking_as_csv(rankings: Sequence[SelectorRanking]) -> str:
    """Return the rows of the rankings as CSV, with columns for each mean and the half-width of its interval."""
    records = [
        {"model": ranking.model, **_record(row), "by_task": json.dumps(_record(row)["by_task"], ensure_ascii=False)}
        for ranking in rankings
        for row in (*ranking.families, *ranking.rows)
    ]
    written = io.StringIO()
    writer = csv.DictWriter(written, list(records[0]) if records else ["model"])
    writer.writeheader()
    writer.writerows(records)
    return written.getvalue()


def run_record(run: ChosenRun) -> dict[str, Any]:
    """Return the results of one run as a flat dict for JSON, with None for nan."""
    values = {name: None if value != value else value for name, value in vars(run).items()}
    return values | {"trained": list(run.trained)}


# Tables ------------------------------------------------------------------------------------------------------------


def _summary(ranking: SelectorRanking) -> TextTable:
    metrics = ", ".join(f"{task} ({sweep.metric})" for task, sweep in ranking.tasks.items())
    return TextTable(
        title=f"Selectors, {ranking.model}: regret against the best cell of the same cost",
        subtitle=f"{number_with_noun(len(ranking.tasks), 'task')}: {metrics}",
        columns=COLUMNS,
        rows=tuple(_summary_row(row) for row in (*ranking.families, *ranking.rows)),
        notes=ranking.notes,
    )


def _summary_row(row: RankedSelector) -> tuple[str, ...]:
    name = f"{row.family}, all" if row.count is None else row.name
    return (
        name,
        str(len(row.cost.by_task)),
        _share(row.regret),
        _share(row.advantage),
        _correlation(row.correlation),
        _share(row.loss),
        percent(row.cost.estimate.mean),
        seconds(row.probe_s.estimate.mean),
        percent(row.probe_share.estimate.mean, 1),
    )


def _share(value: TaskAverage | None) -> str:
    if value is None:
        return ""
    half = value.estimate.half_width
    return signed_percent(value.estimate.mean, 1) + ("" if half is None else f" ± {percent(half, 1)}")


def _correlation(value: TaskAverage | None) -> str:
    if value is None:
        return ""
    half = value.estimate.half_width
    return signed(value.estimate.mean, 2) + ("" if half is None else f" ± {decimal(half, 2)}")


def _per_task(ranking: SelectorRanking) -> TextTable:
    return TextTable(
        title=f"Selectors, {ranking.model}: regret on each task",
        subtitle="mean over seeds, as a share of what full fine-tuning learnt; in brackets the layers that most of the "
        "seeds chose",
        columns=("selector, layers", *ranking.tasks),
        rows=tuple(
            (row.name, *(_on_task(ranking, row, task) for task in ranking.tasks)) for row in ranking.rows if row.regret
        ),
        notes=(),
    )


def _on_task(ranking: SelectorRanking, row: RankedSelector, task: str) -> str:
    runs = [run for run in ranking.runs if (run.family, run.count, run.task) == (row.family, row.count, task)]
    if row.regret is None or task not in row.regret.by_task or not runs:
        return ""
    trained, often = Counter(run.trained for run in runs).most_common(1)[0]
    layers = " ".join(map(str, trained)) if 2 * often > len(runs) else "varies"
    return f"{signed_percent(row.regret.by_task[task], 1)} [{layers}]"


def _effects(ranking: SelectorRanking) -> TextTable:
    blocks = dict.fromkeys(effect.layers for effects in ranking.effects.values() for effect in effects)
    by_task = {
        task: {effect.layers: effect.change / ranking.tasks[task].learnt for effect in effects}
        for task, effects in ranking.effects.items()
    }
    return TextTable(
        title=f"Selectors, {ranking.model}: measured effect of freezing a layer",
        subtitle="mean change of the test score over neighbouring cells of the grid, as a share of what full "
        "fine-tuning learnt",
        columns=("layers", *by_task),
        rows=tuple(
            (_layers(block), *(signed_percent(of_task.get(block), 2) for of_task in by_task.values()))
            for block in sorted(blocks)
        ),
        notes=("The embeddings are frozen together with the lowest layers.",),
    )


def _layers(block: Sequence[int]) -> str:
    return str(block[0]) if len(block) == 1 else f"{block[0]}-{block[-1]}"


def _record(row: RankedSelector) -> dict[str, Any]:
    record: dict[str, Any] = {"family": row.family, "layers": row.count, "tasks": len(row.cost.by_task)}
    for name in ("regret", "advantage", "correlation", "loss", "cost", "probe_s", "probe_share"):
        value: TaskAverage | None = getattr(row, name)
        record[name] = value.estimate.mean if value else None
        record[f"{name}_half_width"] = value.estimate.half_width if value else None
    return record | {"by_task": dict(row.regret.by_task) if row.regret else {}}
