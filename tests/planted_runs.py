"""Runs in a store without the training: written by the recorder, with predictions and metrics that a test chooses."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from alue_bench.contract.formats import Example
from alue_bench.contract.model import Model
from alue_bench.contract.spec import DataDigests, HyperParameters, Predictions, RunSpec, digest_of
from alue_bench.contract.strategy import EncoderShape, FreezePlan, Strategy
from alue_bench.contract.task import DataFile, HeldOut, Labels, Splits, TargetKind, Task
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import SplitRows, TaskRows
from alue_bench.evaluation.label_cells import join_labels
from alue_bench.evaluation.metrics import metrics
from alue_bench.running.inputs import RunInputs
from alue_bench.tracking.connection import Connection
from alue_bench.tracking.metric_names import stored_names, tags_of_originals
from alue_bench.tracking.prediction_files import (
    PREDICTIONS,
    without_scores,
    write_predictions,
    write_without_scores,
)
from alue_bench.tracking.recording import Recorder

SHAPE = EncoderShape(12)
PLANS = {
    "full": FreezePlan(SHAPE),
    "head-only": FreezePlan(SHAPE, frozenset(range(12)), embeddings=True),
    "bottom3top4": FreezePlan(SHAPE, frozenset((0, 1, 2, 8, 9, 10, 11)), embeddings=True),
}
COST = {"full": 1.0, "bottom3top4": 0.7, "head-only": 0.1}
"""The cost of a run's training, relative to full."""


def spec(
    task: str = "anger",
    strategy: str = "full",
    seed: int = 42,
    *,
    model: str = "mini",
    hyper: Mapping[str, Any] | None = None,
    source: Any = "real",
    test_rows: str = "some rows",
    **changes: Any,
) -> RunSpec:
    made = RunSpec(
        task=task,
        train_task=task,
        model=model,
        model_digest=digest_of(model),
        strategy=strategy,
        freeze_plan=PLANS.get(strategy, PLANS["bottom3top4"]),
        seed=seed,
        init_seed=seed,
        data_seed=seed,
        hyper=HyperParameters(**(hyper or {})),
        data=DataDigests(source=source, protocol="official files", train=digest_of(task), test=digest_of(test_rows)),
        device="cpu",
        precision="fp32",
        providers={"alue-bench": "0.1.0"},
    )
    return replace(made, **changes)


class PlantedStrategy(Strategy):
    """A strategy with a planted run's name and plan."""

    def __init__(self, name: str, plan: FreezePlan) -> None:
        self._name, self._plan = name, plan

    @property
    def name(self) -> str:
        return self._name

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return self._plan


def plant(
    connection: Connection,
    planted: RunSpec,
    labels: Labels,
    gold: np.ndarray[Any, Any],
    predicted: np.ndarray[Any, Any],
    *,
    more: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
    parent_id: str | None = None,
    status: str = "FINISHED",
    keep_predictions: bool = True,
) -> str:
    """One run as `alue-bench run` leaves it, without its figure. Targets as in `evaluation.metrics`. Returns its id."""
    from mlflow.entities import Metric, RunTag

    task, rows = _task(planted, labels)
    recorder = Recorder(connection, invocation="planted")
    recorder.parent_id = parent_id
    model, nothing = Model(name="mini", title="Mini", checkpoint=Path("x")), cast(Any, None)
    inputs = RunInputs(
        task=task,
        rows=rows,
        train_task=task,
        train_rows=rows,
        model=model,
        strategy=PlantedStrategy(planted.strategy, planted.freeze_plan),
        checkpoint=nothing,
        capabilities=nothing,
        tokens=nothing,
        prefixes=nothing,
    )
    run_id = recorder.start(planted, inputs, again=True)
    assert isinstance(run_id, str)
    recorder._heartbeats.stop_heartbeat(run_id)  # nobody does this run
    for name, value in (tags or {}).items():
        connection.client.set_tag(run_id, name, value)
    if status == "FAILED":
        recorder.fail(run_id, "RuntimeError: planted", "Traceback …")
        return run_id
    if status == "RUNNING":
        return run_id
    scores = metrics(gold, predicted, labels)
    cost = COST.get(planted.strategy, 0.5)
    values = {f"test/{name}": value for name, value in scores.items()} | {
        "test/score": scores[task.primary],
        "test/trivial_score": 0.1,
        "runtime/train_s": 100 * cost,
        "params/trainable_share": cost,
        "flops/train_vs_full": cost,
        "memory/process_peak_mib": 1000.0,
        "data/test_rows": len(gold),
        "train/loss": 0.5,
    }
    with tempfile.TemporaryDirectory() as scratch:
        if keep_predictions:
            source = Path(scratch) / PREDICTIONS
            write_predictions(source, _table(labels, gold, predicted))
            write_without_scores(source.with_name(without_scores(PREDICTIONS)), source)
        (Path(scratch) / "environment.json").write_text('{"python": "3.11", "libraries": {"torch": "2.13.0"}}')
        connection.client.log_artifacts(run_id, scratch)
    values |= more or {}
    stored = stored_names(values)
    points = [Metric(stored[name], value, 0, 0) for name, value in values.items()]
    originals = [RunTag(name, value) for name, value in tags_of_originals(stored).items()]
    connection.client.log_batch(run_id, metrics=points, tags=originals)
    connection.client.set_terminated(run_id, status)
    return run_id


def classes(rng: np.random.Generator, gold: np.ndarray[Any, Any], accuracy: float, number: int) -> np.ndarray[Any, Any]:
    """Predictions that are right for about this part of the examples."""
    wrong = (gold + rng.integers(1, number, len(gold))) % number
    return np.where(rng.random(len(gold)) < accuracy, gold, wrong)


def _task(planted: RunSpec, labels: Labels) -> tuple[Task, TaskRows]:
    primary = {TargetKind.REGRESSION: "pearson", TargetKind.MULTILABEL: "jaccard_samples"}.get(labels.kind, "f1_macro")
    held = HeldOut(0.1, 1)
    file: Any = DataFile("planted.tsv", lambda path: iter(()))  # type: ignore[arg-type, return-value]
    task = Task(
        name=planted.task,
        title=f"Planted {planted.task}",
        languages=("ar",),
        labels=labels,
        splits=Splits(train=file, dev=held, test=held, protocol=planted.data.protocol),
        primary=primary,
        source="planted",
        licence="none",
        citation="none",
    )
    digests = {"train": planted.data.train, "dev": planted.data.train, "test": planted.data.test}
    splits = {name: SplitRows((Example("1", "text", None, "x", 1),), digest) for name, digest in digests.items()}
    fold = planted.fold
    digest = digest_of(["rows of all folds", planted.task, fold.folds]) if fold else ""
    return task, TaskRows(splits, DataFolder(Path(), planted.data.source), 0, fold=fold, folds_digest=digest)


def _table(labels: Labels, gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]) -> Predictions:
    def named(values: np.ndarray[Any, Any]) -> list[Any]:
        if labels.kind is TargetKind.REGRESSION:
            return [float(value) for value in values]
        if labels.kind is TargetKind.MULTILABEL:
            return [join_labels(n for n, mark in zip(labels.names, row, strict=True) if mark) for row in values]
        return [labels.names[int(value)] for value in values]

    columns: Sequence[str] = labels.names or ("value",)
    return Predictions(
        ids=[f"{number}" for number in range(len(gold))],
        gold=named(gold),
        predicted=named(predicted),
        scores=np.zeros((len(gold), len(columns))),
        columns=tuple(columns),
    )
