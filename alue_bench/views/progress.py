"""The progress of a plan (a command's list of runs) on stderr.

On a terminal and in a notebook, it is a bar that is updated in place; elsewhere, lines are printed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import RenderableType
from rich.progress import BarColumn, TimeElapsedColumn, TimeRemainingColumn

from alue_bench.executors.outcome import Outcome
from alue_bench.planning.build import Plan, PlannedRun
from alue_bench.planning.variation import labelled, varied_names_of_specs
from alue_bench.views.console import PlainColumn, PlainConsole
from alue_bench.views.notebook import Bars


def progress_of(plan: Plan, console: PlainConsole, *, on_dev: bool = False) -> PlainProgress | LiveProgress:
    """Return an observer that shows the progress of a plan, that is, of a list of runs.

    On a terminal or in a notebook, it updates a progress bar in place; otherwise it prints lines.

    Args:
        plan: The runs to observe.
        console: The console on which the progress is shown.
        on_dev: True to show dev scores instead of test scores.
    """
    if console.is_live:
        return LiveProgress(plan, console, on_dev=on_dev)
    return PlainProgress(plan, console, on_dev=on_dev)


def describe(outcome: Outcome, varied: Sequence[str] = (), *, on_dev: bool = False) -> str:
    """Return one line of text that describes the outcome of a run.

    Args:
        outcome: The run's outcome.
        varied: The names of the hyper-parameters that vary between runs; the line shows their values.
        on_dev: True to show the dev score instead of the test score.
    """
    label = labelled(outcome.spec, varied)
    if outcome.status == "failed":
        return f"{label}: failed: {outcome.cause}"
    primary = outcome.planned.inputs.task.primary
    source = " [sample data]" if outcome.spec.data.source == "sample" else ""
    score = f"dev {primary}" if on_dev else primary
    value = outcome.metrics["selection/dev_score" if on_dev else "test/score"]
    return (
        f"{label}{source}: {outcome.status}, {score} {value:.3f}, trained in {outcome.metrics['runtime/train_s']:.1f} s"
    )


class _RunNumbers:
    """A counter that numbers runs in the order in which they start, such as "3/10" for the third run of ten.

    A run gets its number at the first request, and has the same number at later requests.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._numbers: dict[str, int] = {}

    def of(self, planned: PlannedRun) -> str:
        return f"{self._numbers.setdefault(planned.spec.fingerprint, len(self._numbers) + 1)}/{self._total}"


class PlainProgress:
    """An observer of runs that prints a line when a run starts and when a run ends, for logs and pipes."""

    def __init__(self, plan: Plan, console: PlainConsole, *, on_dev: bool = False) -> None:
        """Create an observer of planned runs, which prints on the given console."""
        self._console, self._numbers = console, _RunNumbers(len(plan.runs))
        self._varied = varied_names_of_specs(run.spec for run in plan.runs)
        self._on_dev = on_dev

    def __enter__(self) -> PlainProgress:
        """Return the observer; nothing needs to be prepared."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing, since nothing was prepared."""

    def started(self, planned: PlannedRun) -> None:
        """Print that a run has started."""
        self._print(f"run {self._numbers.of(planned)} {labelled(planned.spec, self._varied)}: started")

    def advanced(self, planned: PlannedRun, done: int, total: int) -> None:
        """Do nothing: the progress within a run is not printed."""

    def ended(self, outcome: Outcome) -> None:
        """Print the outcome of a run that has ended."""
        self._print(f"run {self._numbers.of(outcome.planned)} {describe(outcome, self._varied, on_dev=self._on_dev)}")

    def warned(self, message: str) -> None:
        """Print a warning for the user."""
        self._print(f"warning: {message}")

    def _print(self, line: str) -> None:
        self._console.print(line)


class LiveProgress:
    """An observer of runs that shows one progress bar for all planned runs.

    Each run moves the bar in proportion to its expected cost.
    """

    REFRESH_S = 0.2
    """The shortest time in seconds between two updates of the bar within a run."""

    def __init__(self, plan: Plan, console: PlainConsole, *, on_dev: bool = False) -> None:
        """Create an observer of planned runs. The bar appears when the observer is entered as a context manager."""
        self._progress = Bars(
            PlainColumn("{task.description}"),
            BarColumn(),
            PlainColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            PlainColumn("left:"),
            TimeRemainingColumn(),
            console=console,
        )
        self._progress.above = self.table_above_bar
        self._numbers = _RunNumbers(len(plan.runs))
        self._varied = varied_names_of_specs(run.spec for run in plan.runs)
        self._on_dev = on_dev
        self._bar = self._progress.add_task("planning", total=sum(run.cost for run in plan.runs))
        self._done, self._last = 0.0, 0.0
        self._under_way: dict[str, float] = {}

    def table_above_bar(self) -> RenderableType | None:
        """Return a table or text to show above the progress bar; None for nothing. Subclasses override this method."""
        return None

    def __enter__(self) -> LiveProgress:
        """Show the progress bar."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop updating the progress bar."""
        self._progress.stop()

    def started(self, planned: PlannedRun) -> None:
        """Show the name of a run that has started next to the progress bar."""
        label = f"{self._numbers.of(planned)} {labelled(planned.spec, self._varied)}"
        self._progress.update(self._bar, description=label)

    def advanced(self, planned: PlannedRun, done: int, total: int) -> None:
        """Move the progress bar according to the steps that a run has done."""
        # The last tenth of a run's cost is reserved for scoring and recording.
        self._under_way[planned.spec.fingerprint] = 0.9 * planned.cost * done / total
        now = time.monotonic()
        if now - self._last >= self.REFRESH_S:
            self._last = now
            self._show()

    def ended(self, outcome: Outcome) -> None:
        """Advance the progress bar by the whole cost of a run that has ended, and print its outcome above the bar."""
        self._numbers.of(outcome.planned)
        self._under_way.pop(outcome.spec.fingerprint, None)
        self._done += outcome.planned.cost
        self._show()
        self._progress.console.print(describe(outcome, self._varied, on_dev=self._on_dev))

    def warned(self, message: str) -> None:
        """Print a warning above the progress bar."""
        self._progress.console.print(f"warning: {message}", style="yellow")

    def _show(self) -> None:
        self._progress.update(self._bar, completed=self._done + sum(self._under_way.values()))
