"""The spool, a folder on this machine that keeps results while the MLflow store is unavailable.

    STORE/ENTRY/record.json     the values to write to MLflow (see record.py), and their checksum
    STORE/ENTRY/files/          the run's artifacts
    STORE/.scratch-*            an entry that is being written, or an incomplete entry of a process that died
    STORE/.lock                 a lock, held while entries are sent to the MLflow store

STORE is a digest of the store's tracking URI and the experiment. An entry holds the record of one run, or only tags for
a recorded run. It is written under a temporary name, flushed to the disk and renamed, so that it exists either
completely or not at all. The entry is removed when the store has accepted it. If a process dies after it has sent an
entry to the store and before it has removed the entry, the entry is sent again. The entry's id is a tag of the MLflow
run, so that the second attempt finds the run that the first attempt has created.

If the store has accepted a result, but its artifact location cannot be reached, the entry holds only the artifacts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from alue_bench.contract.errors import StoreUnavailableError, UnavailableError
from alue_bench.messages.display import first_line
from alue_bench.tracking.claims import INVOCATION
from alue_bench.tracking.record import (
    REFUSALS,
    Closing,
    DataUsed,
    Opening,
    end_run,
    refusal_note,
    write_closing,
    write_folder,
    write_opening,
    write_texts,
)
from alue_bench.tracking.scores_elsewhere import ALSO_TEST, digests_in, has_scores
from alue_bench.tracking.scratch import STATE_VARIABLE, state_folder

if TYPE_CHECKING:
    from alue_bench.tracking.connection import Connection

FORMAT = 2
"""The version of the format of `record.json`."""
SPOOLED = "spool-"
"""The prefix of the ids of runs that could not be created in the MLflow store, because it was unavailable."""
SPOOL_TAG = "spool"
"""The name of the MLflow tag with the id of the spool entry that the run was written from. The spool is a folder of
results that could not be written to the MLflow store at first."""
MISSING_TAG = "artifacts.missing"
"""The name of the MLflow tag of a run whose artifacts could not be written to their location. Its value states the
reason, and the folder in which the artifacts are kept."""
RECORD, FILES, SCRATCH = "record.json", "files", ".scratch-"


def spool_folder() -> Path:
    """Return the folder that contains the spools (folders of results not yet written to MLflow) of all stores."""
    return state_folder() / "spool"


def new_run_id() -> str:
    """Return a new id for a run that could not be created in the MLflow store, because it was unavailable."""
    return f"{SPOOLED}{uuid4().hex}"


@dataclass(frozen=True)
class SpooledRun:
    """An entry of the spool: the result of a run, or only its artifacts, or only tags to add to a recorded run.

    The entry is kept on this machine, because it could not be written to the MLflow store yet.
    """

    id: str
    store: str
    """The MLflow tracking URI, without credentials."""
    experiment: str
    run_id: str | None
    """The id of the MLflow run; None if it could not be created, or if the entry consists of tags (see `tags_for`)."""
    fingerprint: str | None
    """The digest of everything that determines the run's result; None for an MLflow parent run."""
    again: bool
    """True if the run was executed regardless of whether a run with the same fingerprint had finished before, for
    example with --rerun. The result is then sent even if the store has a finished run with this fingerprint."""
    opening: Opening
    closing: Closing
    folder: Path
    """The folder on this machine that holds the entry."""
    artifacts_only: bool = False
    """True if only the artifacts remain to be written to the MLflow store."""
    tags_for: str | None = None
    """The id of a recorded run to which the tags of `closing` are to be added. It is the id of an MLflow run or of an
    entry of the spool. None if the entry itself is a run, and not only tags for another run."""

    @property
    def is_result(self) -> bool:
        """True if the entry is a complete result, and not only artifacts or tags of a recorded run."""
        return not self.artifacts_only and self.tags_for is None

    @property
    def files(self) -> Path:
        """The folder of the run's artifacts."""
        return self.folder / FILES


@dataclass(frozen=True)
class SendResult:
    """The outcome of an attempt to write a locally kept result to the MLflow store."""

    entry: SpooledRun
    outcome: Literal["written", "there already", "refused", "without artifacts"]
    """The outcome. "there already" means that nothing was written, since the MLflow store has a finished run with the
    same fingerprint, or since the run that artifacts or tags belong to was deleted. "without artifacts" means that
    everything except the artifacts was written; the artifacts remain on this machine."""
    reason: str = ""
    """The reason if MLflow refused the result; if the artifacts could not be written, their location and the reason."""
    problems: tuple[str, ...] = ()
    """A sentence for each part of the run that the MLflow store refused while it accepted the rest."""


class Spool:
    """The spool of one MLflow store and experiment: a folder of results that could not be written to the store yet."""

    def __init__(self, store: str, experiment: str, folder: Path | None = None) -> None:
        """Set the folder of the spool. The folder is not created yet.

        Args:
            store: The store's name, as `store_name` returns it.
            experiment: The name of the MLflow experiment.
            folder: The folder that holds the spools of all stores; None for `spool_folder()`.
        """
        self.store, self.experiment = store, experiment
        key = hashlib.sha256(json.dumps([store, experiment]).encode()).hexdigest()[:16]
        self.folder = (folder or spool_folder()) / key

    def add(
        self,
        files: Path,
        *,
        run_id: str,
        fingerprint: str | None,
        again: bool,
        opening: Opening,
        closing: Closing,
        artifacts_only: bool = False,
    ) -> SpooledRun:
        """Add a run to the spool, with the given values and a copy of its artifacts.

        Args:
            files: The folder of the artifacts to copy.
            run_id: The id of the MLflow run; if it could not be created, an id from `new_run_id`.
            fingerprint: The digest of everything that determines the run's result; None for an MLflow parent run.
            again: Whether the run was executed regardless of whether a finished run had the same fingerprint.
            opening: The values that were known before the run began.
            closing: The values that are known at the end of the run.
            artifacts_only: Whether only the artifacts are to be written to the store later, since it has the values
                already.

        Raises:
            StoreUnavailableError: The entry cannot be written to the disk, so that the result would be lost.
        """
        known = None if run_id.startswith(SPOOLED) else run_id
        identifier = new_run_id() if known else run_id
        entry = SpooledRun(
            id=identifier,
            store=self.store,
            experiment=self.experiment,
            run_id=known,
            fingerprint=fingerprint,
            again=again,
            opening=opening,
            closing=closing,
            folder=self.folder / identifier,
            artifacts_only=artifacts_only,
        )
        return self._put(entry, files)

    def add_tags(self, run_id: str, tags: Mapping[str, str], *, fingerprint: str, now: int) -> SpooledRun:
        """Add an entry to the spool that consists of tags, which will be added to a recorded run.

        Args:
            run_id: The id of the run, in the store or in this spool.
            tags: The tags.
            fingerprint: The digest of everything that determines the run's result.
            now: The time in milliseconds since 1970.

        Raises:
            StoreUnavailableError: The entry cannot be written to the disk.
        """
        identifier = new_run_id()
        entry = SpooledRun(
            id=identifier,
            store=self.store,
            experiment=self.experiment,
            run_id=None,
            fingerprint=fingerprint,
            again=False,
            opening=Opening(f"tags of {run_id}", now, {}),
            closing=Closing("FINISHED", now, dict(tags)),
            folder=self.folder / identifier,
            tags_for=run_id,
        )
        return self._put(entry, None)

    def _put(self, entry: SpooledRun, files: Path | None) -> SpooledRun:
        """Write an entry with a copy of its artifacts, if it has any, as one atomic step."""
        target = entry.folder
        scratch: Path | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=self.folder, prefix=SCRATCH))
            if files is not None:
                shutil.copytree(files, scratch / FILES)
            _write_json(scratch / RECORD, _content(entry))
            for path in scratch.rglob("*"):
                _flush(path)
            os.replace(scratch, target)
            _flush(self.folder)
        except OSError as error:
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
            raise StoreUnavailableError(
                "the tracking store does not accept the result of a run, and the result cannot be kept in "
                f"{self.folder} either ({error.strerror or error}); free some space, or choose another folder with "
                f"{STATE_VARIABLE}"
            ) from error
        return _read(target)

    def entries(self) -> list[SpooledRun]:
        """Return all entries of the spool, the oldest first. Unreadable entries are skipped but not removed."""
        read = [entry for path in self._entry_folders() if (entry := _try_read(path)) is not None]
        return sorted(read, key=lambda entry: entry.closing.ended)

    def finished(self, fingerprint: str, *, invocation: str | None = None) -> SpooledRun | None:
        """Return the newest finished run in the spool with this fingerprint; None if there is none.

        A fingerprint is a digest of everything that determines a run's result.

        This method is called before every run. To save time, an entry is parsed only if its text contains the
        fingerprint.

        Args:
            fingerprint: The fingerprint to look for.
            invocation: The id of the invocation (execution of a command) that must have executed the run; None for any.
        """
        mentioned = [path for path in self._entry_folders() if _mentions(path, fingerprint)]
        read = [entry for path in mentioned if (entry := _try_read(path)) is not None]
        matching = [
            entry
            for entry in read
            if entry.fingerprint == fingerprint
            and entry.is_result
            and entry.closing.status == "FINISHED"
            and invocation in (None, entry.opening.tags.get(INVOCATION))
        ]
        return max(matching, key=lambda entry: entry.closing.ended, default=None)

    def send(self, connection: Connection, *, artifacts_unavailable: str = "") -> list[SendResult]:
        """Write all results in the spool to the MLflow store, and remove from the spool what the store has accepted.

        Several processes may call this at the same time.

        Args:
            connection: The open store.
            artifacts_unavailable: The reason why artifacts cannot be written at present; empty if they can. If there is
                a reason, artifacts stay in the spool, and entries with nothing but artifacts are skipped. If the
                artifacts of one entry cannot be written, the artifacts of all later entries stay in the spool too.

        Returns:
            The outcome for each entry that was not skipped.

        Raises:
            Exception: The store stopped answering. The error is the one that MLflow raises. The entries that were
                handled before have been written.
        """
        from mlflow.exceptions import MlflowException

        if not self._entry_folders():
            return []
        sent = []
        with self._locked():
            # Parent runs come first, since other runs refer to them; tags come last, after the runs they belong to.
            entries = sorted(
                self.entries(),
                key=lambda entry: (entry.tags_for is not None, entry.fingerprint is not None, entry.closing.ended),
            )
            for entry in entries:
                if entry.artifacts_only and artifacts_unavailable:
                    continue
                try:
                    result = _send(connection, entry, artifacts_unavailable)
                except MlflowException as error:
                    if error.error_code not in REFUSALS:
                        raise
                    why = first_line(error)
                    sent.append(SendResult(entry, "refused", why))
                    continue
                sent.append(result)
                if result.outcome == "without artifacts":
                    artifacts_unavailable = result.reason
                    continue
                # The folder is renamed first. A process that dies while it removes files then leaves no broken entry.
                gone = entry.folder.with_name(f"{SCRATCH}{entry.id}")
                os.replace(entry.folder, gone)
                shutil.rmtree(gone)
            self._remove_incomplete()
        return sent

    def _entry_folders(self) -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if path.name.startswith(SPOOLED))
        except OSError:
            return []

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        with FileLock(self.folder / ".lock"):
            yield

    def _remove_incomplete(self) -> None:
        """Remove incomplete spool entries that dead processes left and that are more than a day old."""
        import time

        for path in self.folder.glob(f"{SCRATCH}*"):
            try:
                if time.time() - path.stat().st_mtime > 86_400:
                    shutil.rmtree(path)
            except OSError:  # another process has removed it
                continue


def all_spools() -> list[Spool]:
    """Return, for all MLflow stores and experiments, the folders of results that could not be written there yet."""
    spools: dict[tuple[str, str], Spool] = {}
    root = spool_folder()
    for path in sorted(root.glob(f"*/{SPOOLED}*")):
        entry = _try_read(path)
        if entry is not None:
            spools.setdefault((entry.store, entry.experiment), Spool(entry.store, entry.experiment))
    return list(spools.values())


def damaged_entries() -> list[Path]:
    """Return the folders of all results kept on this machine that cannot be read, for all MLflow stores."""
    return [path for path in sorted(spool_folder().glob(f"*/{SPOOLED}*")) if _try_read(path) is None]


def _send(connection: Connection, entry: SpooledRun, artifacts_unavailable: str) -> SendResult:
    client, experiment_id = connection.client, connection.experiment_id
    if entry.tags_for is not None:
        return _send_tags(connection, entry, entry.tags_for)
    run = _mlflow_run_of(connection, entry)
    if entry.artifacts_only:
        return _send_artifacts(connection, entry, run)
    if run is not None and run.info.status == "FINISHED":
        return SendResult(entry, "there already")
    if entry.fingerprint and entry.closing.status == "FINISHED" and not entry.again:
        scored = digests_in(entry.opening.tags.get(ALSO_TEST))
        # Another process may have executed the run, with the same result, while the store was unreachable.
        if any(has_scores(one.data.tags, scored) for one in _finished(connection, entry.fingerprint)):
            if run is not None and run.info.status == "RUNNING":
                client.set_terminated(run.info.run_id, "KILLED")
            return SendResult(entry, "there already")
    tags = {**entry.opening.tags, SPOOL_TAG: entry.id}
    parent = tags.get("mlflow.parentRunId", "")
    if parent.startswith(SPOOLED):
        real = _by_spool_id(connection, parent)
        if real is None:
            del tags["mlflow.parentRunId"]
        else:
            tags["mlflow.parentRunId"] = real.info.run_id
    opening = replace(entry.opening, tags=tags)
    if run is None:
        run = client.create_run(experiment_id, start_time=opening.started, tags=tags, run_name=opening.name)
    run_id = str(run.info.run_id)
    opened = write_opening(client, run_id, opening, artifacts_unavailable=artifacts_unavailable)
    closed = write_closing(
        client, run_id, entry.closing, entry.files, artifacts_unavailable=artifacts_unavailable or opened.artifacts
    )
    missing = opened.artifacts or closed.artifacts
    if missing:  # before the run ends: if the process dies here, the artifacts are still written later
        _mark_artifacts_only(entry, run_id)
        client.set_tag(run_id, MISSING_TAG, missing_artifacts_note(missing, entry.folder))
    end_run(client, run_id, entry.closing)
    problems = tuple(map(refusal_note, (*opened.refused, *closed.refused)))
    return SendResult(entry, "without artifacts" if missing else "written", missing, problems)


def _mark_artifacts_only(entry: SpooledRun, run_id: str) -> None:
    """Mark a spool entry whose values are now in the MLflow store: only its artifacts remain to be written.

    Args:
        entry: The entry. The small artifacts that were known before the run began are added to its other artifacts.
        run_id: The id of the MLflow run that has the values.
    """
    write_texts(entry.files, entry.opening.files)
    aside = entry.folder / f"{RECORD}.new"
    _write_json(aside, _content(replace(entry, run_id=run_id, artifacts_only=True)))
    _flush(aside)
    os.replace(aside, entry.folder / RECORD)


def _send_artifacts(connection: Connection, entry: SpooledRun, run: Any | None) -> SendResult:
    if run is None:  # the run was deleted
        return SendResult(entry, "there already")
    missing = write_folder(connection.client, run.info.run_id, entry.files)
    if missing:
        return SendResult(entry, "without artifacts", missing)
    if run.info.status != entry.closing.status:  # the store stopped answering just before the run was closed
        end_run(connection.client, run.info.run_id, entry.closing)
    if MISSING_TAG in run.data.tags:
        connection.client.delete_tag(run.info.run_id, MISSING_TAG)
    return SendResult(entry, "written")


def _send_tags(connection: Connection, entry: SpooledRun, run_id: str) -> SendResult:
    """Add the tags of a spool entry to a run.

    Args:
        connection: The open store.
        entry: The entry, which consists of tags.
        run_id: The id of the run, in the store or in the spool. If this run does not exist or was deleted, the tags are
            added to the newest finished run with the same fingerprint.
    """
    from mlflow.exceptions import MlflowException

    client = connection.client
    try:
        run = _by_spool_id(connection, run_id) if run_id.startswith(SPOOLED) else client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        run = None
    if run is None or run.info.lifecycle_stage != "active":
        run = next(iter(_finished(connection, entry.fingerprint or "")), None)
    if run is None:  # the run was deleted
        return SendResult(entry, "there already")
    for name, value in entry.closing.tags.items():
        parent = _by_spool_id(connection, value) if value.startswith(SPOOLED) else None
        client.set_tag(run.info.run_id, name, parent.info.run_id if parent else value)
    return SendResult(entry, "written")


def _finished(connection: Connection, fingerprint: str) -> Any:
    """Return the finished MLflow runs with this fingerprint, the newest first."""
    return connection.client.search_runs(
        [connection.experiment_id],
        f"attributes.status = 'FINISHED' and tags.fingerprint = '{fingerprint}'",
    )


def missing_artifacts_note(missing: str, folder: Path) -> str:
    """Return a note, for a run's readers, on why its artifacts are missing and where they are kept.

    Args:
        missing: The location to which the artifacts could not be written, and the reason.
        folder: The folder on this machine in which the artifacts are kept.
    """
    return f"could not be written to {missing}; kept on {socket.gethostname()} in {folder}"


def _mlflow_run_of(connection: Connection, entry: SpooledRun) -> Any | None:
    """Return the MLflow run that belongs to a spool entry; None if the store has no such run.

    The MLflow run exists if it was created before the store stopped answering, or by an interrupted attempt to write
    the entry to the store.
    """
    from mlflow.exceptions import MlflowException

    if entry.run_id is None:
        return _by_spool_id(connection, entry.id)
    try:
        run = connection.client.get_run(entry.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return _by_spool_id(connection, entry.id)  # the store was lost and created again
    return run if run.info.lifecycle_stage == "active" else _by_spool_id(connection, entry.id)


def _by_spool_id(connection: Connection, identifier: str) -> Any | None:
    runs = connection.client.search_runs(
        [connection.experiment_id], f"tags.{SPOOL_TAG} = '{identifier}'", max_results=1
    )
    return runs[0] if runs else None


def _content(entry: SpooledRun) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "id": entry.id,
        "store": entry.store,
        "experiment": entry.experiment,
        "run_id": entry.run_id,
        "fingerprint": entry.fingerprint,
        "again": entry.again,
        "opening": asdict(entry.opening),
        "closing": asdict(entry.closing),
        "artifacts_only": entry.artifacts_only,
        **({"tags_for": entry.tags_for} if entry.tags_for is not None else {}),
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False)
    digest = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(f"{digest}\n{text}\n", encoding="utf-8")


def _mentions(folder: Path, fingerprint: str) -> bool:
    try:
        return fingerprint.encode() in (folder / RECORD).read_bytes()
    except OSError:
        return False


def _try_read(folder: Path) -> SpooledRun | None:
    try:
        return _read(folder)
    except UnavailableError:
        return None


def _read(folder: Path) -> SpooledRun:
    """Read a spool entry from its folder.

    Raises:
        UnavailableError: The files are missing, damaged or of another format.
    """
    try:
        digest, text, *_ = (folder / RECORD).read_text(encoding="utf-8").split("\n", 2)
        if hashlib.sha256(text.encode()).hexdigest() != digest:
            raise ValueError("its checksum does not match")
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}")
        opening, closing = content["opening"], content["closing"]
        return SpooledRun(
            id=content["id"],
            store=content["store"],
            experiment=content["experiment"],
            run_id=content["run_id"],
            fingerprint=content["fingerprint"],
            again=content["again"],
            opening=Opening(**{**opening, "data": tuple(DataUsed(**used) for used in opening["data"])}),
            closing=Closing(**{**closing, "points": tuple(tuple(point) for point in closing["points"])}),
            folder=folder,
            artifacts_only=content["artifacts_only"],
            tags_for=content.get("tags_for"),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnavailableError(f"{folder} is not a kept result: {error}") from error


def _flush(path: Path) -> None:
    """Flush a file or folder to the disk, so that it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
