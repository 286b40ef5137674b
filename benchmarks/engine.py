"""How long does fine-tuning take: our engine beside the library's `Trainer`?

    python -m benchmarks.engine --data-dir DIR --json FILE

The same initial weights, rows and hyper-parameters, in these ways:

    trainer-128       Trainer, every example padded to the maximal length, as the library's example for GLUE does it
    trainer           Trainer, each batch padded to its longest example: what the others are held against
    trainer-grouped   Trainer, and batches of examples of similar length
    engine-uncached   our `fine_tune`, the frozen prefix computed at every step
    engine            our `fine_tune`, the frozen prefix computed once, into an empty store: its cost always counts
    engine-graphs     and training steps recorded as CUDA graphs; on a GPU only

Each measurement is a training in a process of its own, after a warm-up that is not counted. One repetition goes through
all of them in random order before the next one begins, so that a machine's changing load falls on all alike. With
`--json` an interrupted benchmark goes on where it stopped.

Neither mlflow nor datasets is needed, so that it runs on a bare GPU machine: rows come from `--rows-json FILE`, which
`--write-rows FILE` has made where everything is installed. Where alue-bench itself is not installed, say
`PYTHONPATH=plugins python -m benchmarks.engine --rows-json FILE`.

`--profile` instead shows which operations the time of our engine goes into.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from alue_bench.contract.errors import AlueBenchError
from alue_bench.contract.strategy import EncoderShape
from alue_bench.training.device.precision import resolve_graphs
from benchmarks.cells import GRAPHS, PRECISIONS, STRATEGIES, WAYS, Cell, possible_ways, schedule
from benchmarks.command_line import Parser, check_written_files, shown_command, told
from benchmarks.engine_report import all_sheets, closing_lines, summaries
from benchmarks.ledger import Ledger, common_settings
from benchmarks.measuring import Measure, measured_apart, print_one
from benchmarks.profiling import profile
from benchmarks.rows import chosen_rows, rows_on_disk, write_rows
from benchmarks.settings import add_shared_options
from benchmarks.starting_point import encoder_shape, freeze_plan
from benchmarks.tables import show, write_page

BENCHMARK = "engine"


def main(arguments: Sequence[str] | None = None, *, measured: Measure = measured_apart) -> int:
    """Exit codes: 0 done, 1 a measurement failed, 2 misuse, 130 and 143 stopped.

    measured: how a measurement is made; by default in a process of its own.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = _parser().parse_args(given)
        if options.one:
            return print_one(options)
        if options.write_rows:
            return only_write_rows(options)
        if options.profile:
            return profile(options)
        return benchmark(options, command=shown_command(BENCHMARK, given), measured=measured)
    except AlueBenchError as error:
        return told(error)


def benchmark(options: argparse.Namespace, *, command: str, measured: Measure) -> int:
    """Measure what is not yet in the file, compare, show. Returns the exit code."""
    check_written_files(options)
    rows, setup = chosen_rows(options)
    cells = chosen_cells(options, encoder_shape(setup))
    todo = schedule(cells, options.repetitions)
    with rows_on_disk(rows) as file:
        ledger = Ledger(options.json, BENCHMARK, common_settings(setup, rows), command)
        code = ledger.fill(todo, lambda cell, repetition: measured(setup, file, cell, repetition, None))
    if code:
        return code
    found = ledger.among(todo)
    sheets, lines = all_sheets(found), closing_lines(found)
    show(sheets, lines)
    ledger.write(summaries(found))
    write_page(options.markdown, sheets, [*lines, ledger.origin()])
    return 0


def only_write_rows(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    rows, _ = chosen_rows(options)
    write_rows(rows, options.write_rows)
    print(f"{options.write_rows}: {len(rows.train)} rows to train on and {len(rows.held_out)} held out")
    return 0


def chosen_cells(options: argparse.Namespace, shape: EncoderShape) -> list[Cell]:
    """Raises UsageError or DoesNotFit where a strategy cannot be had, before anything is measured."""
    strategies = tuple(dict.fromkeys(options.strategy or STRATEGIES))
    for strategy in strategies:
        freeze_plan(strategy, shape)
    if GRAPHS in (options.way or ()):
        resolve_graphs(True, options.device)
    ways = dict.fromkeys(options.way or possible_ways(options.device))
    precisions = dict.fromkeys(options.precision or PRECISIONS)
    return [Cell(way, strategy, precision) for precision in precisions for strategy in strategies for way in ways]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.engine",
        description="Time fine-tuning by our engine and by the library's Trainer.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add_shared_options(parser)
    add("--write-rows", type=Path, metavar="FILE", help="write the rows for --rows-json, and do nothing else")
    add("--way", action="append", choices=WAYS, help="repeatable (default: all)")
    add("--strategy", action="append", help=f"repeatable (default: {', '.join(STRATEGIES)})")
    add("--precision", action="append", choices=PRECISIONS, help="repeatable (default: both)")
    add("--profile", action="store_true", help="show what the time of one strategy and precision goes into")
    # What `measured_apart` says to the process that it starts.
    add("--one", action="store_true", help=argparse.SUPPRESS)
    add("--repetition", type=int, help=argparse.SUPPRESS)
    add("--store", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
