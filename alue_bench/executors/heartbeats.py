"""How far the runs of an invocation are, read from their heartbeats: for executors that have no better way to know."""

from __future__ import annotations

from alue_bench.contract.executor import Advanced, Assignment, Report, Started
from alue_bench.tracking.claims import CLAIMING, FINGERPRINT, INVOCATION, STAGE
from alue_bench.tracking.connection import Connection, connect
from alue_bench.tracking.liveness import HEARTBEAT, steps_of


class News:
    """Remembers what it has told."""

    def __init__(self, assignment: Assignment) -> None:
        """assignment: any one of the invocation's."""
        self._store = assignment.tracking_uri, assignment.experiment
        self._connection: Connection | None = None
        self._where = f"attributes.status = 'RUNNING' and tags.{INVOCATION} = '{assignment.invocation}'"
        self._told: set[str] = set()

    def reports(self) -> list[Report]:
        """Of runs that have begun since, and of how far those under way are. None where the store is away: it has news
        later, and the runs go on."""
        try:
            self._connection = self._connection or connect(*self._store)
            runs = self._connection.client.search_runs([self._connection.experiment_id], self._where)
        except Exception:  # whatever a store that is away raises; the recorder meets it, and tells of it
            return []
        found: list[Report] = []
        for run in runs:
            fingerprint = run.data.tags.get(FINGERPRINT)
            if fingerprint is None or run.data.tags.get(STAGE) == CLAIMING:
                continue
            if run.info.run_id not in self._told:
                self._told.add(run.info.run_id)
                found.append(Started(fingerprint))
            steps = steps_of(run.data.tags.get(HEARTBEAT, ""))
            if steps is not None:
                found.append(Advanced(fingerprint, *steps))
        return found
