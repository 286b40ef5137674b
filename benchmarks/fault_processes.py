"""Invocations to be killed: started in milliseconds, by copying a process that has loaded the libraries already.

Loading torch and MLflow takes seconds, and a campaign starts hundreds of invocations. Each is a process of its own all
the same, in a group of its own, with the workers that it starts.
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
"""The main process; it and its workers, as when the power fails; one worker."""

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
RAY_WORKER = "ray::_carry_out"
"""What Ray calls a process that does one of our tasks."""


def load_libraries() -> None:
    """Everything that an invocation imports. Nothing is computed and no store opened: what is copied holds no threads
    and no connections."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # these two are read when it is imported
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import matplotlib.backends.backend_agg
    import mlflow.store.tracking.sqlalchemy_store
    import sklearn.metrics
    import transformers.models.bert.modeling_bert

    import alue_bench.executors.scheduler
    import alue_bench.executors.worker
    from alue_bench.cli import invocation, main
    from alue_bench.cli.views import progress, tables

    assert all((alue_bench, matplotlib, mlflow, sklearn, transformers, invocation, main, progress, tables))


@dataclass
class Started:
    """An invocation that was begun."""

    pid: int
    folder: Path
    helpers: list[int] = field(default_factory=list)
    """Processes outside its group whose descendants may work for it: Ray's."""
    code: int | None = None

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Its exit code, negative for a signal; None where it still runs."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self.code is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self.code = os.waitstatus_to_exitcode(status)
            elif deadline is not None and time.monotonic() >= deadline:
                return None
            else:
                time.sleep(0.01)
        return self.code

    def kill(self, victim: Victim) -> bool:
        """SIGKILL. False where there was nobody to kill, such as no worker yet."""
        workers = self.workers()
        if victim == "worker":
            return bool(workers) and _kill(random.choice(workers))
        if victim == "all":
            for worker in workers:
                _kill(worker)
        return _kill(self.pid)

    def workers(self) -> list[int]:
        """Processes at work for it; helpers of the interpreter do not count."""
        import psutil

        found = []
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
                    found.append(process.pid)
        return found

    @property
    def document(self) -> dict[str, Any]:
        """What it printed with --json."""
        return dict(json.loads((self.folder / "out").read_text(encoding="utf-8")))

    @property
    def errors(self) -> str:
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
    """`alue-bench ARGUMENTS` in a copy of this process; what it prints is written to the folder's files out and err."""
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
    """Does something whose threads and connections this process must not have."""

    def call() -> int:
        work()
        return 0

    if Started(_copied(call), Path()).wait():
        raise RuntimeError("a preparation failed; see above")


def _copied(work: Callable[[], int]) -> int:
    """The id of a copy of this process that does the work and ends with the code it returns."""
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
    """The address of a cluster of one node with two cores, and the process whose descendants it is."""
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
