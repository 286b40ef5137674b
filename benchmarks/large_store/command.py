"""Time the commands that read results, on an MLflow store with very many runs.

    python -m benchmarks.large_store --store sqlite:///mlruns/mlflow.db --runs 10000

The store that `--store` names must have a few finished runs. The benchmark copies this store and, in the copy,
duplicates the runs under other strategy names; the duplicates share the artifacts of the original run. Each command is
timed from the start of its process to its end, which is the time that a user waits. The CPU time of the process is
printed too, because it depends less on the load of the machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from alue_bench.contract.errors import UsageError
from alue_bench.tracking.connection import open_store, sqlite_path
from benchmarks.command_line import Parser, run_command
from benchmarks.processes import ALUE_BENCH, environment

LIMIT_S = 20.0
"""The longest acceptable wall-clock time of a command on ten thousand runs, in seconds."""
COMMANDS = (("compare",), ("compare", "--format", "json"), ("export", "appendix"), ("report", "--output", "page.html"))
VARIANT = "CASE key WHEN 'strategy' THEN value || '-v' || number ELSE value END"
"""The SQL expression that gives a duplicate a new strategy name and copies its other parameters unchanged."""


def multiply(source: Path, target: Path, times: int) -> None:
    """Copy a store and duplicate each finished run under other strategy names.

    The database is written directly, since MLflow takes a tenth of a second per run. The duplicates share the artifacts
    of the original run.

    Args:
        source: The sqlite file to copy.
        target: The sqlite file to write.
        times: The number of copies of each finished run in the new store, the original included.
    """
    shutil.copy(source, target)
    with closing(sqlite3.connect(target)) as database, database:
        finished = [name for (name,) in database.execute("SELECT run_uuid FROM runs WHERE status = 'FINISHED'")]
        database.execute("CREATE TEMP TABLE copies (old TEXT, new TEXT, number INTEGER)")
        copies = [(name, uuid.uuid4().hex, number) for number in range(1, times) for name in finished]
        database.executemany("INSERT INTO copies VALUES (?, ?, ?)", copies)
        # MLflow attaches input tags to an input, not to a run. Each duplicate therefore gets a separate input, whose id
        # is derived from the id of the duplicate.
        changed = {
            "runs": ("run_uuid", {"run_uuid": "new"}),
            "params": ("run_uuid", {"run_uuid": "new", "value": VARIANT}),
            "tags": ("run_uuid", {"run_uuid": "new", "value": "CASE key WHEN 'fingerprint' THEN new ELSE value END"}),
            "latest_metrics": ("run_uuid", {"run_uuid": "new"}),
            "inputs": (
                "destination_id",
                {"destination_id": "new", "input_uuid": "substr(new, 1, 12) || substr(input_uuid, 1, 20)"},
            ),
        }
        for table, (key, values) in changed.items():
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            wanted = ", ".join(values.get(name, f'"{name}"') for name in names)
            database.execute(f"INSERT INTO {table} SELECT {wanted} FROM copies JOIN {table} ON {key} = old")
        database.execute(
            "INSERT INTO input_tags SELECT substr(new, 1, 12) || substr(input_uuid, 1, 20), name, value FROM copies "
            "JOIN inputs ON destination_id = old JOIN input_tags USING (input_uuid)"
        )


def finished_runs(database: Path) -> int:
    """Return the number of finished runs in a database."""
    with closing(sqlite3.connect(database)) as opened:
        return int(opened.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()[0])


@dataclass(frozen=True)
class Timed:
    """The time that a command took."""

    command: str
    seconds: float
    """The wall-clock time in seconds."""
    cpu_seconds: float
    """The CPU time of the command's process in seconds, in user and system mode."""
    code: int
    """The exit code."""


def time_commands(database: Path, experiment: str, folder: Path) -> Iterator[Timed]:
    """Run the commands of `COMMANDS` one after the other, and yield the time of each.

    Args:
        database: The sqlite file of the store.
        experiment: The name of the MLflow experiment.
        folder: The working directory for the commands.
    """
    for command in COMMANDS:
        arguments = [*command, "--tracking-uri", f"sqlite:///{database}", "--experiment", experiment]
        started, used = time.perf_counter(), _used_by_children()
        done = subprocess.run(
            [*ALUE_BENCH, *arguments],
            cwd=folder,
            env=environment(),
            stdout=subprocess.DEVNULL,
            check=False,
        )
        taken, cpu = time.perf_counter() - started, _used_by_children() - used
        yield Timed(" ".join(command), taken, cpu, done.returncode)


def _used_by_children() -> float:
    """Return the CPU time in seconds of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 a command failed or took too long, 2 misuse."""
    return run_command(_parser(), arguments, lambda options, command: benchmark(options))


def _parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.large_store", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--store", required=True, help="sqlite:///FILE with a few finished runs")
    parser.add_argument("--experiment", default="alue-bench", help="(default: alue-bench)")
    parser.add_argument("--runs", type=int, default=10_000, help="runs in the copy at least (default: 10000)")
    return parser


def benchmark(options: argparse.Namespace) -> int:
    """Copy the store, duplicate its runs, time the commands, and return the exit code; see `main`.

    Raises:
        UsageError: The store cannot be copied or has no finished run.
    """
    if not options.store.startswith("sqlite:"):
        raise UsageError(f"--store {options.store}: only a sqlite file can be copied")
    open_store(options.store, options.experiment)
    source = sqlite_path(options.store)
    existing = finished_runs(source)
    if not existing:
        raise UsageError(f"--store {options.store} has no finished run; start some with: alue-bench run")
    with tempfile.TemporaryDirectory() as scratch:
        large = Path(scratch) / "large.db"
        multiply(source, large, -(-options.runs // existing))
        print(f"{finished_runs(large)} finished runs", flush=True)
        in_time = True
        for timed in time_commands(large, options.experiment, Path(scratch)):
            note = f"  (exit code {timed.code})" if timed.code else ""
            print(
                f"{timed.seconds:6.1f} s, {timed.cpu_seconds:6.1f} CPU s  alue-bench {timed.command}{note}", flush=True
            )
            in_time &= timed.code == 0 and timed.seconds <= LIMIT_S
    return 0 if in_time else 1
