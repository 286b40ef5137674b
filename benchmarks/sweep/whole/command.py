"""Time a complete sweep and compare it with fine-tuning the same cells one by one by transformers' `Trainer`.

    python -m benchmarks.sweep.whole --data-dir DIR --folder OUT

The program runs `alue-bench sweep` as a user would. A cell is a pair of numbers of frozen bottom and top layers; the
sweep trains all cells of `mini` on rows of MADAR and records them in a separate MLflow store. Cells with similar cost
are put into groups of four, and one random cell of each group is also trained by `Trainer`, right after our run of the
cell and in the same process. `Trainer` pads batches to their longest example. After its training, the dev split is
scored as often as there are epochs, and the test split once. `Trainer`'s time for all cells is estimated from this
stratified random sample, and marked as an estimate in the report. Full fine-tuning by our engine is repeated at
intervals, so that the cost of all cells relative to full fine-tuning can be compared with the ratio that FLOPs predict.

With `--jobs N` the sweep is done by N worker processes that share the cores, and nothing else can be trained between
its runs. `Trainer` then trains one half of its cells before the sweep and the other half after it, and full fine-tuning
is repeated after the sweep, by N workers at once.

At the end some cells are run again separately, by `alue-bench run` in a new process with an empty cache; their scores
must be the same as in the sweep.

The store, the cache and the measurements are in `--folder`. The benchmark can be interrupted at any time, and the same
command continues it; with `--stop-after MINUTES` it stops after that time. An interrupted cell is trained again.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UsageError
from benchmarks.command_line import Parser, run_command, say
from benchmarks.ledger import Ledger
from benchmarks.machine import hardware
from benchmarks.sweep.whole.apart import compared_apart, repeat_full
from benchmarks.sweep.whole.cells import MODEL, TASK
from benchmarks.sweep.whole.conclusion import concluded, report
from benchmarks.sweep.whole.watch import Watch

if TYPE_CHECKING:
    from alue_bench.planning.build import Plan

BENCHMARK = "whole-sweep"
MODULE = "benchmarks.sweep.whole"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Codes: 0 done, 1 the sweep failed or a separate run has other scores than the sweep, 2 misuse, 3 stopped by
    `--stop-after`, 130 or 143 interrupted.
    """
    started = time.perf_counter()
    return run_command(_parser(), arguments, lambda options, command: benchmark(options, command, started))


def benchmark(options: argparse.Namespace, command: str, started: float) -> int:
    """Make the missing measurements, print the results, and return the exit code; see `main`.

    Args:
        options: The parsed options.
        command: The command line to show in the report.
        started: The reading of `time.perf_counter` at the start of the process.
    """
    from alue_bench.cli.ending import exit_code
    from alue_bench.contract.registry import load_registry
    from alue_bench.studies.settings import Study
    from alue_bench.studies.sweep import do_sweep
    from alue_bench.views.streams import Streams

    folder: Path = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["ALUE_BENCH_CACHE"] = str(folder / "cache")
    study = Study(load_registry(), *swept(options, folder))
    measured_under = {**vars(options), "folder": None, "stop_after": None, "hardware": hardware("cpu")}
    ledger = Ledger(folder / "measurements.json", BENCHMARK, measured_under, command, instead="another --folder")
    for name, nothing_yet in (("ours", {}), ("trainer", {}), ("full_s", [])):
        ledger.content.setdefault(name, nothing_yet)
    watchers: list[Watch] = []

    def watch(plan: Plan, console: Any) -> Watch:
        watchers.append(Watch(plan, ledger, started, options))
        return watchers[0]

    results = do_sweep(study, Streams.of_command(as_json=False), progress_of=watch)
    watcher = watchers[0]
    document = dict(results.document)
    if code := exit_code(results):
        say("stopped; run the same command again to continue" if watcher.stopped else "the sweep failed")
        return 3 if watcher.stopped else code
    ledger.content["finish_s"] = time.perf_counter() - watcher.last
    ledger.content["sweep"] = document["sweep"]
    ledger.write()
    if options.jobs > 1:
        watcher.fit_by_trainer(1)
        repeat_full(options, folder, ledger)
    apart = compared_apart(document, options, folder, ledger)
    conclusion = concluded(ledger.content, watcher.plan, jobs=options.jobs) | {"apart": apart}
    ledger.content["conclusion"] = conclusion
    ledger.write()
    report(conclusion, document)
    return 0 if all(comparison["equal"] for comparison in apart) else 1


def _parser() -> Parser:
    parser = Parser(prog=f"python -m {MODULE}", description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="folder of store, cache and measurements, from which to continue")
    add("--data-dir", type=Path, help="folder with the official files (default: $ALUE_BENCH_DATA)")
    add("--sample", action="store_true", help="use the embedded sample data: to try the benchmark")
    add(
        "--grid",
        default="bottom-top",
        help="as for alue-bench sweep; a small one to try the benchmark (default: bottom-top)",
    )
    add("--limit-train", type=int, default=2000, help="(default: 2000)")
    add("--limit-eval", type=int, default=1000, help="(default: 1000)")
    add("--epochs", type=int, default=2, help="at least 2 (default: 2)")
    add("--jobs", type=int, default=1, help="as for alue-bench sweep (default: 1)")
    add("--stop-after", type=float, metavar="MINUTES", help="stop after this time, to continue later")
    return parser


def swept(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], Any]:
    """Return the sweep's settings, and the hyper-parameters that the benchmark sets, with their source.

    Raises:
        UsageError: There are fewer than two epochs.
    """
    if options.epochs < 2:
        raise UsageError("--epochs must be at least 2: with one epoch a cached prefix saves no time")
    settings: dict[str, Any] = {
        "task": [TASK],
        "model": [MODEL],
        "grid": [options.grid],
        "confirm": 0,
        "limit_train": options.limit_train,
        "limit_eval": options.limit_eval,
        "precision": "fp32",
        "device": "cpu",
        "experiment": BENCHMARK,
        "tracking_uri": f"sqlite:///{folder / 'mlflow.db'}",
        "jobs": options.jobs,
    }
    if options.data_dir:
        settings["data_dir"] = str(options.data_dir)
    if options.sample:
        settings["sample"] = True
    return settings, (("benchmark", {"epochs": options.epochs}),)
