"""Time a sweep over frozen layers whose cells share the stored outputs of frozen bottom layers (frozen prefixes).

    python -m benchmarks.sweep --data-dir DIR --json FILE

A cell N,M freezes the bottom N and the top M layers. In every repetition each cell is trained twice: as part of a
sweep, in which all cells share the stored outputs of the bottom layers (the outputs of each layer are computed once,
from those of a lower layer), and as a separate run that starts with an empty store. `--with-trainer` adds transformers'
`Trainer`, which stores nothing.

The docstring of `benchmarks.engine.command` explains rows, model, hyper-parameters and measurements, and how the
benchmark continues after an interruption. The store of a sweep is deleted at an interruption, so that an interrupted
sweep starts again.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from alue_bench.contract.strategy import EncoderShape
from benchmarks.command_line import Parser, check_written_files, run_command
from benchmarks.sweep.report import cell_sheet, closing_line, document, total_sheet, totals
from benchmarks.tables import show, write_page
from benchmarks.timing.cells import BASE, ENGINE, ORDER_SEED, PRECISIONS, SEPARATE, SHARED, Cell
from benchmarks.timing.measurements import MeasurementLedger, common_settings
from benchmarks.timing.measuring import Measure, Measurement, measured_apart
from benchmarks.timing.rows import chosen_rows, rows_on_disk
from benchmarks.timing.settings import Setup, add_shared_options
from benchmarks.timing.starting_point import encoder_shape, freeze_plan

BENCHMARK = "sweep"
MODULE = f"benchmarks.{BENCHMARK}"
SAMPLE = ((0, 0), (3, 4), (6, 0), (0, 4), (6, 3), (9, 0))
"""The default cells."""

Layers = tuple[int, int]
"""The numbers of frozen layers at the bottom and at the top."""


def main(arguments: Sequence[str] | None = None, *, measured: Measure = measured_apart) -> int:
    """Run the command line and return the exit code; see `benchmarks.engine.command.main`."""
    return run_command(
        _parser(), arguments, lambda options, command: benchmark(options, command=command, measured=measured)
    )


def benchmark(options: argparse.Namespace, *, command: str, measured: Measure) -> int:
    """Make the measurements that the `--json` file lacks, print the report, and return the exit code.

    Args:
        options: The parsed options.
        command: The command line to show in the report.
        measured: The function that makes a measurement.
    """
    check_written_files(options)
    rows, setup = chosen_rows(options)
    shape = encoder_shape(setup)
    cells = all_cells(shape.layers) if options.all else sorted(dict.fromkeys(options.cells))
    strategies = {written(cell): strategy_of(cell, shape) for cell in cells}
    ways = (SHARED, SEPARATE, *([BASE] if options.with_trainer else []))
    settings = common_settings(setup, rows) | {"cells": [list(cell) for cell in cells]}
    measurements: list[Measurement] = []
    with rows_on_disk(rows) as file:
        ledger = MeasurementLedger(options.json, BENCHMARK, settings, command)
        for repetition in range(1, options.repetitions + 1):
            todo = schedule(strategies.values(), ways, options.precision, repetition)
            forget_half_a_sweep(ledger, todo)
            with tempfile.TemporaryDirectory() as folder:
                code = ledger.fill(todo, lambda cell, seed: trained(measured, setup, file, cell, seed, Path(folder)))
            if code:
                return code
            measurements += ledger.among(todo)
    sums = totals(measurements, ways)
    sheets = [total_sheet(sums, len(cells), options.precision), cell_sheet(measurements, strategies, ways)]
    lines = [closing_line(sums)]
    show(sheets, lines)
    ledger.record(document(sums))
    write_page(options.markdown, sheets, [*lines, ledger.origin()])
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog=f"python -m {MODULE}",
        description="Time a sweep that shares frozen prefixes against the same runs done separately.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add_shared_options(parser)
    sample = " ".join(map(written, SAMPLE))
    add("--cells", nargs="+", type=_cell, default=SAMPLE, metavar="N,M", help=f"(default: {sample})")
    add("--all", action="store_true", help="every cell that the model has layers for (91 for twelve layers)")
    add("--precision", choices=PRECISIONS, default="fp32", help="(default: fp32)")
    add("--with-trainer", action="store_true", help="train each cell by the library's Trainer too")
    return parser


def _cell(value: str) -> Layers:
    bottom, comma, top = value.partition(",")
    if not (comma and bottom.isdecimal() and top.isdecimal()):
        raise argparse.ArgumentTypeError(f"{value!r} is not of the form N,M, such as 3,4")
    return int(bottom), int(top)


def written(cell: Layers) -> str:
    """Return a pair of numbers of frozen bottom and top layers in the form N,M."""
    return "{},{}".format(*cell)


def all_cells(layers: int) -> list[Layers]:
    """Return all pairs of numbers of frozen bottom and top layers whose sum is at most the number of layers."""
    return [(bottom, top) for bottom in range(layers + 1) for top in range(layers + 1 - bottom)]


def strategy_of(cell: Layers, shape: EncoderShape) -> str:
    """Return the name of the strategy that freezes these numbers of bottom and top layers.

    Raises:
        DoesNotFit: The model has too few layers.
    """
    from alue_bench_strategies.static_freezing import StaticFreezing

    name = StaticFreezing(*cell).name
    freeze_plan(name, shape)
    return name


def schedule(strategies: Iterable[str], ways: Sequence[str], precision: str, repetition: int) -> list[tuple[Cell, int]]:
    """Return the measurements of one repetition in the order in which they are made.

    Args:
        strategies: The strategies in the order in which to train them: few frozen bottom layers first.
        ways: The ways of training; their order is random for each strategy.
        precision: The number format.
        repetition: The number of the repetition.

    Returns:
        Pairs of a cell (way of training, strategy and number format) and the number of the repetition.
    """
    draw = random.Random(ORDER_SEED + repetition)
    scheduled = []
    for strategy in strategies:
        scheduled += [(Cell(way, strategy, precision), repetition) for way in draw.sample(ways, len(ways))]
    return scheduled


def forget_half_a_sweep(ledger: MeasurementLedger, todo: Iterable[tuple[Cell, int]]) -> None:
    """Remove the measurements of an incomplete sweep from the ledger, so that the sweep starts again.

    Its remaining cells cannot be added, because the store that its cells shared no longer exists.
    """
    wanted = {item for item in todo if item[0].way == SHARED}
    measured_already = {(m.cell, m.repetition) for m in ledger.measurements}
    if not wanted <= measured_already:
        ledger.measurements = [m for m in ledger.measurements if (m.cell, m.repetition) not in wanted]


def trained(measured: Measure, setup: Setup, rows: Path, cell: Cell, repetition: int, folder: Path) -> Measurement:
    """Measure a cell by `Trainer`, or by our engine with the sweep's shared store or with an empty store.

    Args:
        measured: The function that makes a measurement.
        setup: The settings that all training runs share.
        rows: The file of rows.
        cell: The way of training, strategy and number format to measure.
        repetition: The number of the repetition.
        folder: The folder of the store that the cells of the sweep share.
    """
    if cell.way == BASE:
        return measured(setup, rows, cell, repetition, None)
    store = folder if cell.way == SHARED else None
    return replace(measured(setup, rows, cell._replace(way=ENGINE), repetition, store), way=cell.way)
