"""The record of a run: all values to write to MLflow.

If the MLflow store is not available, the values are written later from a copy on disk.

A record has two parts: the opening, which is known before the run begins, and the closing, which is known at its end.

A record can be written twice without harm: both times, params and tags have the same values, points of a metric have
the same times, and files have the same names.

An entry that a store refuses, such as a param that is too long for it, is left out and reported; all other entries are
written. Artifacts are left out and reported if their location cannot be reached although the store itself answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.measure.best_effort import cause_of
from alue_bench.messages.redaction import redact
from alue_bench.tracking.connection import without_credentials
from alue_bench.tracking.scratch import write_to_temporary_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient

PER_BATCH = {"metrics": 1000, "params": 100, "tags": 100}
"""The most entries of each kind that MLflow accepts in one call."""
INVALID = "INVALID_PARAMETER_VALUE"
"""MLflow's error code for an entry that it does not accept."""
REFUSALS = (INVALID, "BAD_REQUEST", "PERMISSION_DENIED", "RESOURCE_CONFLICT")
"""MLflow's error codes for which it is useless to repeat a write, since it would fail again."""
NOTES_FILE = "notes.txt"
"""The name of the artifact that contains notes for readers of a run's results."""

Point = tuple[str, float, int, int]
"""A point of a metric: its name, its value, its time in milliseconds since 1970, and its step."""


@dataclass(frozen=True)
class DataUsed:
    """A split of a data set that a run used, as MLflow records it in the list of the run's data sets."""

    name: str
    digest: str
    source: str
    """A JSON text that states who published the data."""
    profile: str
    """A JSON text with the number of rows and a description of the splits."""
    context: str
    """The use of the split in the run: "training", "validation" or "testing"."""


@dataclass(frozen=True)
class Opening:
    """The part of a run's record that is known before the run begins, such as its params."""

    name: str
    started: int
    """The start time in milliseconds since 1970."""
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    data: tuple[DataUsed, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """The text contents of small artifacts, by file name."""


@dataclass(frozen=True)
class Closing:
    """The part of a run's record that is known when the run has ended, such as metrics.

    It does not contain the artifacts, which are passed to `write_closing` as a folder.
    """

    status: str
    """The run's MLflow status: FINISHED, FAILED or KILLED."""
    ended: int
    """The end time in milliseconds since 1970."""
    tags: Mapping[str, str] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    """The params that are known only at the end, such as the layers that a strategy chose in the run."""


@dataclass(frozen=True)
class UnwrittenParts:
    """The parts of a run's record that could not be written although the MLflow store answers."""

    refused: tuple[str, ...] = ()
    """A message for each entry that the MLflow store refused, with the name of the entry and the reason."""
    artifacts: str = ""
    """The location to which the artifacts could not be written, and the reason; empty if they were written or if there
    are none."""


NOTHING_MISSING = UnwrittenParts()


def write_opening(
    client: MlflowClient, run_id: str, opening: Opening, *, tags: bool = True, artifacts_unavailable: str = ""
) -> UnwrittenParts:
    """Write the opening of a record, that is, the values known before the run begins, to an existing MLflow run.

    Args:
        client: The MLflow client.
        run_id: The id of the MLflow run.
        opening: The values to write.
        tags: Whether to write the tags; False if the MLflow run was created with its tags.
        artifacts_unavailable: The reason why artifacts cannot be written at present and are therefore skipped; empty if
            they are to be written.

    Returns:
        The parts that could not be written.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    refused = _log(client, run_id, "params", [Param(name, value) for name, value in opening.params.items()])
    if tags:
        refused += _log(client, run_id, "tags", [RunTag(name, value) for name, value in opening.tags.items()])
    inputs = [
        DatasetInput(
            Dataset(used.name, used.digest, source_type="local", source=used.source, profile=used.profile),
            [InputTag(MLFLOW_DATASET_CONTEXT, used.context)],
        )
        for used in opening.data
    ]
    if inputs:
        refused += _attempt_write(client, run_id, "the data used", lambda: client.log_inputs(run_id, inputs))
    missing = artifacts_unavailable if opening.files else ""
    return UnwrittenParts(tuple(refused), missing or write_files(client, run_id, opening.files))


def write_closing(
    client: MlflowClient, run_id: str, closing: Closing, folder: Path | None = None, *, artifacts_unavailable: str = ""
) -> UnwrittenParts:
    """Write a run's final metrics, params, tags and artifacts. The caller must then set the run's status by `end_run`.

    Messages about refused entries are also added to the artifact `NOTES_FILE`.

    Args:
        client: The MLflow client.
        run_id: The id of the MLflow run.
        closing: The values to write.
        folder: The folder of the artifacts; None if there are none.
        artifacts_unavailable: The reason why artifacts cannot be written at present and are therefore skipped; empty if
            they are to be written.

    Returns:
        The parts that could not be written.
    """
    from mlflow.entities import Metric, Param, RunTag

    points = [Metric(name, value, timestamp, step) for name, value, timestamp, step in closing.points]
    refused = _log(client, run_id, "metrics", points)
    refused += _log(client, run_id, "params", [Param(name, value) for name, value in closing.params.items()])
    refused += _log(client, run_id, "tags", [RunTag(name, value) for name, value in closing.tags.items()])
    if folder is None:
        return UnwrittenParts(tuple(refused))
    missing = artifacts_unavailable or write_folder(client, run_id, folder)
    if refused and not missing:
        notes = folder / NOTES_FILE
        before = notes.read_text(encoding="utf-8") if notes.is_file() else ""
        missing = write_files(client, run_id, {NOTES_FILE: before + "\n".join(map(refusal_note, refused)) + "\n"})
    return UnwrittenParts(tuple(refused), missing)


def end_run(client: MlflowClient, run_id: str, closing: Closing) -> None:
    """Set a run's status and end time in the MLflow store."""
    client.set_terminated(run_id, closing.status, closing.ended)


def write_folder(client: MlflowClient, run_id: str, folder: Path, *, into: str | None = None) -> str:
    """Write a folder's files as a run's artifacts.

    Args:
        client: The MLflow client.
        run_id: The id of the MLflow run.
        folder: The folder to copy.
        into: The folder in the run's artifacts into which to write the files; None for the root.

    Returns:
        An empty string if the files were written, or if there are none; otherwise the location that cannot be written
        to, and the reason.

    Raises:
        Exception: The store itself does not answer. The error is the one that MLflow raises.
    """
    if not any(folder.iterdir()):
        return ""
    try:
        client.log_artifacts(run_id, str(folder), into)
    except Exception as error:  # each kind of artifact store has its own library with its own errors
        location = client.get_run(run_id).info.artifact_uri  # raises an error if the store itself does not answer
        return f"{without_credentials(str(location))} ({without_credentials(cause_of(error))})"
    return ""


def write_files(client: MlflowClient, run_id: str, files: Mapping[str, str]) -> str:
    """Write artifacts, given their contents by file name; the result and the errors are those of `write_folder`."""
    if not files:
        return ""
    with ExitStack() as stack:
        folder, _ = write_to_temporary_folder(stack, lambda folder: write_texts(folder, files))
        return write_folder(client, run_id, folder)


def write_texts(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into a folder, given their contents by file name."""
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8", errors="backslashreplace")


def refusal_note(refused: str) -> str:
    """Return a note, for the run's readers, that the MLflow store refused an entry such as a param.

    Args:
        refused: An element of `UnwrittenParts.refused`, with the name of the entry and the reason.
    """
    return f"not recorded, because the tracking store rejects it: {refused}"


def _log(client: MlflowClient, run_id: str, kind: str, entries: Sequence[Any]) -> list[str]:
    """Write metrics, params or tags, and return a message about each that the store refused.

    Args:
        client: The MLflow client.
        run_id: The id of the MLflow run.
        kind: "metrics", "params" or "tags".
        entries: The MLflow entities to write, such as `mlflow.entities.Metric`.
    """
    refused: list[str] = []
    size = PER_BATCH[kind]
    for start in range(0, len(entries), size):
        refused += _log_batch(client, run_id, kind, entries[start : start + size])
    return refused


def _log_batch(client: MlflowClient, run_id: str, kind: str, batch: Sequence[Any]) -> list[str]:
    """Write a batch of metrics, params or tags, and return a message about each that the store refused.

    MLflow refuses a whole batch if one entry is invalid. The batch is then halved repeatedly to find the invalid
    entries.

    Raises:
        MlflowException: The store does not answer, or the run was deleted, or the cause of the refusal is probably not
            an invalid entry. This is assumed if the store refuses every entry of a batch of several, or if it refuses a
            single entry with another error code than INVALID.
    """
    from mlflow.exceptions import MlflowException

    def attempt(part: Sequence[Any]) -> list[str]:
        try:
            client.log_batch(run_id, **{kind: part})
        except MlflowException as error:
            if error.error_code not in REFUSALS or (error.error_code != INVALID and len(part) == len(batch) == 1):
                raise
            if len(part) == len(batch) and not _is_active(client, run_id):
                raise
            if len(part) == 1:
                return [f"{kind[:-1]} {part[0].key!r:.300}: {_reason(error)}"]
            middle = len(part) // 2
            refused = attempt(part[:middle]) + attempt(part[middle:])
            if len(refused) == len(batch):
                raise
            return refused
        return []

    return attempt(batch)


def _attempt_write(client: MlflowClient, run_id: str, description: str, write: Callable[[], object]) -> list[str]:
    from mlflow.exceptions import MlflowException

    try:
        write()
    except MlflowException as error:
        if error.error_code != INVALID or not _is_active(client, run_id):
            raise
        return [f"{description}: {_reason(error)}"]
    return []


def _is_active(client: MlflowClient, run_id: str) -> bool:
    """Return whether a run is active, that is, not deleted. MLflow refuses every write to a deleted run."""
    return bool(client.get_run(run_id).info.lifecycle_stage == "active")


def _reason(error: Exception) -> str:
    return redact(next((line for line in str(error).splitlines() if line.strip()), type(error).__name__))[:500]
