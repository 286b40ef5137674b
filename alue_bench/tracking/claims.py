"""Claims, which make sure that only one of several invocations executes a run that all of them have planned.

A claim is an MLflow run with status RUNNING and the run's fingerprint as a tag; it becomes the run itself. MLflow has
no compare-and-set operation, so a claim is settled by writing it first and reading the others afterwards:

    1. create the run, with stage "claiming"
    2. read every live claim of the fingerprint
       none but mine         → it is mine: stage "training"
       one that is settled   → theirs: withdraw mine
       others that claim too → the first in order of (start time, id) goes on reading until they have withdrawn or
                               settled; the others withdraw

Two processes never hold one fingerprint: of two claims, one was created after the other. Its process reads later still,
and therefore sees the other claim unless that was withdrawn. This needs a store in which a completed write is visible
to every later read, as in sqlite, PostgreSQL and an MLflow server in front of one database. It does not rely on clocks:
the order by time only decides who yields.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from alue_bench.tracking.connection import Connection
from alue_bench.tracking.liveness import MACHINE, PROCESS, Watch

FINGERPRINT = "fingerprint"
INVOCATION = "invocation"
"""The tag that names the command which a run belongs to, whichever of its processes executes the run."""
STAGE = "stage"
CLAIMING = "claiming"
LOOK_S = 0.1
"""The seconds between two readings of the competing claims."""
PATIENCE_S = 5.0
"""The seconds to wait for others that claim at the same moment. A process that yields although nobody takes the run
finds it again later."""


@dataclass(frozen=True)
class Held:
    """A run that another process is executing, or has just finished."""

    run_id: str


def settle(connection: Connection, watch: Watch, run_id: str, fingerprint: str) -> Held | None:
    """Decide whether the claim that was just created holds.

    Runs of the fingerprint whose process is dead are closed on the way.

    Args:
        connection: The open store.
        watch: The judge of whether other claims' processes live.
        run_id: The MLflow run that is the new claim.
        fingerprint: The fingerprint that is claimed.

    Returns:
        None if the claim holds; otherwise the run that holds instead, and the caller must withdraw its claim.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        others = []
        changed = False
        claims = competitors(connection, fingerprint)
        mine = next((run for run in claims if run.info.run_id == run_id), None)
        for run in claims:
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
    """Return the MLflow runs of the fingerprint that are finished or under way."""
    runs = connection.client.search_runs(
        [connection.experiment_id], f"tags.{FINGERPRINT} = '{fingerprint}' and attributes.status != 'KILLED'"
    )
    return [run for run in runs if run.info.status in ("RUNNING", "FINISHED")]


def close_running(connection: Connection, run_id: str, status: str = "KILLED") -> bool:
    """Close a RUNNING run that its own process will not close.

    Args:
        connection: The open store.
        run_id: The run to close.
        status: The MLflow status that the run gets.

    Returns:
        False if the run had ended nevertheless, for example between the reading of its status and the finding that
        its process is dead, or when it was interrupted. Such a run is left as it is.
    """
    if connection.client.get_run(run_id).info.status != "RUNNING":
        return False
    connection.client.set_terminated(run_id, status)
    return True


def withdraw(connection: Connection, run_id: str) -> None:
    """Close and delete a claim that does not hold."""
    connection.client.set_terminated(run_id, "KILLED")
    connection.client.delete_run(run_id)


def _is_an_echo(run: Any, mine: Any) -> bool:
    """Return whether a claim was created by this process without its knowledge.

    Where a server's answer is lost, MLflow's client asks a second time to create the run. Since a process executes one
    run after the other, a second claim by the same process can only come from such a repetition.
    """
    return INVOCATION in mine.data.tags and all(
        run.data.tags.get(name) == mine.data.tags.get(name) for name in (INVOCATION, MACHINE, PROCESS)
    )


def _order(run: Any) -> tuple[int, str]:
    return run.info.start_time, run.info.run_id
