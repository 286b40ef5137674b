"""The plan that a campaign disturbs: twenty training runs of a tiny model, each of which takes about a second."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UsageError

from .processes import Started, Victim, in_a_copy, start
from .store import first_start_ms, gap_ms, stored_runs

STRATEGIES = ("full", "bottom1", "bottom2", "top1")
SHORT = ("--epochs", "1", "--limit-train", "48", "--limit-eval", "32", "--max-length", "24", "--batch-size", "16")
EXPERIMENT = "faults"


@dataclass(frozen=True)
class Way:
    """A way to execute the plan (locally, with worker processes or on Ray), with the kinds of processes to kill."""

    name: str
    options: tuple[str, ...]
    victims: tuple[Victim, ...]
    span: float
    """The longest time between a start and a kill, as a share of the undisturbed plan's duration."""


WAYS = {
    "local": Way("local", (), ("main",), 0.25),
    "jobs": Way("jobs", ("--jobs", "2"), ("main", "all", "worker"), 0.5),
    "ray": Way("ray", ("--executor", "ray", "--jobs", "2"), ("main", "all", "worker"), 0.2),
}


@dataclass(frozen=True)
class Alone:
    """The scores and times of an undisturbed plan."""

    seconds: float
    scores: Mapping[str, Mapping[str, float]]
    first_start_ms: float | None
    gap_ms: float | None


class PlanUnderTest:
    """The plan of runs that the campaigns execute, with the folders for its MLflow stores and caches."""

    def __init__(self, folder: Path, seeds: int) -> None:
        """Prepare a small model and an empty store.

        Args:
            folder: The folder for everything.
            seeds: The number of seeds of the plan.
        """
        self.folder, self.seeds = folder, seeds
        self.model = folder / "tiny"
        self._count = 0
        self._empty = folder / "empty.db"
        in_a_copy(self._prepare)

    def _prepare(self) -> None:
        import logging

        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        save_tiny_model(self.model)
        MlflowClient(tracking_uri=f"sqlite:///{self._empty}").search_experiments()

    def begin(self, *, fresh: bool = False) -> Path:
        """Return a new folder with an empty MLflow store, or without a store if `fresh` is true.

        A plan needs seconds to create a store, so most plans get a prepared one.
        """
        self._count += 1
        store = self.folder / f"store{self._count}"
        store.mkdir()
        if not fresh:
            self.provide(store)
        return store

    def provide(self, store: Path) -> None:
        """Copy the prepared empty database into a folder, unless the folder has a database."""
        if not (store / "mlflow.db").exists():
            shutil.copyfile(self._empty, store / "mlflow.db")

    def invoke(self, store: Path, way: Way, *, name: str = "last", cluster: tuple[str, int] | None = None) -> Started:
        """Start the plan.

        Args:
            store: The folder of the store.
            way: The way to execute the plan.
            name: The name of the subfolder for the output of the process.
            cluster: The address of a Ray cluster, and the id of the process whose descendants form it.
        """
        strategies = [part for strategy in STRATEGIES for part in ("--strategy", strategy)]
        where = ["--tracking-uri", f"sqlite:///{store / 'mlflow.db'}", "--experiment", EXPERIMENT]
        what = ["--task", "anger", "--sample", "--model", str(self.model), *strategies, "--seeds", str(self.seeds)]
        environment = {
            "ALUE_BENCH_CACHE": str(store / "cache"), "ALUE_BENCH_STATE": str(store / "state"), "OMP_NUM_THREADS": "1"
        }  # fmt: skip
        helpers = []
        if cluster is not None:
            environment["RAY_ADDRESS"], helper = cluster
            helpers.append(helper)
        arguments = ["run", *what, *SHORT, *where, *way.options, "--json", "--yes"]
        return start(arguments, store / name, environment, helpers=helpers)

    def alone(self, way: Way, cluster: tuple[str, int] | None = None) -> Alone:
        """Execute the plan undisturbed and return its results.

        Raises:
            UsageError: The plan does not complete.
        """
        store = self.begin()
        began = time.monotonic()
        process = self.invoke(store, way, cluster=cluster)
        code = process.wait()
        seconds = time.monotonic() - began
        if code:
            raise UsageError(f"left alone, the plan ends with exit code {code}: {last_line(process.errors)}")
        runs = stored_runs(store / "mlflow.db")
        return Alone(seconds, scores(process.document), first_start_ms(runs), gap_ms(runs))


def save_tiny_model(folder: Path) -> None:
    """Save a randomly initialised encoder of four narrow layers with mini's tokenizer; a run takes about a second."""
    import torch
    from transformers import AutoConfig, BertForPreTraining

    from alue_bench.contract.registry import load_registry
    from alue_bench.planning.available import resolve_model
    from alue_bench.training.pretrained.library import quiet_transformers
    from alue_bench.training.pretrained.loading import locate_checkpoint

    mini = locate_checkpoint(resolve_model("mini", load_registry())).folder
    config = AutoConfig.from_pretrained(mini)
    config.update({"num_hidden_layers": 4, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64})
    with quiet_transformers():
        torch.manual_seed(1)
        BertForPreTraining(config).save_pretrained(folder)
    for path in mini.iterdir():
        if path.suffix in (".json", ".txt", ".model") and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def scores(document: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the test metrics of every run that has metrics, by fingerprint."""
    return {
        run["fingerprint"]: {name: value for name, value in run["metrics"].items() if name.startswith("test/")}
        for run in document["runs"]
        if run["metrics"]
    }


def last_line(text: str) -> str:
    """Return the last line of a process's output for an error message."""
    return next(iter(text.strip().splitlines()[::-1]), "it said nothing")
