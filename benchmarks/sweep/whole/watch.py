"""The progress display of the sweep, whose callbacks time each run, and train cells by `Trainer` between the runs."""

from __future__ import annotations

import argparse
import time
from types import TracebackType
from typing import TYPE_CHECKING

from alue_bench.contract.errors import UsageError
from benchmarks.command_line import say
from benchmarks.ledger import Ledger
from benchmarks.sweep.whole.cells import FULLS, costs, full_of
from benchmarks.sweep.whole.sampling import trainer_cells
from benchmarks.sweep.whole.trainer import CellTrainer

if TYPE_CHECKING:
    from alue_bench.executors.outcome import Outcome
    from alue_bench.planning.build import Plan, PlannedRun


class Watch:
    """A progress display of the sweep that times each run and, between runs, trains by `Trainer` or repeats `full`."""

    def __init__(self, plan: Plan, ledger: Ledger, started: float, options: argparse.Namespace) -> None:
        """Choose the cells that `Trainer` trains too, and the cells after which `full` is repeated.

        Args:
            plan: The plan of the sweep.
            ledger: The file of measurements, to which results are added.
            started: The reading of `time.perf_counter` at the start of the process.
            options: The parsed options.
        """
        self.plan, self._ledger, self._options = plan, ledger, options
        self._began = self.last = started
        self._aside = 0.0
        self.stopped = self._working = False
        self._sample = trainer_cells(costs(plan))
        self._baseline: CellTrainer | None = None
        every = max(1, len(plan.runs) // FULLS)
        self._repeat_full = {run.spec.strategy for index, run in enumerate(plan.runs) if index % every == every // 2}

    def __enter__(self) -> Watch:
        """Train half of `Trainer`'s cells by `Trainer`, if the sweep uses several processes."""
        if self._options.jobs > 1:
            self.fit_by_trainer(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""

    def started(self, planned: PlannedRun) -> None:
        """Record the start-up time and start the clock when the first run starts; do nothing when later runs start."""
        if not self._working:
            self._working = True
            self._ledger.content.setdefault("startup_s", time.perf_counter() - self._began - self._aside)
            self.last = time.perf_counter()

    def advanced(self, planned: PlannedRun, done: int, total: int) -> None:
        """Do nothing."""

    def warned(self, message: str) -> None:
        """Print a warning."""
        say(f"warning: {message}")

    def ended(self, outcome: Outcome) -> None:
        """Record the time of a run, then train by `Trainer` or repeat `full` if this is due after the run.

        Raises:
            KeyboardInterrupt: The time that `--stop-after` allows is over.
            UsageError: The run failed.
        """
        strategy, content = outcome.spec.strategy, self._ledger.content
        if outcome.status == "failed":
            raise UsageError(f"{outcome.spec.label} failed: {outcome.cause}")
        if outcome.status == "finished":
            spent = time.perf_counter() - self.last
            content["ours"][strategy] = {"wall_s": spent, "metrics": dict(outcome.metrics)}
            self._ledger.write()
            say(f"[{len(content['ours'])}/{len(self.plan.runs)}] {strategy}: {spent:.1f} s in all")
        if self._options.jobs == 1:
            self._by_trainer(outcome.planned)
            if strategy in self._repeat_full and strategy not in {at for at, _ in content["full_s"]}:
                content["full_s"].append([strategy, full_again(self.plan)])
                self._ledger.write()
        self.last = time.perf_counter()
        limit = self._options.stop_after
        late = limit and self.last - self._began > 60 * limit
        if late and outcome.status == "finished" and outcome.planned is not self.plan.runs[-1]:
            self.stopped = True
            raise KeyboardInterrupt

    def fit_by_trainer(self, half: int) -> None:
        """Train by `Trainer` half of its cells: every other one in the plan's order, from index `half` (0 or 1) on."""
        started = time.perf_counter()
        cells = [run for run in self.plan.runs if run.spec.strategy in self._sample]
        for planned in cells[half::2]:
            self._by_trainer(planned)
        self._aside += time.perf_counter() - started

    def _by_trainer(self, planned: PlannedRun) -> None:
        """Train a cell by `Trainer` and record its times, if the cell is in the sample and not measured yet."""
        strategy, done = planned.spec.strategy, self._ledger.content["trainer"]
        if strategy not in self._sample or strategy in done:
            return
        if self._baseline is None:
            self._baseline = CellTrainer(planned)
        done[strategy] = times = self._baseline.fit(planned)
        self._ledger.write()
        say(f"    {strategy} by Trainer: {times['whole_s']:.1f} s in all")


def full_again(plan: Plan) -> float:
    """Repeat full fine-tuning by our engine, and return the seconds of its training loop."""
    from alue_bench.running.fine_tuning import train

    planned = full_of(plan)
    planned.inputs.models.expect(planned.inputs.checkpoint, planned.inputs.train_task.labels)
    trained = train(planned.spec, planned.inputs)
    return trained.training.loop_s
