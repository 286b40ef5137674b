"""What is recorded of a run, as values: they can be written to MLflow now, or kept on disk and written later.

Writing one a second time changes nothing: params and tags have the same values, points of a metric the same times,
files the same names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS_PER_BATCH = 1000  # MLflow's limit

Point = tuple[str, float, int, int]
"""Name, value, milliseconds since 1970, step."""


@dataclass(frozen=True)
class DataUsed:
    """A split, as MLflow records an input."""

    name: str
    digest: str
    source: str
    profile: str
    context: str


@dataclass(frozen=True)
class Opening:
    """Everything about a run that is known before it begins."""

    name: str
    started: int
    """Milliseconds since 1970."""
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    data: tuple[DataUsed, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """Artifacts: content by name."""


@dataclass(frozen=True)
class Closing:
    """How a run ended. Its larger artifacts lie in a folder."""

    status: str
    """In MLflow's words."""
    ended: int
    """Milliseconds since 1970."""
    tags: Mapping[str, str] = field(default_factory=dict)
    points: tuple[Point, ...] = ()


def write_opening(client: MlflowClient, run_id: str, opening: Opening, *, tags: bool = True) -> None:
    """To a run that exists. Without `tags` where it was created with them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    client.log_batch(
        run_id,
        params=[Param(name, value) for name, value in opening.params.items()],
        tags=[RunTag(name, value) for name, value in opening.tags.items()] if tags else [],
    )
    if opening.data:
        inputs = [
            DatasetInput(
                Dataset(used.name, used.digest, source_type="local", source=used.source, profile=used.profile),
                [InputTag(MLFLOW_DATASET_CONTEXT, used.context)],
            )
            for used in opening.data
        ]
        client.log_inputs(run_id, inputs)
    write_files(client, run_id, opening.files)


def write_closing(client: MlflowClient, run_id: str, closing: Closing, folder: Path | None = None) -> None:
    """Artifacts, metrics, tags, and last the status: only then does the run count as ended."""
    from mlflow.entities import Metric, RunTag

    if folder is not None and any(folder.iterdir()):
        client.log_artifacts(run_id, str(folder))
    points = [Metric(name, value, timestamp, step) for name, value, timestamp, step in closing.points]
    for start in range(0, len(points), METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=points[start : start + METRICS_PER_BATCH])
    if closing.tags:
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in closing.tags.items()])
    client.set_terminated(run_id, closing.status, closing.ended)


def write_files(client: MlflowClient, run_id: str, files: Mapping[str, str]) -> None:
    """Artifacts from their contents."""
    if not files:
        return
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in files.items():
            (Path(scratch) / name).write_text(content, encoding="utf-8")
        client.log_artifacts(run_id, scratch)
