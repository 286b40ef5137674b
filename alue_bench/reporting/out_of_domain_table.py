"""The changes in and out of domain as text tables, as flat records for CSV and JSON, and as a section of a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from alue_bench.evaluation.intervals import LEVEL, Estimate
from alue_bench.reporting.comparison_table import TextTable, latex_tables, markdown_tables
from alue_bench.reporting.content import Cell, Column, Item, Paragraph, ReportTable, Row, RowGroup
from alue_bench.reporting.numbers import decimal, number_with_noun, signed
from alue_bench.reporting.out_of_domain import OutOfDomain, StrategyOutOfDomain

NO_RESULTS = (
    "no model was scored on another task. Add --also-test TASK to alue-bench run, such as --task oold --also-test "
    "mlma-offensive"
)
"""The sentence for users if no run has scores on another task."""
COMMAND = (
    "alue-bench run --task oold --also-test mlma-offensive --strategy full --strategy bottom3top4 --strategy head-only "
    "--seeds 5"
)
"""A command that produces runs for this section of a report page."""
INTRO = (
    "The same trained models, scored on the task's own test split and on that of another task. Δ out − Δ in: whether "
    "a strategy's change against the baseline is different out of domain. The test takes seeds and the examples of "
    "both test sets as random, pairs the two changes by seed, and is corrected for the number of tests."
)


def out_of_domain_tables(results: Sequence[OutOfDomain]) -> list[TextTable]:
    """Return a plain-text table for each trained task, model and other task."""
    return [
        TextTable(
            title=title(result),
            subtitle=_subtitle(result),
            columns=(
                "strategy", "seeds", "in domain", "out of domain", "Δ in", "Δ out", "Δ out − Δ in", "p",
            ),
            rows=tuple((row.strategy, str(row.seeds), *_cells(row)) for row in result.rows),
            notes=(*result.notes, *_reasons(result), *findings(result)),
        )
        for result in results
    ]  # fmt: skip


def out_of_domain_legend(results: Sequence[OutOfDomain]) -> list[str]:
    """Return lines that explain the columns of the tables; empty without results."""
    if not results:
        return []
    return [
        f"In and out of domain: means over seeds ± {LEVEL:.0%} interval. Δ: change against the baseline with the same "
        "seeds. Δ out − Δ in: with an interval over seeds and the examples of both test sets; its p-value is corrected "
        "for the number of tests (Holm).",
    ]


def out_of_domain_records(results: Sequence[OutOfDomain]) -> list[dict[str, Any]]:
    """Return a flat dict for each strategy of each trained task, model and other task, with None for missing values."""
    return [_record(result, row) for result in results for row in result.rows]


def out_of_domain_as_json(results: Sequence[OutOfDomain]) -> str:
    """Return the records of `out_of_domain_records` as a JSON document."""
    document = {"level": LEVEL, "out_of_domain": out_of_domain_records(results)}
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def out_of_domain_as_csv(results: Sequence[OutOfDomain]) -> str:
    """Return the records of `out_of_domain_records` as CSV."""
    import pandas as pd

    return str(pd.DataFrame(out_of_domain_records(results)).to_csv(index=False))


def out_of_domain_as_markdown(results: Sequence[OutOfDomain]) -> str:
    """Return the tables of `out_of_domain_tables` as Markdown; empty without results."""
    return markdown_tables(out_of_domain_tables(results), out_of_domain_legend(results)) if results else ""


def out_of_domain_as_latex(results: Sequence[OutOfDomain]) -> str:
    """Return the tables of `out_of_domain_tables` as LaTeX code for the package booktabs; empty without results."""
    return latex_tables(out_of_domain_tables(results), out_of_domain_legend(results)) if results else ""


def section_items(results: Sequence[OutOfDomain]) -> list[Item]:
    """Return the tables and notes on scores in and out of domain as items of a report page."""
    columns = [
        Column("seeds"),
        Column("in domain", explained="mean score on the task's own test split"),
        Column("out of domain", explained="mean score on the other task's test split"),
        Column("Δ in", explained="change against the baseline in domain, same seeds"),
        Column("Δ out", explained="change against the baseline out of domain, same seeds"),
        Column("Δ out − Δ in", explained=f"± half-width of its {LEVEL:.0%} interval"),
        Column("p", explained="corrected for the number of tests (Holm)"),
    ]
    items: list[Item] = []
    for result in results:
        rows = [Row(row.strategy, [Cell(str(row.seeds)), *map(Cell, _cells(row))]) for row in result.rows]
        items.append(ReportTable(title(result), "strategy", columns, [RowGroup(result.model, rows, _subtitle(result))]))
        items += [Paragraph(f"{note}.") for note in (*result.notes, *_reasons(result), *findings(result))]
    return items


def title(result: OutOfDomain) -> str:
    """Return a heading with the trained task, the other task, the model and the metric."""
    return f"{result.task} → {result.elsewhere}, {result.model}: {result.metric} in and out of domain"


def findings(result: OutOfDomain) -> list[str]:
    """Return a sentence for each strategy whose change out of domain differs significantly from that in domain."""
    sentences = []
    for row in result.rows:
        if row.test is None or row.p_corrected is None or row.p_corrected >= 1 - LEVEL:
            continue
        better = "better" if row.test.difference > 0 else "worse"
        sentences.append(
            f"{row.strategy} does {better} against {result.baseline} on {result.elsewhere} than on {result.task}: by "
            f"{decimal(abs(row.test.difference))} ± {decimal(row.test.half_width)}"
        )
    return sentences


def _subtitle(result: OutOfDomain) -> str:
    facts = [f"{number_with_noun(result.examples, 'test example')} of {result.elsewhere}"]
    if result.left_out:
        facts.append(f"{result.left_out} left out, whose gold label no label of {result.task} counts as")
    if result.trivial_inside is not None and result.trivial_outside is not None:
        facts.append(
            f"without reading the text: {decimal(result.trivial_inside)} in, {decimal(result.trivial_outside)} out"
        )
    return "; ".join(facts)


def _cells(row: StrategyOutOfDomain) -> list[str]:
    tested = row.test
    return [
        _points(row.inside),
        _points(row.outside),
        "" if row.change_inside is None else signed(row.change_inside),
        "" if row.change_outside is None else signed(row.change_outside),
        f"{signed(tested.difference)} ± {decimal(tested.half_width)}" if tested else "",
        "" if row.p_corrected is None else decimal(row.p_corrected),
    ]


def _points(value: Estimate | None) -> str:
    if value is None:
        return "undefined"
    return decimal(value.mean) + (f" ± {decimal(value.half_width)}" if value.half_width is not None else "")


def _reasons(result: OutOfDomain) -> list[str]:
    return [f"{row.strategy}: not tested, {row.reason}" for row in result.rows if row.reason]


def _record(result: OutOfDomain, row: StrategyOutOfDomain) -> dict[str, Any]:
    tested = row.test
    return {
        "task": result.task,
        "elsewhere": result.elsewhere,
        "model": result.model,
        "metric": result.metric,
        "strategy": row.strategy,
        "baseline": result.baseline,
        "seeds": row.seeds,
        "score_in": row.inside.mean if row.inside else None,
        "score_out": row.outside.mean if row.outside else None,
        "change_in": row.change_inside,
        "change_out": row.change_outside,
        "difference": tested.difference if tested else None,
        "half_width": tested.half_width if tested else None,
        "error": tested.error if tested else None,
        "p_value": tested.p_value if tested else None,
        "p_corrected": row.p_corrected,
        "not_tested": row.reason or None,
        "test_examples_out": result.examples,
        "left_out_examples": result.left_out,
        "trivial_in": result.trivial_inside,
        "trivial_out": result.trivial_outside,
    }
