"""The runs in an sqlite store of MLflow, read without MLflow so that later forks inherit no open connection."""

from __future__ import annotations

import sqlite3
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path


@dataclass(frozen=True)
class StoredRun:
    """An MLflow run in the store that has not been deleted: a training run or the parent run of a plan."""

    kind: str
    status: str
    fingerprint: str
    process: str
    start_ms: int
    end_ms: int | None


def stored_runs(database: Path) -> list[StoredRun]:
    """Return the training runs and parent runs in a database that have not been deleted."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as store:
        rows = store.execute(
            "SELECT run_uuid, status, start_time, end_time FROM runs WHERE lifecycle_stage = 'active'"
        ).fetchall()
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        for run_id, key, value in store.execute(
            "SELECT run_uuid, key, value FROM tags WHERE key IN ('kind', 'fingerprint', 'process')"
        ):
            tags[run_id][key] = value
    store.close()
    return [
        StoredRun(
            tags[run_id].get("kind", ""),
            status,
            tags[run_id].get("fingerprint", ""),
            tags[run_id].get("process", ""),
            start,
            end,
        )
        for run_id, status, start, end in rows
    ]


@dataclass(frozen=True)
class Verdict:
    """The numbers of runs by their state after a plan; `lost`, `doubled` and `running` must be 0."""

    finished: int
    lost: int
    """The number of planned runs without a finished run in the store."""
    doubled: int
    """The number of planned runs that are in the store as finished more than once."""
    running: int
    """The number of runs and parent runs in state RUNNING, although no process executes them."""
    cut_short: int
    """The number of runs that a kill interrupted; each was set to state KILLED and done again."""

    @property
    def good(self) -> bool:
        """True if nothing is lost, doubled or left running."""
        return not (self.lost or self.doubled or self.running)


def verdict(runs: list[StoredRun], planned: set[str]) -> Verdict:
    """Return the numbers of runs by their state in a store.

    Args:
        runs: The runs in the store.
        planned: The fingerprints of the plan's runs.
    """
    finished = Counter(run.fingerprint for run in runs if run.kind == "run" and run.status == "FINISHED")
    return Verdict(
        finished=len(finished),
        lost=len(planned - finished.keys()),
        doubled=sum(count > 1 for count in finished.values()),
        running=sum(run.status == "RUNNING" for run in runs),
        cut_short=sum(run.kind == "run" and run.status == "KILLED" for run in runs),
    )


def gap_ms(runs: list[StoredRun]) -> float | None:
    """Return the median time between the end of a run and the start of the next run in the same process.

    Returns:
        The time in milliseconds; None if no process did two runs.
    """
    by_process: dict[str, list[StoredRun]] = defaultdict(list)
    for run in runs:
        if run.kind == "run" and run.status == "FINISHED":
            by_process[run.process].append(run)
    gaps = []
    for mine in by_process.values():
        mine.sort(key=lambda run: run.start_ms)
        gaps += [later.start_ms - (run.end_ms or later.start_ms) for run, later in pairwise(mine)]
    return statistics.median(gaps) if gaps else None


def first_start_ms(runs: list[StoredRun]) -> int | None:
    """Return the milliseconds from the start of the plan to the start of its first run; None if there is no run."""
    plans = [run.start_ms for run in runs if run.kind == "plan"]
    starts = [run.start_ms for run in runs if run.kind == "run"]
    return min(starts) - min(plans) if plans and starts else None
