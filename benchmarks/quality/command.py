"""Compare the bundled encoder with the same architecture with random weights, to measure what pre-training contributes.

    python -m benchmarks.quality --data-dir DIR

The random copy of the encoder has the same configuration, tokenizer and hyper-parameters, but randomly initialised
weights. All runs are executed by alue-bench and recorded in MLflow, so that an interrupted benchmark continues if the
command is repeated. The tables also show a linear model on n-grams (`evaluation/yardstick.py`), even if its scores are
higher than those of the encoder.

Confidence intervals are t-intervals over seeds of fine-tuning (head initialisation and data order); differences are
paired by seed. The intervals do not account for the variation between pre-training runs, random encoders or test rows,
and are not corrected for the number of tasks.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alue_bench.contract.errors import UsageError
from alue_bench.contract.model import Model
from alue_bench.contract.registry import load_registry
from alue_bench.evaluation.yardstick import has_yardstick
from alue_bench.executors.termination import exit_code_of_interruption, stop_on_sigterm
from benchmarks.command_line import Parser, check_written_files, run_command
from benchmarks.ledger import header, write_json
from benchmarks.quality.models import BUNDLED, chosen_models, with_models
from benchmarks.quality.random_copy import random_copy
from benchmarks.quality.report import all_sheets, closing_lines, document, measured_under, origin
from benchmarks.quality.results import gathered
from benchmarks.quality.runs import recorded_outcomes, run_records
from benchmarks.tables import show, write_page

if TYPE_CHECKING:
    from alue_bench.planning.build import Plan
    from alue_bench.planning.request import PlanRequest

BENCHMARK = "quality"
MODULE = f"benchmarks.{BENCHMARK}"
TASKS = ("mdd", "anger", "oold", "ohsd", "mq2q", "sec", "svreg", "xnli")
STRATEGIES = ("full", "bottom3top4")
FOLDERS = re.compile(r"(^|=|sqlite:///)(?:~|\.{0,2})/(?:.*/)?(?=[^/])")
"""The pattern of the folders in a path argument, which reports leave out; it does not match hub ids (owner/name)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 some runs failed, 2 misuse, 130 or 143 interrupted."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    return run_command(_parser(), arguments, lambda options, command: benchmark(options, command=command), FOLDERS)


def benchmark(options: argparse.Namespace, *, command: str) -> int:
    """Plan and execute the runs, print the tables, and return the exit code."""
    from alue_bench.executors.outcome import Interrupted
    from alue_bench.planning.build import build_plan
    from alue_bench.views.console import remarks
    from alue_bench.views.tables import plan_view

    talk = remarks()
    check_written_files(options)
    installed = load_registry()
    models = chosen_models(options.model or [BUNDLED], installed)
    random = random_copy(models[0])
    if random.name in [model.name for model in models]:
        raise UsageError(f"--model: {random.name!r} is the name of the random copy; choose another")
    registry = with_models(installed, [*models, random])
    plan = build_plan(plan_request(options, [*models, random]), registry)
    talk.print(plan_view(plan))
    _check_plan(plan, sample=options.sample)
    try:
        with stop_on_sigterm():
            outcomes = recorded_outcomes(plan, registry, options.store, talk)
            results = gathered(plan, outcomes, [model.name for model in models], random.name, talk)
    except Interrupted as stop:
        missing = len(plan.runs) - len(stop.outcomes)
        talk.print(f"interrupted: {missing} runs are left; run the same command again to continue")
        return exit_code_of_interruption(stop.__cause__)
    except KeyboardInterrupt as stop:
        talk.print("interrupted: every run is done; run the same command again to compare them")
        return exit_code_of_interruption(stop)

    circumstances = header(BENCHMARK, command) | measured_under(plan)
    sheets, lines = all_sheets(results), closing_lines(results)
    show(sheets, lines)
    if options.json:
        write_json(options.json, circumstances | document(results) | {"runs": run_records(outcomes)})
    write_page(options.markdown, sheets, [*lines, origin(circumstances)])
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        talk.print(f"failed {outcome.spec.label}: {outcome.cause}", style="red")
    return 1 if failed else 0


def _parser() -> Parser:
    parser = Parser(
        prog=f"python -m {MODULE}",
        description="Compare models with their architecture's random weights and with a linear model.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--data-dir", type=Path, help="folder with the official files (default: $ALUE_BENCH_DATA)")
    add("--sample", action="store_true", help="use the embedded sample data: to try the benchmark, not the model")
    add("--task", action="append", help=f"repeatable (default: {', '.join(TASKS)})")
    add(
        "--model",
        action="append",
        metavar="NAME=MODEL",
        help="a model's name, a folder or hub/id, and the name to show it by; repeatable (default: mini=mini). The "
        "random copy is of the first one. What is given by folder has no hyper-parameters of its own and takes those "
        "of the first model, or, where that is a folder too, those of mini",
    )
    add("--strategy", action="append", help="repeatable (default: full and bottom3top4); the first one is the base")
    add("--seeds", type=int, default=3, help="run with this many seeds: 42, 43, … (default: 3)")
    add("--limit-train", type=_limit, default=2000, metavar="ROWS", help="a number or all (default: 2000)")
    add("--limit-eval", type=_limit, metavar="ROWS", help="dev and test rows, a number or all (default: all)")
    add("--epochs", type=int, default=3, help="(default: 3)")
    add("--batch-size", type=int, help="(default: each model's own)")
    add("--lr", type=float, help="peak learning rate (default: each model's own)")
    add("--store", metavar="URI", help="MLflow store (default: $MLFLOW_TRACKING_URI, else sqlite below mlruns/)")
    add("--json", type=Path, metavar="FILE", help="write all numbers here")
    add("--markdown", type=Path, metavar="FILE", help="write the tables here")
    return parser


def _limit(value: str) -> int | None:
    """Parse a limit on rows; return None for `all`."""
    if value != "all" and not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r} is neither a number of rows nor all")
    return None if value == "all" else int(value)


def plan_request(options: argparse.Namespace, models: Sequence[Model]) -> PlanRequest:
    """Return the request from which alue-bench plans all runs of the benchmark.

    Args:
        options: The parsed options.
        models: The compared models, including the random copy.

    Raises:
        UsageError: The number of seeds is below 1.
    """
    from alue_bench.planning.request import DEFAULT_SEED, PlanRequest

    if options.seeds < 1:
        raise UsageError(f"--seeds is {options.seeds}; it must be at least 1")
    return PlanRequest(
        tasks=tuple(options.task or TASKS),
        models=tuple(model.name for model in models),
        strategies=tuple(options.strategy or STRATEGIES),
        seeds=tuple(range(DEFAULT_SEED, DEFAULT_SEED + options.seeds)),
        overrides=(("command line", {"epochs": options.epochs, "batch_size": options.batch_size, "lr": options.lr}),),
        limit_train=options.limit_train,
        limit_eval=options.limit_eval,
        data_dir=options.data_dir,
        sample=options.sample,
    )


def _check_plan(plan: Plan, *, sample: bool) -> None:
    """Check that the plan has runs and that they use the official data, unless the sample was requested.

    alue-bench falls back to the embedded sample if it finds no official files; scores on the sample would be
    meaningless here.

    Raises:
        UsageError: There is nothing to run, official files are missing, or a task has no linear model.
    """
    if not plan.runs:
        reasons = "; ".join(dict.fromkeys(skipped.reason for skipped in plan.skipped))
        raise UsageError(f"nothing to run: {reasons}")
    if tagging := next((run.spec.task for run in plan.runs if not has_yardstick(run.inputs.task)), None):
        raise UsageError(f"task {tagging!r} tags words; the linear model classifies texts only, choose other tasks")
    lacking = dict.fromkeys(run.spec.task for run in plan.runs if run.spec.data.source == "sample")
    if lacking and not sample:
        raise UsageError(
            f"there are no official files of {', '.join(lacking)}; name their folder with --data-dir or "
            "ALUE_BENCH_DATA, or try the benchmark itself with --sample"
        )
