"""Which MLflow store, and opening it: created once, before anything fans out."""

from __future__ import annotations

import base64
import hashlib
import http.client
import logging
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import uuid4

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.formats import shown
from alue_bench.messages.extras import command_for_module
from alue_bench.messages.redaction import redact
from alue_bench.messages.suggestion import command_line
from alue_bench.tracking.retry import patient

if TYPE_CHECKING:
    from mlflow import MlflowClient

VARIABLE = "MLFLOW_TRACKING_URI"
SERVER_TIMEOUT_S = 5.0
BUSY_TIMEOUT_S = 20
DEFAULT_FOLDER = "mlruns"
DEFAULT_EXPERIMENT = "alue-bench"
DRIVERS = {"psycopg2": "pip install psycopg2-binary", "MySQLdb": "pip install mysqlclient"}
"""What installs the drivers of databases whose packages have other names than their modules."""
LONGEST_PATH = 4096
"""Characters of an address that are shown: as many as a path may have, for what is cut cannot be copied."""
# Without it MLflow's UI opens an experiment on its pages for language-model traces.
EXPERIMENT_KIND = {"mlflow.experimentKind": "custom_model_development"}


@dataclass(frozen=True)
class Connection:
    """An open store and the experiment in it."""

    client: MlflowClient
    uri: str
    experiment: str
    experiment_id: str


def tracking_uri(option: str | None) -> str:
    """The option, else the environment variable, else a sqlite store below the working folder."""
    given = option or os.environ.get(VARIABLE)
    return given or sqlite_uri(Path.cwd() / DEFAULT_FOLDER / "mlflow.db")


def where_options(uri: str, experiment: str = DEFAULT_EXPERIMENT) -> dict[str, object]:
    """Return the options that lead a command to this store and experiment, without those that it needs not."""
    return {
        "experiment": None if experiment == DEFAULT_EXPERIMENT else experiment,
        "tracking_uri": None if uri == tracking_uri(None) else uri,
    }


def connect(uri: str, experiment: str) -> Connection:
    """Open the store, creating it and the experiment where they are not there yet.

    Raises UnavailableError, within seconds, where a server does not answer or a folder may not be written, and
    UsageError where the URI is of a kind that cannot be used.
    """
    if not experiment.strip():
        raise UsageError("--experiment is empty; give it a name")
    _quiet()
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
        return _open(uri, experiment, artifacts=None)
    if uri.startswith("sqlite:"):
        database = sqlite_path(uri)
        folder = _writable(database.parent)
        from filelock import FileLock

        # Two processes that create one store at once break each other's migration.
        artifacts = (folder / "artifacts").resolve().as_uri()
        with FileLock(folder / ".mlflow.lock"):
            if not database.exists():
                _create_database(database, artifacts)
            return _open(uri, experiment, artifacts=artifacts)
    _check_kind(uri)
    _check_database(uri)
    return _open(uri, experiment, artifacts=None)


def _check_kind(uri: str) -> None:
    if not re.match(r"sqlite:|(postgresql|mysql|mssql)(\+\w+)?://", uri):
        said = VARIABLE if uri == os.environ.get(VARIABLE) else "--tracking-uri"
        raise UsageError(
            f"{said} '{public(uri)}': MLflow keeps runs in a database or behind a server; "
            "use sqlite:///path/to/mlflow.db or http://host:port"
        )


def _check_database(uri: str) -> None:
    """Raises UnavailableError where a database cannot be reached: MLflow would try for minutes."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    waits = re.match(r"(postgresql|mysql)(\+(psycopg2?|pymysql|mysqldb))?://", uri)
    try:
        engine = create_engine(uri, connect_args={"connect_timeout": int(SERVER_TIMEOUT_S)} if waits else {})
        with engine.connect():
            pass
        engine.dispose()
    except ModuleNotFoundError as error:
        driver = DRIVERS.get(str(error.name), command_for_module(str(error.name)))
        raise UnavailableError(
            f"tracking store {public(uri)} needs the driver {error.name!r} of its database; install it with: {driver}"
        ) from error
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = public(next(iter(str(error).splitlines()), type(error).__name__))
        raise UnavailableError(f"tracking store {public(uri)} cannot be used: {reason}") from error


def open_store(uri: str, experiment: str) -> Connection:
    """Open a store that is there, to read an experiment that is there; creates neither.

    Raises UsageError, naming the experiments there are, where one of them is missing; else as `connect`.
    """
    _quiet()
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    elif uri.startswith("sqlite:") and not sqlite_path(uri).is_file():
        run = command_line("run", options=where_options(uri, experiment))
        raise UsageError(f"there is no store at {public(uri)} yet; {run} creates one")
    elif not uri.startswith("sqlite:"):
        _check_kind(uri)
        _check_database(uri)
    return _open(uri, experiment, artifacts=None, create=False)


def store_name(uri: str) -> str:
    """The same for every way to write a store's address, and without credentials."""
    if uri.startswith("sqlite:"):
        return sqlite_uri(sqlite_path(uri).resolve())
    return redact(uri).rstrip("/")


def sqlite_uri(path: Path) -> str:
    """Return the address of a sqlite file; signs of its path that mean something in an address are escaped.

    Raises UsageError where no address says this path to the installed SQLAlchemy.
    """
    plain = f"sqlite:///{path}"
    if not {"%", "?"} & set(plain):
        return plain
    escaped = f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"
    for uri in (escaped, plain):  # before 2.1 SQLAlchemy takes a path as it stands
        if _database(uri) == str(path):
            return uri
    raise UsageError(
        f"a store cannot lie at {path}: the installed SQLAlchemy reads its % or ? otherwise; work in a folder without "
        "them, or name another store with --tracking-uri"
    )


def sqlite_path(uri: str) -> Path:
    """The file of a sqlite URI: three slashes before a relative path, four before an absolute one."""
    database = _database(uri)
    if not database:
        raise UsageError(f"--tracking-uri '{public(uri)}' names no file; write it as sqlite:///path/to/mlflow.db")
    return Path(database)


def _database(uri: str) -> str | None:
    """The path in a sqlite URI, as SQLAlchemy reads it."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(uri).database
    except (ArgumentError, ValueError):
        return None


def _open(uri: str, experiment: str, artifacts: str | None, *, create: bool = True) -> Connection:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        client = patient(MlflowClient(tracking_uri=mlflow_uri(uri)))
        found = client.get_experiment_by_name(experiment)
        if found is None and not create:
            there = ", ".join(sorted(f"'{one.name}'" for one in client.search_experiments()))
            raise UsageError(f"there is no experiment '{experiment}' in {public(uri)}; there are {there}")
        if found is None:
            experiment_id = _create_experiment(client, experiment, artifacts)
        elif found.lifecycle_stage != "active":
            raise UsageError(
                f"experiment '{experiment}' was deleted in {public(uri)}; restore it in MLflow or choose another "
                "--experiment"
            )
        else:
            experiment_id = found.experiment_id
    except (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError) as error:
        first_line = public(next(iter(str(error).splitlines()), type(error).__name__))
        raise UnavailableError(f"tracking store {public(uri)} cannot be used: {first_line}") from error
    return Connection(client, uri, experiment, str(experiment_id))


def _create_database(database: Path, artifacts: str) -> None:
    """Made aside and moved to its place whole: MLflow makes a database in some fifty steps, and does not go on from one
    that a process left half made when it died."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # Named by a digest: the name of the file itself may be as long as names may be.
    ending = f"-{hashlib.sha256(os.fsencode(database.name)).hexdigest()[:10]}.db"
    for left in database.parent.glob(f".new-*{ending}*"):
        left.unlink(missing_ok=True)
    aside = database.with_name(f".new-{uuid4().hex}{ending}")
    try:
        # Not through a client, which makes MLflow's default experiment with the working folder's name in its SQL.
        SqlAlchemyStore(mlflow_uri(sqlite_uri(aside)), artifacts)._dispose_engine()
        os.replace(aside, database)
    except Exception:  # what is wrong shows again, and is told, where the store is opened in its place
        aside.unlink(missing_ok=True)


def _create_experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """Of processes that want to create it at once, one does."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(name, artifact_location=artifacts, tags=EXPERIMENT_KIND))
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def mlflow_uri(uri: str) -> str:
    """Return a store's address as MLflow is to get it.

    With sqlite's own waiting for another process that writes; five seconds otherwise. And with the driver's name where
    the address holds an escaped sign: of addresses that begin with `sqlite:///` MLflow makes the folder that stands
    there, escapes and all.
    """
    if not uri.startswith("sqlite:"):
        return uri
    address, mark, query = uri.partition("?")
    if "timeout=" not in query:
        mark, query = "?", f"{query}{'&' if query else ''}timeout={BUSY_TIMEOUT_S}"
    if "%" in address:
        address = f"sqlite+pysqlite:{address.removeprefix('sqlite:')}"
    return f"{address}{mark}{query}"


def _check_server(uri: str) -> None:
    # MLflow itself would try for minutes; we ask once, and let it be patient only with a server that was there.
    try:
        with urllib.request.urlopen(_version_request(uri), timeout=SERVER_TIMEOUT_S):
            pass
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise UnavailableError(
                f"tracking server {public(uri)} refuses access ({error.code}); set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            ) from error
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = public(str(getattr(error, "reason", error)))
        raise UnavailableError(
            f"tracking server {public(uri)} does not answer ({reason}); start it, or {_another(uri)}"
        ) from error
    # Some fifteen seconds for a server that is away: then the plan goes on without it.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")


def _another(uri: str) -> str:
    """What leads a command away from this store: the variable, where that is what led it there."""
    return f"unset {VARIABLE}" if uri == os.environ.get(VARIABLE) else "leave out --tracking-uri"


def _version_request(uri: str) -> urllib.request.Request:
    """What to ask a server; a user in the address becomes a header, as MLflow's own client does it."""
    address = urlsplit(uri)
    place = address.netloc.rpartition("@")[2]
    request = urllib.request.Request(urlunsplit((address.scheme, place, address.path.rstrip("/") + "/version", "", "")))
    if address.username is not None:
        pair = f"{unquote(address.username)}:{unquote(address.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    return request


def public(text: str) -> str:
    """An address, or what is said of it, for people: without credentials, and on one line."""
    return shown(redact(text), quote=False, most=LONGEST_PATH)


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(
            f"tracking folder {folder} cannot be created ({error.strerror}); choose another with --tracking-uri"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UnavailableError(f"tracking folder {folder} is not writable; choose another with --tracking-uri")
    return folder


def _quiet() -> None:
    """Schema migrations and tips are MLflow's business, not the user's; what the user does is not MLflow's."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # read when mlflow is imported
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is for --json
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback beside each error it raises
