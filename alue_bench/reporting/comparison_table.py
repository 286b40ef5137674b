"""The comparison of strategies as text: tables for the terminal, Markdown and LaTeX; flat records for CSV and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alue_bench.evaluation.intervals import LEVEL, Estimate
from alue_bench.evaluation.margins import MarginUnit
from alue_bench.evaluation.significance import MIN_SEEDS, CrossedTestResult
from alue_bench.evaluation.yardstick import yardstick_name
from alue_bench.messages.display import latex, markdown
from alue_bench.reporting.comparison import (
    Comparison,
    ComparisonBlock,
    Difference,
    StrategyResult,
    Verdict,
    all_rows,
    describe_conditions,
)
from alue_bench.reporting.numbers import decimal, number_with_noun, percent, seconds, signed, signed_percent
from alue_bench.reporting.statements import MAX_STATEMENTS, inconclusive_text, seeds_text, statements
from alue_bench.reporting.training_times import ratio_text, session_mark, time_legend, time_record, train_mark
from alue_bench.reporting.untuned import untuned_text

FEW, UNTESTED = "†", "‡"
"""The marks in tables for a difference without a verdict: because of too few seeds or folds, or for another reason."""
Key = Callable[[StrategyResult], float | None]
"""A function that returns the value by which the row of a strategy is sorted; None if there is no such value."""

SORT_KEYS: dict[str, tuple[Key, bool]] = {
    # the function that returns the value, and whether the largest value comes first
    "score": (lambda row: row.score.mean if row.score else None, True),
    "delta": (lambda row: row.difference.mean if row.difference else 0.0, True),
    "time": (lambda row: row.train_s.mean if row.train_s else None, False),
    "speed-up": (lambda row: row.speed_up, True),
    "trainable": (lambda row: row.trainable_share, False),
    "flops": (lambda row: row.flops_share, False),
    "memory": (lambda row: row.memory_mib, False),
    "energy": (lambda row: row.energy_j, False),
}
DEFAULT_SORT = "strategy"
"""The default order of rows: first the baseline, then all other strategies by name (bottom3 before bottom10)."""


@dataclass(frozen=True)
class TextTable:
    """A table whose entries are texts. Usually, each row is a strategy for one task and model."""

    title: str
    subtitle: str
    """The conditions that distinguish this table from other tables of the same task and model, and facts that hold for
    all rows."""
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def text_tables(comparison: Comparison, *, sort: str = DEFAULT_SORT) -> list[TextTable]:
    """Return a table, whose entries are texts, for each set of comparable runs.

    Args:
        comparison: The comparison, as `comparison.compare` returns it.
        sort: The order of the rows: `DEFAULT_SORT` or one of the keys of the dictionary `SORT_KEYS`.
    """
    return [_text_table(block, sorted_rows(block, sort)) for block in comparison.blocks]


def sorted_rows(block: ComparisonBlock, sort: str = DEFAULT_SORT) -> list[StrategyResult]:
    """Return the results of strategies in the order `sort`, with missing values last.

    Args:
        block: The comparison of strategies for one set of comparable runs.
        sort: The order: `DEFAULT_SORT` or one of the keys of the dictionary `SORT_KEYS`.
    """
    if sort == DEFAULT_SORT:
        return list(block.rows)
    read, largest_first = SORT_KEYS[sort]

    def place(row: StrategyResult) -> tuple[bool, float]:
        value = read(row)
        return (value is None, 0.0 if value is None else -value if largest_first else value)

    return sorted(block.rows, key=place)


def explain(comparison: Comparison) -> list[str]:
    """Return the legend of the comparison's tables: lines that explain the numbers and the marks that occur."""
    if not comparison.blocks:
        return []
    rows = [row for _, row in all_rows(comparison)]
    flops = "FLOPs: relative to full fine-tuning."
    lines = []
    if any(not block.folds for block in comparison.blocks):
        lines.append(
            f"Score: mean over seeds ± t-interval ({LEVEL:.0%}). Δ: change over common seeds ± interval over seeds and "
            f"test examples. {flops}"
        )
        flops = ""
    if any(block.folds for block in comparison.blocks):
        lines.append(
            f"Folds: score and Δ are means over folds ± interval ({LEVEL:.0%}) of the corrected resampled t-test "
            f"(Nadeau & Bengio 2003), which allows for train rows that folds share. {flops}".rstrip()
        )
    lines += _verdict_lines(comparison)
    if any(block.learnt is not None for block in comparison.blocks):
        lines.append("Of learnt: Δ divided by the baseline's score minus the trivial score (baseline without a model).")
    return [*lines, *_mark_lines(comparison), *time_legend([row.times for row in rows])]


def explain_verdicts(comparison: Comparison) -> list[str]:
    """Return the lines of the legend that explain verdicts and marks, but not the lines that explain columns."""
    times = time_legend([row.times for _, row in all_rows(comparison)], marks_only=True)
    return [*_verdict_lines(comparison), *_mark_lines(comparison), *times]


def _verdict_lines(comparison: Comparison) -> list[str]:
    lines = []
    if comparison.tested:
        lines.append(
            f"* p < 0.05, ** p < 0.01, *** p < 0.001, corrected (Holm) for {comparison.tested} "
            f"comparison{'s' if comparison.tested > 1 else ''}."
        )
        lines.append(
            f"Loss up to: one-sided {LEVEL:.0%} bound of the loss, for each strategy on its own. Within the margin: "
            "this bound is below the margin. Inconclusive: neither a difference was found nor a loss above the margin "
            "excluded."
        )
    if any(row.collapsed for _, row in all_rows(comparison)):
        lines.append(
            "Collapsed: runs whose score is not above the trivial score (baseline without a model) by more than "
            "chance. Learnt nothing: more than half of the runs collapsed."
        )
    return lines


def _mark_lines(comparison: Comparison) -> list[str]:
    marks = {_mark(row.difference) for _, row in all_rows(comparison)}
    lines = []
    if FEW in marks:
        few = {
            block.replicate for block, row in all_rows(comparison) if row.difference and _mark(row.difference) == FEW
        }
        if "seed" in few:
            lines.append(f"{FEW} fewer than {MIN_SEEDS} seeds, so no verdict; use --seeds 5 to get one.")
        if "fold" in few:
            lines.append(f"{FEW} fewer than {MIN_SEEDS} folds, so no verdict; use --folds 5 to get one.")
    if UNTESTED in marks:
        lines.append(f"{UNTESTED} no verdict; the reason is below the table.")
    return lines


def records(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a flat dict for each strategy of each set of comparable runs, with None for missing values."""
    return [_record(block, row) for block, row in all_rows(comparison)]


def block_records(block: ComparisonBlock) -> list[dict[str, Any]]:
    """Return a flat dict for each strategy of one set of comparable runs, with None for missing and infinite values."""
    return [_finite(_record(block, row)) for row in block.rows]


def as_json(
    comparison: Comparison, across: Sequence[dict[str, Any]] = (), out_of_domain: Sequence[dict[str, Any]] = ()
) -> str:
    """Return the comparison as JSON: each set of comparable runs with its conditions and a record for each strategy.

    Args:
        comparison: The comparison, as `comparison.compare` returns it.
        across: The results across tasks, as `across_table.across_records` returns them.
        out_of_domain: The changes in and out of domain, as `out_of_domain_table.out_of_domain_records` returns them.
    """
    names = ("task", "model", "metric", "baseline", "trivial_score", "tfidf_score", "learnt")
    blocks = [
        {name: getattr(block, name) for name in names}
        | {"conditions": {name: _simple(value) for name, value in block.conditions.items()}}
        | {"margin": block.margin_size, "margin_given": str(block.margin)}
        | {"differing": list(block.differing), "notes": list(block.notes)}
        | {"nothing_learnt": block.unlearnt.as_dict() if block.unlearnt else None}
        | {"rows": [_record(block, row) for row in block.rows]}
        for block in comparison.blocks
    ]
    document = {"level": LEVEL, "tested": comparison.tested, "blocks": blocks, "across_tasks": list(across)}
    document["out_of_domain"] = list(out_of_domain)
    return json.dumps(_finite(document), ensure_ascii=False, indent=2)


def as_csv(comparison: Comparison) -> str:
    """Return the comparison as CSV, with the rows that `records` returns."""
    import pandas as pd

    return str(pd.DataFrame(records(comparison)).to_csv(index=False))


def as_markdown(comparison: Comparison, *, sort: str = DEFAULT_SORT) -> str:
    """Return the tables of the comparison as Markdown; for `sort` see `text_tables`."""
    return markdown_tables(text_tables(comparison, sort=sort), explain(comparison))


def markdown_tables(tables: Sequence[TextTable], legend: Sequence[str]) -> str:
    """Return tables, and the lines of the legend that explains them, as Markdown."""
    parts = []
    for table in tables:
        parts.append(f"### {markdown(table.title)}\n\n{markdown(table.subtitle)}\n")
        lines = [table.columns, ["---"] + ["---:"] * (len(table.columns) - 1), *table.rows]
        parts.append(
            "\n".join(
                f"| {' | '.join(cell if i == 1 else markdown(cell) for cell in line)} |" for i, line in enumerate(lines)
            )
        )
        parts.append("\n".join(f"- {markdown(note)}" for note in table.notes))
    parts.append("\n".join(markdown(line) + "  " for line in legend))
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def as_latex(comparison: Comparison, *, sort: str = DEFAULT_SORT) -> str:
    """Return LaTeX code with a table for each set of comparable runs; for `sort` see `text_tables`.

    The code needs the LaTeX package booktabs. All texts in it are escaped.
    """
    return latex_tables(text_tables(comparison, sort=sort), explain(comparison))


def latex_tables(tables: Sequence[TextTable], legend: Sequence[str]) -> str:
    """Return tables as LaTeX code, with the lines of the legend that explains them as comments."""
    parts = ["% Needs \\usepackage{booktabs}, UTF-8, and a LaTeX of 2020 or later."]
    for table in tables:
        width = len(table.columns)
        lines = [" & ".join(latex(cell) for cell in line) + r" \\" for line in (table.columns, *table.rows)]
        caption = ". ".join(latex(text.rstrip(".")) for text in (table.title, table.subtitle, *table.notes) if text)
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    r"\caption{" + caption + ".}",
                    r"\begin{tabular}{l" + "r" * (width - 1) + "}",
                    r"\toprule",
                    lines[0],
                    r"\midrule",
                    *lines[1:],
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    parts += ["% " + line for line in legend]
    return "\n".join(parts) + "\n"


# Cells -------------------------------------------------------------------------------------------------------------


Column = tuple[str, Callable[[StrategyResult], str]]
"""A column of a table: its name, and the function that returns its entry in the row of a strategy."""


def _verdict_columns(block: ComparisonBlock, rows: Sequence[StrategyResult]) -> list[Column]:
    """Return the columns on collapsed runs, losses and verdicts, without those in which every entry would be empty."""
    differences = [row.difference for row in rows if row.difference]
    columns: list[Column] = []
    if any(row.collapsed for row in rows):
        columns.append(("collapsed", collapsed_text))
    if differences and block.learnt is not None:
        columns.append(("of learnt", lambda row: of_learnt_text(block, row.difference)))
    if any(difference.loss_bound is not None for difference in differences):
        columns.append(("loss up to", lambda row: loss_text(row.difference)))
    if any(map(verdict_text, rows)):
        columns.append(("verdict", verdict_text))
    return columns


def collapsed_text(row: StrategyResult) -> str:
    """Format the number of runs that collapsed, such as "2 of 5"; empty if none did."""
    return f"{row.collapsed} of {row.learning.seeds}" if row.learning is not None and row.collapsed else ""


def of_learnt_text(block: ComparisonBlock, difference: Difference | None) -> str:
    """Format a difference as a share of what the baseline learnt; empty for the baseline itself, or if unknown."""
    share = block.share_of_learnt(difference.mean) if difference else None
    return "" if share is None else signed_percent(share)


def loss_text(difference: Difference | None) -> str:
    """Format the upper bound of a loss; empty if there is none, and "no loss" if a gain was shown."""
    if difference is None or difference.loss_bound is None:
        return ""
    return decimal(difference.loss_bound) if difference.loss_bound > 0 else "no loss"


def verdict_text(row: StrategyResult) -> str:
    """Format the verdict on a strategy, such as "within the margin", and whether the strategy learnt nothing.

    If only the baseline learnt nothing, the result is "no verdict". If there is no verdict for another reason, the
    result is empty.
    """
    difference = row.difference
    judged = str(difference.verdict) if difference and difference.loss_bound is not None else ""
    if row.learnt_nothing:
        return f"{judged}, learnt nothing" if judged else "learnt nothing"
    return "no verdict" if difference and difference.verdict is Verdict.NOTHING_LEARNT else judged


def margin_text(block: ComparisonBlock) -> str:
    """Format a comparison's margin, the largest acceptable loss, such as "margin 0.008 (1% of full's score)"."""
    unit = block.margin.unit
    if unit is MarginUnit.METRIC:
        return f"margin {block.margin}"
    margin = f"{block.margin} of {block.baseline}'s score" if unit is MarginUnit.SCORE else str(block.margin)
    if block.margin_size is None:
        return f"margin {margin}, which is not known: {block.metric.removeprefix('test/')} has no lower trivial score"
    return f"margin {decimal(block.margin_size, 4)} ({margin})"


def _text_table(block: ComparisonBlock, rows: Sequence[StrategyResult]) -> TextTable:
    columns: list[Column] = [
        ("strategy", lambda row: row.strategy),
        ("score", lambda row: score_text(row.score)),
        (f"Δ {block.baseline}", lambda row: difference_text(row.difference)),
        *_verdict_columns(block, rows),
        ("train", lambda row: seconds(row.train_s.mean if row.train_s else None) + train_mark(row.times)),
        ("Δ time", lambda row: change_text(row.time_change) + session_mark(row.times)),
        ("speed-up", lambda row: ratio_text(row.times.speed_up) if row.times else ""),
        ("trained", lambda row: percent(row.trainable_share)),
        ("FLOPs", lambda row: percent(row.flops_share)),
        ("MiB", lambda row: decimal(row.memory_mib, 0)),
    ]
    if any(row.energy_j is not None for row in rows):
        columns.append(("joules", lambda row: decimal(row.energy_j, 0)))
    facts = [f"{block.conditions['data_source'] or 'unknown'} data"]
    seeds, folds = {row.seeds for row in rows}, {row.folds for row in rows}
    if len(seeds) > 1:
        columns.insert(1, ("seeds", lambda row: str(len(row.seeds))))
    else:
        facts.append(number_with_noun(len(next(iter(seeds))), "seed"))
    if len(folds) > 1:
        columns.insert(1, ("folds", lambda row: str(row.folds)))
    elif block.folds:
        repeated = f" ({block.folds} in each repeat)" if rows[0].folds > block.folds else ""
        facts.append(f"{number_with_noun(rows[0].folds, 'fold')}{repeated}")
    if block.trivial_score is not None:
        facts.append(f"trivial score {decimal(block.trivial_score)} (baseline without a model)")
    if block.tfidf_score is not None:
        facts.append(f"{yardstick_name(block.metric)} {decimal(block.tfidf_score)}")
    if any(row.difference and row.difference.loss_bound is not None for row in rows):
        facts.append(margin_text(block))
    if len(rows) > 1 and (untuned := untuned_text(block.conditions["lr"])):
        facts.append(untuned)
    if conditions := describe_conditions(block):
        facts.append(conditions)
    return TextTable(
        title=f"{block.task}, {block.model}: {block.metric.removeprefix('test/')}",
        subtitle="; ".join(facts),
        columns=tuple(name for name, _ in columns),
        rows=tuple(tuple(read(row) for _, read in columns) for row in rows),
        notes=(*block.notes, *statements(block), *_short_notes(block)),
    )


def score_text(score: Estimate | None) -> str:
    """Format a mean score and half the width of its interval, such as "0.745 ± 0.012"; "undefined" for None."""
    if score is None:
        return "undefined"
    return decimal(score.mean) + (f" ± {decimal(score.half_width)}" if score.half_width is not None else "")


def difference_text(difference: Difference | None) -> str:
    """Format a difference of scores, half the width of its interval, and stars or a mark.

    The result is empty for None, as for the baseline itself (see `StrategyResult.difference`).
    """
    if difference is None:
        return ""
    interval = f" ± {decimal(difference.test.half_width)}" if difference.test else ""
    mark = difference.stars or _mark(difference)
    return f"{signed(difference.mean)}{interval}" + (f" {mark}" if mark else "")


def change_text(change: Estimate | None) -> str:
    """Format a relative change in per cent, and half the width of its interval.

    The result is empty for None, as for the baseline itself or if there is nothing to compare.
    """
    if change is None:
        return ""
    interval = f" ± {decimal(100 * change.half_width, 0)}" if change.half_width is not None else ""
    return f"{signed_percent(change.mean)}{interval}"


def _mark(difference: Difference | None) -> str:
    if difference is None:
        return ""
    marks = {Verdict.TOO_FEW_SEEDS: FEW, Verdict.NOT_TESTED: UNTESTED, Verdict.NOTHING_LEARNT: UNTESTED}
    return marks.get(difference.verdict, "")


def _short_notes(block: ComparisonBlock) -> Iterable[str]:
    """Yield a short note on each strategy whose comparison is inconclusive or was not tested.

    Nothing is yielded if the block has so few strategies that each gets a full sentence (`statements`), or if the
    baseline learnt nothing.
    """
    others = [row for row in block.rows if row.strategy != block.baseline]
    if len(others) <= MAX_STATEMENTS or block.unlearnt is not None:
        return
    for row in others:
        difference = row.difference
        if difference is None:
            continue
        if difference.verdict in (Verdict.NOT_TESTED, Verdict.NOTHING_LEARNT):
            yield f"{row.strategy}: {difference.reason}"
        elif difference.verdict is Verdict.INCONCLUSIVE and difference.loss_bound is not None:
            needed = seeds_text(difference, block)
            yield f"{row.strategy}: {inconclusive_text(difference, block)}{f'; {needed}' if needed else ''}"


def _record(block: ComparisonBlock, row: StrategyResult) -> dict[str, Any]:
    difference, test = row.difference, row.difference.test if row.difference else None
    score, time, change = row.score, row.train_s, row.time_change
    record = {
        "task": block.task,
        "model": block.model,
        "strategy": row.strategy,
        "metric": block.metric.removeprefix("test/"),
        "score": score.mean if score else None,
        "score_half_width": score.half_width if score else None,
        "seeds": len(row.seeds),
        "trivial_score": block.trivial_score,
        "learnt": None if row.learning is None else row.learning.has_learnt,
        "collapsed": None if row.learning is None else row.learning.collapsed,
        "baseline": block.baseline,
        "difference": difference.mean if difference else None,
        "difference_half_width": test.half_width if test else None,
        "p_value": test.p_value if test else None,
        "p_corrected": difference.p_corrected if difference else None,
        "margin": block.margin_size,
        "margin_given": str(block.margin),
        "loss_bound": difference.loss_bound if difference else None,
        "difference_of_learnt": block.share_of_learnt(difference.mean) if difference else None,
        "loss_bound_of_learnt": block.share_of_learnt(difference.loss_bound) if difference else None,
        "seeds_within_margin": difference.seeds_within_margin if difference else None,
        "verdict": str(difference.verdict) if difference else None,
        "reason": difference.reason or None if difference else None,
        "common_seeds": difference.seeds if difference and not block.folds else None,
        "common_folds": difference.seeds if difference and block.folds else None,
        "test": None if test is None else "crossed" if isinstance(test, CrossedTestResult) else "corrected resampled t",
        "cohens_d": difference.cohens_d if difference else None,
        "probability_of_improvement": difference.improvement if difference else None,
        "seed_share_of_variance": test.seed_share if isinstance(test, CrossedTestResult) else None,
        "detectable_difference": difference.detectable if difference else None,
        "seeds_needed": difference.seeds_needed if difference else None,
        "p_examples_only": difference.p_examples if difference else None,
        "bootstrap_low": difference.bootstrap[0] if difference and difference.bootstrap else None,
        "bootstrap_high": difference.bootstrap[1] if difference and difference.bootstrap else None,
        "train_s": time.mean if time else None,
        "train_s_half_width": time.half_width if time else None,
        "time_change": change.mean if change else None,
        "time_change_half_width": change.half_width if change else None,
        "speed_up": row.speed_up,
        **time_record(row.times),
        "trainable_share": row.trainable_share,
        "flops_share": row.flops_share,
        "memory_mib": row.memory_mib,
        "energy_j": row.energy_j,
        "freeze_bottom": row.freeze[0] if row.freeze else None,
        "freeze_top": row.freeze[1] if row.freeze else None,
        "freeze_embeddings": row.freeze[2] if row.freeze else None,
        "run_ids": " ".join(row.run_ids),
    }
    return record | {name: _simple(value) for name, value in block.conditions.items()}


def _simple(value: Any) -> Any:
    """Convert a numpy number to a Python number; return other values unchanged."""
    return value.item() if hasattr(value, "item") else value


def _finite(value: Any) -> Any:
    """Return a nested JSON-like value in which nan and infinity, which JSON does not support, are replaced by None."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
