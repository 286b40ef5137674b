"""Compare the result and the cost of a search with a finished sweep.

    python -m benchmarks.search --sweep-uri URI --task oold --model mini --data-dir DIR --json FILE

The MLflow store at URI must contain a finished sweep of the task and the model. The sweep's cells are all pairs of
numbers of frozen bottom and top layers. The search has the options that the sweep recorded (rows, epochs, learning
rate, first seed and so on), but another store, so that it reuses no run of the sweep. The answer of the search is one
cell. The loss of this cell, that is, the score of full fine-tuning minus the score of the cell, is then computed from
the sweep in two ways, on the test and the dev split:

- measured: from the sweep's runs of the cell and of full fine-tuning;
- smoothed: from a surface (a function of both numbers of frozen layers) fitted to all cells of the sweep. The score of
  a cell that was run with one seed depends mostly on that seed, so that the scores of similar cells give a better
  estimate.

Exit codes: 0 the answer's measured loss on test is within the tolerance and the budget was not exceeded; 1 otherwise; 2
misuse.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command_line import Parser, check_written_files, run_command
from benchmarks.ledger import header, write_json
from benchmarks.search.finished_sweep import Reading, cheapest_within, read_sweep, reading
from benchmarks.search.searching import Search, search_arguments, searched_here
from benchmarks.tables import Sheet, number, show, write_page

BENCHMARK = "search"
MODULE = f"benchmarks.{BENCHMARK}"
DEV, TEST = "selection/dev_score", "test/score"
"""The names of the metrics that are compared."""


def main(arguments: Sequence[str] | None = None, *, search: Search | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        arguments: The command-line arguments; None means those of this process (`sys.argv`).
        search: The function that runs the search; None means `searched_here`.
    """

    def work(options: argparse.Namespace, command: str) -> int:
        check_written_files(options)
        return benchmark(options, command, search or searched_here)

    return run_command(_parser(), arguments, work)


def benchmark(options: argparse.Namespace, command: str, search: Search) -> int:
    """Read the sweep, run the search, compare its answer with the sweep, and return the exit code.

    Args:
        options: The parsed options.
        command: The command line to show in the report.
        search: The function that runs the search.
    """
    sweep = read_sweep(options)
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{Path(folder) / 'mlflow.db'}" if options.store is None else options.store
        document = search(search_arguments(options, sweep.config, store))
    (result,) = document["searches"]
    readings = [
        reading(sweep, result["answer"], metric, smoothed=smoothed)
        for metric in (TEST, DEV)
        for smoothed in (False, True)
    ]
    tolerance = _part(options.tolerance)
    budget_kept = result["compute"]["spent_share"] <= _part(options.budget) + 1e-9
    confirmed = readings[0].loss <= tolerance * abs(readings[0].full)
    sheet = _sheet(options, result, readings, tolerance)
    cheapest = [cheapest_within(sweep, metric, tolerance) for metric in (TEST, DEV)]
    seeds, compute = len(set(sweep.frame["seed"])), result["compute"]
    supported = "supported" if result["supported"] else "nothing supported"
    lines = [
        f"answer: {result['answer']} ({supported}; {result['why']}), at "
        f"{result['cost_of_full']:.0%} of full fine-tuning's FLOPs",
        f"compute: {compute['spent_share']:.1%} of the grid's FLOPs (budget {options.budget}), {compute['runs']} runs, "
        f"{compute['train_s']:.0f} s of training; the sweep's {len(sweep.frame)} runs took "
        f"{sweep.frame['runtime/train_s'].sum():.0f} s with {seeds} seed{'s' if seeds > 1 else ''}: "
        f"{compute['train_s'] * seeds / sweep.frame['runtime/train_s'].sum():.1%} for as many seeds",
        f"cheapest cell of the sweep within the tolerance: {cheapest[0]} by test, {cheapest[1]} by dev",
        f"the sweep {'confirms' if confirmed else 'does not confirm'} that the answer loses at most "
        f"{options.tolerance} on test; the budget was {'kept' if budget_kept else 'exceeded'}",
    ]
    show([sheet], lines)
    if options.json is not None:
        content = header(BENCHMARK, command) | {
            "confirmed": bool(confirmed),
            "budget_kept": bool(budget_kept),
            "readings": [vars(r) for r in readings],
            "cheapest_in_sweep": {"test": cheapest[0], "dev": cheapest[1]},
            "sweep": {"runs": len(sweep.frame), "seeds": seeds, "config": sweep.config},
            "search": result,
        }
        write_json(options.json, content)
    write_page(options.markdown, [sheet], lines)
    return 0 if confirmed and budget_kept else 1


def _sheet(options: argparse.Namespace, result: dict[str, Any], readings: Sequence[Reading], tolerance: float) -> Sheet:
    """Return the table of the losses, according to the sweep, of the cell that the search returned."""
    rows = tuple(
        (
            r.metric,
            "smoothed over all cells" if r.smoothed else "measured",
            number(r.full, ".4f"),
            number(r.loss, "+.4f"),
            number(r.loss / abs(r.full) if r.full else None, "+.1%"),
            number(r.sd, ".4f"),
            "yes" if r.loss <= tolerance * abs(r.full) else "no",
        )
        for r in readings
    )
    columns = ("score", "of the sweep", "full", f"loss of {result['answer']}", "relative", "sd", "within tolerance")
    return Sheet(f"{options.task}/{options.model}: the sweep about the search's answer", columns, rows)


def _part(text: str) -> float:
    """Parse a share such as "25%" or "0.25", and return it as a number, here 0.25."""
    from alue_bench.searching.candidates import parse_share

    return parse_share("--tolerance or --budget", text)


def _parser() -> Parser:
    parser = Parser(
        prog=f"python -m {MODULE}",
        description="Compare the answer of a search with a finished sweep.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--sweep-uri", required=True, metavar="URI", help="the store with the sweep; it is only read")
    add("--sweep-experiment", default="alue-bench", metavar="NAME", help="(default: alue-bench)")
    add("--task", required=True)
    add("--model", default="mini", help="(default: mini)")
    add("--tolerance", default="1%", help="a part of the score (default: 1%%)")
    add("--budget", default="25%", help="(default: 25%%)")
    add("--store", metavar="URI", help="keep the search's runs here (default: a store that is thrown away)")
    add("--data-dir", type=Path, metavar="DIR", help="the official files (default: the variable ALUE_BENCH_DATA)")
    add("--json", type=Path, metavar="FILE")
    add("--markdown", type=Path, metavar="FILE")
    return parser
