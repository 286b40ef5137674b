"""`--executor local --jobs N`: worker processes on this machine, each with a device and a share of the cores.

A worker is a fresh process: neither torch nor CUDA is loaded before its environment says which device and how many
threads are its own. It does one assignment after the other, and ends with the plan or when the main process dies.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from alue_bench.contract.errors import AlueBenchError, DeviceLostError
from alue_bench.contract.executor import Assignment, Event, Lost, Resources, Returned
from alue_bench.measure.environment import RUNS_PER_GPU
from alue_bench.messages.redaction import redact

GRACE_S = 15.0
"""For a worker to close its run before it is killed."""
DEVICE_LOST = 75
"""Exit code of a worker that can no longer use its GPU, as no other process of the same GPU need be."""


def start(resources: Resources) -> ProcessPool:
    """As many workers as there are to be runs at once; they share the GPUs."""
    jobs = resources.jobs or 1
    if resources.device != "cuda":
        return ProcessPool([environment_of(None, jobs)] * jobs)
    gpus = visible_gpus()
    shares = {RUNS_PER_GPU: str(-(-jobs // len(gpus)))} if jobs > len(gpus) else {}
    return ProcessPool([environment_of(gpus[place % len(gpus)], jobs) | shares for place in range(jobs)])


def visible_gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES would name each."""
    import torch

    there = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return [str(number) for number in range(there)]
    # CUDA stops at the first that is not there, as where a container's image names more than its machine has.
    return [name.strip() for name in given.split(",") if name.strip()][:there]


def environment_of(device: str | None, jobs: int) -> dict[str, str]:
    """What a worker's environment has besides: its device, and as many threads as its share of the cores. A number of
    threads that the user has set is meant for each process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // jobs))
    found = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
    return found | ({"CUDA_VISIBLE_DEVICES": device} if device is not None else {})


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    assignment: int | None = None


class ProcessPool:
    """One process for each environment, started when there is work for it, and anew when it has died."""

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        self.environments = environments
        self._workers: dict[int, _Worker] = {}

    def has_room(self) -> bool:
        return self._idle_place() is not None

    def submit(self, assignment: Assignment) -> None:
        place = self._idle_place()
        assert place is not None
        worker = self._workers.get(place)
        if worker is None or not worker.process.is_alive():
            worker = self._workers[place] = _start(self.environments[place])
        worker.assignment = assignment.number
        with suppress(BrokenPipeError):  # it died this moment: its end of the connection tells
            worker.connection.send(assignment)

    def events(self, timeout_s: float) -> Sequence[Event]:
        working = {w.connection: w for w in self._workers.values() if w.assignment is not None}
        found: list[Event] = []
        for ready in wait(list(working), timeout_s):
            assert isinstance(ready, Connection)
            found += _received(working[ready])
        return found

    def stop(self) -> None:
        processes = [worker.process for worker in self._workers.values()]
        for worker in self._workers.values():
            worker.connection.close()  # one that waits for work ends
            if worker.assignment is not None:
                worker.process.terminate()
        deadline = time.monotonic() + GRACE_S
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._workers.clear()

    def _idle_place(self) -> int | None:
        for place in range(len(self.environments)):
            worker = self._workers.get(place)
            if worker is None or worker.assignment is None:
                return place
        return None


def _received(worker: _Worker) -> list[Event]:
    """All that a worker has said; that it is lost where its connection is closed."""
    found: list[Event] = []
    number = worker.assignment
    assert number is not None
    try:
        while worker.assignment is not None and worker.connection.poll():
            event: Event = worker.connection.recv()
            found.append(event)
            if isinstance(event, Returned | Lost):
                worker.assignment = None
    except (EOFError, OSError):
        worker.process.join()
        worker.connection.close()
        worker.assignment = None
        code = worker.process.exitcode
        found.append(Lost(number, cause_of_death(code), infrastructure_failure=code == DEVICE_LOST))
    return found


def cause_of_death(code: int | None) -> str:
    """Of a process that ended with this code, negative for a signal, before its work was done."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ", as the system does where memory runs out" if name == "SIGKILL" else ""
        return f"the worker process was killed by {name}{hint}"
    if code == DEVICE_LOST:
        return "the worker process could no longer use its GPU, after an earlier run had failed"
    return f"the worker process ended with exit code {code}"


def _start(environment: Mapping[str, str]) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a fork would inherit a CUDA context and threads' locks
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, dict(environment)), name="alue-bench worker")
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _work(connection: Connection, environment: Mapping[str, str]) -> None:
    """A worker's whole life."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the main process decides
    os.dup2(sys.stderr.fileno(), 1)  # stdout is for the result
    threading.Thread(target=_end_with_parent, name="parent watch", daemon=True).start()

    from alue_bench.executors.termination import Terminated, stop_on_sigterm
    from alue_bench.executors.worker import carry_out

    def tell(event: Event) -> None:
        try:
            connection.send(event)
        except BrokenPipeError:  # the main process is gone: the run at hand is cut short by that, and has not failed
            raise Terminated from None

    with stop_on_sigterm():
        try:
            while True:
                try:
                    assignment: Assignment = connection.recv()
                except EOFError:
                    return
                try:
                    carry_out(assignment, tell)
                except DeviceLostError:  # and so is this process: another takes its place
                    sys.exit(DEVICE_LOST)
                except Exception as error:  # such as a store that is away: the plan must hear of it
                    message = next(iter(str(error).splitlines()), "")
                    cause = message if isinstance(error, AlueBenchError) else f"{type(error).__name__}: {message}"
                    tell(Lost(assignment.number, redact(cause)))
                else:
                    tell(Returned(assignment.number))
        except KeyboardInterrupt:
            sys.exit(143)


def _end_with_parent() -> None:
    """Nobody waits for the results of a worker whose main process was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        while True:  # until the main thread heeds it
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(2.0)
