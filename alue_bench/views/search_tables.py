"""The terminal views of a search for the cheapest freezing setting that keeps the score.

One view is shown before the runs: what is searched. The other is shown after them: the freezing settings that were run,
and the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from alue_bench.reporting.numbers import percent, plain, signed
from alue_bench.searching.candidates import Candidate
from alue_bench.searching.observations import Loss, by_replicate, mean_score
from alue_bench.views.console import styled
from alue_bench.views.tables import SAMPLE_NOTE, plan_view
from alue_bench.views.wide_tables import Fitted

if TYPE_CHECKING:
    from alue_bench.planning.build import Plan
    from alue_bench.searching.policy import Decision
    from alue_bench.searching.state import SearchState

WHY = {
    "open": "not settled",
    "supported": "within the tolerance; upper bound within the margin",
    "given up": "its loss is above the tolerance",
    "undecided": "undecided: too few seeds for the size of the difference",
    "failed": "failed",
}


def question_view(plan: Plan, searches: Sequence[SearchState]) -> RenderableType:
    """Return the view that is shown before the runs of searches.

    It has the first runs, and for each task and model the number of freezing settings to choose from, and the budget.
    """
    lines: list[RenderableType] = [
        plan_view(plan),
        styled("The search begins with this run. It chooses the other runs from the results."),
    ]
    for search in searches:
        question, grid = search.question, search.grid
        short = f"; begins with low-fidelity runs (epochs: {grid.short_epochs})" if question.short_runs else ""
        lines.append(
            styled(
                f"{search.task}/{search.model}: the cheapest of {len(question.candidates)} settings that loses at most "
                f"{question.tolerance}; budget: {search.share(question.budget):.0%} of the cost of the whole grid "
                f"({question.budget:.1f} of {grid.cost:.1f} full fine-tunings, "
                f"{question.budget * grid.full_flops:.2e} FLOPs){short}"
            )
        )
    return Group(*lines)


def search_view(search: SearchState, decision: Decision) -> RenderableType:
    """Return the view that is shown after the runs of a search.

    It has a row for each freezing setting that was run, the most expensive first, and then the setting that was found.
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
        f"{1 - 2 * search.question.level:.0%} interval",
    )
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    full = search.question.full
    rows = [(full, None, ""), *((s.candidate, s.loss, _why(s.state, s.loss)) for s in decision.standings)]
    for candidate, loss, why in sorted(rows, key=lambda row: -row[0].cost):
        chosen = candidate == decision.best.candidate
        table.add_row(*_cells(search, candidate, loss), why, style="bold" if chosen else None)
    lines: list[RenderableType] = [
        Fitted(table),
        *map(styled, search.conclusion(decision)),
        styled(_compute(search, decision)),
    ]
    if any(run.spec.data.source == "sample" for run in search.grid.runs.values()):
        lines.append(styled(SAMPLE_NOTE, "yellow"))
    return Group(*lines)


def _why(state: str, loss: Loss | None) -> str:
    return "low fidelity only" if state == "open" and loss is None else WHY[state]


def _cells(search: SearchState, candidate: Candidate, loss: Loss | None) -> list[str]:
    evaluations = [done.dev for done in search.done]
    own = by_replicate(evaluations, candidate.name)
    short = next((e.score for e in evaluations if e.short and e.candidate == candidate.name), None)
    level = search.question.level
    return [
        candidate.name,
        percent(candidate.cost),
        "" if short is None else plain(short),
        str(len(own) or ""),
        plain(mean_score(own)) if own else "",
        signed(loss.mean) if loss else "",
        f"{signed(loss.lower(level))} to {signed(loss.upper(level))}" if loss else "",
    ]


def _compute(search: SearchState, decision: Decision) -> str:
    runs, reused = len(search.done), [done for done in search.done if done.reused]
    seconds = sum(done.train_s for done in search.done)
    free = f"; {len(reused)} of them were reused ({sum(d.train_s for d in reused):.1f} s)" if reused else ""
    budget = search.share(search.question.budget)
    return (
        f"Spent {search.share(decision.spent):.1%} of the grid's cost (budget {budget:.0%}): {runs} runs, "
        f"{decision.spent * search.grid.full_flops:.2e} FLOPs, {seconds:.1f} s of training{free}."
    )
