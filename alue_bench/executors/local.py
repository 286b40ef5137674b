"""The default execution of a plan: one run after the other in this process, without repeating finished runs."""

from __future__ import annotations

import time

from alue_bench.contract.registry import Registry
from alue_bench.executors.outcome import Interrupted, Observer, Outcome, in_order
from alue_bench.executors.runner import Runner
from alue_bench.executors.termination import heed_termination
from alue_bench.planning.build import Plan, PlannedRun
from alue_bench.tracking.claims import Held
from alue_bench.tracking.recording import Recorder

RETURN_S = 2.0
"""The seconds between two checks of the runs that other invocations (executions of a command) are executing. They are
checked when no other runs of the plan are left."""


def execute_plan(
    plan: Plan,
    recorder: Recorder,
    registry: Registry,
    observer: Observer,
    *,
    rerun: bool = False,
    fail_fast: bool = False,
) -> list[Outcome]:
    """Execute the runs of a plan that are not finished yet.

    If another invocation is executing a run, this plan continues with other runs. At the end it waits for that
    invocation, and executes the run itself if the other invocation stops without finishing it.

    Args:
        plan: The plan.
        recorder: The recorder, with the parent run open.
        registry: The declarations of the installed plugins.
        observer: The receiver of progress, outcomes and warnings.
        rerun: Whether to execute finished runs again.
        fail_fast: Whether to stop after the first run that fails; otherwise the failure is recorded and the plan
            continues.

    Returns:
        The outcomes in the plan's order.

    Raises:
        Interrupted: The user pressed Ctrl-C. The error holds the outcomes so far. The current run is marked as KILLED.
    """
    runner = Runner(recorder, registry, observer, rerun=rerun)
    outcomes: list[Outcome] = []
    waiting, told = units(plan), False
    try:
        while waiting:
            heed_termination()
            later = []
            before = len(outcomes)
            for unit in waiting:
                for place, planned in enumerate(unit):
                    outcome = runner.do(planned)
                    if isinstance(outcome, Held):  # the rest of the unit may use the model that the other is training
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
    """Group the runs that test the same trained model, and return the groups in the plan's order.

    For example, the test on a diagnostic set shares the training of another task.
    """
    by_training: dict[str, list[PlannedRun]] = {}
    for planned in plan.runs:
        by_training.setdefault(planned.spec.training_key, []).append(planned)
    return list(by_training.values())


def waiting_for(later: list[list[PlannedRun]]) -> str:
    """Return a message for the user that the plan waits for another invocation.

    Args:
        later: The groups of runs that the other invocation is executing.
    """
    count = sum(map(len, later))
    return f"another invocation is doing the {count} remaining runs; waiting for it, and taking over if it dies"
