"""The progress of a search for the cheapest freezing setting, on stderr.

On a terminal and in a notebook, it is a bar that shows the share of the budget that is spent; elsewhere, lines are
printed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, TimeElapsedColumn

from alue_bench.views.console import PlainColumn, PlainConsole
from alue_bench.views.notebook import Bars
from alue_bench.views.progress import describe

if TYPE_CHECKING:
    from alue_bench.executors.outcome import Outcome
    from alue_bench.planning.build import PlannedRun
    from alue_bench.searching.policy import Decision
    from alue_bench.searching.state import RequestedRun, SearchState


class SearchProgress:
    """An observer of searches that shows their next runs, the runs' progress, and the decision after each run.

    A search chooses its runs one after the other, to find the cheapest freezing setting for a task and model.

    The observer is a context manager. It is entered once for all searches together, and again for each list of runs
    that the searches execute.
    """

    REFRESH_S = 0.2
    """The shortest time in seconds between two updates of the bar within a run."""

    def __init__(self, console: PlainConsole) -> None:
        """Create the observer. The bar appears when the observer is entered as a context manager."""
        self._console = console
        self._bar = (
            Bars(
                PlainColumn("{task.description}"),
                BarColumn(),
                PlainColumn("{task.percentage:>3.0f}% of the budget"),
                TimeElapsedColumn(),
                console=console,
            )
            if console.is_live
            else None
        )
        self._task = self._bar.add_task("planning", total=None) if self._bar else None
        self._entered, self._last = 0, 0.0
        self._budget = 0.0
        """The budget in FLOPs of all searches together."""
        self._spent: dict[str, float] = {}
        """The FLOPs that each search has spent so far, by the search's name."""
        self._costs: dict[str, float] = {}
        """The FLOPs of the runs last passed to `show_requested_runs`, without runs of the confirmation, by the run's
        fingerprint."""
        self._parts: dict[str, float] = {}
        """The share of its training steps that each unfinished run has done, by the run's fingerprint."""

    def __enter__(self) -> SearchProgress:
        """Show the bar on the outermost entry; nested entries do nothing."""
        self._entered += 1
        if self._bar and self._entered == 1:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the bar when the outermost context is left; nested exits do nothing."""
        self._entered -= 1
        if self._bar and self._entered == 0:
            self._bar.stop()

    def set_searches(self, searches: Sequence[SearchState]) -> None:
        """Set the searches to show, which proceed at the same time. Call this before their first run."""
        self._spent = dict.fromkeys(map(_name, searches), 0.0)
        self._budget = sum(search.question.budget * search.grid.full_flops for search in searches)

    def show_requested_runs(self, asked: Sequence[RequestedRun]) -> None:
        """Show the runs that the searches have asked for, before they are executed."""
        self._costs = {
            one.planned.spec.fingerprint: one.step.cost * one.search.grid.full_flops
            for one in asked
            if one.step.replicate not in one.search.question.confirming  # not part of the budget
        }
        self._parts.clear()
        one = asked[0]
        self._show(f"{_name(one.search)} {one.step.candidate.name}" if len(asked) == 1 else f"{len(asked)} runs")
        for one in asked:
            short = ", short" if one.step.short else ""
            self._print_for_search(
                one.search, f"{one.step.candidate.name}, seed {one.step.replicate + 1}{short}: {one.decision.reason}"
            )

    def show_decision(self, asked: RequestedRun, decision: Decision) -> None:
        """Show, after a run, the cost so far and the loss of score of the freezing setting that was run.

        Args:
            asked: The run that ended, with its search.
            decision: The decision of the search after this run.
        """
        search = asked.search
        self._spent[_name(search)] = decision.spent * search.grid.full_flops
        self._parts.pop(asked.planned.spec.fingerprint, None)
        self._show()
        standing = next((s for s in decision.standings if s.candidate == asked.step.candidate), None)
        known = ""
        if standing is not None and standing.loss is not None:
            loss = standing.loss
            error = f" ± {loss.standard_error:.4f}" if loss.pairs > 1 else ""
            known = f"; {standing.candidate.name} loses {loss.mean:.4f}{error}: {standing.state}"
        budget = search.share(search.question.budget)
        self._print_for_search(search, f"spent {search.share(decision.spent):.1%} of the grid (of {budget:.0%}){known}")

    def started(self, planned: PlannedRun) -> None:
        """Do nothing, since `show_requested_runs` has already shown the run."""

    def advanced(self, planned: PlannedRun, done: int, total: int) -> None:
        """Move the bar according to the steps that a run has done."""
        self._parts[planned.spec.fingerprint] = done / total
        now = time.monotonic()
        if now - self._last >= self.REFRESH_S:
            self._last = now
            self._show()

    def ended(self, outcome: Outcome) -> None:
        """Print a run's outcome."""
        self._print(f"  {describe(outcome)}")

    def warned(self, message: str) -> None:
        """Print a warning."""
        self._print(f"warning: {message}")

    def _show(self, description: str | None = None) -> None:
        """Set the bar to the cost so far, which includes the finished share of each run that has not ended.

        Args:
            description: The text to show next to the bar; None to leave the text as it is.
        """
        if self._bar is not None and self._task is not None:
            under_way = sum(self._costs.get(fingerprint, 0.0) * part for fingerprint, part in self._parts.items())
            self._bar.update(
                self._task,
                total=self._budget,
                completed=sum(self._spent.values()) + under_way,
                description=description,
            )

    def _print_for_search(self, search: SearchState, line: str) -> None:
        self._print(f"{_name(search)}: {line}" if len(self._spent) > 1 else line)

    def _print(self, line: str) -> None:
        self._console.print(line)


def _name(search: SearchState) -> str:
    return f"{search.task}/{search.model}"
