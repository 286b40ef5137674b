"""The progress of runs, read from their heartbeats in the store.

It serves executors whose workers cannot send their progress directly. A heartbeat is a tag that a running process
rewrites regularly. An invocation is one execution of a command, including its worker processes.
"""

from __future__ import annotations

from alue_bench.contract.executor import Advanced, Assignment, Report, Started
from alue_bench.tracking.claims import CLAIMING, FINGERPRINT, INVOCATION, STAGE
from alue_bench.tracking.connection import Connection, connect
from alue_bench.tracking.liveness import HEARTBEAT, steps_of


class HeartbeatPoller:
    """A reader of the store that reports the start and the progress of an invocation's runs."""

    def __init__(self, assignment: Assignment) -> None:
        """Store the address of the tracking store and the id of the invocation.

        Args:
            assignment: An assignment of the invocation, any one, since all have the same address and id.
        """
        self._store = assignment.tracking_uri, assignment.experiment
        self._connection: Connection | None = None
        self._where = f"attributes.status = 'RUNNING' and tags.{INVOCATION} = '{assignment.invocation}'"
        self._told: set[str] = set()

    def reports(self) -> list[Report]:
        """Return reports on the runs that have started since the last call, and on the progress of all running runs.

        If the store does not answer, the list is empty, and a later call reports on the runs.
        """
        try:
            self._connection = self._connection or connect(*self._store)
            runs = self._connection.client.search_runs([self._connection.experiment_id], self._where)
        except Exception:  # an unreachable store raises errors of many types; the recorder meets and reports them
            return []
        reports: list[Report] = []
        for run in runs:
            fingerprint = run.data.tags.get(FINGERPRINT)
            if fingerprint is None or run.data.tags.get(STAGE) == CLAIMING:
                continue
            if run.info.run_id not in self._told:
                self._told.add(run.info.run_id)
                reports.append(Started(fingerprint))
            steps = steps_of(run.data.tags.get(HEARTBEAT, ""))
            if steps is not None:
                reports.append(Advanced(fingerprint, *steps))
        return reports
