"""Runs in new processes, separate from the sweep: some of its cells, to compare scores, and repetitions of `full`."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UsageError
from benchmarks.command_line import say
from benchmarks.ledger import Ledger
from benchmarks.processes import ALUE_BENCH, environment
from benchmarks.sweep.whole.cells import FULLS, MODEL, TASK

SEPARATE = 3
"""The number of cells that are run again separately."""


def compared_apart(
    document: Mapping[str, Any], options: argparse.Namespace, folder: Path, ledger: Ledger
) -> list[dict[str, Any]]:
    """Run some cells again, each in a separate process that shares nothing with the sweep, and compare the scores.

    Args:
        document: The JSON document that the sweep printed.
        options: The parsed options.
        folder: The folder `--folder`, in which the benchmark keeps stores, caches and measurements.
        ledger: The file of measurements, to which the results are added.

    Returns:
        For each cell, a dictionary with the keys "strategy", "equal" (True if all scores equal those of the sweep) and
        "largest_difference" (between a score of the sweep and the same score of the separate run).
    """
    done = {run["strategy"]: run["metrics"] for run in document["runs"]}
    chosen = random.Random(1).sample(sorted(done), min(SEPARATE, len(done)))
    known = {comparison["strategy"]: comparison for comparison in ledger.content.get("apart", [])}
    from alue_bench.executors.processes import environment_of

    # A sweep in several processes gives each of them a share of the cores; each of these runs must have the same share.
    share = environment_of({}, options.jobs)
    for strategy in chosen:
        if strategy in known:
            continue
        (alone,) = run_apart(["--strategy", strategy], options, folder / "apart" / strategy, share)
        scores = {name: value for name, value in done[strategy].items() if name.startswith(("test/", "selection/"))}
        gap = max(
            (abs(value - alone["metrics"][name]) for name, value in scores.items() if value is not None), default=0.0
        )
        known[strategy] = {"strategy": strategy, "equal": gap == 0.0, "largest_difference": gap}
        ledger.content["apart"] = list(known.values())
        ledger.write()
        say(f"{strategy} apart: {'equal' if gap == 0 else f'differs by {gap:.2g}'}")
    return list(known.values())


def run_apart(
    given: Sequence[str], options: argparse.Namespace, folder: Path, variables: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Execute `alue-bench run` on the sweep's rows in a new process, with a separate cache and MLflow store.

    Args:
        given: Arguments of `alue-bench run` in addition to task, model, data, epochs and store, such as the strategy.
        options: The parsed options.
        folder: The folder for the cache and the store.
        variables: Environment variables to add to those of this process, or to replace there; None means none.

    Returns:
        The entries `runs` of the JSON document that the command prints.

    Raises:
        UsageError: The command failed.
    """
    data = ["--sample"] if options.sample else ["--data-dir", str(options.data_dir)] if options.data_dir else []
    arguments = ["run", "--task", TASK, "--model", MODEL, *given, "--json", "--precision", "fp32", "--device", "cpu"]
    arguments += ["--epochs", str(options.epochs), *data]
    arguments += ["--limit-train", str(options.limit_train), "--limit-eval", str(options.limit_eval)]
    arguments += ["--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    finished = subprocess.run(
        [*ALUE_BENCH, *arguments],
        env=environment(ALUE_BENCH_CACHE=str(folder / "cache"), **variables or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise UsageError(f"alue-bench {' '.join(arguments)}: {finished.stderr.strip().splitlines()[-1:]}")
    runs: list[dict[str, Any]] = json.loads(finished.stdout)["runs"]
    return runs


def repeat_full(options: argparse.Namespace, folder: Path, ledger: Ledger) -> None:
    """Repeat full fine-tuning with seeds that the sweep does not use, and record the training seconds.

    There are as many workers as in the sweep. Nothing is done if the ledger already has the repetitions.
    """
    if len(ledger.content["full_s"]) >= FULLS:
        return
    seeds = [option for seed in range(FULLS) for option in ("--seed", str(43 + seed))]
    runs = run_apart(["--strategy", "full", *seeds, "--jobs", str(options.jobs), "--rerun"], options, folder / "fulls")
    ledger.content["full_s"] = [[f"seed {run['seed']}", run["metrics"]["runtime/loop_s"]] for run in runs]
    ledger.write()
