"""Check a GPU and measure as much as some minutes allow, the most important first.

    python -m benchmarks.gpu --minutes 10 --out FOLDER

First the device is checked. Then training runs of BERT-base with random weights are timed, on random texts with the
lengths of the texts of the tasks OOLD, MDD and XNLI: by our engine, by `Trainer` as transformers' example for GLUE
configures it, and by `Trainer` at its best settings. The training runs that are compared (the arms of a measurement)
take turns in several rounds; the table shows medians and ranges. `--dry-run` lists the measurements with their
estimated times.

`FOLDER/measurements.json` is written after each training, and `FOLDER/report.md` after each measurement. The same
command, repeated, makes the missing measurements. Measurements that do not fit into the time are listed as not done. A
separate process makes the measurements. If it dies or hangs, another process continues without the arm that was being
trained.

The machine needs torch, transformers and numpy only. Without accelerate, `Trainer` cannot run, and a plain training
loop is timed instead. Without a GPU, everything runs with tiny sizes on the CPU, to try the benchmark itself.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alue_bench.contract.errors import UsageError
from alue_bench.executors.termination import exit_code_of_interruption, stop_on_sigterm
from benchmarks.command_line import Parser, run_command, say
from benchmarks.gpu.catalogue import Item, catalogue, chosen
from benchmarks.gpu.record import BENCHMARK, PAGE, Record, common_settings, written
from benchmarks.gpu.report import all_sheets, closing_lines, dry_run_sheet, results
from benchmarks.gpu.sizes import BASE, TINY
from benchmarks.gpu.supervision import DEVICE_UNUSABLE, supervised
from benchmarks.gpu.worker import DeviceUnusable, Work, work_off
from benchmarks.tables import show, write_page

if TYPE_CHECKING:
    from alue_bench.training.device.precision import Device

MODULE = f"benchmarks.{BENCHMARK}"
REPORT_S = 5.0
"""The seconds at the end of the available time that are reserved for writing the report."""

Supervise = Callable[[Sequence[str], Path, float], None]
"""A function that starts and watches the measuring processes, such as `supervised`, which explains the arguments."""


def main(arguments: Sequence[str] | None = None, *, supervise: Supervise = supervised) -> int:
    """Run the command line and return the exit code.

    Codes: 0 done or time used up, 1 a check or a training failed, 2 misuse, 130 or 143 interrupted.

    Args:
        arguments: The command-line arguments; None means those of this process (`sys.argv`).
        supervise: The function that starts and watches the measuring processes.
    """

    def work(options: argparse.Namespace, command: str) -> int:
        return measure(options) if options.worker else benchmark(options, command, supervise)

    return run_command(_parser(), arguments, work)


def benchmark(options: argparse.Namespace, command: str, supervise: Supervise) -> int:
    """Make the measurements in other processes, print the report, and return the exit code.

    With `--dry-run`, only list the measurements.

    Args:
        options: The parsed options.
        command: The command line to show in the report.
        supervise: The function that starts and watches the measuring processes.

    Raises:
        UsageError: The folder cannot be created, or its results were made with other settings than those of this
            command.
    """
    until = time.time() + 60 * options.minutes - REPORT_S
    work = _work(options, until)
    if options.dry_run:
        show([dry_run_sheet(work, options.minutes)], [])
        return 0
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {options.out}: {error.strerror}; name another folder") from error
    code = 0
    try:
        with stop_on_sigterm():
            supervise(_arguments(options, command), options.out, until)
    except KeyboardInterrupt as stop:
        code = exit_code_of_interruption(stop)
        say("interrupted: run the same command again to continue")
    return code or report(options, command, work.items)


def report(options: argparse.Namespace, command: str, items: Sequence[Item]) -> int:
    """Print the report, write it and its values to the output folder, and return the exit code.

    The exit code is 1 if a check or a training failed, otherwise 0.

    Raises:
        TrainingError: No measuring process has written a file of results.
    """
    record = written(options.out, command)
    sheets, lines = all_sheets(record, items), closing_lines(record, items)
    show(sheets, lines)
    record.content["summary"] = results(record, items)
    record.write()
    write_page(options.out / PAGE, sheets, lines)
    failed = any(record.entry(item)["problems"] for item in items) or any(
        result["passed"] is False for item in items if item.kind == "checks" for result in record.entry(item)["results"]
    )
    return int(failed)


def measure(options: argparse.Namespace) -> int:
    """Make the measurements in this process, which `supervised` has started.

    Returns:
        The exit code: 0, or `DEVICE_UNUSABLE` if another process must continue.

    Raises:
        UsageError: The results in the folder were made with other settings than those of this command.
    """
    work = _work(options, options.worker)
    settings = common_settings(work.device, tiny=not work.accelerated)
    record = Record(options.out, settings, options.shown_command)
    if options.try_again:
        record.forget_problems()
    record.write()

    def write_report() -> None:
        write_page(options.out / PAGE, all_sheets(record, work.items), closing_lines(record, work.items))

    try:
        work_off(work, record, write_report)
    except DeviceUnusable as error:
        say(f"the GPU is unusable for this process: {error}")
        return DEVICE_UNUSABLE
    return 0


def _work(options: argparse.Namespace, until: float) -> Work:
    """Return the measurements that the options choose, with the device and the time at which to stop.

    Args:
        options: The parsed options.
        until: The time, in seconds since 1970, after which no further training begins.

    Raises:
        UsageError: `--only` has a name that no measurement has.
    """
    device = _device(options)
    items = catalogue(can_record=device.supports_graphs, can_compile=device.accelerated, accelerate=_has_accelerate())
    return Work(
        items=chosen(items, options.only),
        scale=BASE if device.accelerated else TINY,
        device=device.name,
        accelerated=device.accelerated,
        can_record=device.supports_graphs,
        until=until,
        parent=os.getppid(),
    )


def _device(options: argparse.Namespace) -> Device:
    """Return the GPU, if there is one and `--tiny` is not given; otherwise the CPU."""
    from alue_bench.training.device.precision import Device
    from alue_bench.training.device.selection import resolve_device

    return Device(resolve_device("cpu" if options.tiny else "auto"), "fp32")


def _has_accelerate() -> bool:
    """Return whether `Trainer` can run, which needs the package accelerate."""
    try:
        importlib.import_module("accelerate")
    except ImportError:
        return False
    return True


def _arguments(options: argparse.Namespace, command: str) -> list[str]:
    """Return the command-line arguments for the process that makes the measurements."""
    names = [text for name in options.only or () for text in ("--only", name)]
    tiny = ["--tiny"] if options.tiny else []
    return ["--out", str(options.out), "--shown-command", command, *tiny, *names]


def _minutes(value: str) -> float:
    try:
        minutes = float(value)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 1e6:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of minutes above 0")
    return minutes


def _parser() -> Parser:
    parser = Parser(
        prog=f"python -m {MODULE}",
        description="Check and measure as much as some minutes on a GPU allow, the most important first.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--minutes", type=_minutes, default=10.0, help="the time that everything together may take (default: 10)")
    add("--out", type=Path, default=Path("gpu-measurements"), metavar="FOLDER", help="(default: gpu-measurements)")
    add("--only", action="append", metavar="NAME", help="make only this measurement; repeatable; see --dry-run")
    add("--dry-run", action="store_true", help="list the measurements with their estimated times")
    add("--tiny", action="store_true", help="tiny sizes on the CPU, to try the benchmark; the default without a GPU")
    # The options that `supervised` gives to the process that it starts.
    add("--worker", type=float, help=argparse.SUPPRESS)
    add("--shown-command", default="", help=argparse.SUPPRESS)
    add("--try-again", action="store_true", help=argparse.SUPPRESS)
    return parser
