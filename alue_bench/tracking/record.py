"""What is recorded of a run, as values: they can be written to MLflow now, or kept on disk and written later.

Writing one a second time changes nothing: params and tags have the same values, points of a metric the same times,
files the same names.

What a store refuses for good, such as a param that is too long for it, is left out, and said; so are artifacts whose
place cannot be reached while the store itself answers. All the rest is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.measure.best_effort import cause_of
from alue_bench.messages.redaction import redact
from alue_bench.tracking.connection import public
from alue_bench.tracking.scratch import written_aside

if TYPE_CHECKING:
    from mlflow import MlflowClient

PER_BATCH = {"metrics": 1000, "params": 100, "tags": 100}
"""Entries of a kind in one call; MLflow's limits."""
INVALID = "INVALID_PARAMETER_VALUE"
REFUSALS = (INVALID, "BAD_REQUEST", "PERMISSION_DENIED", "RESOURCE_CONFLICT")
"""What MLflow says of what it will not take, today or tomorrow; others must not wait behind it."""
NOTES_FILE = "notes.txt"

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


@dataclass(frozen=True)
class Shortfall:
    """What of a run was not written though the store answers."""

    refused: tuple[str, ...] = ()
    """What the store refuses, and why; a text each."""
    artifacts: str = ""
    """Where the artifacts could not be written, and why; empty where they were, or where there are none."""


NOTHING_MISSING = Shortfall()


def write_opening(
    client: MlflowClient, run_id: str, opening: Opening, *, tags: bool = True, artifacts_away: str = ""
) -> Shortfall:
    """Write an opening to a run that exists. Without `tags` where it was created with them. With `artifacts_away`, why
    the artifacts cannot be written, that is not tried."""
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
        refused += _unless_refused(client, run_id, "the data used", lambda: client.log_inputs(run_id, inputs))
    missing = artifacts_away if opening.files else ""
    return Shortfall(tuple(refused), missing or write_files(client, run_id, opening.files))


def write_closing(
    client: MlflowClient, run_id: str, closing: Closing, folder: Path | None = None, *, artifacts_away: str = ""
) -> Shortfall:
    """Write metrics, tags and artifacts. Only `end`, after it, lets the run count as ended. artifacts_away: as for
    `write_opening`."""
    from mlflow.entities import Metric, RunTag

    points = [Metric(name, value, timestamp, step) for name, value, timestamp, step in closing.points]
    refused = _log(client, run_id, "metrics", points)
    refused += _log(client, run_id, "tags", [RunTag(name, value) for name, value in closing.tags.items()])
    if folder is None:
        return Shortfall(tuple(refused))
    missing = artifacts_away or write_folder(client, run_id, folder)
    if refused and not missing:
        notes = folder / NOTES_FILE
        before = notes.read_text(encoding="utf-8") if notes.is_file() else ""
        missing = write_files(client, run_id, {NOTES_FILE: before + "\n".join(map(said_of_refusal, refused)) + "\n"})
    return Shortfall(tuple(refused), missing)


def end(client: MlflowClient, run_id: str, closing: Closing) -> None:
    """Let a run count as ended."""
    client.set_terminated(run_id, closing.status, closing.ended)


def write_folder(client: MlflowClient, run_id: str, folder: Path, *, into: str | None = None) -> str:
    """Write a folder's files as artifacts, `into` a folder of them where one is given. Returns where they could not be
    written, and why; empty where they were.

    Raises what MLflow raises where the store itself is away.
    """
    if not any(folder.iterdir()):
        return ""
    try:
        client.log_artifacts(run_id, str(folder), into)
    except Exception as error:  # each kind of place has a library, and each library errors of its own
        place = client.get_run(run_id).info.artifact_uri  # does the store answer?
        return f"{public(str(place))} ({public(cause_of(error))})"
    return ""


def write_files(client: MlflowClient, run_id: str, files: Mapping[str, str]) -> str:
    """Write artifacts from their contents; else as `write_folder`."""
    if not files:
        return ""
    with ExitStack() as stack:
        folder, _ = written_aside(stack, lambda folder: write_texts(folder, files))
        return write_folder(client, run_id, folder)


def write_texts(folder: Path, files: Mapping[str, str]) -> None:
    """Write files from their contents."""
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8", errors="backslashreplace")


def said_of_refusal(refused: str) -> str:
    return f"not recorded, since the tracking store refuses it: {refused}"


def _log(client: MlflowClient, run_id: str, kind: str, entries: Sequence[Any]) -> list[str]:
    """Write metrics, params or tags, and return those that the store refuses, with why."""
    refused: list[str] = []
    size = PER_BATCH[kind]
    for start in range(0, len(entries), size):
        refused += _log_batch(client, run_id, kind, entries[start : start + size])
    return refused


def _log_batch(client: MlflowClient, run_id: str, kind: str, batch: Sequence[Any]) -> list[str]:
    """A batch is refused as a whole: halves of it are tried, down to the entries that are to blame.

    Raises what MLflow raises where none of several is taken: then it is not the entries.
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
                return [f"{kind[:-1]} {part[0].key!r:.300}: {_why(error)}"]
            middle = len(part) // 2
            refused = attempt(part[:middle]) + attempt(part[middle:])
            if len(refused) == len(batch):
                raise
            return refused
        return []

    return attempt(batch)


def _unless_refused(client: MlflowClient, run_id: str, what: str, write: Callable[[], object]) -> list[str]:
    from mlflow.exceptions import MlflowException

    try:
        write()
    except MlflowException as error:
        if error.error_code != INVALID or not _is_active(client, run_id):
            raise
        return [f"{what}: {_why(error)}"]
    return []


def _is_active(client: MlflowClient, run_id: str) -> bool:
    """Whether a run was not deleted meanwhile: MLflow refuses everything of one that was."""
    return bool(client.get_run(run_id).info.lifecycle_stage == "active")


def _why(error: Exception) -> str:
    return redact(next((line for line in str(error).splitlines() if line.strip()), type(error).__name__))[:500]
