"""What becomes of a plan whose store goes away, or has no room."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alue_bench.contract.errors import UnavailableError
from benchmarks.fault_processes import Started
from benchmarks.fault_store import Verdict, stored_runs, verdict
from benchmarks.servers import MlflowServer

AWAY_S = 30.0
SPARE = 512 * 1024
"""Bytes of room on the small disk beside an empty store: for a few runs, not for all."""
PATIENCE_S = 300.0

Invoke = Callable[[Path, tuple[str, ...]], Started]
"""Starts the plan with a folder for its store, and options that win over the campaign's own."""


def stop_the_server(
    invoke: Invoke, store: Path, planned: set[str], away_s: float
) -> tuple[Verdict, list[str], Started]:
    """Kill `mlflow server` in the middle of the plan, and start it again so many seconds later.

    store: a folder with an empty store, which the server serves. Returns what is in the store when the plan, and once
    more the same command, have ended; what went wrong; and the last process.
    """
    server = MlflowServer(store)
    database = store / "mlflow.db"
    problems = []
    try:
        server.start()
        process = invoke(store, ("--tracking-uri", server.address))
        deadline = time.monotonic() + PATIENCE_S
        while process.code is None and _finished(database) < 2 and time.monotonic() < deadline:
            process.wait(0.2)
        if process.code is not None:
            problems.append("the plan was over before the server could be stopped")
        server.stop()
        time.sleep(away_s)
        server.start()
        if code := process.wait():
            problems.append(f"the plan ended with exit code {code} though only its server was away")
        process = invoke(store, ("--tracking-uri", server.address))  # brings what the end of the plan could not
        if code := process.wait():
            problems.append(f"the same command again ended with exit code {code}")
    finally:
        server.stop()
    return verdict(stored_runs(database), planned), problems, process


def fill_the_disk(invoke: Invoke, store: Path, planned: set[str]) -> tuple[Verdict, list[str], Started]:
    """Let the disk run full in the middle of the plan, with the store, its artifacts, cache and spool on it; then make
    room and give the same command.

    store: a folder with an empty store. Raises UnavailableError where a small disk cannot be mounted.
    """
    problems = []
    with small_disk(store.parent / f"{store.name}-disk", (store / "mlflow.db").stat().st_size + SPARE) as disk:
        shutil.copyfile(store / "mlflow.db", disk / "mlflow.db")
        for name in ("state", "cache"):
            (disk / name).mkdir()
            (store / name).symlink_to(disk / name)
        there = ("--tracking-uri", f"sqlite:///{disk / 'mlflow.db'}")
        process = invoke(store, there)
        code = process.wait()
        if code != 2:
            problems.append(f"on a disk too small for it, the plan ended with exit code {code} instead of 2")
        sentence = process.errors.strip().splitlines()[-1:] or [""]
        if "No space left on device" not in process.errors or "Traceback" in process.errors:
            problems.append(f"it was not said clearly that the disk is full: {sentence[0]}")
        subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
        process = invoke(store, there)
        if code := process.wait():
            problems.append(f"with room again, the plan ended with exit code {code}")
        return verdict(stored_runs(disk / "mlflow.db"), planned), problems, process


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes. Raises UnavailableError where none can be mounted."""
    if os.geteuid() != 0:
        raise UnavailableError("only root may mount a small disk")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise UnavailableError(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _finished(database: Path) -> int:
    return sum(run.kind == "run" and run.status == "FINISHED" for run in stored_runs(database))
