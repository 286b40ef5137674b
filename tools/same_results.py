"""``python -m tools.same_results``: check whether two checkouts give the same results, to the last bit.

    python -m tools.same_results record before.json --checkout ../old
    python -m tools.same_results record after.json
    python -m tools.same_results compare before.json after.json

``record`` executes 39 short runs on the embedded sample with the bundled model. The tasks include binary, multi-class
and multi-label classification, regression, text pairs, the tagging of words, and questions with answers in a text. The
strategies are fixed, adaptive or adapters; two of them are run again on two tasks, without cached outputs of frozen
layers. ``record`` writes each run's fingerprint, the complete history of its losses and scores, and digests of its
predictions. ``compare`` prints every difference and exits with 1 if there is one. Both recordings must come from the
same machine, because other processors round differently.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SETTINGS = ("--limit-train", "64", "--epochs", "2", "--batch-size", "16", "--sample", "--model", "mini")
TASKS = ("sec", "svreg", "oold", "mdd", "xnli", "arabicner", "arcd")
STRATEGIES = ("full", "bottom3top4", "head-only", "autofreeze", "lora-r8")
CACHE_OFF = ("bottom3top4", "head-only")
"""The strategies that are run again, on two tasks, without cached outputs of frozen layers (``--cache-size 0``)."""
MEASURED = ("runtime/", "memory/", "energy/", "throughput/")
"""The prefixes of the names of metrics that are measured, such as times, and therefore differ between repetitions."""
PREDICTIONS = ("predictions.csv", "dev_predictions.csv")

Recording = dict[str, dict[str, Any]]
"""For each run, by its task and strategy, the recorded values by name."""


def _options(flag: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (flag, value)]


def _train(checkout: Path, folder: Path, arguments: Sequence[str]) -> Recording:
    """Execute ``alue-bench run`` with the code of a checkout, in a new folder, and return the recorded results.

    Args:
        checkout: The root folder of the checkout.
        folder: The folder to create for the MLflow store and the cache.
        arguments: The arguments of ``alue-bench run`` in addition to ``SETTINGS``.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(checkout), str(checkout / "plugins"))),
        "ALUE_BENCH_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",  # with several threads, rounding depends on how sums are divided between them
    }
    folder.mkdir()
    store = f"sqlite:///{folder / 'results.db'}"
    program = "import sys; from alue_bench.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "run", *arguments, *SETTINGS, "--tracking-uri", store, "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {
        f"{run['task']}/{run['strategy']}": _recorded(store, run["run_id"], run["fingerprint"])
        for run in json.loads(done.stdout)["runs"]
    }


def _recorded(store: str, run_id: str, fingerprint: str) -> dict[str, Any]:
    """Return a run's fingerprint, the history of each metric that is not in MEASURED, and hashes of its predictions."""
    from mlflow import MlflowClient

    client = MlflowClient(store)
    names = [name for name in client.get_run(run_id).data.metrics if not name.startswith(MEASURED)]
    histories = {
        name: [[entry.step, entry.value] for entry in client.get_metric_history(run_id, name)] for name in sorted(names)
    }
    with tempfile.TemporaryDirectory() as folder:
        digests = {
            name: hashlib.sha256(Path(client.download_artifacts(run_id, name, folder)).read_bytes()).hexdigest()
            for name in PREDICTIONS
        }
    return {"fingerprint": fingerprint, **histories, **digests}


def record(checkout: Path) -> Recording:
    """Execute all runs with the code of a checkout, and return their recorded results.

    Args:
        checkout: The root folder of the checkout.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = _options("--task", TASKS)
        runs = _train(checkout, folder / "cached", [*tasks, *_options("--strategy", STRATEGIES)])
        without = [*_options("--task", TASKS[2:4]), *_options("--strategy", CACHE_OFF), "--cache-size", "0"]
        uncached = _train(checkout, folder / "uncached", without)
    return runs | {f"{run} without cache": values for run, values in uncached.items()}


def differences(one: Mapping[str, Mapping[str, Any]], other: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Compare two recordings, and return a line for each difference.

    A difference is a run that only one recording contains, or a value of a run that is not equal in both.
    """
    lines = [f"{run}: in one recording only" for run in sorted(one.keys() ^ other.keys())]
    for run in sorted(one.keys() & other.keys()):
        for name in sorted(one[run].keys() | other[run].keys()):
            before, after = one[run].get(name), other[run].get(name)
            if before != after:
                lines.append(f"{run}: {name}: {before} and {after}")
    return lines


def main() -> int:
    """Run the command line and return the exit code: 1 if two recordings differ."""
    parser = argparse.ArgumentParser(prog="python -m tools.same_results", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="train the runs and write their results")
    recording.add_argument("file", type=Path)
    recording.add_argument(
        "--checkout", type=Path, default=Path(__file__).parents[1], help="folder of the code (%(default)s)"
    )
    comparing = commands.add_parser("compare", help="print the differences between two recordings")
    comparing.add_argument("files", type=Path, nargs=2)
    options = parser.parse_args()
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    if options.command == "record":
        options.file.write_text(json.dumps(record(options.checkout.resolve()), indent=1), encoding="utf-8")
        return 0
    one, other = (json.loads(file.read_text(encoding="utf-8")) for file in options.files)
    lines = differences(one, other)
    print("\n".join(lines) if lines else f"{len(one)} runs are equal")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
