"""How a search goes along: a bar over the budget on a terminal, plain lines elsewhere. Everything goes to stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from alue_bench.cli.progress import describe

if TYPE_CHECKING:
    from alue_bench.executors.local import Outcome
    from alue_bench.plan import PlannedRun
    from alue_bench.search.course import Course
    from alue_bench.search.policy import Decision


class SearchProgress:
    """Told of each decision, of the run that follows, and of how things stand afterwards.

    It is entered once for the whole search; plans that are executed meanwhile may enter it again.
    """

    REFRESH_S = 0.2

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = (
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}% of the budget"),
                TimeElapsedColumn(),
                console=console,
            )
            if console.is_terminal
            else None
        )
        self._task = self._bar.add_task("planning", total=None) if self._bar else None
        self._entered, self._spent, self._cost, self._last = 0, 0.0, 0.0, 0.0

    def __enter__(self) -> SearchProgress:
        self._entered += 1
        if self._bar and self._entered == 1:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered -= 1
        if self._bar and self._entered == 0:
            self._bar.stop()

    def begin(self, course: Course, decision: Decision) -> None:
        """Before a run."""
        assert decision.step is not None
        self._spent, self._cost = decision.spent, decision.step.cost
        if self._bar and self._task is not None:
            description = f"{course.task}/{course.model} {decision.step.candidate.name}"
            self._bar.update(
                self._task, description=escape(description), completed=self._spent, total=course.question.budget
            )
        short = ", short" if decision.step.short else ""
        self._print(f"{decision.step.candidate.name}, seed {decision.step.replicate + 1}{short}: {decision.why}")

    def settle(self, course: Course, decision: Decision) -> None:
        """After a run: what is spent, and what the candidate's loss is now known to be."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=decision.spent)
        last = course.done[-1].step.candidate if course.done else None
        standing = next((s for s in decision.standings if s.candidate == last and s.loss), None)
        known = ""
        if standing is not None and standing.loss is not None:
            loss = standing.loss
            known = f"; {standing.candidate.name} loses {loss.mean:.4f} ± {loss.standard_error:.4f}: {standing.state}"
        budget = course.share(course.question.budget)
        self._print(f"spent {course.share(decision.spent):.1%} of the grid (of {budget:.0%}){known}")

    def started(self, planned: PlannedRun) -> None:
        pass

    def advanced(self, planned: PlannedRun, done: int, total: int) -> None:
        now = time.monotonic()
        if self._bar and self._task is not None and now - self._last >= self.REFRESH_S:
            self._last = now
            self._bar.update(self._task, completed=self._spent + self._cost * done / total)

    def ended(self, outcome: Outcome) -> None:
        self._print(f"  {describe(outcome)}")

    def warned(self, message: str) -> None:
        self._print(f"warning: {message}")

    def _print(self, line: str) -> None:
        self._console.print(escape(line), highlight=False, soft_wrap=True)
