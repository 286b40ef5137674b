"""`--executor ray`: each assignment a task of a Ray cluster, in a fresh worker process, wherever there is room.

The cluster is the one that RAY_ADDRESS names, or the one that runs on this machine, or a new one of this machine alone.
Ray places tasks and tells of dead workers and nodes; what then becomes of a run is decided as for every executor.
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
    Advanced,
    Assignment,
    Event,
    Lost,
    Report,
    Resources,
    Returned,
    RunEnded,
    Started,
    Warned,
)
from alue_bench.executors.heartbeats import News
from alue_bench.measure.environment import RUNS_PER_GPU
from alue_bench.messages.extras import install_command
from alue_bench.messages.redaction import redact

GRACE_S = 15.0
"""For a worker to close its run before it is killed."""
LOOK_S = 5.0
"""Between two looks into the store for how far runs are."""

TRAVELS = ("ALUE_BENCH_", "MLFLOW_", "HF_", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM")
"""Beginnings of the environment variables that workers get. As an argument, not as Ray's runtime environment, which its
dashboard shows: passwords may be among them."""


def start(resources: Resources) -> RayPool:
    """Raises UnavailableError where Ray is not installed or its cluster does not answer, UsageError where that has no
    GPU though the plan is for one."""
    try:
        import ray
    except ImportError as error:
        raise UnavailableError(
            f"--executor ray needs the package ray; install it with: {install_command('ray')}"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        # Without this, Ray takes GPUs from tasks that ask for none, and its own warning about that.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(log_to_driver=False, logging_level="error", include_dashboard=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = os.environ.get("RAY_ADDRESS", "this machine")
            first_line = next(iter(str(error).splitlines()), type(error).__name__)
            raise UnavailableError(
                f"the Ray cluster at {where} cannot be used ({first_line}); start one with ray start --head, or set "
                "RAY_ADDRESS"
            ) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own handler would end the process at once
    gpus = 0.0
    if resources.device == "cuda":
        gpus = 1.0 if resources.gpus_per_run is None else resources.gpus_per_run
        if ray.cluster_resources().get("GPU", 0) < gpus:
            raise UsageError(
                f"the Ray cluster has no {gpus:g} GPUs for a run; add a node that has, or use --device cpu"
            )
    elif resources.gpus_per_run is not None:
        raise UsageError("--gpus-per-run is given, but the plan's runs compute on the CPU; leave it out")
    return RayPool(ray, gpus=gpus, jobs=resources.jobs, ours=ours)


class RayPool:
    """The tasks of one plan that are under way."""

    def __init__(self, ray: Any, *, gpus: float, jobs: int | None, ours: bool) -> None:
        self._ray, self._gpus, self._jobs, self._ours = ray, gpus, jobs, ours
        # Ray prints what befalls its nodes on stdout, which belongs to the result.
        self._kept_off_stdout = ExitStack()
        self._kept_off_stdout.enter_context(redirect_stdout(sys.stderr))
        self._shares = {RUNS_PER_GPU: f"{1 / gpus:.3g}"} if 0 < gpus < 1 else {}
        self._cpus = 1 if jobs is None or gpus else cores_per_run(self._nodes(), jobs)
        # Retries are the harness's: it must close what the dead left first. A worker's memory and CUDA context go with
        # it: a process a task.
        self._task = ray.remote(num_cpus=self._cpus, num_gpus=gpus, max_calls=1, max_retries=0)(_carry_out)
        self._tasks: dict[Any, int] = {}
        self._news: News | None = None
        self._looked = 0.0
        self._alive = set(self._nodes())

    def has_room(self) -> bool:
        return len(self._tasks) < (self._jobs or self._capacity())

    def submit(self, assignment: Assignment) -> None:
        environment = {name: value for name, value in os.environ.items() if name.startswith(TRAVELS)} | self._shares
        self._tasks[self._task.remote(assignment, environment, str(Path.cwd()))] = assignment.number
        if self._news is None:
            self._news = News(assignment)

    def events(self, timeout_s: float) -> Sequence[Event]:
        ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=timeout_s)
        found: list[Event] = []
        for reference in ready:
            found += self._ended(reference, self._tasks.pop(reference))
        now = time.monotonic()
        if not found and self._news is not None and now - self._looked >= LOOK_S:
            self._looked = now
            found += self._news.reports()
        return found

    def stop(self) -> None:
        try:
            for reference in self._tasks:
                self._ray.cancel(reference, force=False)
            if self._tasks:
                _, left = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=GRACE_S)
                for reference in left:
                    self._ray.cancel(reference, force=True)
        finally:  # whoever presses Ctrl-C again here still gets the result on stdout
            self._tasks.clear()
            if self._ours:
                self._ray.shutdown()
            self._kept_off_stdout.close()

    def _ended(self, reference: Any, number: int) -> list[Event]:
        from ray import exceptions

        try:
            return [*self._ray.get(reference), Returned(number)]
        except exceptions.RayTaskError as error:
            return [Lost(number, redact(next(iter(str(error.cause).splitlines()), type(error.cause).__name__)))]
        except exceptions.OutOfMemoryError:
            return [Lost(number, "the worker was killed by Ray: its machine ran out of memory")]
        except exceptions.RayError as error:
            crashed = isinstance(error, exceptions.WorkerCrashedError)
            nodes = set(self._nodes())
            node_lost, self._alive = bool(self._alive - nodes), nodes
            if crashed and not node_lost:
                return [Lost(number, "the worker process died")]
            return [Lost(number, "the machine of its worker was lost", infrastructure_failure=True)]

    def _nodes(self) -> dict[str, int]:
        """The cores of each node that lives."""
        return {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]}

    def _capacity(self) -> int:
        """How many tasks the cluster, as it is at this moment, can do at once; one where it may yet grow."""
        found = self._ray.cluster_resources()
        fits = found.get("CPU", 0) // self._cpus
        if self._gpus:
            fits = min(fits, found.get("GPU", 0) // self._gpus)
        return max(1, int(fits))


def cores_per_run(nodes: Mapping[str, int], jobs: int) -> int:
    """As many as let so many runs be under way at once, and fit on every node: any may be the one that is left."""
    on_each = -(-jobs // max(1, len(nodes)))
    return max(1, min(nodes.values(), default=1) // on_each)


def _carry_out(assignment: Assignment, environment: Mapping[str, str], folder: str) -> list[Report]:
    """In the worker. Its reports travel together, at the end; the store tells of the course until then."""
    os.environ.update(environment)
    if os.path.isdir(folder):  # relative paths mean there what they mean here, where the machines share them
        os.chdir(folder)
    from alue_bench.executors.worker import carry_out

    reports: list[Report] = []

    def tell(report: Report) -> None:
        if isinstance(report, Started | RunEnded | Warned):
            reports.append(report)
        else:
            assert isinstance(report, Advanced)

    carry_out(assignment, tell)
    return reports
