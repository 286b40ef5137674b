"""Whether the process behind a RUNNING run lives: MLflow never finds out by itself.

On one machine the process table answers, at once, unless it hides what other users run. Of what is hidden, and of
another machine, only the run's heartbeat is seen: a tag that the holder writes anew every BEAT_S seconds. A heartbeat
that has not changed for LEASE_S seconds, on the clock of whoever watches it, is that of a dead holder. No two machines'
clocks are ever compared, and no clock that can be set is read: wrong clocks and clocks that jump do no harm.
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
"""One small write of a few milliseconds in this time: nothing that a timing would show, and little for a store with a
hundred workers."""
LEASE_S = 90.0
"""Longer than a store may be away for a restart, and several beats."""


class Heart:
    """Beats for the runs that this process holds, from a thread of its own, as long as there are any.

    A beat that the store does not take is left out and counted: the next one comes soon.
    """

    def __init__(self, client: MlflowClient, *, beat_s: float = BEAT_S) -> None:
        self._client, self._beat_s = client, beat_s
        self._runs: dict[str, str] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.missed = 0

    def beat_for(self, run_id: str) -> None:
        """From now on; the run was created with a first beat."""
        with self._changed:
            self._runs[run_id] = ""
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
                self._thread.start()

    def tell(self, run_id: str, news: str) -> None:
        """What the next beats say besides, such as how far the run is. Costs nothing."""
        if run_id in self._runs:
            self._runs[run_id] = news

    def rest(self, run_id: str) -> None:
        """No further beat is begun. One on its way may still arrive: to wait for it could take as long as a store is
        away, and it does no harm to a closed run."""
        with self._changed:
            self._runs.pop(run_id, None)
            self._changed.notify()

    def stop(self) -> None:
        """No further beat for any run, and soon no thread."""
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
                except Exception:  # whatever a store that is away raises; the run itself will meet it
                    self.missed += 1


def a_beat(count: int = 0, news: str = "") -> str:
    """Unlike every other: the count tells two beats apart where the clock was set back between them."""
    return f"{datetime.now(UTC).isoformat(timespec='seconds')} {count} {news}".rstrip()


def steps_of(beat: str) -> tuple[int, int] | None:
    """How far the run was at this beat, as (done, total) steps; None where it does not say."""
    _, _, news = beat.rpartition(" ")
    done, slash, total = news.partition("/")
    return (int(done), int(total)) if slash and done.isdigit() and total.isdigit() else None


class Watch:
    """Sees which runs are dead. Of another machine's, only after it was watched for a while."""

    def __init__(self, *, lease_s: float = LEASE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease_s, self._clock = lease_s, clock
        self._seen: dict[str, tuple[str, float]] = {}

    def is_dead(self, run_id: str, tags: Mapping[str, str]) -> bool:
        """tags: as just read from the store. A machine's own dead are known at once; another machine's, and those that
        this one hides, when their heartbeat has not changed between two looks that are at least a lease apart."""
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
    """Equal only where the numbers of processes mean the same: one boot of one kernel, one namespace of processes.

    Containers may share a host's name and machines an image's; a reboot begins the numbers anew.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        import uuid

        return f"{socket.gethostname()} {uuid.getnode():x}"


def this_process() -> str:
    """A process's number, and when it began: numbers are used again."""
    began = _began(os.getpid())
    if began is None:
        raise RuntimeError("the system does not show this process to itself; is /proc mounted?")
    return f"{os.getpid()}@{began}"


def is_alive(process: str) -> bool | None:
    """Whether the process of this machine that wrote this tag still runs; None where the system does not say."""
    number, _, began = process.partition("@")
    if not number.isdigit():
        return False
    seen = _began(int(number))
    if seen is None and _is_hidden(int(number)):
        return None
    return seen == began


def _is_hidden(number: int) -> bool:
    """Whether there is a process of this number, of another user, and no more is to be known: /proc may be mounted with
    `hidepid`, as on many clusters."""
    if os.name != "posix" or Path(f"/proc/{number}").exists():
        return False
    try:
        os.kill(number, 0)  # asks whether it could be sent a signal, and sends none
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return False


def _began(number: int) -> str | None:
    """When a process began, in a measure of its own; None where it does not run.

    On Linux in ticks since the boot: psutil's time of creation moves when the clock is set, and a living process would
    be taken for another one. A zombie is dead, though nobody has fetched its exit code: common in containers.
    """
    try:
        state, *fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    import psutil

    try:
        found = psutil.Process(number)
        return None if found.status() == psutil.STATUS_ZOMBIE else f"{found.create_time():.2f}"
    except psutil.Error:
        return None
