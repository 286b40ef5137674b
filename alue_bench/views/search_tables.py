"""The terminal views of a search for the cheapest freezing setting that keeps the score.

The first view is shown before the runs, and describes what is searched. The second is shown after the runs, with the
freezing settings that were run and the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from alue_bench.reporting.numbers import decimal, percent, signed
from alue_bench.searching.observations import by_replicate, mean_score
from alue_bench.searching.policy import Standing
from alue_bench.views.console import styled
from alue_bench.views.tables import SAMPLE_NOTE, plan_view
from alue_bench.views.wide_tables import Fitted

if TYPE_CHECKING:
    from alue_bench.planning.build import Plan
    from alue_bench.searching.policy import Decision
    from alue_bench.searching.state import SearchState

STATE_TEXTS = {
    "open": "not tested",
    "supported": "within the tolerance; upper bound within the margin",
    "given up": "given up: its loss is above tolerance and margin",
    "undecided": "undecided: a loss above tolerance and margin is not excluded",
    "failed": "failed",
    "nothing learnt": "nothing learnt",
}
"""The text that the table shows for each state of a freezing setting."""


def planned_search_view(plan: Plan, searches: Sequence[SearchState]) -> RenderableType:
    """Return the view that is shown before the first run of one or more searches.

    It shows the first runs and, for each task and model, the number of freezing settings to choose from and the budget.
    """
    several = any(len(search.question.fulls) > 1 for search in searches)
    these = "full fine-tuning at each learning rate" if several else "this run"
    lines: list[RenderableType] = [
        plan_view(plan),
        styled(f"The search begins with {these}. It chooses the other runs from the results."),
    ]
    for search in searches:
        question, grid = search.question, search.grid
        short = f"; begins with low-fidelity runs (epochs: {grid.short_epochs})" if question.short_runs else ""
        lines.append(
            styled(
                f"{search.task}/{search.model}: the cheapest of {len(question.candidates)} settings that loses at most "
                f"{question.tolerance}; budget: {search.share(question.budget):.0%} of the cost of the whole grid "
                f"({question.budget:.1f} of {grid.cost:.1f} full fine-tunings, "
                f"{question.budget * grid.full_flops:.2e} FLOPs){short}{_confirming(search)}"
            )
        )
    return Group(*lines)


def _confirming(search: SearchState) -> str:
    if not search.question.confirm:
        return "; without confirmation"
    seeds = "1 more seed" if search.question.confirm == 1 else f"{search.question.confirm} more seeds"
    cost = search.confirmation_cost
    return (
        f"; beside the budget, the answer and full are confirmed with {seeds} (at most {cost:.1f} full fine-tunings, "
        f"{cost * search.grid.full_flops:.2e} FLOPs)"
    )


def search_view(search: SearchState, decision: Decision) -> RenderableType:
    """Return the view that is shown after the runs of a search.

    It has a table with a row for each freezing setting that was run, the most expensive first. Sentences below it state
    the setting that was found and the cost of the search.
    """
    table = Table(
        title=f"Search {search.task}/{search.model}: {search.metric} on dev", title_justify="left", title_style="bold"
    )
    table.add_column("setting", no_wrap=True)
    columns = (
        "FLOPs",
        "low fidelity",
        "seeds",
        "score",
        "loss",
        f"{1 - search.question.level:.0%} bound",
    )
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    full = search.question.full
    rows = [(Standing(full, "open"), ""), *((standing, _state_text(standing)) for standing in decision.standings)]
    for standing, why in sorted(rows, key=lambda row: -row[0].candidate.cost):
        chosen = standing.candidate == decision.best.candidate
        table.add_row(*_cells(search, standing), why, style="bold" if chosen else None)
    lines: list[RenderableType] = [
        Fitted(table),
        *map(styled, search.conclusion(decision)),
        styled(_compute(search, decision)),
    ]
    if any(run.spec.data.source == "sample" for run in search.grid.runs.values()):
        lines.append(styled(SAMPLE_NOTE, "yellow"))
    return Group(*lines)


def _state_text(standing: Standing) -> str:
    return "low fidelity only" if standing.state == "open" and standing.loss is None else STATE_TEXTS[standing.state]


def _cells(search: SearchState, standing: Standing) -> list[str]:
    candidate, loss, level = standing.candidate, standing.loss, search.question.level
    evaluations = [done.dev for done in search.done if done.step.replicate not in search.question.confirming]
    own = by_replicate(evaluations, candidate.name)
    short = next((e.score for e in evaluations if e.short and e.candidate == candidate.name), None)
    return [
        candidate.name,
        percent(candidate.cost),
        "" if short is None else decimal(short),
        str(len(own) or ""),
        decimal(mean_score(own)) if own else "",
        signed(loss.mean) if loss else "",
        signed(loss.upper(level)) if loss and standing.tested and loss.pairs > 1 else "",
    ]


def _compute(search: SearchState, decision: Decision) -> str:
    runs, reused = len(search.done), [done for done in search.done if done.reused]
    seconds = sum(done.train_s for done in search.done)
    free = f"; {len(reused)} of them were reused ({sum(d.train_s for d in reused):.1f} s)" if reused else ""
    budget = search.share(search.question.budget)
    full_flops = search.grid.full_flops
    beside = f"; confirmation beside it: {decision.confirming * full_flops:.2e} FLOPs" if decision.confirming else ""
    return (
        f"Spent {search.share(decision.spent):.1%} of the grid's cost (budget {budget:.0%}): {runs} runs, "
        f"{decision.spent * full_flops:.2e} FLOPs{beside}, {seconds:.1f} s of training{free}."
    )
