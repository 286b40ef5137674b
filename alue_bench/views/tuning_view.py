"""The views of tuned strategies, for terminals and notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table

from alue_bench.evaluation.intervals import estimate
from alue_bench.executors.outcome import Outcome
from alue_bench.reporting.comparison import BASELINE
from alue_bench.reporting.numbers import decimal, signed
from alue_bench.views.console import styled
from alue_bench.views.text_tables import text_table_view
from alue_bench.views.wide_tables import Fitted

if TYPE_CHECKING:
    from alue_bench.reporting.tuning import TunedComparison


def choices_view(strategies: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the view of each strategy's chosen hyper-parameters and dev score, shown before the runs with fresh seeds.

    Args:
        strategies: The tuning of each strategy, in the form of `studies.tuning.TunedStrategy.as_dict`.
    """
    from alue_bench.reporting.tuning import chosen_text

    table = Table(title="Chosen on dev", title_justify="left", title_style="bold")
    for column in ("task", "model", "strategy", "chosen", "dev score"):
        table.add_column(column, justify="right" if column == "dev score" else "left")
    for one in strategies:
        score = "" if one["dev_score"] is None else decimal(one["dev_score"])
        table.add_row(one["task"], one["model"], one["strategy"], chosen_text(one), score)
    return Fitted(table)


def tuned_runs_view(tuning: Mapping[str, Any], outcomes: Sequence[Outcome]) -> RenderableType:
    """Return the view of the runs with the tuned hyper-parameters: test scores, changes, and cost of tuning.

    The changes are differences from the tuned baseline.

    Args:
        tuning: The tuning of all strategies: the value of the key "tuning" in `TunedRuns.document`.
        outcomes: The outcomes of the runs with the tuned hyper-parameters.
    """
    from alue_bench.reporting.comparison_table import score_text
    from alue_bench.reporting.tuning import Tuning, chosen_text, cost_text, edge_remarks

    seeds = ", ".join(map(str, tuning["seeds"][:5])) + (", …" if len(tuning["seeds"]) > 5 else "")
    title = f"Test scores of tuned strategies (seeds {seeds})"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("task/model: strategy", no_wrap=True)
    for column in ("chosen", "score", f"Δ {BASELINE}", "tuning cost"):
        table.add_column(column, justify="left" if column in ("chosen", "tuning cost") else "right")
    scores: dict[tuple[str, str, str], dict[int, float]] = {}
    for outcome in outcomes:
        if outcome.status != "failed" and "test/score" in outcome.metrics:
            key = outcome.spec.task, outcome.spec.model, outcome.spec.strategy
            scores.setdefault(key, {})[outcome.spec.seed] = outcome.metrics["test/score"]
    previous = None
    for one in tuning["strategies"]:
        pair = one["task"], one["model"]
        if pair != previous:
            previous = pair
            table.add_section()
            table.add_row(styled("/".join(pair), "bold"), "", "", "", "")
        own, base = scores.get((*pair, one["strategy"]), {}), scores.get((*pair, BASELINE), {})
        changes = estimate([own[seed] - base[seed] for seed in own if seed in base])
        change = "" if changes is None or one["strategy"] == BASELINE else signed(changes.mean)
        table.add_row(
            f"  {one['strategy']}", chosen_text(one), score_text(estimate([*own.values()])), change, cost_text(one)
        )
    parts: list[RenderableType] = [Fitted(table)]
    tunings = [
        Tuning(
            *pair,
            tuning["axes"],
            tuning["tune_seeds"],
            {s["strategy"]: s for s in tuning["strategies"] if (s["task"], s["model"]) == pair},
        )
        for pair in dict.fromkeys((one["task"], one["model"]) for one in tuning["strategies"])
    ]
    parts += [styled(remark, "yellow") for remark in edge_remarks(tunings)]
    parts.append(styled("Intervals and verdicts: alue-bench compare --tuned", "dim"))
    return Group(*parts)


def tuned_view(compared: Sequence[TunedComparison]) -> RenderableType:
    """Return the view of the comparisons of tuned strategies: a table with notes for each task and model."""
    from alue_bench.reporting.tuning import tuned_table

    parts: list[RenderableType] = []
    for one in compared:
        parts += [*text_table_view(tuned_table(one), left=(0, 1, 6, 7), wrapped=(1, 7)), styled("")]
    return Group(*parts)
