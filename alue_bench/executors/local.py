"""One run after the other, in this process; finished ones are not repeated."""

from __future__ import annotations

import gc
import time
import traceback

from alue_bench.errors import AlueBenchError, StoreUnavailableError
from alue_bench.executors.outcome import (
    Interrupted,
    Observer,
    Outcome,
    Status,
    aggregate,
    in_order,
    result_document,
)
from alue_bench.plan import Plan, PlannedRun
from alue_bench.plugins import Registry, notify
from alue_bench.run import Trained, execute
from alue_bench.tracking.claims import Held
from alue_bench.tracking.recording import ClaimLost, Recorder

__all__ = ["Interrupted", "Observer", "Outcome", "Status", "Workbench", "aggregate", "execute_plan", "result_document"]

RETURN_S = 2.0
"""Between two looks at runs that other invocations do, where nothing else is left."""


def execute_plan(
    plan: Plan,
    recorder: Recorder,
    registry: Registry,
    observer: Observer,
    *,
    rerun: bool = False,
    fail_fast: bool = False,
) -> list[Outcome]:
    """Do what is not yet done. A run that fails is recorded and the plan goes on, unless `fail_fast`.

    What another invocation does at this moment is left to it: the plan goes on with other runs, comes back at the end,
    and takes over what the other has not finished.

    Raises Interrupted, with the outcomes so far, on KeyboardInterrupt; the run at hand is then closed as KILLED.
    """
    bench = Workbench(recorder, registry, observer, rerun=rerun)
    outcomes: list[Outcome] = []
    waiting, told = units(plan), False
    try:
        while waiting:
            later = []
            before = len(outcomes)
            for unit in waiting:
                for place, planned in enumerate(unit):
                    outcome = bench.do(planned)
                    if isinstance(outcome, Held):  # the rest may use the model that the other is training
                        later.append(unit[place:])
                        break
                    outcomes.append(outcome)
                    observer.ended(outcome)
                    if outcome.status == "failed" and fail_fast:
                        return in_order(plan, outcomes)
            if later and len(outcomes) == before:
                if not told:
                    observer.warned(waiting_for(later))
                    told = True
                recorder.close_interrupted()
                time.sleep(RETURN_S)
            waiting = later
    except KeyboardInterrupt as stop:
        recorder.kill_open()
        raise Interrupted(in_order(plan, outcomes)) from stop
    return in_order(plan, outcomes)


def units(plan: Plan) -> list[list[PlannedRun]]:
    """Runs that share one training, such as those of a diagnostic set, stay together; all in the plan's order."""
    found: dict[str, list[PlannedRun]] = {}
    for planned in plan.runs:
        found.setdefault(planned.spec.training_key, []).append(planned)
    return list(found.values())


def waiting_for(later: list[list[PlannedRun]]) -> str:
    count = sum(map(len, later))
    return f"another invocation does the {count} runs that are left; waiting for it, and taking over if it dies"


class Workbench:
    """Does runs in this process, and keeps the model of the last one for the next that can use it."""

    def __init__(self, recorder: Recorder, registry: Registry, observer: Observer, *, rerun: bool) -> None:
        self._recorder, self._registry, self._observer, self._rerun = recorder, registry, observer, rerun
        self._trained: Trained | None = None
        self._held: dict[str, Held] = {}

    def do(self, planned: PlannedRun) -> Outcome | Held:
        """Reuse or do one run; Held where another process does it."""
        spec = planned.spec
        outcome = self._elsewhere(planned)
        if outcome is not None:
            return outcome
        if self._trained is not None and self._trained.key != spec.training_key:
            self._trained = None  # frees the last model before the next one is loaded
            gc.collect()
        run_id = self._recorder.start(
            spec, planned.inputs, planned.inputs.task.labels, again=self._rerun, tags=planned.tags
        )
        if isinstance(run_id, Held):
            # Its holder may have finished it this moment.
            self._held[spec.fingerprint] = run_id
            return self._elsewhere(planned) or run_id
        self._observer.started(planned)
        return self._execute(planned, run_id)

    def _elsewhere(self, planned: PlannedRun) -> Outcome | Held | None:
        """What another process, or an earlier invocation, has made of the run; None where it is to be done."""
        if self._rerun:
            return None
        fingerprint = planned.spec.fingerprint
        done = self._recorder.finished(fingerprint)
        if done is not None:
            return Outcome(planned, "reused", done.run_id, done.metrics)
        seen = self._held.pop(fingerprint, None)
        if seen is not None:
            ended = self._recorder.ended(seen)
            if ended.status == "FAILED":  # while this plan waited: it would only fail again
                return Outcome(planned, "failed", seen.run_id, cause=next(iter(ended.cause.splitlines()), ""))
        holder = self._recorder.holder(fingerprint)
        if holder is not None:
            self._held[fingerprint] = holder
        return holder

    def _execute(self, planned: PlannedRun, run_id: str) -> Outcome | Held:
        spec, labels = planned.spec, planned.inputs.task.labels
        notify(self._registry, "alue_bench_run_started", self._observer.warned, spec=spec)

        def on_step(done: int, total: int) -> None:
            self._recorder.advanced(run_id, done, total)
            self._observer.advanced(planned, done, total)

        try:
            result, self._trained = execute(spec, planned.inputs, before=self._trained, on_step=on_step)
            self._recorder.finish(run_id, spec, result, labels)
        except StoreUnavailableError:
            raise
        except ClaimLost:
            self._trained = None
            return Held(run_id)
        except Exception as error:  # one run's failure must not cost the others
            self._trained = None
            cause = str(error) if isinstance(error, AlueBenchError) else f"{type(error).__name__}: {error}"
            self._recorder.fail(run_id, cause, traceback.format_exc())
            return Outcome(planned, "failed", run_id, cause=next(iter(cause.splitlines()), ""))
        notify(self._registry, "alue_bench_run_finished", self._observer.warned, spec=spec, result=result)
        return Outcome(planned, "finished", run_id, result.metrics)
