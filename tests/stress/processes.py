"""Processes that run alue-bench and can be killed; forking a process with loaded libraries starts them in milliseconds.

Loading torch and MLflow takes seconds, and a campaign starts hundreds of processes. Each one is the leader of a new
process group, to which the workers that it starts belong too.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Victim = Literal["main", "all", "worker"]
"""The processes to kill: only the main process; the main process and all workers, as in a power failure; one worker."""

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
RAY_WORKER = "ray::_execute_assignment"
"""The name that Ray gives to a process that executes one of our runs."""


def load_libraries() -> None:
    """Import all modules that a run of alue-bench imports.

    Nothing is computed and no store is opened, so that the forked process has no threads and no connections.
    """
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # MLflow reads these two variables when it is imported
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import matplotlib.backends.backend_agg
    import mlflow.store.tracking.sqlalchemy_store
    import sklearn.metrics
    import transformers.models.bert.modeling_bert

    import alue_bench.executors.scheduler
    import alue_bench.executors.worker
    from alue_bench.cli import main
    from alue_bench.studies import invocation
    from alue_bench.views import progress, tables

    assert all((alue_bench, matplotlib, mlflow, sklearn, transformers, invocation, main, progress, tables))


@dataclass
class Started:
    """A started process that runs alue-bench."""

    pid: int
    folder: Path
    """The folder of the files `out` and `err`, which hold the output of the process."""
    helpers: list[int] = field(default_factory=list)
    """The ids of processes outside the process group whose descendants may be workers, such as a Ray cluster's."""
    code: int | None = None
    """The exit code, once the process has ended and `wait` has been called, otherwise None."""

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the end and return the exit code (negative for a signal), or None if the time-out comes first."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self.code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.code = os.waitstatus_to_exitcode(status)
            elif deadline is not None and time.monotonic() >= deadline:
                return None
            else:
                time.sleep(0.01)
        return self.code

    def kill(self, victim: Victim) -> bool:
        """Send SIGKILL to the victim; return False if no such process exists, for example if there is no worker yet."""
        workers = self.workers()
        if victim == "worker":
            return bool(workers) and _kill(random.choice(workers))
        if victim == "all":
            for worker in workers:
                _kill(worker)
        return _kill(self.pid)

    def workers(self) -> list[int]:
        """Return the ids of the worker processes, without auxiliary processes of the interpreter."""
        import psutil

        workers = []
        for ancestor in (self.pid, *self.helpers):
            try:
                descendants = psutil.Process(ancestor).children(recursive=True)
            except psutil.Error:
                continue
            for process in descendants:
                try:
                    command = " ".join(process.cmdline())
                except psutil.Error:
                    continue
                if "spawn_main" in command or command.startswith(RAY_WORKER):
                    workers.append(process.pid)
        return workers

    @property
    def document(self) -> dict[str, Any]:
        """The document that the process printed on stdout because of `--json`."""
        return dict(json.loads((self.folder / "out").read_text(encoding="utf-8")))

    @property
    def errors(self) -> str:
        """The text that the process wrote to stderr."""
        return (self.folder / "err").read_text(encoding="utf-8", errors="replace")


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def start(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], *, helpers: Sequence[int] = ()
) -> Started:
    """Run `alue-bench ARGUMENTS` in a fork of this process.

    Args:
        arguments: The arguments.
        folder: The folder for the files `out` and `err`, which will hold the output of the process.
        environment: Environment variables to set.
        helpers: The ids of processes outside the process group whose descendants may be workers.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def invoke() -> int:
        from alue_bench.cli.main import main

        sys.argv = ["alue-bench", *arguments]
        os.environ.update(environment)
        for name, descriptor in (("out", 1), ("err", 2)):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        return 0

    return Started(_copied(invoke), folder, list(helpers))


def in_a_copy(work: Callable[[], None]) -> None:
    """Call a function in a fork of this process, so that threads and connections that it opens do not remain here.

    Raises:
        RuntimeError: The function failed.
    """

    def call() -> int:
        work()
        return 0

    if Started(_copied(call), Path()).wait():
        raise RuntimeError("a preparation failed; see above")


def _copied(work: Callable[[], int]) -> int:
    """Fork a process that calls `work` and exits with the returned code; return the id of the process."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


@contextmanager
def ray_cluster() -> Iterator[tuple[str, int]]:
    """Run a Ray cluster of one node with two cores while the context is open.

    Yields:
        The address of the cluster, and the id of the process whose descendants form it.

    Raises:
        RuntimeError: The cluster could not be started.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError("no Ray cluster could be started")
        yield address, process.pid
    finally:
        process.communicate("", timeout=60)
