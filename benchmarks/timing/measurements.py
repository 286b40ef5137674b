"""The ledger (results file) of measurements, and the settings that comparable measurements have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UsageError
from alue_bench.contract.spec import digest_of
from alue_bench.executors.termination import exit_code_of_interruption, stop_on_sigterm
from benchmarks.command_line import say
from benchmarks.ledger import Ledger
from benchmarks.machine import described
from benchmarks.processes import REPOSITORY
from benchmarks.timing.cells import Cell
from benchmarks.timing.checkpoint import checkpoint_in
from benchmarks.timing.measuring import Measurement
from benchmarks.timing.rows import Rows
from benchmarks.timing.settings import Setup

SOURCES = ("alue_bench/training/**/*.py", "benchmarks/timing/trainer_baseline.py")
"""The source files that affect training; measurements are comparable only if these files have not changed."""
EXPLAINED = {"code": f"code, that is {' or '.join(SOURCES)}"}
"""For error messages: descriptions of settings that are not command-line options, by the setting's name."""


def common_settings(setup: Setup, rows: Rows) -> dict[str, Any]:
    """Return the settings that measurements must have in common to be comparable."""
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


class MeasurementLedger(Ledger):
    """The file (ledger) of a benchmark's results, each of which is the measurement of one training."""

    def __init__(self, file: Path | None, benchmark: str, settings: Mapping[str, Any], command: str) -> None:
        """Read the measurements in the file, if it exists; for the arguments, see `Ledger`.

        Raises:
            UsageError: The file is not from this benchmark, or its measurements have other settings than `settings`.
        """
        super().__init__(file, benchmark, settings, command, explained=EXPLAINED)
        try:
            self.measurements = [Measurement(**entry) for entry in self.content.get("measurements", ())]
        except TypeError as error:
            raise self.foreign() from error

    def fill(self, todo: Sequence[tuple[Cell, int]], measure: Callable[[Cell, int], Measurement]) -> int:
        """Make the measurements that the file lacks, and write each one to the file as soon as it is made.

        Args:
            todo: All requested measurements, as pairs of a cell (way of training, strategy and number format) and a
                repetition, in the order in which to make them.
            measure: The function that makes a measurement.

        Returns:
            The exit code: 0, or 130 or 143 if the process was asked to stop.
        """
        done = {(m.cell, m.repetition) for m in self.measurements}
        missing = [item for item in todo if item not in done]
        if len(missing) < len(todo):
            say(f"{self.file}: {len(todo) - len(missing)} of {len(todo)} measurements are done already")
        try:
            with stop_on_sigterm():
                for number, (cell, repetition) in enumerate(missing, start=1):
                    measurement = measure(cell, repetition)
                    self.add(measurement)
                    say(f"[{number}/{len(missing)}] {cell}, repetition {repetition}: {measurement.seconds:.2f} s")
        except KeyboardInterrupt as stop:
            advice = f"keeps {len(self.measurements)} measurements; run the same command again to continue"
            say(f"interrupted: {f'{self.file} {advice}' if self.file else '--json keeps what is done'}")
            return exit_code_of_interruption(stop)
        return 0

    def add(self, measurement: Measurement) -> None:
        """Add a measurement and write the file.

        Raises:
            UsageError: The measurement was made on different hardware from the earlier ones.
        """
        if self.measurements and self.measurements[0].hardware != measurement.hardware:
            raise UsageError(
                f"{self.file} was measured on {described(self.measurements[0].hardware)}, but this machine is "
                f"{described(measurement.hardware)}; name another --json file"
            )
        self.measurements.append(measurement)
        self.record({})

    def record(self, results: Mapping[str, Any]) -> None:
        """Write the measurements to the file, together with `results`, which were computed from them."""
        self.content = {
            "hardware": self.measurements[0].hardware if self.measurements else None,
            **results,
            "measurements": [asdict(measurement) for measurement in self.measurements],
        }
        self.write()

    def among(self, todo: Sequence[tuple[Cell, int]]) -> list[Measurement]:
        """Return the recorded measurements that belong to the given pairs of cell and repetition.

        A cell is a combination of way of training, strategy and number format.
        """
        wanted = set(todo)
        return [m for m in self.measurements if (m.cell, m.repetition) in wanted]

    def origin(self) -> str:
        """Return a line for reports with the command, date, hardware and libraries of the measurements."""
        libraries = ", ".join(f"{name} {number}" for name, number in self.head["settings"]["libraries"].items())
        hardware = described(self.measurements[0].hardware)
        return f"`{self.head['command']}`, {self.head['date']}; {hardware}; {libraries}."
