"""How long results take to be read and compared where a store holds very many runs.

    python -m benchmarks.large_store --store sqlite:///mlruns/mlflow.db --runs 10000

The store is a copy of one with a few finished runs, each of them there many times under further strategies; the copies
share the files of the run they come from. Each command is timed as a user would wait for it, from the start of its
process to its end.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from alue_bench.contract.errors import AlueBenchError, UsageError
from alue_bench.tracking.connection import open_store, sqlite_path
from benchmarks.command_line import Parser, told

LIMIT_S = 30.0
"""What a user is asked to wait for ten thousand runs."""
COMMANDS = (("compare",), ("compare", "--format", "json"), ("export", "appendix"), ("report", "--output", "page.html"))
VARIANT = "CASE key WHEN 'strategy' THEN value || '-v' || number ELSE value END"
"""A strategy's name in a copy."""


def multiply(source: Path, target: Path, times: int) -> None:
    """A store with each finished run of `source` this many times, as further strategies. Through the database, since
    MLflow takes a tenth of a second a run; the copies share the files of the run they come from.

    source, target: sqlite files.
    """
    shutil.copy(source, target)
    with closing(sqlite3.connect(target)) as database, database:
        finished = [name for (name,) in database.execute("SELECT run_uuid FROM runs WHERE status = 'FINISHED'")]
        database.execute("CREATE TEMP TABLE copies (old TEXT, new TEXT, number INTEGER)")
        copies = [(name, uuid.uuid4().hex, number) for number in range(1, times) for name in finished]
        database.executemany("INSERT INTO copies VALUES (?, ?, ?)", copies)
        # An input's tags hang on the input, so its id is made of the run's.
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
    with closing(sqlite3.connect(database)) as opened:
        return int(opened.execute("SELECT count(*) FROM runs WHERE status = 'FINISHED'").fetchone()[0])


def time_commands(database: Path, experiment: str, folder: Path) -> Iterator[tuple[str, float, int]]:
    """Command, seconds, exit code; one after the other."""
    for command in COMMANDS:
        arguments = [*command, "--tracking-uri", f"sqlite:///{database}", "--experiment", experiment]
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", "from alue_bench.cli.main import main; main()", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        yield " ".join(command), time.perf_counter() - started, done.returncode


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="python -m benchmarks.large_store", description=__doc__.splitlines()[0])
    parser.add_argument("--store", required=True, help="sqlite:///FILE with a few finished runs")
    parser.add_argument("--experiment", default="alue-bench")
    parser.add_argument("--runs", type=int, default=10_000, help="how many the copy holds at least")
    options = parser.parse_args(arguments)
    if not options.store.startswith("sqlite:"):
        raise UsageError(f"--store {options.store}: only a sqlite file can be copied")
    open_store(options.store, options.experiment)
    source = sqlite_path(options.store)
    few = finished_runs(source)
    if not few:
        raise UsageError(f"--store {options.store} has no finished run; alue-bench run makes some")
    with tempfile.TemporaryDirectory() as scratch:
        large = Path(scratch) / "large.db"
        multiply(source, large, -(-options.runs // few))
        print(f"{finished_runs(large)} finished runs", flush=True)
        in_time = True
        for command, seconds, code in time_commands(large, options.experiment, Path(scratch)):
            said = f"  (exit code {code})" if code else ""
            print(f"{seconds:6.1f} s  alue-bench {command}{said}", flush=True)
            in_time &= code == 0 and seconds <= LIMIT_S
    return 0 if in_time else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except AlueBenchError as error:
        sys.exit(told(error))
