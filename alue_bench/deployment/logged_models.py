"""Kept models (the saved models of runs) in MLflow: how to log, find, remove, register and download them.

A kept model is a logged model of MLflow 3 with the name `model` and the run as its source: `runs:/RUN_ID/model` and
`models:/MODEL_ID` both load it. The tracking URI is passed to each MLflow client; MLflow's global tracking URI is
neither read nor set.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.formats import excerpt
from alue_bench.messages.display import first_line
from alue_bench.messages.suggestion import command_line
from alue_bench.tracking.claims import INVOCATION
from alue_bench.tracking.connection import Connection, open_client, tracking_uri, where_options, without_credentials

NAME = "model"
"""The name that all kept models have in MLflow; they are distinguished by their runs."""
GROUP, DEV_SCORE, RUN_LABEL = "kept.group", "kept.dev_score", "kept.run"
"""The MLflow tags of a kept model. `kept.group`: a digest of task, training data and pre-trained model; `--keep best`
keeps one model per digest. `kept.dev_score`: the dev score, by which the best model is chosen. `kept.run`: a readable
name of the run."""
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_REGISTERED = re.compile(r"models:/+(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/]+))")
_LOGGED = re.compile(r"models:/+(?P<id>m-[0-9a-f]+)")


@dataclass(frozen=True)
class LoggedModel:
    """A kept model (the saved model of a run) in the MLflow store."""

    model_id: str
    run_id: str
    location: str
    """The URI of the model's folder in the MLflow store."""
    created: int
    """The time of creation in milliseconds since 1970."""
    ready: bool
    """True if the model was written completely."""
    tags: Mapping[str, str]

    @property
    def dev_score(self) -> float:
        """The dev score of the model's run; -inf if the score is undefined."""
        try:
            score = float(self.tags.get(DEV_SCORE, "nan"))
        except ValueError:
            score = math.nan
        return score if math.isfinite(score) else -math.inf


def log_model(connection: Connection, folder: Path, run_id: str, tags: Mapping[str, str]) -> LoggedModel:
    """Log the folder of a kept model in the MLflow store, as a model of its run.

    Args:
        connection: The open MLflow store.
        folder: The folder of the kept model. The ids of its run and of the model are written into its file MLmodel.
        run_id: The id of the run, which must be in the same store.
        tags: The MLflow tags of the model.
    """
    from mlflow.models import Model

    client = connection.client
    params = client.get_run(run_id).data.params
    created = client.create_logged_model(
        connection.experiment_id, NAME, source_run_id=run_id, tags=dict(tags), params=dict(params), model_type="encoder"
    )
    description = Model.load(str(folder))
    description.run_id, description.model_id, description.model_uuid = run_id, created.model_id, created.model_id
    description.artifact_path = created.artifact_location
    description.save(str(folder / "MLmodel"))
    client.log_model_artifacts(created.model_id, str(folder))
    return _read(client.finalize_logged_model(created.model_id, "READY"))


def attach(connection: Connection, model: LoggedModel) -> None:
    """Add a model to the outputs of its run, so that MLflow shows it on the run's page."""
    from mlflow.entities import LoggedModelOutput

    run = connection.client.get_run(model.run_id)
    outputs = run.outputs.model_outputs if run.outputs is not None else []
    if all(output.model_id != model.model_id for output in outputs):
        connection.client.log_outputs(model.run_id, [LoggedModelOutput(model.model_id, step=0)])


def models_of_invocation(connection: Connection, invocation: str) -> list[LoggedModel]:
    """Return the models that one invocation of a command has kept, oldest first, incomplete ones included.

    Args:
        connection: The open MLflow store.
        invocation: The id of the invocation, as in the runs' tag `INVOCATION`.
    """
    return _search(connection, f"tags.{INVOCATION} = '{invocation}'")


def model_of_run(connection: Connection, run_id: str) -> LoggedModel | None:
    """Return the newest complete model of a run; None if there is none."""
    models = [model for model in _search(connection, f"source_run_id = '{run_id}'") if model.ready]
    return models[-1] if models else None


def _search(connection: Connection, where: str) -> list[LoggedModel]:
    models: list[LoggedModel] = []
    token = None
    while True:
        page = connection.client.search_logged_models(
            [connection.experiment_id], f"name = '{NAME}' AND {where}", page_token=token
        )
        models += [_read(one) for one in page]
        token = page.token
        if not token:
            return sorted(models, key=lambda model: (model.created, model.model_id))


def remove(connection: Connection, model: LoggedModel) -> None:
    """Delete a kept model and its files from the MLflow store."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    connection.client.delete_logged_model(model.model_id)
    get_artifact_repository(model.location, tracking_uri=connection.uri).delete_artifacts()


def check_registered_name(name: str) -> None:
    """Raise UsageError if a name is blank or contains a character that is special in model URIs (`/`, `:`, `@`).

    Args:
        name: The value of `--register`.
    """
    if not name.strip() or any(sign in name for sign in "/:@"):
        raise UsageError(f"--register {excerpt(name)}: the name of a registered model has letters, and none of / : @")


def register(connection: Connection, model: LoggedModel, name: str) -> str:
    """Register a model in the model registry as a new version of `name`.

    Returns:
        The URI of the new version, such as "models:/NAME/1".

    Raises:
        UsageError: MLflow does not accept the name.
    """
    from mlflow.exceptions import MlflowException

    client = connection.client
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise UsageError(f"--register {excerpt(name)}: {error.message}") from error
    # MLflow would look up a source of the form models:/ID in its global default store.
    version = client.create_model_version(name, model.location, run_id=model.run_id, model_id=model.model_id)
    return f"models:/{name}/{version.version}"


def check_new(folder: Path) -> None:
    """Raise UsageError if a folder already exists, so that copying a model to it would overwrite files."""
    if folder.exists():
        raise UsageError(f"{folder} exists; name a new folder, so that nothing is overwritten")


def copy_model(source: Path, folder: Path) -> None:
    """Copy the folder of a kept model to a folder that does not exist yet.

    Raises:
        UnavailableError: The new folder cannot be written.
    """
    try:
        shutil.copytree(source, folder)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UnavailableError(f"{folder} cannot be written: {error.strerror}; name another folder") from error


def folder_of(model: str | Path, store: str | None = None) -> Path:
    """Return the folder of a kept model on this machine; a model in a remote store is downloaded.

    Args:
        model: A folder; the id of a run; or `models:/NAME/VERSION`, `models:/NAME@ALIAS` or `models:/MODEL_ID`.
        store: The MLflow store; None for the default one.

    Raises:
        UsageError: There is no such folder, run or model, or no model of the run was saved.
        UnavailableError: The store does not answer.
    """
    text = str(model)
    if text.startswith("models:"):
        return _fetched(_location_of(text, store), store)
    folder = Path(os.path.expanduser(text))  # Path.expanduser raises an error if ~NAME is no user
    if isinstance(model, Path) or folder.is_dir():
        return folder
    if _RUN_ID.fullmatch(text):
        return _fetched(_model_of(text, store).location, store)
    raise UsageError(
        f"{excerpt(text, quote=False, max_length=300)} is no folder, no run's id (32 hexadecimal digits) and no "
        "models:/NAME/VERSION; alue-bench keep RUN_ID DIR writes a folder"
    )


def connection_of_run(run_id: str, store: str | None) -> Connection:
    """Return a connection to the MLflow experiment that contains a run.

    Raises:
        UsageError: There is no such store or run.
        UnavailableError: The store does not answer.
    """
    uri = tracking_uri(store)
    client = open_client(uri)
    with _converted_errors(
        uri, f"there is no run {excerpt(run_id)} in {without_credentials(uri)}; name its store with --tracking-uri"
    ):
        run = client.get_run(run_id)
        experiment = client.get_experiment(run.info.experiment_id)
    return Connection(client, uri, experiment.name, experiment.experiment_id)


def _model_of(run_id: str, store: str | None) -> LoggedModel:
    connection = connection_of_run(run_id, store)
    with _converted_errors(connection.uri, f"the models of run {run_id} cannot be read"):
        model = model_of_run(connection, run_id)
    if model is None:
        where = where_options(connection.uri)
        keep, into = (command_line("keep", run_id, *more, options=where) for more in ((), ("DIR",)))
        raise UsageError(f"run {run_id} kept no model; train it again and keep it with: {keep} (or {into})")
    return model


def _location_of(model_uri: str, store: str | None) -> str:
    uri = tracking_uri(store)
    client = open_client(uri)
    with _converted_errors(
        uri, f"there is no model {excerpt(model_uri)} in {without_credentials(uri)}; name its store with --tracking-uri"
    ):
        if match := _LOGGED.fullmatch(model_uri):
            return _read(client.get_logged_model(match["id"])).location
        match = _REGISTERED.fullmatch(model_uri)
        if match is None:
            raise UsageError(
                f"{excerpt(model_uri)} names no model; write models:/NAME/VERSION, models:/NAME@ALIAS or "
                "models:/MODEL_ID"
            )
        if match["alias"]:
            version = client.get_model_version_by_alias(match["name"], match["alias"])
        else:
            version = client.get_model_version(match["name"], match["version"])
        return str(client.get_model_version_download_uri(version.name, version.version))


def _fetched(location: str, store: str | None) -> Path:
    """Return a kept model's folder on this machine; a remote model is downloaded to a temporary folder.

    Args:
        location: The URI of the model's folder in the MLflow store.
        store: The MLflow store; None for the default one.
    """
    if urlparse(location).scheme in ("file", ""):
        return Path(unquote(urlparse(location).path))
    import tempfile

    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    uri = tracking_uri(store)
    copy = tempfile.mkdtemp(prefix="alue-bench-model-")
    with _converted_errors(uri, f"the files of the model cannot be fetched from {without_credentials(location)}"):
        return Path(get_artifact_repository(location, tracking_uri=uri).download_artifacts("", copy))


@contextmanager
def _converted_errors(uri: str, absent: str) -> Iterator[None]:
    """Convert errors that MLflow raises inside the `with` block to errors of alue-bench.

    Args:
        uri: The MLflow tracking URI.
        absent: The message of the UsageError that is raised if the requested object does not exist. Every other error
            becomes an UnavailableError.
    """
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        if getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise UsageError(absent) from error
        cause = first_line(error)
        raise UnavailableError(
            f"tracking store {without_credentials(uri)} cannot be read: {without_credentials(cause)}"
        ) from error


def _read(model: Any) -> LoggedModel:
    return LoggedModel(
        model_id=str(model.model_id),
        run_id=str(model.source_run_id or ""),
        location=str(model.artifact_location),
        created=int(model.creation_timestamp),
        ready=str(getattr(model.status, "value", model.status)) in ("READY", "LoggedModelStatus.READY"),
        tags=dict(model.tags),
    )
