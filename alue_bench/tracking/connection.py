"""The connection to an MLflow store: which store is used, and how it is created and opened."""

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
from alue_bench.contract.formats import excerpt
from alue_bench.messages.display import first_line
from alue_bench.messages.extras import command_for_module
from alue_bench.messages.redaction import redact
from alue_bench.messages.suggestion import command_line
from alue_bench.tracking.retry import retrying_client

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRACKING_URI_VARIABLE = "MLFLOW_TRACKING_URI"
SERVER_TIMEOUT_S = 5.0
"""The seconds within which a server or database must answer when the MLflow store is opened."""
BUSY_TIMEOUT_S = 20
"""The seconds that sqlite waits while another process writes to the database."""
DEFAULT_FOLDER = "mlruns"
DEFAULT_EXPERIMENT = "alue-bench"
DRIVERS = {"psycopg2": "pip install psycopg2-binary", "MySQLdb": "pip install mysqlclient"}
"""The command that installs a database driver, by the driver's Python module; only for drivers whose package and module
have different names."""
LONGEST_PATH = 4096
"""The largest number of characters of an MLflow tracking URI that a message shows. It is the greatest length of a path
on Linux, so paths in messages are complete and can be copied."""
# Without this tag, MLflow's UI opens an experiment on its pages for language-model traces.
EXPERIMENT_KIND = {"mlflow.experimentKind": "custom_model_development"}


@dataclass(frozen=True)
class Connection:
    """An open MLflow store, with the experiment that is read or written."""

    client: MlflowClient
    uri: str
    experiment: str
    experiment_id: str


def tracking_uri(option: str | None) -> str:
    """Return the MLflow tracking URI: from the option, else from MLFLOW_TRACKING_URI, else the default.

    The default is the sqlite file `mlruns/mlflow.db` below the working folder.

    Args:
        option: The value of --tracking-uri; None or empty if it was not given.
    """
    given = option or os.environ.get(TRACKING_URI_VARIABLE)
    return given or sqlite_uri(Path.cwd() / DEFAULT_FOLDER / "mlflow.db")


def where_options(uri: str, experiment: str = DEFAULT_EXPERIMENT) -> dict[str, object]:
    """Return the options --experiment and --tracking-uri that select an MLflow store and experiment, by option name.

    The value of an option is None if its default already selects this store or experiment.
    """
    return {
        "experiment": None if experiment == DEFAULT_EXPERIMENT else experiment,
        "tracking_uri": None if uri == tracking_uri(None) else uri,
    }


def connect(uri: str, experiment: str) -> Connection:
    """Open an MLflow store, and create the store and the experiment if they do not exist yet.

    Args:
        uri: The MLflow tracking URI, as returned by `tracking_uri`.
        experiment: The name of the MLflow experiment.

    Raises:
        UnavailableError: A server or database does not answer or refuses access, a database driver is missing, or a
            folder cannot be written. This error is raised within seconds.
        UsageError: The URI is of a kind that cannot be used, the experiment's name is empty, or the experiment was
            deleted.
    """
    if not experiment.strip():
        raise UsageError("--experiment is empty; give it a name")
    _silence_mlflow()
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
        return _open(uri, experiment, artifacts=None)
    if uri.startswith("sqlite:"):
        database = sqlite_path(uri)
        folder = _writable(database.parent)
        from filelock import FileLock

        # If two processes create the same store at the same time, each breaks the other's migration.
        artifacts = (folder / "artifacts").resolve().as_uri()
        with FileLock(folder / ".mlflow.lock"):
            if not database.exists():
                _create_database(database, artifacts)
            else:
                _check_database(uri)
            return _open(uri, experiment, artifacts=artifacts)
    _check_kind(uri)
    _check_database(uri)
    return _open(uri, experiment, artifacts=None)


def _check_kind(uri: str) -> None:
    if not re.match(r"sqlite:|(postgresql|mysql|mssql)(\+\w+)?://", uri):
        name = TRACKING_URI_VARIABLE if uri == os.environ.get(TRACKING_URI_VARIABLE) else "--tracking-uri"
        raise UsageError(
            f"{name} '{without_credentials(uri)}': MLflow keeps runs in a database or on a server; use "
            "sqlite:///path/to/mlflow.db or http://host:port"
        )


def _check_database(uri: str) -> None:
    """Check that a database can be reached. Without this check, MLflow would retry for minutes.

    Raises:
        UnavailableError: The database cannot be reached, or its driver is missing.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    has_timeout = re.match(r"(postgresql|mysql)(\+(psycopg2?|pymysql|mysqldb))?://", uri)
    options = {"connect_timeout": int(SERVER_TIMEOUT_S)} if has_timeout else {}
    try:
        engine = create_engine(mlflow_uri(uri), connect_args=options)
        with engine.connect():
            pass
        engine.dispose()
    except ModuleNotFoundError as error:
        driver = DRIVERS.get(str(error.name), command_for_module(str(error.name)))
        raise UnavailableError(
            f"tracking store {without_credentials(uri)} needs the driver {error.name!r} of its database; install it "
            f"with: {driver}"
        ) from error
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = without_credentials(first_line(error))
        raise UnavailableError(f"tracking store {without_credentials(uri)} cannot be used: {reason}") from error


def open_store(uri: str, experiment: str) -> Connection:
    """Open an existing MLflow store to read an existing experiment; create nothing.

    Args:
        uri: The MLflow tracking URI, as returned by `tracking_uri`.
        experiment: The name of the MLflow experiment.

    Raises:
        UsageError: The store or the experiment does not exist (the message lists the existing experiments), the
            experiment was deleted, or the URI is of a kind that cannot be used.
        UnavailableError: A server or database does not answer.
    """
    _check_store(uri, experiment)
    return _open(uri, experiment, artifacts=None, create=False)


def open_client(uri: str) -> MlflowClient:
    """Return a client for an existing MLflow store, to read runs or models of any experiment.

    Args:
        uri: The MLflow tracking URI, as returned by `tracking_uri`.

    Raises:
        UsageError: The store does not exist, or the URI is of a kind that cannot be used.
        UnavailableError: A server or database does not answer.
    """
    _check_store(uri, DEFAULT_EXPERIMENT)
    from mlflow import MlflowClient

    return retrying_client(MlflowClient(tracking_uri=mlflow_uri(uri)))


def _check_store(uri: str, experiment: str) -> None:
    """Check that an MLflow store exists and can be reached.

    Args:
        uri: The MLflow tracking URI.
        experiment: The name of the experiment, for a command in the error message only.

    Raises:
        UsageError: The store does not exist, or the URI is of a kind that cannot be used.
        UnavailableError: The store cannot be reached.
    """
    _silence_mlflow()
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    elif uri.startswith("sqlite:") and not sqlite_path(uri).is_file():
        run = command_line("run", options=where_options(uri, experiment))
        raise UsageError(f"there is no store at {without_credentials(uri)} yet; {run} creates one")
    else:
        _check_kind(uri)
        _check_database(uri)


def store_name(uri: str) -> str:
    """Return a name for an MLflow store that is the same for all spellings of its URI, and has no credentials."""
    if uri.startswith("sqlite:"):
        return sqlite_uri(sqlite_path(uri).resolve())
    return redact(uri).rstrip("/")


def sqlite_uri(path: Path) -> str:
    """Return the MLflow tracking URI of a sqlite file.

    `%` and `?` in the path are percent-encoded if the installed SQLAlchemy decodes them.

    Raises:
        UsageError: The installed version of SQLAlchemy cannot open this path, however the URI is written.
    """
    plain = f"sqlite:///{path}"
    if not {"%", "?"} & set(plain):
        return plain
    escaped = f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"
    for uri in (escaped, plain):  # SQLAlchemy before 2.1 does not unescape a path
        if _database(uri) == str(path):
            return uri
    raise UsageError(
        f"a store cannot be created at {path}: the installed SQLAlchemy misreads % and ? in paths; work in a folder "
        "without them, or choose another store with --tracking-uri"
    )


def sqlite_path(uri: str) -> Path:
    """Return the path of the file that a sqlite URI refers to.

    Such a URI has three slashes before a relative path and four slashes before an absolute path.

    Raises:
        UsageError: The URI contains no path, or its path is a folder.
    """
    database = _database(uri)
    if not database:
        raise UsageError(
            f"--tracking-uri '{without_credentials(uri)}' names no file; write it as sqlite:///path/to/mlflow.db"
        )
    if Path(database).is_dir():
        raise UsageError(
            f"--tracking-uri '{without_credentials(uri)}' names a folder; write it as sqlite:///path/to/mlflow.db"
        )
    return Path(database)


def _database(uri: str) -> str | None:
    """Return the path that SQLAlchemy reads from a sqlite URI; None if SQLAlchemy cannot parse the URI."""
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
        client = retrying_client(MlflowClient(tracking_uri=mlflow_uri(uri)))
        existing = client.get_experiment_by_name(experiment)
        if existing is None and not create:
            names = ", ".join(sorted(f"'{one.name}'" for one in client.search_experiments()))
            raise UsageError(f"there is no experiment '{experiment}' in {without_credentials(uri)}; there are {names}")
        if existing is None:
            experiment_id = _create_experiment(client, experiment, artifacts)
        elif existing.lifecycle_stage != "active":
            raise UsageError(
                f"experiment '{experiment}' was deleted in {without_credentials(uri)}; restore it in MLflow or choose "
                "another --experiment"
            )
        else:
            experiment_id = existing.experiment_id
    except (MlflowException, SQLAlchemyError, OSError, ImportError, ValueError) as error:
        cause = without_credentials(first_line(error))
        raise UnavailableError(f"tracking store {without_credentials(uri)} cannot be used: {cause}") from error
    return Connection(client, uri, experiment, str(experiment_id))


def _create_database(database: Path, artifacts: str) -> None:
    """Create MLflow's sqlite database under a temporary name, and rename it when it is complete.

    MLflow creates a database in about fifty steps, and cannot use a database whose creation was interrupted.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # The temporary name contains a digest of the file's name, which may already have the greatest permitted length.
    ending = f"-{hashlib.sha256(os.fsencode(database.name)).hexdigest()[:10]}.db"
    for remnant in database.parent.glob(f".new-*{ending}*"):
        remnant.unlink(missing_ok=True)
    aside = database.with_name(f".new-{uuid4().hex}{ending}")
    try:
        # MLflow's client is not used: it would create the default experiment by SQL that contains the name of the
        # working folder, and that fails for some names.
        SqlAlchemyStore(mlflow_uri(sqlite_uri(aside)), artifacts)._dispose_engine()
        os.replace(aside, database)
    except Exception:  # the same error occurs again, and is reported, when the store is opened under its final name
        aside.unlink(missing_ok=True)


def _create_experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """Create an MLflow experiment, unless another process has just created it, and return its id."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.create_experiment(name, artifact_location=artifacts, tags=EXPERIMENT_KIND))
    except MlflowException:
        existing = client.get_experiment_by_name(name)
        if existing is None:
            raise
        return str(existing.experiment_id)


def mlflow_uri(uri: str) -> str:
    """Return a tracking URI in the form that MLflow needs.

    Only sqlite URIs are changed. A timeout parameter is added, so that sqlite waits longer than its default of five
    seconds while another process writes. If the path contains an escape such as `%3F`, the URI also gets the name of
    the driver: it then begins with `sqlite+pysqlite:///`. If it began with `sqlite:///`, MLflow would create a folder
    whose name contains the escape.
    """
    if not uri.startswith("sqlite:"):
        return uri
    file, mark, query = uri.partition("?")
    if "timeout=" not in query:
        mark, query = "?", f"{query}{'&' if query else ''}timeout={BUSY_TIMEOUT_S}"
    if "%" in file:
        file = f"sqlite+pysqlite:{file.removeprefix('sqlite:')}"
    return f"{file}{mark}{query}"


def _check_server(uri: str) -> None:
    # If a server does not answer, MLflow retries for minutes. This request finds out first whether it answers.
    try:
        with urllib.request.urlopen(_version_request(uri), timeout=SERVER_TIMEOUT_S):
            pass
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise UnavailableError(
                f"tracking server {without_credentials(uri)} refuses access ({error.code}); set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            ) from error
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = without_credentials(str(getattr(error, "reason", error)))
        raise UnavailableError(
            f"tracking server {without_credentials(uri)} does not answer ({reason}); start it, or "
            f"{_advice_to_change_store(uri)}"
        ) from error
    # If the server stops answering later, MLflow retries for about 15 seconds; then the plan continues without it.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")


def _advice_to_change_store(uri: str) -> str:
    """Return advice, for error messages, on how to use another MLflow store.

    The advice is to unset the environment variable MLFLOW_TRACKING_URI, or to leave out the option --tracking-uri.
    """
    return (
        f"unset {TRACKING_URI_VARIABLE}" if uri == os.environ.get(TRACKING_URI_VARIABLE) else "leave out --tracking-uri"
    )


def _version_request(uri: str) -> urllib.request.Request:
    """Return an HTTP request for an MLflow server's version. Credentials in the URI are sent as a header."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(urlunsplit((parts.scheme, host, parts.path.rstrip("/") + "/version", "", "")))
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
    return request


def without_credentials(text: str) -> str:
    """Return a text on one line, of at most LONGEST_PATH characters, without the credentials in its tracking URIs."""
    return excerpt(redact(text), quote=False, max_length=LONGEST_PATH)


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


def _silence_mlflow() -> None:
    """Switch off MLflow's telemetry, its tips on stdout and its log messages about schema migrations."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # read when mlflow is imported
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is for --json
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # logs a traceback with each error it raises
