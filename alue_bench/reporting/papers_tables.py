"""Tables 1 to 7 of the paper by Betka et al. (see the module `published`), with our results next to the paper's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alue_bench.reporting.content import Cell, Column, Folded, Item, Missing, Paragraph, ReportTable, Row, RowGroup
from alue_bench.reporting.numbers import MISSING, decimal, number_with_noun, signed_percent
from alue_bench.reporting.published import FROZEN, FULL, SOURCE, TITLES, beside_published, measured, published_results
from alue_bench.reporting.subjects import Subject

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_METRIC = "f1_macro"
COMMAND = "alue-bench run --config paper-tables --data-dir DIR"
"""A command that produces our results for the tables."""

COLUMNS = [
    Column("F1 full: paper"),
    Column("ours"),
    Column(f"F1 {FROZEN}: paper"),
    Column("ours"),
    Column("change of F1: paper", explained="relative to full, as the paper prints it"),
    Column("ours", explained="relative to full, computed as in the paper"),
    Column("time saved: paper", explained="relative to full; the paper's hardware is not stated"),
    Column("ours", explained="relative to full"),
]


def papers_tables(subjects: Sequence[Subject], metric: str | None) -> list[Item]:
    """Return the paper's tables with additional columns for our results.

    The additional columns are empty if there are no runs. Runs of cross-validations are not used.

    Args:
        subjects: The subjects to show. A subject is the comparison of strategies for one task and model under one set
            of conditions, with its runs.
        metric: The variant of F1 that is shown for our runs; macro-F1 if it is None or not a variant of F1.
    """
    chosen = metric if metric and metric.startswith("f1_") else DEFAULT_METRIC
    # The paper reports scores on the official splits, which cannot be compared with scores on folds.
    runs, left_out_sentence = _one_recipe_each([subject for subject in subjects if not subject.compared.folds])
    has_metric = runs is not None and f"test/{chosen}" in runs.columns
    table = beside_published(runs, chosen) if runs is not None and has_metric else _published_alone()
    groups = []
    for number, part in table.groupby("table", sort=True):
        task = str(part["task"].iloc[0])
        rows = [_row(row) for row in part.to_dict("records")]
        if runs is not None and has_metric:
            rows += _others(runs[runs["task"] == task], set(part["model"]), chosen)
        groups.append(RowGroup(f"Table {number}: {TITLES[int(str(number))]}", rows, f"({task})"))
    items: list[Item] = [
        Paragraph(
            f"Published: {SOURCE}. Ours: {chosen}, mean over seeds. The paper does not say which F1 it reports, and "
            "its tables on offensive and hate speech fit no single choice. So a difference from the paper does not "
            "show that a result fails to replicate, and agreement does not show that it replicates."
        ),
        *([Paragraph(left_out_sentence, warning=True)] if left_out_sentence else []),
        ReportTable(f"Published numbers beside ours ({chosen})", "task, model", COLUMNS, groups),
    ]
    empty = int(((table["runs_full"] == 0) | (table["runs_frozen"] == 0)).sum())
    if empty:
        missing = f"{number_with_noun(empty, 'row')} of {len(table)} have no run of ours yet. To produce them, run:"
        items.append(Missing(missing, COMMAND))
    if runs is not None:
        items += _every_variant(runs)
    return items


def _published_alone() -> pd.DataFrame:
    """Return the table that `published.beside_published` would return without any runs, with our columns empty."""
    import pandas as pd

    return beside_published(pd.DataFrame(columns=["task", "model", "strategy", "runtime/train_s"]))


def _one_recipe_each(subjects: Sequence[Subject]) -> tuple[pd.DataFrame | None, str]:
    """Choose one recipe, that is, a set of hyper-parameters and splits, for each task and model.

    The chosen recipe is the one with the most training rows and, among equals, the most runs. Only one is shown, since
    the paper gives one number for each task and model, and a mean over runs of two recipes has no meaning.

    Returns:
        The runs of the strategies `FULL` and `FROZEN` with the chosen recipes (None if there are no runs), and a
        sentence on the recipes that are left out (empty if none is).
    """
    import pandas as pd

    best: dict[tuple[str, str], tuple[float, int, pd.DataFrame]] = {}
    left_out = 0
    for subject in subjects:
        runs = subject.runs[subject.runs["strategy"].isin((FULL, FROZEN))]
        if runs.empty:
            continue
        key = subject.task, subject.model
        rows = float(runs["data/train_rows"].max()) if "data/train_rows" in runs else math.nan
        candidate = (-1.0 if math.isnan(rows) else rows, len(runs), runs)
        left_out += key in best
        if key not in best or candidate[:2] > best[key][:2]:
            best[key] = candidate
    if not best:
        return None, ""
    sentence = (
        f"{number_with_noun(left_out, 'set')} of runs with other settings or fewer training rows are left out here."
    )
    return pd.concat([runs for _, _, runs in best.values()], ignore_index=True), sentence if left_out else ""


def _row(row: dict[str, Any]) -> Row:
    published = [row[f"published_{name}"] for name in ("f1_full", "f1_frozen", "f1_change_pct", "runtime_saving_pct")]
    return Row(str(row["model"]), _cells(published, row), note=_counted(row))


def _others(runs: pd.DataFrame, published: set[str], metric: str) -> list[Row]:
    """Return a table row for each of our models that the paper did not use.

    Args:
        runs: Our runs of one task.
        published: The models in the paper's table of the task.
        metric: The variant of F1, such as "f1_macro".
    """
    rows = []
    for model, part in runs.groupby("model", sort=False):
        if model not in published and part[f"test/{metric}"].notna().any():
            ours = measured(part, metric)
            rows.append(Row(str(model), _cells([math.nan] * 4, ours), note=f"not in the paper; {_counted(ours)}"))
    return rows


def _cells(published: Sequence[float], ours: dict[str, Any]) -> list[Cell]:
    full, frozen, change, saving = published
    return [
        Cell(decimal(full)),
        _ours(decimal(ours["f1_full"])),
        Cell(decimal(frozen)),
        _ours(decimal(ours["f1_frozen"])),
        Cell(signed_percent(change / 100, 1)),
        _ours(signed_percent(ours["f1_change_pct"] / 100, 1)),
        Cell(signed_percent(saving / 100, 1).removeprefix("+")),
        _ours(signed_percent(ours["runtime_saving_pct"] / 100, 1).removeprefix("+")),
    ]


def _counted(row: dict[str, Any]) -> str:
    counts = row["runs_full"], row["runs_frozen"]
    if not any(counts):
        return ""
    return (
        number_with_noun(counts[0], "seed")
        if counts[0] == counts[1]
        else f"{counts[0]} and {number_with_noun(counts[1], 'seed')}"
    )


def _ours(text: str) -> Cell:
    return Cell(text, tone="muted" if text == MISSING else "strong")


def _every_variant(runs: pd.DataFrame) -> list[Item]:
    """Return a table of our results with all variants of F1, since the paper does not state which variant it used."""
    known = published_results().set_index(["task", "model"])
    groups = []
    for (task, model), part in runs.groupby(["task", "model"], sort=False):
        if task not in known.index.get_level_values("task"):
            continue
        rows = [
            Row(name, [Cell(decimal(ours["f1_full"])), Cell(decimal(ours["f1_frozen"])), Cell(change)])
            for name in sorted(name.removeprefix("test/") for name in part.columns if name.startswith("test/f1_"))
            if part[f"test/{name}"].notna().any()
            for ours in [measured(part, name)]
            for change in [signed_percent(ours["f1_change_pct"] / 100, 1)]
        ]
        remark = "not in the paper"
        if (task, model) in known.index:
            paper = known.loc[(task, model)]
            change = signed_percent(paper["f1_change_pct"] / 100, 1)
            remark = f"paper: {decimal(paper['f1_full'])}, {decimal(paper['f1_frozen'])}, {change}"
        groups.append(RowGroup(f"{task} · {model}", rows, remark))
    columns = [Column(FULL), Column(FROZEN), Column("change")]
    table = ReportTable("Every variant of F1 that was recorded", "task and model, variant", columns, groups)
    return [Folded("The same with every variant of F1", [table])] if groups else []
