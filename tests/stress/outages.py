"""Disturbances of a plan by faults: its tracking server stops for a while, or its disk is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alue_bench.contract.errors import UnavailableError

from .processes import Started
from .servers import MlflowServer
from .store import Verdict, stored_runs, verdict

AWAY_S = 30.0
SPARE = 512 * 1024
"""The free bytes on the small disk in addition to an empty store: enough for a few runs, not for all."""
PATIENCE_S = 300.0

Invoke = Callable[[Path, tuple[str, ...]], Started]
"""A function that starts the plan; it takes the store's folder and further options, which override earlier ones."""


def stop_the_server(
    invoke: Invoke, store: Path, planned: set[str], away_s: float
) -> tuple[Verdict, list[str], Started]:
    """Kill `mlflow server` in the middle of the plan and start it again later.

    Args:
        invoke: A function that starts the plan.
        store: A folder with an empty store, which the server serves.
        planned: The fingerprints of the plan's runs.
        away_s: The seconds between the kill and the restart.

    Returns:
        The verdict on the store after the plan and a repetition of the same command have ended; the problems that
        occurred, in a sentence each; the process of the repetition.
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
        process = invoke(store, ("--tracking-uri", server.address))  # records what the first one could not
        if code := process.wait():
            problems.append(f"the same command again ended with exit code {code}")
    finally:
        server.stop()
    return verdict(stored_runs(database), planned), problems, process


def fill_the_disk(invoke: Invoke, store: Path, planned: set[str]) -> tuple[Verdict, list[str], Started]:
    """Let the disk run full in the middle of the plan, then make room and repeat the command.

    The store, the artifacts, the cache and the spool (records that could not be written to the store yet) are on that
    disk.

    Args:
        invoke: A function that starts the plan.
        store: A folder with an empty store.
        planned: The fingerprints of the plan's runs.

    Returns:
        The verdict on the store at the end; the problems that occurred, in a sentence each; the last process.

    Raises:
        UnavailableError: A small disk cannot be mounted.
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
    """Mount a disk of `size` bytes at a folder while the context is open.

    Raises:
        UnavailableError: The disk cannot be mounted.
    """
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
