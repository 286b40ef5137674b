"""The file of measurements, from which an interrupted comparison continues."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alue_bench import __version__
from alue_bench.contract.errors import UsageError
from alue_bench.contract.spec import digest_of
from alue_bench.executors.termination import code_of_stop, stop_on_sigterm
from benchmarks.cells import Cell
from benchmarks.checkpoint import checkpoint_in
from benchmarks.machine import described
from benchmarks.measuring import REPOSITORY, Measurement
from benchmarks.rows import Rows
from benchmarks.settings import Setup

SOURCES = ("alue_bench/training/**/*.py", "benchmarks/trainer_baseline.py")
"""The source files whose contents affect training; measurements by different versions of them are not comparable."""
EXPLAINED = {"code": f"code, that is {' or '.join(SOURCES)}"}
"""The explanations of settings that are not options."""


def common_settings(setup: Setup, rows: Rows) -> dict[str, Any]:
    """Return the settings that must be equal for measurements to be comparable."""
    shared = asdict(setup) | {"checkpoint": checkpoint_in(setup.checkpoint).digest if setup.checkpoint else None}
    if setup.checkpoint:
        del shared["layers"], shared["hidden"], shared["heads"]
    sources = [path for pattern in SOURCES for path in sorted(REPOSITORY.glob(pattern))]
    return shared | {
        "source": rows.source,
        "rows_digest": digest_of([list(rows.train), list(rows.held_out)]),
        "libraries": {name: _version(name) for name in ("torch", "transformers", "accelerate")},
        "code": digest_of([path.read_text("utf-8") for path in sources])[:12],
    }


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


class Ledger:
    """The measurements so far, kept in a file if one is given."""

    def __init__(self, file: Path | None, name: str, settings: Mapping[str, Any], command: str) -> None:
        """Read the measurements in the file, if it exists.

        Args:
            file: The file; None keeps measurements in memory only.
            name: The name of the benchmark.
            settings: The settings that must be equal for measurements to be comparable.
            command: The command line to show in the report.

        Raises:
            UsageError: The file holds something else, or measurements with other settings.
        """
        self.file = file
        self.head = {"benchmark": name, "version": __version__, "command": command, "settings": dict(settings)}
        self.measurements: list[Measurement] = []
        if file is not None and file.exists():
            self.measurements = _read_measurements(file, self.head)

    def fill(self, todo: Sequence[tuple[Cell, int]], measure: Callable[[Cell, int], Measurement]) -> int:
        """Make the measurements that are missing and write each result at once.

        Args:
            todo: Pairs of cell and repetition.
            measure: The function that makes a measurement.

        Returns:
            The exit code: 0, or 130 or 143 if the process was asked to stop.
        """
        there = {(m.cell, m.repetition) for m in self.measurements}
        left = [item for item in todo if item not in there]
        if len(left) < len(todo):
            _say(f"{self.file}: {len(todo) - len(left)} of {len(todo)} measurements are done already")
        try:
            with stop_on_sigterm():
                for place, (cell, repetition) in enumerate(left, start=1):
                    measurement = measure(cell, repetition)
                    self.add(measurement)
                    _say(f"[{place}/{len(left)}] {cell}, repetition {repetition}: {measurement.seconds:.2f} s")
        except KeyboardInterrupt as stop:
            kept = f"keeps {len(self.measurements)} measurements; run the same command again to continue"
            _say(f"interrupted: {f'{self.file} {kept}' if self.file else '--json keeps what is done'}")
            return code_of_stop(stop)
        return 0

    def add(self, measurement: Measurement) -> None:
        """Add a measurement and write the file.

        Raises:
            UsageError: The measurement was made on other hardware than the earlier ones.
        """
        if self.measurements and self.measurements[0].hardware != measurement.hardware:
            raise UsageError(
                f"{self.file} was measured on {described(self.measurements[0].hardware)}, but this machine is "
                f"{described(measurement.hardware)}; name another --json file"
            )
        self.measurements.append(measurement)
        self.write({})

    def among(self, todo: Sequence[tuple[Cell, int]]) -> list[Measurement]:
        """Return the measurements of these cells and repetitions; the file may hold more."""
        wanted = set(todo)
        return [m for m in self.measurements if (m.cell, m.repetition) in wanted]

    def origin(self) -> str:
        """Return a sentence on the command, date, hardware and libraries of the measurements."""
        made = self.document({})
        libraries = ", ".join(f"{name} {number}" for name, number in made["settings"]["libraries"].items())
        return f"`{made['command']}`, {made['date']}; {described(made['hardware'])}; {libraries}."

    def document(self, results: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of the file, with these results."""
        return {
            **self.head,
            "date": datetime.now(UTC).date().isoformat(),
            "hardware": self.measurements[0].hardware if self.measurements else None,
            **results,
            "measurements": [asdict(measurement) for measurement in self.measurements],
        }

    def write(self, results: Mapping[str, Any]) -> None:
        """Write the file atomically, so that an interruption leaves no incomplete file."""
        if self.file is None:
            return
        scratch = self.file.with_name(f".{self.file.name}.part")
        content = json.dumps(self.document(results), ensure_ascii=False, indent=1, allow_nan=False)
        scratch.write_text(content + "\n", encoding="utf-8")
        os.replace(scratch, self.file)


def _read_measurements(file: Path, head: Mapping[str, Any]) -> list[Measurement]:
    try:
        content = json.loads(file.read_text("utf-8"))
        measurements = [Measurement(**entry) for entry in content["measurements"]]
        there = (content["benchmark"], content["settings"])
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"--json {file} was not written by this benchmark; choose another file") from error
    wanted = json.loads(json.dumps(head["settings"], default=str))
    if there != (head["benchmark"], wanted):
        differing = [name for name in {**there[1], **wanted} if there[1].get(name) != wanted.get(name)]
        what = ", ".join(EXPLAINED.get(name, name) for name in differing) or f"benchmark {there[0]}"
        raise UsageError(
            f"--json {file} was measured with other settings ({what}), which are not comparable with these; "
            "name another --json file to measure everything anew"
        )
    return measurements


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
