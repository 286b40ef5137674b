"""The execution of an assignment (a group of runs that test the same trained model) in a worker, for all executors."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

from alue_bench.contract.errors import AlueBenchError, UnavailableError
from alue_bench.contract.executor import Assignment, Report, RunAdvanced, RunEnded, RunStarted, WarningIssued
from alue_bench.contract.registry import Registry, load_registry
from alue_bench.executors.outcome import Outcome
from alue_bench.executors.replan import rebuild_run
from alue_bench.executors.runner import Runner
from alue_bench.messages.redaction import redact
from alue_bench.planning.available import PlanCache
from alue_bench.planning.build import PlannedRun
from alue_bench.tracking.claims import HeldRun
from alue_bench.tracking.connection import Connection, connect
from alue_bench.tracking.recording import Recorder

SendReport = Callable[[Report], None]

REPORT_INTERVAL_S = 0.2
"""The shortest time, in seconds, between two reports of a run's progress to the main process."""
CONNECT_TIMEOUT_S, CONNECT_RETRY_INTERVAL_S = 120.0, 2.0
"""The seconds for which a starting worker tries to reach the MLflow store, and the seconds between two attempts."""


def execute_assignment(assignment: Assignment, send: SendReport) -> None:
    """Execute the runs of an assignment, record them, and report the outcome of each run.

    On KeyboardInterrupt (including Terminated, which `stop_on_sigterm` raises), the current run is recorded as KILLED,
    and the exception is raised again.

    Args:
        assignment: The runs, and the MLflow tracking URI of the store in which to record them.
        send: A function that sends a report to the main process.

    Raises:
        AlueBenchError: The MLflow store did not answer for CONNECT_TIMEOUT_S seconds. The worker waits for this time
            because the store answered when the plan began, and will probably answer again.
    """
    registry = _registry(assignment.disabled_plugins)
    recorder = Recorder(
        _connect(assignment, send),
        parent_id=assignment.parent_id,
        invocation=assignment.invocation,
        keep=assignment.keep,
        on_problem=lambda message: send(WarningIssued(message)),
    )
    recorder.send_spooled()  # results that an earlier worker could not write to the store
    runner = Runner(recorder, registry, _ReportingObserver(send), rerun=assignment.rerun)
    held: HeldRun | None = None
    try:
        for spec, source in assignment.runs:
            if held is not None:  # the later runs may test the model that another process is training
                send(RunEnded(spec.fingerprint, "held", held.run_id))
                continue
            try:
                planned = rebuild_run(spec, source, registry, _plan_cache())
            except AlueBenchError as error:
                send(RunEnded(spec.fingerprint, "failed", "", cause=redact(str(error))))
                continue
            outcome = runner.execute_or_reuse(planned)
            if isinstance(outcome, HeldRun):
                held = outcome
                send(RunEnded(spec.fingerprint, "held", held.run_id))
            else:
                send(report_of(outcome))
    except KeyboardInterrupt:
        recorder.kill_open()
        raise


def report_of(outcome: Outcome) -> RunEnded:
    """Return a run's outcome as a report that can be pickled and sent to the main process."""
    return RunEnded(
        outcome.spec.fingerprint, outcome.status, outcome.run_id, metrics=dict(outcome.metrics), cause=outcome.cause
    )


def _connect(assignment: Assignment, send: SendReport) -> Connection:
    deadline, warned = time.monotonic() + CONNECT_TIMEOUT_S, False
    while True:
        try:
            return _connection(assignment.tracking_uri, assignment.experiment)
        except UnavailableError as error:
            if time.monotonic() > deadline:
                raise
            if not warned:
                warned = True
                send(WarningIssued(f"a worker waits for the store: {redact(str(error))}"))
        time.sleep(CONNECT_RETRY_INTERVAL_S)


@cache
def _registry(disabled: tuple[str, ...]) -> Registry:
    return load_registry(disable=disabled)


@cache
def _connection(uri: str, experiment: str) -> Connection:
    return connect(uri, experiment)


@cache
def _plan_cache() -> PlanCache:
    return PlanCache()


class _ReportingObserver:
    """An observer of a run that sends its progress and outcome to the main process as reports."""

    def __init__(self, send: SendReport) -> None:
        self._send, self._last_report = send, 0.0

    def started(self, planned: PlannedRun) -> None:
        self._send(RunStarted(planned.spec.fingerprint))

    def advanced(self, planned: PlannedRun, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last_report >= REPORT_INTERVAL_S:
            self._last_report = now
            self._send(RunAdvanced(planned.spec.fingerprint, done, total))

    def ended(self, outcome: Outcome) -> None:
        self._send(report_of(outcome))

    def warned(self, message: str) -> None:
        self._send(WarningIssued(message))
