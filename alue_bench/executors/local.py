"""The default execution of a plan: one run after the other in this process, without repeating finished runs."""

from __future__ import annotations

import time

from alue_bench.contract.registry import Registry
from alue_bench.executors.outcome import Interrupted, Observer, Outcome, in_plan_order
from alue_bench.executors.runner import Runner
from alue_bench.executors.termination import raise_if_terminated
from alue_bench.planning.build import Plan, PlannedRun
from alue_bench.tracking.claims import HeldRun
from alue_bench.tracking.recording import Recorder

RECHECK_INTERVAL_S = 2.0
"""The seconds between two checks whether other invocations (executions of a command) have finished runs that this plan
also needs. The checks begin when this plan has no other runs left."""


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

    If another invocation (execution of a command) is executing one of the runs, the remaining runs of the plan are
    executed first. At the end, this function waits for the other invocation. If the run fails there, it counts as
    failed; if the other invocation stops without ending the run, this function executes it.

    Args:
        plan: The plan.
        recorder: The recorder of the runs in MLflow; the plan's parent run must be open.
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
    waiting, warned = units(plan), False
    try:
        while waiting:
            raise_if_terminated()
            later = []
            before = len(outcomes)
            for unit in waiting:
                for index, planned in enumerate(unit):
                    outcome = runner.execute_or_reuse(planned)
                    if isinstance(outcome, HeldRun):  # the later runs may test the model that the other process trains
                        later.append(unit[index:])
                        break
                    outcomes.append(outcome)
                    observer.ended(outcome)
                    if outcome.status == "failed" and fail_fast:
                        return in_plan_order(plan, outcomes)
            if later and len(outcomes) == before:
                if not warned:
                    observer.warned(waiting_message(later))
                    warned = True
                recorder.close_interrupted()
                time.sleep(RECHECK_INTERVAL_S)
            waiting = later
    except KeyboardInterrupt as stop:
        recorder.kill_open()
        raise Interrupted(in_plan_order(plan, outcomes)) from stop
    return in_plan_order(plan, outcomes)


def units(plan: Plan) -> list[list[PlannedRun]]:
    """Group the runs of a plan by the trained model that they test, and return the groups in the plan's order.

    For example, a diagnostic task has no train split; its run tests the model that was trained for another task.
    """
    by_training: dict[str, list[PlannedRun]] = {}
    for planned in plan.runs:
        by_training.setdefault(planned.spec.training_key, []).append(planned)
    return list(by_training.values())


def waiting_message(held: list[list[PlannedRun]]) -> str:
    """Return the message that the plan waits for runs that another invocation (execution of a command) is executing.

    Args:
        held: The groups of runs that the other invocation is executing.
    """
    count = sum(map(len, held))
    return f"another invocation is doing the {count} remaining runs; waiting for it, and taking over if it dies"
