"""The executor of `--executor local --jobs N`: worker processes on this machine, which share its GPUs and CPU cores.

A worker is a fresh process: its environment variables, which assign it a device and a number of threads, are set before
it loads torch and CUDA. A worker executes one assignment (a group of runs that test the same trained model) after the
other, until the main process stops the pool or dies.
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
from itertools import takewhile
from multiprocessing.connection import Connection, wait

from alue_bench.contract.errors import AlueBenchError, DeviceLostError
from alue_bench.contract.executor import Assignment, AssignmentFinished, AssignmentLost, Event, Resources
from alue_bench.measure.environment import RUNS_PER_GPU
from alue_bench.messages.redaction import redact
from alue_bench.training.device.hardware import Hardware

GRACE_S = 15.0
"""The seconds between SIGTERM and SIGKILL for a worker, during which it can record the end of its run."""
MIG_SLICE_PREFIX = "MIG-"
"""The prefix of the identifiers of MIG slices (parts of a divided NVIDIA GPU)."""
DEVICE_LOST = 75
"""The exit code of a worker process that can no longer use its GPU; a new process may be able to use it."""


def start(resources: Resources) -> ProcessPool:
    """Return a pool with one worker for each concurrent run; the GPUs are distributed evenly among the workers."""
    jobs = resources.jobs or 1
    hardware = Hardware(resources.device)
    if not hardware.accelerated:
        return ProcessPool([environment_of({}, jobs)] * jobs)
    gpus = gpu_environments(hardware, resources.gpu)
    shares = {RUNS_PER_GPU: str(-(-jobs // len(gpus)))} if jobs > len(gpus) else {}
    return ProcessPool([environment_of(gpus[index % len(gpus)], jobs) | shares for index in range(jobs)])


def gpu_environments(hardware: Hardware, only: int | None = None) -> list[dict[str, str]]:
    """Return, for each GPU that workers may use, environment variables that make only this GPU visible to a worker.

    Args:
        hardware: The kind of accelerator.
        only: The number of the GPU to which workers are restricted; None for all GPUs that this process sees.
    """
    variables = visibility_variables(hardware)
    if not variables:  # a machine has only one Apple GPU, which all workers share
        return [{}]
    gpus = visible_gpus(hardware)
    chosen = gpus if only is None else gpus[only : only + 1]
    return [dict.fromkeys(variables, gpu) for gpu in chosen]


def visibility_variables(hardware: Hardware) -> tuple[str, ...]:
    """Return the names of the environment variables that list a process's visible GPUs, the decisive one first.

    On AMD GPUs, HIP_VISIBLE_DEVICES and CUDA_VISIBLE_DEVICES mean the same: they select from the GPUs that
    ROCR_VISIBLE_DEVICES makes visible. HIP_VISIBLE_DEVICES takes precedence. If the user has set CUDA_VISIBLE_DEVICES,
    both names are returned, so that the caller sets both and their values do not contradict each other. For the CPU and
    Apple GPUs, no name is returned.
    """
    if hardware.is_rocm:
        return ("HIP_VISIBLE_DEVICES", *(["CUDA_VISIBLE_DEVICES"] if "CUDA_VISIBLE_DEVICES" in os.environ else []))
    return {"cuda": ("CUDA_VISIBLE_DEVICES",), "xpu": ("ZE_AFFINITY_MASK",)}.get(hardware.name, ())


def visible_gpus(hardware: Hardware) -> list[str]:
    """Return the identifiers of the usable GPUs: numbers, UUIDs, or the UUIDs of MIG slices of NVIDIA GPUs.

    The identifiers are read from the environment variable that makes GPUs visible to this process, such as
    CUDA_VISIBLE_DEVICES. If the user has not set it, they are the numbers from 0.
    """
    given = next((os.environ[name] for name in visibility_variables(hardware) if name in os.environ), None)
    if given is None:
        return [str(number) for number in range(hardware.count)]
    names = [name.strip() for name in given.split(",") if name.strip()]
    if names and names[0].startswith(MIG_SLICE_PREFIX):
        # A process sees only the first MIG slice in the list. Each worker gets a list of one slice, and so sees it.
        return list(takewhile(lambda name: name.startswith(MIG_SLICE_PREFIX), names))
    # CUDA ignores the first GPU in the list that is missing, and all GPUs after it. An example is a container whose
    # image names more GPUs than its machine has.
    return names[: hardware.count]


def environment_of(gpu: Mapping[str, str], jobs: int) -> dict[str, str]:
    """Return the environment variables that give a worker its device and its number of threads.

    The workers share the cores evenly, unless the user has set OMP_NUM_THREADS, which then applies to each worker.

    Args:
        gpu: The environment variables that make only the worker's GPU visible to it; empty for the CPU.
        jobs: The number of workers on this machine.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // jobs))
    return {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, **gpu}


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    assignment: int | None = None


class ProcessPool:
    """A pool of worker processes. A worker is started when there is work for it, and replaced if it has died.

    It implements `alue_bench.contract.executor.WorkerPool`.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        """Store the environment variables of each worker; their number is the number of workers. Start no process."""
        self.environments = environments
        self._workers: dict[int, _Worker] = {}

    def has_capacity(self) -> bool:
        """Return whether a worker is idle or not started yet."""
        return self._idle_index() is not None

    def submit(self, assignment: Assignment) -> None:
        """Send an assignment (a group of runs) to an idle worker, whose process is started if it is not running."""
        index = self._idle_index()
        assert index is not None
        worker = self._workers.get(index)
        if worker is None or not worker.process.is_alive():
            worker = self._workers[index] = _start(self.environments[index])
        worker.assignment = assignment.number
        with suppress(BrokenPipeError):  # the worker has just died: `events` will report it from the closed connection
            worker.connection.send(assignment)

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return what workers have reported since the last call; wait up to `timeout_s` seconds for the first event."""
        working = {w.connection: w for w in self._workers.values() if w.assignment is not None}
        events: list[Event] = []
        for ready in wait(list(working), timeout_s):
            assert isinstance(ready, Connection)
            events += _receive_events(working[ready])
        return events

    def stop(self) -> None:
        """End all workers. Busy workers get SIGTERM, and any worker that still runs after GRACE_S seconds is killed."""
        processes = [worker.process for worker in self._workers.values()]
        for worker in self._workers.values():
            worker.connection.close()  # an idle worker ends when its connection is closed
            if worker.assignment is not None:
                worker.process.terminate()
        deadline = time.monotonic() + GRACE_S
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._workers.clear()

    def _idle_index(self) -> int | None:
        for index in range(len(self.environments)):
            worker = self._workers.get(index)
            if worker is None or worker.assignment is None:
                return index
        return None


def _receive_events(worker: _Worker) -> list[Event]:
    """Return the events that a worker has sent, followed by an `AssignmentLost` event if its connection is closed."""
    events: list[Event] = []
    number = worker.assignment
    assert number is not None
    try:
        while worker.assignment is not None and worker.connection.poll():
            event: Event = worker.connection.recv()
            events.append(event)
            if isinstance(event, AssignmentFinished | AssignmentLost):
                worker.assignment = None
    except (EOFError, OSError):
        worker.process.join()
        worker.connection.close()
        worker.assignment = None
        code = worker.process.exitcode
        events.append(AssignmentLost(number, cause_of_death(code), infrastructure_failure=code == DEVICE_LOST))
    return events


def cause_of_death(code: int | None) -> str:
    """Return a phrase that says why a worker process ended before its work was done.

    Args:
        code: The exit code of the worker process; if a signal killed it, the negative number of the signal. None if the
            exit code is unknown.
    """
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return f"the worker process was killed by {name}{hint}"
    if code == DEVICE_LOST:
        return "the worker process could no longer use its GPU, after an earlier run had failed"
    return f"the worker process ended with exit code {code}"


def _start(environment: Mapping[str, str]) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a fork would inherit a CUDA context and threads' locks
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_worker, args=(theirs, dict(environment)), name="alue-bench worker")
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _run_worker(connection: Connection, environment: Mapping[str, str]) -> None:
    """Execute the assignments (groups of runs) that arrive over a connection, until it is closed.

    This is the main function of a worker process.
    """
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the workers too; the main process handles it
    os.dup2(sys.stderr.fileno(), 1)  # stdout is reserved for the result
    threading.Thread(target=_end_with_parent, name="parent watch", daemon=True).start()

    from alue_bench.executors.termination import Terminated, stop_on_sigterm
    from alue_bench.executors.worker import execute_assignment

    def send(event: Event) -> None:
        try:
            connection.send(event)
        except BrokenPipeError:  # the main process is gone: the run is interrupted, which does not count as a failure
            raise Terminated from None

    with stop_on_sigterm():
        try:
            while True:
                try:
                    assignment: Assignment = connection.recv()
                except EOFError:
                    return
                try:
                    execute_assignment(assignment, send)
                except DeviceLostError:  # the pool starts another process in place of this one
                    sys.exit(DEVICE_LOST)
                except Exception as error:  # such as an unreachable store; it is reported to the main process
                    message = next(iter(str(error).splitlines()), "")
                    cause = message if isinstance(error, AlueBenchError) else f"{type(error).__name__}: {message}"
                    send(AssignmentLost(assignment.number, redact(cause)))
                else:
                    send(AssignmentFinished(assignment.number))
        except KeyboardInterrupt:
            sys.exit(143)


def _end_with_parent() -> None:
    """Wait until the main process ends. Then send SIGTERM to this worker process repeatedly, until it ends too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        while True:  # until the main thread has handled it
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(2.0)
