"""Claims, which ensure that only one of several processes executes a run that all of them have planned.

A fingerprint is a digest of everything that determines a run's result; runs that would give the same result have the
same fingerprint. A claim is an MLflow run with status RUNNING and the fingerprint as a tag. If the claim wins against
other processes' claims, this MLflow run becomes the record of the run. MLflow has no compare-and-set operation, so each
process writes its claim first and reads the other claims afterwards:

    1. Create the MLflow run, with its stage tag set to "claiming".
    2. Read the other MLflow runs with this fingerprint that are FINISHED, or RUNNING in a process that is alive.
       There is none                    → my claim wins: set its stage to "training".
       One is FINISHED                  → withdraw my claim.
       One has left stage "claiming"    → that claim has won: withdraw mine.
       All are in stage "claiming"      → if my claim is the first in order of (start time, id), repeat step 2 until all
                                          other claims are withdrawn or one has won, but withdraw mine after
                                          COMPETITION_TIMEOUT_S seconds. If my claim is not the first, withdraw it at
                                          once.

To withdraw a claim is to delete its MLflow run.

Two processes never win the same fingerprint: one of the two claims was created after the other. The process that
created the later claim reads even later, and therefore sees the earlier claim unless it was withdrawn. This needs a
store in which a completed write is visible to every later read, such as sqlite, PostgreSQL or an MLflow server in front
of one database. This guarantee does not rely on clocks: the order by time only decides which claim is withdrawn.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from alue_bench.tracking.connection import Connection
from alue_bench.tracking.liveness import MACHINE, PROCESS, DeadProcessDetector

FINGERPRINT = "fingerprint"
INVOCATION = "invocation"
"""The name of the MLflow tag that holds the id of a run's invocation. An invocation is one execution of a command; all
its worker processes use the same id."""
STAGE = "stage"
CLAIMING = "claiming"
POLL_INTERVAL_S = 0.1
"""The seconds between two checks of the claims that other processes have made in order to execute the same run."""
COMPETITION_TIMEOUT_S = 5.0
"""The longest time, in seconds, that a process waits for other processes to withdraw their claims of a run that it has
claimed too. After this time, it withdraws its own claim. If all processes withdraw their claims, one of these processes
claims the run again later."""


@dataclass(frozen=True)
class HeldRun:
    """A run that another process is executing or has just finished, so that this process must not execute it."""

    run_id: str


def settle_claim(connection: Connection, watch: DeadProcessDetector, run_id: str, fingerprint: str) -> HeldRun | None:
    """Decide whether this process may execute a planned run, given the claims of other processes on the same run.

    A claim is an MLflow run that a process creates before it executes a planned run. The module's docstring lists the
    rules.

    Other claims whose processes are dead get the status KILLED.

    Args:
        connection: The open store.
        watch: The detector of dead processes.
        run_id: The id of the MLflow run that is this process's claim.
        fingerprint: The digest of everything that determines the result of the planned run.

    Returns:
        None if this process may execute the run; otherwise a `HeldRun` with the id of the MLflow run that takes
        precedence. The caller must then withdraw this process's claim by `withdraw`.
    """
    deadline = time.monotonic() + COMPETITION_TIMEOUT_S
    while True:
        others = []
        changed = False
        claims = competitors(connection, fingerprint)
        mine = next((run for run in claims if run.info.run_id == run_id), None)
        for run in claims:
            if run is mine:
                continue
            if run.info.status == "FINISHED":
                return HeldRun(run.info.run_id)
            if mine is not None and _is_duplicate(run, mine):
                withdraw(connection, run.info.run_id)
            elif watch.is_dead(run.info.run_id, run.data.tags):
                changed |= not close_running(connection, run.info.run_id)
            else:
                others.append(run)
        if changed:
            continue
        if mine is None:  # another process considered this process dead, and ended its claim
            return HeldRun(min(others, key=_order).info.run_id if others else run_id)
        if not others:
            return None
        first = min(others, key=_order)
        settled = next((run for run in others if run.data.tags.get(STAGE) != CLAIMING), None)
        if settled is not None:
            return HeldRun(settled.info.run_id)
        if _order(first) < _order(mine) or time.monotonic() > deadline:
            return HeldRun(first.info.run_id)
        time.sleep(POLL_INTERVAL_S)


def competitors(connection: Connection, fingerprint: str) -> list[Any]:
    """Return the MLflow runs that have this fingerprint and the status RUNNING or FINISHED.

    The claims of processes that are about to execute a run with this fingerprint are among them. A fingerprint is a
    digest of everything that determines a run's result.
    """
    runs = connection.client.search_runs(
        [connection.experiment_id], f"tags.{FINGERPRINT} = '{fingerprint}' and attributes.status != 'KILLED'"
    )
    return [run for run in runs if run.info.status in ("RUNNING", "FINISHED")]


def close_running(connection: Connection, run_id: str, status: str = "KILLED") -> bool:
    """End an MLflow run if its status is RUNNING.

    Args:
        connection: The open store.
        run_id: The id of the MLflow run.
        status: The MLflow status that the run gets.

    Returns:
        True if this call ended the run. False if the run had another status than RUNNING, for example because it ended
        after the caller had read its status; it is then not changed.
    """
    if connection.client.get_run(run_id).info.status != "RUNNING":
        return False
    connection.client.set_terminated(run_id, status)
    return True


def withdraw(connection: Connection, run_id: str) -> None:
    """End and delete an MLflow run that this process has created as a claim, that is, in order to execute a run.

    A claim is withdrawn if another process executes, or has executed, a run with the same fingerprint.
    """
    connection.client.set_terminated(run_id, "KILLED")
    connection.client.delete_run(run_id)


def _is_duplicate(run: Any, mine: Any) -> bool:
    """Return whether an MLflow run is an unintended duplicate of a run that this process has created.

    If a server's answer is lost, MLflow's client repeats the request to create the run, and two runs exist. A process
    executes only one run at a time. A second MLflow run of the same process and fingerprint can therefore only come
    from such a repeated request.

    Args:
        run: The other MLflow run, with the same fingerprint.
        mine: The MLflow run that this process created and uses.
    """
    return INVOCATION in mine.data.tags and all(
        run.data.tags.get(name) == mine.data.tags.get(name) for name in (INVOCATION, MACHINE, PROCESS)
    )


def _order(run: Any) -> tuple[int, str]:
    return run.info.start_time, run.info.run_id
