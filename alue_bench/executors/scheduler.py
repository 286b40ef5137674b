"""The scheduler, which distributes the runs of a plan to workers, and repeats runs whose workers die.

A unit is a group of runs that test the same trained model and go to one worker together. A unit that is sent to a
worker is an assignment. An invocation is one execution of a command, including its workers; another invocation may
execute runs with the same fingerprints at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar, get_args

from alue_bench.contract.errors import AlueBenchError, PluginError
from alue_bench.contract.executor import (
    Assignment,
    AssignmentFinished,
    AssignmentLost,
    Event,
    Executor,
    Resources,
    RunAdvanced,
    RunEnded,
    RunStarted,
    Status,
    WarningIssued,
    WorkerPool,
)
from alue_bench.contract.registry import Registry
from alue_bench.executors.local import RECHECK_INTERVAL_S, units, waiting_message
from alue_bench.executors.outcome import Interrupted, Observer, Outcome, in_plan_order
from alue_bench.executors.replan import source_of
from alue_bench.executors.termination import raise_if_terminated
from alue_bench.messages.redaction import redact
from alue_bench.planning.build import Plan, PlannedRun
from alue_bench.tracking.claims import HeldRun
from alue_bench.tracking.recording import Recorder

T = TypeVar("T")

MAX_ATTEMPTS = 2
"""The largest number of attempts for a run whose workers die: if two workers die during a run, the run is probably the
cause. Attempts that end because a machine or device fails are not counted."""
MAX_ATTEMPTS_AFTER_INFRASTRUCTURE_FAILURES = 4
"""The largest number of attempts for a unit (a group of runs) whose workers are lost to failing machines or devices."""
POLL_INTERVAL_S = 0.5
"""The longest wait, in seconds, for the next events from the worker pool."""


class Workers:
    """The workers of an executor, which execute one plan, or several plans in succession.

    An error in the executor's code, which may come from a plugin or depend on a cluster, is raised as PluginError.
    """

    def __init__(self, executor: Executor, resources: Resources) -> None:
        """Set the executor, and the resources that it may use; no worker is started yet."""
        self._executor, self.resources = executor, resources
        self._pool: WorkerPool | None = None
        self._count = 0

    def start(self) -> None:
        """Start the executor's pool of workers if it is not running."""
        if self._pool is None:
            self._pool = self._call_executor(self._executor.start, self.resources)

    def has_capacity(self) -> bool:
        """Return whether a worker is free, or will soon be free, for one more assignment (a group of runs)."""
        return self._call_executor(self._started.has_capacity)

    def next_number(self) -> int:
        """Return a number that identifies the next assignment (a group of runs that is sent to a worker)."""
        self._count += 1
        return self._count

    def submit(self, assignment: Assignment) -> None:
        """Send an assignment (a group of runs) to a worker."""
        self._call_executor(self._started.submit, assignment)

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return what the workers have reported, such as ended runs, since the last call.

        Wait up to `timeout_s` seconds for the first event.
        """
        return self._call_executor(lambda: list(self._started.events(timeout_s)))

    def dismiss(self) -> None:
        """End the workers, if they were started."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            self._call_executor(pool.stop)

    @property
    def _started(self) -> WorkerPool:
        assert self._pool is not None
        return self._pool

    def _call_executor(self, call: Callable[..., T], *arguments: object) -> T:
        try:
            return call(*arguments)
        except AlueBenchError:
            raise
        except Exception as error:
            raise self.contract_error(f"failed: {type(error).__name__}: {error}") from error

    def contract_error(self, fault: str) -> PluginError:
        """Return the error to raise if the executor, which may come from a plugin, breaks its contract.

        Args:
            fault: The fault, as the predicate of a sentence whose subject is the executor.
        """
        return PluginError(
            f"executor {self._executor.name!r} {fault}; finished runs are recorded. Run the same command again to "
            "continue, with this executor or a different one (--executor)"
        )


def execute_with(
    workers: Workers,
    plan: Plan,
    recorder: Recorder,
    registry: Registry,
    observer: Observer,
    *,
    rerun: bool = False,
    fail_fast: bool = False,
    keep_workers: bool = False,
) -> list[Outcome]:
    """Execute the unfinished runs of a plan, distributed to workers.

    The results are the same as from `local.execute_plan`.

    Args:
        workers: The workers, which are started if there is work for them.
        plan: The plan.
        recorder: The recorder of the runs in MLflow; the plan's parent run must be open.
        registry: The declarations of the installed plugins.
        observer: The receiver of progress, outcomes and warnings.
        rerun: Whether to execute finished runs again.
        fail_fast: Whether to send no further runs to workers after a run has failed. Workers complete the runs that
            they have received.
        keep_workers: Whether to keep the workers for a further plan if this plan ends normally.

    Returns:
        The outcomes in the plan's order.

    Raises:
        Interrupted: The user pressed Ctrl-C. The error holds the outcomes so far; open runs are recorded as KILLED.
        PluginError: The executor failed.
    """
    scheduler = _Scheduler(plan, recorder, registry, observer, workers.resources, rerun)
    try:
        waiting = scheduler.reuse()
        if waiting:
            completed = False
            try:
                workers.start()
                scheduler.run(workers, waiting, fail_fast=fail_fast)
                completed = True
            finally:
                if not (completed and keep_workers):
                    workers.dismiss()
    except KeyboardInterrupt as stop:
        recorder.close_workers()
        raise Interrupted(scheduler.outcomes()) from stop
    except AlueBenchError:  # such as an executor that failed
        recorder.close_workers()
        raise
    return scheduler.outcomes()


@dataclass
class _Unit:
    """A group of runs that test the same trained model and go to one worker together."""

    runs: list[PlannedRun]
    lost: dict[str, int] = field(default_factory=dict)
    """The number of workers that died while they executed a run, by the run's fingerprint (a digest). Failures of
    machines or devices are not counted."""
    infrastructure_failure: int = 0
    """The number of workers that were lost to failures of machines or devices while they executed the unit."""

    @property
    def cost(self) -> float:
        """The sum of the expected costs of the unit's runs, in the arbitrary unit of `PlannedRun.cost`."""
        return sum(planned.cost for planned in self.runs)


class _Scheduler:
    """The state of a plan's execution: the runs that workers execute, the runs that wait, and the outcomes so far."""

    def __init__(
        self,
        plan: Plan,
        recorder: Recorder,
        registry: Registry,
        observer: Observer,
        resources: Resources,
        rerun: bool,
    ) -> None:
        self._plan, self._recorder, self._registry, self._observer = plan, recorder, registry, observer
        self._resources, self._rerun = resources, rerun
        self._planned = {planned.spec.fingerprint: planned for planned in plan.runs}
        self._outcomes: dict[str, Outcome] = {}
        self._assigned: dict[int, _Unit] = {}
        """The units (groups of runs) that workers are executing, by the number of their assignment."""
        self._started: set[str] = set()
        """The fingerprints of the runs that workers have started."""
        self._held: list[tuple[_Unit, HeldRun]] = []
        """The runs that wait because another invocation executes them or trains their model; each `_Unit` contains one
        run."""

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes of the runs that have ended so far, in the plan's order."""
        return in_plan_order(self._plan, list(self._outcomes.values()))

    def reuse(self) -> list[_Unit]:
        """Reuse the results of finished runs, and return all other runs in units.

        A unit is a group of runs that test the same trained model. Unless the plan prescribes an order, the task, model
        and hyper-parameters with the costliest unit come first, so that no long run is left at the end. Units with the
        same task, model and hyper-parameters are in the order of the plan, which alternates the strategies by seed. If
        all units of the costliest strategy came first, a drift of the machine's speed would look like a difference
        between strategies.
        """
        waiting = []
        for unit in units(self._plan):
            left = [planned for planned in unit if not self._reuse_if_allowed(planned)]
            if left:
                waiting.append(_Unit(left))
        return waiting if self._plan.order_matters else _costliest_comparison_first(waiting)

    def run(self, workers: Workers, waiting: list[_Unit], *, fail_fast: bool) -> None:
        """Send units (groups of runs) to workers, and handle the workers' events, until all runs have an outcome.

        Args:
            workers: The started workers.
            waiting: The units to send, in order.
            fail_fast: Whether to send no further unit after a run has failed.
        """
        warned = False
        while waiting or self._assigned or self._held:
            raise_if_terminated()
            if fail_fast and any(outcome.status == "failed" for outcome in self._outcomes.values()):
                waiting, self._held = [], []
            while waiting and workers.has_capacity():
                self._submit(workers, waiting.pop(0))
            if self._assigned:
                for event in workers.events(POLL_INTERVAL_S):
                    if objection := self._why_invalid(event):
                        raise workers.contract_error(objection)
                    waiting = self._handle(event) + waiting
            elif self._held and not waiting:
                if not warned:
                    self._observer.warned(waiting_message([unit.runs for unit, _ in self._held]))
                    warned = True
                waiting = self._take_released_units()
                if not waiting and self._held:
                    time.sleep(RECHECK_INTERVAL_S)

    def _submit(self, workers: Workers, unit: _Unit) -> None:
        number = workers.next_number()
        self._assigned[number] = unit
        workers.submit(
            Assignment(
                number=number,
                runs=tuple((planned.spec, source_of(planned, self._registry)) for planned in unit.runs),
                tracking_uri=self._recorder.connection.uri,
                experiment=self._recorder.connection.experiment,
                parent_id=self._recorder.parent_id,
                invocation=self._recorder.invocation,
                disabled_plugins=tuple(
                    report.origin.entry_point for report in self._registry.reports if report.status == "disabled"
                ),
                rerun=self._rerun,
                device=self._resources.device,
                keep=self._recorder.keep,
            )
        )

    def _why_invalid(self, event: object) -> str | None:
        """Return why an event that the executor reported is not valid in this plan; None if it is valid."""
        match event:
            case RunEnded(_, status) if status not in get_args(Status):
                known, what = False, f"status {status!r}, which is not one of {', '.join(get_args(Status))}"
            case RunEnded(fingerprint, "held"):
                known = any(fingerprint in _fingerprints(unit.runs) for unit in self._assigned.values())
                what = f"run {fingerprint!r}, which no worker has"
            case RunStarted(fingerprint) | RunAdvanced(fingerprint) | RunEnded(fingerprint):
                known, what = fingerprint in self._planned, f"run {fingerprint!r}, which is not in the plan"
            case AssignmentFinished(number) if number in self._assigned and (
                left := self._unfinished_runs(self._assigned[number])
            ):
                known, what = False, f"assignment {number!r} as done, but not of {left[0].spec.label}"
            case AssignmentFinished(number) | AssignmentLost(number):
                known, what = number in self._assigned, f"assignment {number!r}, which no worker has"
            case WarningIssued():
                return None
            case _:
                known, what = (
                    False,
                    f"{type(event).__name__} {event!r}, which is not an event of alue_bench.contract.executor",
                )
        return None if known else f"reported {what}"

    def _unfinished_runs(self, unit: _Unit) -> list[PlannedRun]:
        return [planned for planned in unit.runs if planned.spec.fingerprint not in self._outcomes]

    def _handle(self, event: Event) -> list[_Unit]:
        """Handle an event from the workers, and return the units (groups of runs) that must be sent to a worker again.

        The caller sends these units before all others.
        """
        match event:
            case RunStarted(fingerprint):
                self._started.add(fingerprint)
                self._observer.started(self._planned[fingerprint])
            case RunAdvanced(fingerprint, done, total):
                self._observer.advanced(self._planned[fingerprint], done, total)
            case RunEnded(fingerprint, "held", run_id):
                unit = next(unit for unit in self._assigned.values() if fingerprint in _fingerprints(unit.runs))
                unit.runs = [planned for planned in unit.runs if planned.spec.fingerprint != fingerprint]
                self._held.append((replace(unit, runs=[self._planned[fingerprint]]), HeldRun(run_id)))
            case RunEnded(fingerprint, status, run_id, metrics, cause):
                assert status != "held"
                planned = self._planned[fingerprint]
                if status == "failed" and not run_id:
                    run_id = self._record_failure(planned, cause)
                self._end(Outcome(planned, status, run_id, metrics, next(iter(cause.splitlines()), "")))
            case AssignmentFinished(number):
                del self._assigned[number]
            case AssignmentLost():
                return self._handle_loss(event)
            case warned:
                self._observer.warned(warned.message)
        return []

    def _handle_loss(self, event: AssignmentLost) -> list[_Unit]:
        """Handle the loss of a worker, and return the runs that must be sent to a worker again.

        The run that the worker was executing is repeated, or counts as failed after the last permitted attempt.

        Returns:
            A list with one unit (group of runs), which contains the runs of the lost worker that have no outcome; empty
            if there are none.
        """
        unit = self._assigned.pop(event.number)
        event = replace(event, cause=redact(event.cause))
        # The worker may have recorded a run without reporting it.
        left = [planned for planned in self._unfinished_runs(unit) if not self._take_recorded_result(planned)]
        if not left:
            return []
        current = next((run for run in left if run.spec.fingerprint in self._started), left[0])
        fingerprint = current.spec.fingerprint
        if event.infrastructure_failure:
            unit = replace(unit, infrastructure_failure=unit.infrastructure_failure + 1)
            again = unit.infrastructure_failure < MAX_ATTEMPTS_AFTER_INFRASTRUCTURE_FAILURES
        else:
            unit = replace(unit, lost={**unit.lost, fingerprint: unit.lost.get(fingerprint, 0) + 1})
            again = unit.lost[fingerprint] < MAX_ATTEMPTS
        self._started.discard(fingerprint)
        if again:
            self._recorder.close_lost(fingerprint)
            self._observer.warned(f"{current.spec.label}: {event.cause}; the run is repeated")
        else:
            run_id = self._recorder.close_lost(fingerprint, failure=event.cause)
            run_id = run_id or self._record_failure(current, event.cause)
            self._end(Outcome(current, "failed", run_id, cause=event.cause))
            left = [planned for planned in left if planned is not current]
        return [replace(unit, runs=left)] if left else []

    def _take_released_units(self) -> list[_Unit]:
        """Check the runs of this plan that another invocation (execution of a command) was executing.

        Store the outcomes of the runs that have ended in the other invocation. Return units (groups) of the runs that
        no invocation is executing any more.
        """
        free: list[_Unit] = []
        still_held: list[tuple[_Unit, HeldRun]] = []
        self._recorder.close_interrupted()
        # No worker of this invocation is executing a run now. If a live worker could not close a run in the store, the
        # scheduler would otherwise wait for this run forever.
        self._recorder.close_workers()
        for unit, held in self._held:
            (planned,) = unit.runs
            if self._take_recorded_result(planned):
                continue
            ending = self._recorder.ending_of(held)
            # A run that failed in the other invocation would fail here too. Runs that wait only because they test the
            # same trained model have other fingerprints, and may succeed.
            if ending.status == "FAILED" and ending.fingerprint == planned.spec.fingerprint:
                cause = next(iter(ending.cause.splitlines()), "")
                self._end(Outcome(planned, "failed", held.run_id, cause=cause))
                continue
            holder = self._recorder.holder(planned.spec.fingerprint)
            if holder is None:
                free.append(unit)
            else:
                still_held.append((unit, holder))
        self._held = still_held
        return list(_join_units(free))

    def _reuse_if_allowed(self, planned: PlannedRun) -> bool:
        return not self._rerun and self._take_recorded_result(planned)

    def _take_recorded_result(self, planned: PlannedRun) -> bool:
        """Look for a finished result of a run; if there is one, store the run's outcome and return True.

        The spool and the MLflow store are searched. With --rerun, only results of this execution of the command are
        considered.
        """
        spec = planned.spec
        done = self._recorder.finished(spec.fingerprint, this_invocation_only=self._rerun, scored=spec.scored_elsewhere)
        if done is None:
            return False
        ours = self._rerun or planned.spec.fingerprint in self._started
        self._end(Outcome(planned, "finished" if ours else "reused", done.run_id, done.metrics))
        return True

    def _record_failure(self, planned: PlannedRun, cause: str) -> str:
        """Create an MLflow run with status FAILED for a run whose worker created none, and return its id."""
        run_id = self._recorder.start(planned.spec, planned.inputs, again=True, tags=planned.tags)
        assert isinstance(run_id, str)
        self._recorder.fail(run_id, cause, cause + "\n")
        return run_id

    def _end(self, outcome: Outcome) -> None:
        self._outcomes[outcome.spec.fingerprint] = outcome
        self._observer.ended(outcome)


def _costliest_comparison_first(waiting: Sequence[_Unit]) -> list[_Unit]:
    """Sort units (groups of runs) by descending cost of the costliest unit with the same task, model and settings.

    Settings are the hyper-parameters. Units of equal rank keep their order.
    """

    def compared(unit: _Unit) -> Hashable:
        spec = unit.runs[0].spec
        return spec.train_task, spec.model, spec.hyper

    highest: dict[Hashable, float] = {}
    for unit in waiting:
        highest[compared(unit)] = max(unit.cost, highest.get(compared(unit), 0.0))
    return sorted(waiting, key=lambda unit: -highest[compared(unit)])


def _fingerprints(runs: Iterable[PlannedRun]) -> set[str]:
    return {planned.spec.fingerprint for planned in runs}


def _join_units(free: list[_Unit]) -> list[_Unit]:
    """Join the units (groups of runs) that test the same trained model, and return the resulting units."""
    joined: dict[str, _Unit] = {}
    for unit in free:
        key = unit.runs[0].spec.training_key
        joined[key] = replace(joined[key], runs=joined[key].runs + unit.runs) if key in joined else unit
    return list(joined.values())
