"""Who does a run, where several invocations have it in their plans: the holder of the only live claim.

A claim is an MLflow run with status RUNNING and the run's fingerprint as a tag; it becomes the run itself. MLflow has
no compare-and-set, so a claim is settled by looking twice:

    1. create the run, with stage "claiming"
    2. read every live claim of the fingerprint
       none but mine         → it is mine: stage "training"
       one that is settled   → theirs: withdraw mine
       others that claim too → the least in order of (start time, id) goes on looking until they have withdrawn or
                               settled; the others withdraw

Never do two hold a fingerprint: of two claims, one was created after the other, and its reading, which came later
still, shows the other unless that was withdrawn. This needs a store in which what was written is read by everyone from
then on, as sqlite, PostgreSQL and a server before one database are. It needs no clock: the order by time only decides
who yields.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from alue_bench.tracking.connection import Connection
from alue_bench.tracking.liveness import MACHINE, PROCESS, Watch

FINGERPRINT = "fingerprint"
INVOCATION = "invocation"
"""Of which command, whichever of its processes does the run."""
STAGE = "stage"
CLAIMING = "claiming"
LOOK_S = 0.1
PATIENCE_S = 5.0
"""To wait for others that claim at the same moment; who yields in vain comes back later."""


@dataclass(frozen=True)
class Held:
    """Another process does this run, or has done it this moment."""

    run_id: str


def settle(connection: Connection, watch: Watch, run_id: str, fingerprint: str) -> Held | None:
    """Whether a claim just created holds: None where it does, else whose does; the claim must then be withdrawn."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        others = []
        changed = False
        found = competitors(connection, fingerprint)
        mine = next((run for run in found if run.info.run_id == run_id), None)
        for run in found:
            if run is mine:
                continue
            if run.info.status == "FINISHED":
                return Held(run.info.run_id)
            if mine is not None and _is_an_echo(run, mine):
                withdraw(connection, run.info.run_id)
            elif watch.is_dead(run.info.run_id, run.data.tags):
                changed |= not close_running(connection, run.info.run_id)
            else:
                others.append(run)
        if changed:
            continue
        if mine is None:  # another process took this one for dead before it had begun
            return Held(min(others, key=_order).info.run_id if others else run_id)
        if not others:
            return None
        first = min(others, key=_order)
        settled = next((run for run in others if run.data.tags.get(STAGE) != CLAIMING), None)
        if settled is not None:
            return Held(settled.info.run_id)
        if _order(first) < _order(mine) or time.monotonic() > deadline:
            return Held(first.info.run_id)
        time.sleep(LOOK_S)


def competitors(connection: Connection, fingerprint: str) -> list[Any]:
    """Runs of the fingerprint that are finished or under way."""
    found = connection.client.search_runs(
        [connection.experiment_id], f"tags.{FINGERPRINT} = '{fingerprint}' and attributes.status != 'KILLED'"
    )
    return [run for run in found if run.info.status in ("RUNNING", "FINISHED")]


def close_running(connection: Connection, run_id: str, status: str = "KILLED") -> bool:
    """Close what is RUNNING and will not be ended by its process. False where it had ended all the same, as after it
    was read and before its process was found dead, or when an interruption met it: then the run is left as it is."""
    if connection.client.get_run(run_id).info.status != "RUNNING":
        return False
    connection.client.set_terminated(run_id, status)
    return True


def withdraw(connection: Connection, run_id: str) -> None:
    """Leaves nothing to be seen of a claim that does not hold."""
    connection.client.set_terminated(run_id, "KILLED")
    connection.client.delete_run(run_id)


def _is_an_echo(run: Any, mine: Any) -> bool:
    """Whether a claim is one of this process that it does not know of. Where a server's answer is lost, MLflow's client
    asks for the run a second time; and a process does one run after the other."""
    return INVOCATION in mine.data.tags and all(
        run.data.tags.get(name) == mine.data.tags.get(name) for name in (INVOCATION, MACHINE, PROCESS)
    )


def _order(run: Any) -> tuple[int, str]:
    return run.info.start_time, run.info.run_id
