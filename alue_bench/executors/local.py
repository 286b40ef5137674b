"""One run after the other, in this process; finished ones are not repeated."""

from __future__ import annotations

import time

from alue_bench.contract.registry import Registry
from alue_bench.executors.outcome import (
    Interrupted,
    Observer,
    Outcome,
    Status,
    aggregate,
    in_order,
    result_document,
)
from alue_bench.executors.runner import Runner
from alue_bench.executors.termination import heed_termination
from alue_bench.planning.build import Plan, PlannedRun
from alue_bench.tracking.claims import Held
from alue_bench.tracking.recording import Recorder

__all__ = ["Interrupted", "Observer", "Outcome", "Status", "aggregate", "execute_plan", "result_document"]

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
    bench = Runner(recorder, registry, observer, rerun=rerun)
    outcomes: list[Outcome] = []
    waiting, told = units(plan), False
    try:
        while waiting:
            heed_termination()
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
