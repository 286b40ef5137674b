"""The progress of runs, read from their heartbeats in the MLflow store.

This module is for executors whose workers cannot send their progress directly to the main process. A heartbeat is a tag
of an MLflow run that the process executing the run rewrites regularly. An invocation is one execution of a command,
including its workers.
"""

from __future__ import annotations

from alue_bench.contract.executor import Assignment, Report, RunAdvanced, RunStarted
from alue_bench.tracking.claims import CLAIMING, FINGERPRINT, INVOCATION, STAGE
from alue_bench.tracking.connection import Connection, connect
from alue_bench.tracking.liveness import HEARTBEAT, progress_of_heartbeat


class HeartbeatPoller:
    """A poller of the MLflow store that reports which runs of an invocation have started, and their progress.

    An invocation is one execution of a command, including its worker processes.
    """

    def __init__(self, assignment: Assignment) -> None:
        """Take the MLflow tracking URI and the id of the invocation from an assignment.

        Args:
            assignment: Any assignment (group of runs for one worker) of the invocation; all contain the same URI and
                id.
        """
        self._store = assignment.tracking_uri, assignment.experiment
        self._connection: Connection | None = None
        self._filter = f"attributes.status = 'RUNNING' and tags.{INVOCATION} = '{assignment.invocation}'"
        self._reported: set[str] = set()

    def reports(self) -> list[Report]:
        """Return reports on the runs that have started since the last call, and on the progress of all running runs.

        If the MLflow store does not answer, the list is empty; later calls then report the runs that have started
        meanwhile.
        """
        try:
            self._connection = self._connection or connect(*self._store)
            runs = self._connection.client.search_runs([self._connection.experiment_id], self._filter)
        except Exception:  # an unreachable store raises errors of many types; the recorder reports them
            return []
        reports: list[Report] = []
        for run in runs:
            fingerprint = run.data.tags.get(FINGERPRINT)
            if fingerprint is None or run.data.tags.get(STAGE) == CLAIMING:
                continue
            if run.info.run_id not in self._reported:
                self._reported.add(run.info.run_id)
                reports.append(RunStarted(fingerprint))
            steps = progress_of_heartbeat(run.data.tags.get(HEARTBEAT, ""))
            if steps is not None:
                reports.append(RunAdvanced(fingerprint, *steps))
        return reports
