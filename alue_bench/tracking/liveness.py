"""The check whether the process that executes an MLflow run is still alive. MLflow itself never checks this.

A process on the same machine is looked up in the process table, unless the system hides processes of other users. For
hidden processes and for processes on other machines, the only sign is the run's heartbeat: a tag that the executing
process rewrites every HEARTBEAT_INTERVAL_S seconds. If it does not change for LEASE_S seconds, the process counts as
dead. These seconds are measured on the monotonic clock of the process that checks, so wrong or changed system clocks do
no harm.
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

HEARTBEAT_INTERVAL_S = 15.0
"""The seconds between two heartbeats. A heartbeat is a tag of an MLflow run that is rewritten regularly, to show that
the process is alive. One write takes a few milliseconds, and affects neither the measured times nor, even with a
hundred workers, the speed of the store."""
LEASE_S = 90.0
"""The seconds after which a process counts as dead if it has not rewritten the heartbeat tag of its MLflow run. This is
several times HEARTBEAT_INTERVAL_S, and longer than the restart of an MLflow server takes."""


class HeartbeatWriter:
    """A writer of heartbeats for the runs that this process executes.

    A heartbeat is a tag of an MLflow run that is rewritten regularly, to show that the process is alive. A thread
    writes the heartbeats, and ends when this process executes no run.

    A heartbeat that the store does not accept is not sent again. The attribute `missed` counts such heartbeats.
    """

    def __init__(self, client: MlflowClient, *, interval_s: float = HEARTBEAT_INTERVAL_S) -> None:
        """Store the MLflow client and the seconds between two writes of the heartbeat tag.

        The thread that writes heartbeats starts with the first run.
        """
        self._client, self._interval_s = client, interval_s
        self._runs: dict[str, str] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.missed = 0

    def start_heartbeat(self, run_id: str) -> None:
        """Start to rewrite the heartbeat tag of a run regularly. The tag was first written when the run was created."""
        with self._changed:
            self._runs[run_id] = ""
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_heartbeats, name="heartbeat", daemon=True)
                self._thread.start()

    def set_status(self, run_id: str, status: str) -> None:
        """Set a status message, such as the run's progress, for the next heartbeat of the run."""
        if run_id in self._runs:
            self._runs[run_id] = status

    def stop_heartbeat(self, run_id: str) -> None:
        """Stop rewriting the heartbeat tag of a run.

        If the tag is being written now, this method does not wait, since the write could take long if the MLflow store
        cannot be reached. A write after the end of the run does no harm.
        """
        with self._changed:
            self._runs.pop(run_id, None)
            self._changed.notify()

    def stop(self) -> None:
        """Stop rewriting the heartbeat tags of all runs, and let the thread end."""
        with self._changed:
            self._runs.clear()
            self._changed.notify()

    def _write_heartbeats(self) -> None:
        count = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._runs, timeout=self._interval_s)
                if not self._runs:
                    self._thread = None
                    return
                current = dict(self._runs)
            for run_id, status in current.items():
                count += 1
                try:
                    self._client.set_tag(run_id, HEARTBEAT, heartbeat_value(count, status))
                except Exception:  # an unreachable store raises errors of many types; the recorder reports them
                    self.missed += 1


def heartbeat_value(count: int = 0, status: str = "") -> str:
    """Return the value of a run's heartbeat tag, which is rewritten regularly: the time, `count` and `status`.

    Args:
        count: A number that grows with each write, so that no two values are equal even if the clock is set back.
        status: A status message, such as "120/400" for the steps that are done; empty for none.
    """
    return f"{datetime.now(UTC).isoformat(timespec='seconds')} {count} {status}".rstrip()


def progress_of_heartbeat(heartbeat: str) -> tuple[int, int] | None:
    """Return the (done, total) steps of a run from its heartbeat tag's value; None if the value contains no steps."""
    _, _, status = heartbeat.rpartition(" ")
    done, slash, total = status.partition("/")
    return (int(done), int(total)) if slash and done.isdigit() and total.isdigit() else None


class DeadProcessDetector:
    """A detector of dead processes, which remembers the heartbeats that it has read.

    A heartbeat is a tag of an MLflow run that the executing process rewrites regularly.

    A process on another machine, or one that the operating system hides, counts as dead if its heartbeat does not
    change for a certain time, the lease.
    """

    def __init__(self, *, lease_s: float = LEASE_S, clock: Callable[[], float] = time.monotonic) -> None:
        """Create a detector of dead processes.

        Args:
            lease_s: The lease in seconds: the time after which a process that cannot be looked up counts as dead if its
                heartbeat tag has not changed.
            clock: The function that returns the present time in seconds.
        """
        self._lease_s, self._clock = lease_s, clock
        self._seen: dict[str, tuple[str, float]] = {}

    def is_dead(self, run_id: str, tags: Mapping[str, str]) -> bool:
        """Return whether the process that executes a run is known to be dead.

        The death of a process on this machine is recognised at once. A process on another machine, or one that the
        operating system hides, counts as dead if its heartbeat has not changed between two calls of this method that
        are more than `lease_s` seconds apart.

        Args:
            run_id: The id of the MLflow run.
            tags: The run's tags, which were just read from the store. They contain the heartbeat.
        """
        if tags.get(MACHINE) == this_machine():
            alive = is_alive(tags.get(PROCESS, ""))
            if alive is not None:
                return not alive
        now, heartbeat = self._clock(), tags.get(HEARTBEAT, "")
        seen, since = self._seen.get(run_id, (None, now))
        if heartbeat != seen:
            self._seen[run_id] = heartbeat, now
            return False
        return now - since > self._lease_s


@cache
def this_machine() -> str:
    """Return an identifier of the machine's current boot and of the process namespace.

    Two processes that get the same identifier can look each other up by process id.

    A host name would not suffice: a container may have the name of its host, machines made from the same image may have
    the same name, and process numbers start again after a reboot.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        import uuid

        return f"{socket.gethostname()} {uuid.getnode():x}"


def this_process() -> str:
    """Return this process's id (PID) and start time as a string.

    The start time distinguishes this process from a later one that gets the same id.

    Raises:
        RuntimeError: The start time cannot be read, because /proc is not mounted.
    """
    began = _start_time(os.getpid())
    if began is None:
        raise RuntimeError("the system does not show this process to itself; is /proc mounted?")
    return f"{os.getpid()}@{began}"


def is_alive(process: str) -> bool | None:
    """Return whether a process of this machine still runs.

    Args:
        process: The string that `this_process` returned in that process.

    Returns:
        True or False; None if the system hides the process, so that the answer is unknown.
    """
    pid, _, began = process.partition("@")
    if not pid.isdigit():
        return False
    seen = _start_time(int(pid))
    if seen is None and _is_hidden(int(pid)):
        return None
    return seen == began


def _is_hidden(pid: int) -> bool:
    """Return whether a process with this id exists but the system hides everything else about it.

    Many clusters mount /proc with `hidepid`, which hides the processes of other users.
    """
    if os.name != "posix" or Path(f"/proc/{pid}").exists():
        return False
    try:
        os.kill(pid, 0)  # signal 0 only checks whether a signal could be sent
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False


def _start_time(pid: int) -> str | None:
    """Return the start time of a process as a string; None if the process is not running.

    Two such strings can only be compared if they are from the same machine.

    On Linux, the start time is counted in clock ticks since boot. psutil's creation time is not used on Linux: it
    changes when the clock is set. A process that still runs would then seem to have ended, and another process to have
    got its id. A zombie (an ended process whose exit code nobody has fetched, common in containers) counts as not
    running.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None
