"""The executor of `--executor ray`, which executes each assignment as a task of a Ray cluster, in a fresh process.

An assignment is a group of runs that test the same trained model. The cluster is the one whose address is in the
environment variable RAY_ADDRESS, or else a cluster that runs on this machine, or else a new one on this machine only.
Ray chooses the node of each task, and reports dead workers and nodes. If a worker or its node dies, the module
`scheduler` decides whether to repeat the runs of the worker's assignment, as for every executor.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.executor import (
    Assignment,
    AssignmentFinished,
    AssignmentLost,
    Event,
    Report,
    Resources,
    RunAdvanced,
    RunEnded,
    RunStarted,
    WarningIssued,
)
from alue_bench.executors.heartbeats import HeartbeatPoller
from alue_bench.measure.environment import RUNS_PER_GPU
from alue_bench.messages.display import first_line
from alue_bench.messages.extras import install_command
from alue_bench.messages.redaction import redact
from alue_bench.training.device.hardware import Hardware

GRACE_S = 15.0
"""The seconds between cancelling and killing a Ray task, during which it can record the end of its run."""
PROGRESS_INTERVAL_S = 5.0
"""The seconds between two queries of the MLflow store for the progress of runs."""

FORWARDED_VARIABLES = ("ALUE_BENCH_", "MLFLOW_", "HF_", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM")
"""The prefixes of the names of the environment variables that are passed to workers. Some values may be
passwords. The variables are therefore passed as an argument of the task, and not in Ray's runtime environment, which
Ray's dashboard shows."""


def start(resources: Resources) -> RayPool:
    """Connect to the Ray cluster, and return a pool of its workers.

    Raises:
        UnavailableError: Ray is not installed, or its cluster does not answer.
        UsageError: The cluster has fewer GPUs than a run needs, --device selects a GPU by number, or --gpus-per-run was
            given although the runs compute on the CPU.
    """
    if resources.gpu is not None:
        raise UsageError(f"--device cuda:{resources.gpu} names a GPU, but Ray chooses the GPUs; use --device cuda")
    try:
        import ray
    except ImportError as error:
        raise UnavailableError(
            f"--executor ray needs the package ray; install it with: {install_command('ray')}"
        ) from error
    connected_here = not ray.is_initialized()
    if connected_here:
        # Without this, Ray hides GPUs from tasks that ask for none, and prints a warning about it.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage statistics are sent
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = os.environ.get("RAY_ADDRESS", "this machine")
            cause = first_line(error)
            raise UnavailableError(
                f"the Ray cluster at {where} cannot be used ({cause}); start one with ray start --head, or set "
                "RAY_ADDRESS"
            ) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's handler would end the process immediately
    gpus = 0.0
    if Hardware(resources.device).accelerated:
        gpus = 1.0 if resources.gpus_per_run is None else resources.gpus_per_run
        if ray.cluster_resources().get("GPU", 0) < gpus:
            raise UsageError(f"the Ray cluster has no node with {gpus:g} GPUs for a run; add one, or use --device cpu")
    elif resources.gpus_per_run is not None:
        raise UsageError("--gpus-per-run is given, but the plan's runs compute on the CPU; leave it out")
    return RayPool(ray, gpus=gpus, jobs=resources.jobs, connected_here=connected_here)


class RayPool:
    """A pool that executes the runs of one plan as tasks on a Ray cluster.

    It implements `alue_bench.contract.executor.WorkerPool`.
    """

    def __init__(self, ray: Any, *, gpus: float, jobs: int | None, connected_here: bool) -> None:
        """Define the Ray task that executes an assignment.

        Args:
            ray: The module `ray`, connected to a cluster.
            gpus: The number of GPUs of a run, or a fraction of one GPU; 0 for the CPU.
            jobs: The largest number of concurrent runs; None for as many as fit into the cluster.
            connected_here: Whether `start` connected this process to the cluster, so that `stop` must disconnect it.
        """
        self._ray, self._gpus, self._jobs, self._connected_here = ray, gpus, jobs, connected_here
        # Ray prints messages about its nodes on stdout, which is reserved for the result.
        self._stdout_redirection = ExitStack()
        self._stdout_redirection.enter_context(redirect_stdout(sys.stderr))
        self._shares = {RUNS_PER_GPU: f"{1 / gpus:.3g}"} if 0 < gpus < 1 else {}
        self._cpus = 1 if jobs is None or gpus else cores_per_run(self._nodes(), jobs)
        # Ray does not retry tasks: alue-bench's scheduler does, after it has closed the dead worker's run. Each task
        # gets a new process, whose end frees its memory and CUDA context.
        self._task = ray.remote(num_cpus=self._cpus, num_gpus=gpus, max_calls=1, max_retries=0)(_execute_assignment)
        self._tasks: dict[Any, int] = {}
        self._heartbeats: HeartbeatPoller | None = None
        self._last_query = 0.0
        self._alive = set(self._nodes())

    def has_capacity(self) -> bool:
        """Return whether one more task may be submitted. The limit is --jobs or, without it, the cluster's size."""
        return len(self._tasks) < (self._jobs or self._capacity())

    def submit(self, assignment: Assignment) -> None:
        """Submit an assignment (a group of runs) to the cluster as a task."""
        environment = {
            name: value for name, value in os.environ.items() if name.startswith(FORWARDED_VARIABLES)
        } | self._shares
        self._tasks[self._task.remote(assignment, environment, str(Path.cwd()))] = assignment.number
        if self._heartbeats is None:
            self._heartbeats = HeartbeatPoller(assignment)

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return what Ray tasks have reported since the last call.

        Wait up to `timeout_s` seconds for the first event.
        """
        ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=timeout_s)
        events: list[Event] = []
        for reference in ready:
            events += self._events_of(reference, self._tasks.pop(reference))
        now = time.monotonic()
        if not events and self._heartbeats is not None and now - self._last_query >= PROGRESS_INTERVAL_S:
            self._last_query = now
            events += self._heartbeats.reports()
        return events

    def stop(self) -> None:
        """Cancel all tasks. Running tasks are interrupted, and killed if they have not ended after GRACE_S seconds."""
        try:
            for reference in self._tasks:
                self._ray.cancel(reference, force=False)
            if self._tasks:
                _, left = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=GRACE_S)
                for reference in left:
                    self._ray.cancel(reference, force=True)
        finally:  # also after a second Ctrl-C, so that the result still reaches stdout
            self._tasks.clear()
            if self._connected_here:
                self._ray.shutdown()
            self._stdout_redirection.close()

    def _events_of(self, reference: Any, number: int) -> list[Event]:
        """Return the events to report for a Ray task that has ended, normally or not.

        Args:
            reference: The Ray object reference of the task.
            number: The number of the assignment (group of runs) that the task executed.
        """
        from ray import exceptions

        try:
            return [*self._ray.get(reference), AssignmentFinished(number)]
        except exceptions.RayTaskError as error:
            return [AssignmentLost(number, redact(first_line(error.cause)))]
        except exceptions.OutOfMemoryError:
            return [AssignmentLost(number, "the worker was killed by Ray: its machine ran out of memory")]
        except exceptions.RayError as error:
            crashed = isinstance(error, exceptions.WorkerCrashedError)
            nodes = set(self._nodes())
            node_lost, self._alive = bool(self._alive - nodes), nodes
            if crashed and not node_lost:
                return [AssignmentLost(number, "the worker process died")]
            return [AssignmentLost(number, "the machine of its worker was lost", infrastructure_failure=True)]

    def _nodes(self) -> dict[str, int]:
        """Return the number of cores of each live node, by the node's id."""
        return {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]}

    def _capacity(self) -> int:
        """Return how many tasks fit on the cluster at the same time; at least 1, since the cluster may still grow."""
        resources = self._ray.cluster_resources()
        fits = resources.get("CPU", 0) // self._cpus
        if self._gpus:
            fits = min(fits, resources.get("GPU", 0) // self._gpus)
        return max(1, int(fits))


def cores_per_run(nodes: Mapping[str, int], jobs: int) -> int:
    """Return the number of CPU cores to reserve for each run, so that `jobs` runs fit on the cluster at the same time.

    The runs are distributed evenly over the nodes. The node with the fewest cores determines the result, which is at
    least 1.

    Args:
        nodes: The number of cores of each node.
        jobs: The number of runs at the same time.
    """
    on_each = -(-jobs // max(1, len(nodes)))
    return max(1, min(nodes.values(), default=1) // on_each)


def _execute_assignment(assignment: Assignment, environment: Mapping[str, str], folder: str) -> list[Report]:
    """Execute an assignment in the worker, and return the reports on its runs.

    The reports are returned together at the end. Until then, the main process reads the progress of the runs from tags
    in the MLflow store (see `heartbeats`).

    Args:
        assignment: The runs to execute.
        environment: The environment variables to set.
        folder: The working folder of the main process, which is used if it exists on this machine.
    """
    os.environ.update(environment)
    if os.path.isdir(folder):  # so that relative paths work on machines that share this folder
        os.chdir(folder)
    from alue_bench.executors.worker import execute_assignment

    reports: list[Report] = []

    def send(report: Report) -> None:
        if isinstance(report, RunStarted | RunEnded | WarningIssued):
            reports.append(report)
        else:
            assert isinstance(report, RunAdvanced)

    execute_assignment(assignment, send)
    return reports
