"""Time fine-tuning by our engine and by transformers' `Trainer`.

    python -m benchmarks.engine --data-dir DIR --json FILE

The same model is trained on the same rows, with the same initial weights and hyper-parameters, in these ways:

    trainer-128       Trainer, every example padded to the maximal length, as in transformers' example for GLUE
    trainer           Trainer, each batch padded to its longest example; the base of all ratios
    trainer-grouped   Trainer, with batches of examples of similar length
    engine-uncached   our `fine_tune`, with the frozen bottom layers (the frozen prefix) computed at every step
    engine            our `fine_tune`, with the output of the frozen prefix computed once and stored; the time includes
                      this computation
    engine-graphs     like engine, with training steps captured as CUDA graphs; on a GPU only

`--task oold` classifies texts, `--task arabicner` tags words.

A cell is a combination of a way, a strategy and a number format. Each measurement is one training in a separate
process, after a warm-up that is not timed. Each repetition measures all cells in random order before the next
repetition begins, so that changes in the machine's load affect all cells alike. With `--json` an interrupted benchmark
continues from the point of interruption.

The benchmark needs neither mlflow nor datasets if rows come from `--rows-json FILE`, so that it runs on a bare GPU
machine. Write this file with `--write-rows FILE` on a machine where everything is installed. If alue-bench itself is
not installed, run `PYTHONPATH=plugins python -m benchmarks.engine --rows-json FILE`.

`--profile` instead shows how the time of our engine is divided among operations.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from alue_bench.contract.strategy import EncoderShape
from alue_bench.training.device.precision import resolve_graphs
from benchmarks.command_line import Parser, check_written_files, run_command
from benchmarks.engine.profiling import profile
from benchmarks.engine.report import all_sheets, closing_lines, summaries
from benchmarks.tables import show, write_page
from benchmarks.timing.cells import GRAPHS, PRECISIONS, STRATEGIES, WAYS, Cell, possible_ways, schedule
from benchmarks.timing.measurements import MeasurementLedger, common_settings
from benchmarks.timing.measuring import Measure, measured_apart, print_one
from benchmarks.timing.rows import chosen_rows, rows_on_disk, write_rows
from benchmarks.timing.settings import add_shared_options
from benchmarks.timing.starting_point import encoder_shape, freeze_plan

BENCHMARK = "engine"
MODULE = f"benchmarks.{BENCHMARK}"


def main(arguments: Sequence[str] | None = None, *, measured: Measure = measured_apart) -> int:
    """Run the command line and return the exit code.

    Codes: 0 done, 1 a measurement failed, 2 misuse, 130 stopped by SIGINT, 143 stopped by SIGTERM.

    Args:
        arguments: The command-line arguments; None means those of this process (`sys.argv`).
        measured: The function that makes a measurement; the default one starts a separate process.
    """

    def work(options: argparse.Namespace, command: str) -> int:
        if options.one:
            return print_one(options)
        if options.write_rows:
            return only_write_rows(options)
        if options.profile:
            return profile(options)
        return benchmark(options, command=command, measured=measured)

    return run_command(_parser(), arguments, work)


def benchmark(options: argparse.Namespace, *, command: str, measured: Measure) -> int:
    """Make the measurements that the `--json` file lacks, print the report, and return the exit code.

    Args:
        options: The parsed options.
        command: The command line to show in the report.
        measured: The function that makes a measurement.
    """
    check_written_files(options)
    rows, setup = chosen_rows(options)
    cells = chosen_cells(options, encoder_shape(setup))
    todo = schedule(cells, options.repetitions)
    with rows_on_disk(rows) as file:
        ledger = MeasurementLedger(options.json, BENCHMARK, common_settings(setup, rows), command)
        code = ledger.fill(todo, lambda cell, repetition: measured(setup, file, cell, repetition, None))
    if code:
        return code
    measurements = ledger.among(todo)
    sheets, lines = all_sheets(measurements), closing_lines(measurements)
    show(sheets, lines)
    ledger.record(summaries(measurements))
    write_page(options.markdown, sheets, [*lines, ledger.origin()])
    return 0


def only_write_rows(options: argparse.Namespace) -> int:
    """Write the rows that the options choose to a file, and return exit code 0.

    The option `--write-rows` names the file, which `--rows-json` can read on another machine.
    """
    rows, _ = chosen_rows(options)
    write_rows(rows, options.write_rows)
    print(f"{options.write_rows}: {len(rows.train)} rows to train on and {len(rows.held_out)} held out")
    return 0


def chosen_cells(options: argparse.Namespace, shape: EncoderShape) -> list[Cell]:
    """Check the strategies and return the cells that the options name.

    A cell is a combination of way of training, strategy and number format.

    Raises:
        DoesNotFit: The model has too few layers for a strategy.
        UsageError: A strategy is unknown, or CUDA graphs are wanted on the CPU.
    """
    strategies = tuple(dict.fromkeys(options.strategy or STRATEGIES))
    for strategy in strategies:
        freeze_plan(strategy, shape)
    if GRAPHS in (options.way or ()):
        resolve_graphs("on", options.device)
    ways = dict.fromkeys(options.way or possible_ways(options.device))
    precisions = dict.fromkeys(options.precision or PRECISIONS)
    return [Cell(way, strategy, precision) for precision in precisions for strategy in strategies for way in ways]


def _parser() -> Parser:
    parser = Parser(
        prog=f"python -m {MODULE}",
        description="Time fine-tuning by our engine and by the library's Trainer.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add_shared_options(parser)
    add("--write-rows", type=Path, metavar="FILE", help="write the rows for --rows-json, and do nothing else")
    add("--way", action="append", choices=WAYS, help="repeatable (default: all)")
    add("--strategy", action="append", help=f"repeatable (default: {', '.join(STRATEGIES)})")
    add("--precision", action="append", choices=PRECISIONS, help="repeatable (default: both)")
    add("--profile", action="store_true", help="profile one strategy and precision: time by kind of operation")
    # The options that `measured_apart` gives to the process that it starts.
    add("--one", action="store_true", help=argparse.SUPPRESS)
    add("--repetition", type=int, help=argparse.SUPPRESS)
    add("--store", type=Path, help=argparse.SUPPRESS)
    return parser
