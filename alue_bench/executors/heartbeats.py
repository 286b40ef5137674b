"""The progress of an invocation's runs, read from their heartbeats, for executors that have no direct way to know."""

from __future__ import annotations

from alue_bench.contract.executor import Advanced, Assignment, Report, Started
from alue_bench.tracking.claims import CLAIMING, FINGERPRINT, INVOCATION, STAGE
from alue_bench.tracking.connection import Connection, connect
from alue_bench.tracking.liveness import HEARTBEAT, steps_of


class HeartbeatPoller:
    """A reader of the store that reports the start and the progress of an invocation's runs."""

    def __init__(self, assignment: Assignment) -> None:
        """Take the store and the invocation from any of the invocation's assignments."""
        self._store = assignment.tracking_uri, assignment.experiment
        self._connection: Connection | None = None
        self._where = f"attributes.status = 'RUNNING' and tags.{INVOCATION} = '{assignment.invocation}'"
        self._told: set[str] = set()

    def reports(self) -> list[Report]:
        """Return reports on runs that have started since the last call, and on the progress of running ones.

        Where the store does not answer, there are no reports; the runs continue, and a later call reports on them.
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
