"""Tests of whether the process behind a RUNNING run is alive, which MLflow never checks itself.

A process on the same machine is looked up in the process table, unless the system hides processes of other users. For
hidden processes and for other machines, the only sign is the run's heartbeat: a tag that the executing process
rewrites every BEAT_S seconds. If the heartbeat does not change for LEASE_S seconds, the process counts as dead. These
seconds are measured on the monotonic clock of the process that checks, so wrong or changed system clocks do no harm.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROCESS = "process"
MACHINE = "machine"
HEARTBEAT = "heartbeat"

BEAT_S = 15.0
"""The seconds between two heartbeats. A heartbeat is one write of a few milliseconds. It affects neither the measured
times nor, even with a hundred workers, the speed of the store."""
LEASE_S = 90.0
"""The seconds without a new heartbeat after which a process counts as dead. They are several times BEAT_S, and longer
than the restart of a store takes."""


class Heart:
    """A writer of heartbeats for the runs that this process executes; its thread ends when there are no such runs.

    A heartbeat that the store does not accept is skipped and counted in `missed`; the next one follows soon.
    """

    def __init__(self, client: MlflowClient, *, beat_s: float = BEAT_S) -> None:
        """Store the MLflow client and the seconds between two heartbeats; the thread starts with the first run."""
        self._client, self._beat_s = client, beat_s
        self._runs: dict[str, str] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.missed = 0

    def beat_for(self, run_id: str) -> None:
        """Write heartbeats for a run from now on. The first one was already written when the run was created."""
        with self._changed:
            self._runs[run_id] = ""
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
                self._thread.start()

    def tell(self, run_id: str, news: str) -> None:
        """Set the text that the run's next heartbeats carry, such as its progress. This writes nothing now."""
        if run_id in self._runs:
            self._runs[run_id] = news

    def rest(self, run_id: str) -> None:
        """Stop writing heartbeats for a run.

        A heartbeat that is being written now may still arrive later; it does no harm to a run that has ended. This
        method does not wait for it, since a store that is unreachable could make the wait long.
        """
        with self._changed:
            self._runs.pop(run_id, None)
            self._changed.notify()

    def stop(self) -> None:
        """Stop writing heartbeats for all runs, and let the thread end."""
        with self._changed:
            self._runs.clear()
            self._changed.notify()

    def _beat(self) -> None:
        count = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._runs, timeout=self._beat_s)
                if not self._runs:
                    self._thread = None
                    return
                held = dict(self._runs)
            for run_id, news in held.items():
                count += 1
                try:
                    self._client.set_tag(run_id, HEARTBEAT, a_beat(count, news))
                except Exception:  # an unreachable store raises errors of many types; the run itself will meet them
                    self.missed += 1


def a_beat(count: int = 0, news: str = "") -> str:
    """Return the text of a heartbeat, made of the time, a count and `news`.

    The count makes successive heartbeats differ even if the clock was set back between them.
    """
    return f"{datetime.now(UTC).isoformat(timespec='seconds')} {count} {news}".rstrip()


def steps_of(beat: str) -> tuple[int, int] | None:
    """Return the progress that a heartbeat contains, as (done, total) steps; None if it contains no progress."""
    _, _, news = beat.rpartition(" ")
    done, slash, total = news.partition("/")
    return (int(done), int(total)) if slash and done.isdigit() and total.isdigit() else None


class Watch:
    """A detector of dead processes, which remembers the heartbeats that it has seen.

    The lease is the time without a new heartbeat after which a process of another machine counts as dead.
    """

    def __init__(self, *, lease_s: float = LEASE_S, clock: Callable[[], float] = time.monotonic) -> None:
        """Set the lease in seconds, and the function that returns the time by which the lease is measured."""
        self._lease_s, self._clock = lease_s, clock
        self._seen: dict[str, tuple[str, float]] = {}

    def is_dead(self, run_id: str, tags: Mapping[str, str]) -> bool:
        """Return whether the process that executes a run is known to be dead.

        A dead process of this machine is recognised at once. A process of another machine, or one that this machine
        hides, counts as dead if its heartbeat has not changed between two calls that are at least a lease apart.

        Args:
            run_id: The MLflow run.
            tags: The run's tags, just read from the store.
        """
        if tags.get(MACHINE) == this_machine():
            alive = is_alive(tags.get(PROCESS, ""))
            if alive is not None:
                return not alive
        now, beat = self._clock(), tags.get(HEARTBEAT, "")
        seen, since = self._seen.get(run_id, (None, now))
        if beat != seen:
            self._seen[run_id] = beat, now
            return False
        return now - since > self._lease_s


@cache
def this_machine() -> str:
    """Return an identifier of this boot of the kernel and this process namespace.

    Two processes with the same identifier can find each other by process number.

    A host name is not enough: a container may have the name of its host, machines made from one image may have the
    same name, and after a reboot the process numbers begin anew.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        import uuid

        return f"{socket.gethostname()} {uuid.getnode():x}"


def this_process() -> str:
    """Return this process's number and start time; the start time distinguishes processes that get the same number."""
    began = _began(os.getpid())
    if began is None:
        raise RuntimeError("the system does not show this process to itself; is /proc mounted?")
    return f"{os.getpid()}@{began}"


def is_alive(process: str) -> bool | None:
    """Return whether a process of this machine still runs.

    Args:
        process: The process, as `this_process` wrote it into a tag.

    Returns:
        True or False; None if the system hides the process, so that this cannot be known.
    """
    number, _, began = process.partition("@")
    if not number.isdigit():
        return False
    seen = _began(int(number))
    if seen is None and _is_hidden(int(number)):
        return None
    return seen == began


def _is_hidden(number: int) -> bool:
    """Return whether a process with this number exists but the system hides everything else about it.

    Many clusters mount /proc with `hidepid`, which hides the processes of other users.
    """
    if os.name != "posix" or Path(f"/proc/{number}").exists():
        return False
    try:
        os.kill(number, 0)  # signal 0 only checks whether a signal could be sent
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False


def _began(number: int) -> str | None:
    """Return a process's start time as a text, comparable on this machine only; None if the process does not run.

    On Linux the time is in ticks since the boot. psutil's creation time is not used there, since it changes when the
    clock is set, and a living process would be taken for another one. A zombie (an ended process whose exit code
    nobody has fetched, common in containers) counts as not running.
    """
    try:
        state, *fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    import psutil

    try:
        process = psutil.Process(number)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None
