"""The runs of an MLflow experiment as they are stored: params, tags, metrics and the digests of the data sets.

A whole experiment in a database is read by five SQL queries on the tables that MLflow declares. MLflow's own search
makes an object of each param, tag and metric, about a hundred for a run, and takes five times as long. Runs on a
server, and runs that are selected by a filter, are read by MLflow's search. Both return the same runs in the same order
(tests/test_stored_runs.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UnavailableError
from alue_bench.messages.display import first_line
from alue_bench.tracking.connection import Connection, mlflow_uri
from alue_bench.tracking.retry import patiently

if TYPE_CHECKING:
    from sqlalchemy import Connection as Database
    from sqlalchemy import Select

PAGE = 1000
"""The number of runs in one page of MLflow's answer to a query."""
IDS = 100
"""The most run ids in one query. (The text of a query grows with each id.)"""
ROWS = 10_000
"""The number of rows that are fetched from a database at once."""
NAME = "mlflow.runName"
"""The tag with a run's name, which very old versions of MLflow keep nowhere else."""
CONTEXT = "mlflow.data.context"
"""The tag of a data set that says what the run used it for, such as "training"."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as it is stored in MLflow."""

    run_id: str
    run_name: str | None
    status: str
    start_time: int | None
    """Milliseconds since 1970, as `end_time`."""
    end_time: int | None
    artifact_uri: str | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    """The newest value of each metric, nan included."""
    digests: Mapping[str, str]
    """The digest of each data set, by what the run used it for, such as "training"."""


def all_runs(connection: Connection) -> list[StoredRun]:
    """Return all runs of an experiment that are not deleted, oldest first.

    Args:
        connection: The open store.

    Raises:
        UnavailableError: The store does not answer.
    """
    with store_told(connection), _no_collection():
        if connection.uri.startswith(("http://", "https://")):
            return list(_found(connection, ""))
        runs: list[StoredRun] = patiently(_queried)(connection)
        return runs


def runs_with_ids(connection: Connection, run_ids: Sequence[str]) -> list[StoredRun]:
    """Return the runs with the given ids, as `all_runs` does."""
    parts = [run_ids[at : at + IDS] for at in range(0, len(run_ids), IDS)]
    with store_told(connection), _no_collection():
        return [run for part in parts for run in _found(connection, _one_of(part))]


def runs_that_match(connection: Connection, filter_string: str) -> list[StoredRun]:
    """Return the runs that match a filter of MLflow's search, as `all_runs` does."""
    with store_told(connection), _no_collection():
        return list(_found(connection, filter_string))


@contextmanager
def store_told(connection: Connection) -> Iterator[None]:
    """Raise UnavailableError instead of the errors of MLflow and of databases, within the context."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        cause = first_line(error)
        raise UnavailableError(f"tracking store {connection.uri} cannot be read: {cause}") from error


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch Python's cyclic garbage collector off within the context.

    Otherwise the collector would take more than half of the time needed to read runs. A hundred objects or more are
    created for each run, and none can be freed before all are read.
    """
    import gc

    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# By MLflow's search -------------------------------------------------------------------------------------------------


def _found(connection: Connection, filter_string: str) -> Iterator[StoredRun]:
    """Yield the runs of an experiment that match a filter, oldest first."""
    token = None
    while True:
        page = connection.client.search_runs(
            [connection.experiment_id],
            filter_string,
            max_results=PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from map(_of_entity, page)
        token = page.token
        if not token:
            break


def _one_of(run_ids: Iterable[str]) -> str:
    return f"attributes.run_id IN ({', '.join(repr(run_id) for run_id in run_ids)})"


def _of_entity(run: Any) -> StoredRun:
    info, data = run.info, run.data
    digests = {}
    for entry in run.inputs.dataset_inputs if run.inputs else ():
        context = next((tag.value for tag in entry.tags if tag.key == CONTEXT), None)
        if context is not None:
            digests[context] = entry.dataset.digest
    return StoredRun(
        run_id=info.run_id,
        run_name=info.run_name,
        status=info.status,
        start_time=info.start_time,
        end_time=info.end_time,
        artifact_uri=info.artifact_uri,
        params=data.params,
        tags=data.tags,
        metrics=data.metrics,
        digests=digests,
    )


# By SQL -------------------------------------------------------------------------------------------------------------


def _queried(connection: Connection) -> list[StoredRun]:
    """Return all runs of an experiment in a database, oldest first.

    A run's metrics are written before its status says that it is finished. The statuses are therefore read first.
    """
    from mlflow.store.tracking.dbmodels import models
    from sqlalchemy import case, create_engine, select, true

    run, metric = models.SqlRun.__table__.c, models.SqlLatestMetric.__table__.c
    ours = (run.experiment_id == int(connection.experiment_id), run.lifecycle_stage == "active")
    order = (case((run.start_time.is_(None), 1), else_=0), run.start_time, run.run_uuid)  # that of MLflow's search
    runs = select(run.run_uuid, run.name, run.status, run.start_time, run.end_time, run.artifact_uri)
    defined = case((metric.is_nan == true(), None), else_=metric.value)
    parts = [_part(models.SqlParam), _part(models.SqlTag), _part(models.SqlLatestMetric, defined), _digests(models)]

    engine = create_engine(mlflow_uri(connection.uri))
    try:
        with engine.connect() as database:
            rows = database.execute(runs.where(*ours).order_by(*order)).all()
            params, tags, defined_metrics, digests = (_by_run(database, part.where(*ours)) for part in parts)
    finally:
        engine.dispose()
    metrics = {
        run_id: {name: math.nan if value is None else value for name, value in values.items()}
        for run_id, values in defined_metrics.items()
    }
    nothing: dict[str, Any] = {}
    return [
        StoredRun(
            run_id,
            name or tags.get(run_id, nothing).get(NAME),
            *rest,
            *(values.get(run_id, nothing) for values in (params, tags, metrics, digests)),
        )
        for run_id, name, *rest in rows
    ]


def _part(model: Any, value: Any = None) -> Select[Any]:
    """Return the query of a table with a row for each run and key, which gives run ids, keys and values.

    Args:
        model: The class by which MLflow declares the table.
        value: The expression of the value; None for the column `value`.
    """
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from sqlalchemy import select

    part, run = model.__table__, SqlRun.__table__
    value = part.c.value if value is None else value
    return select(part.c.run_uuid, part.c.key, value).join(run, run.c.run_uuid == part.c.run_uuid)


def _digests(models: Any) -> Select[Any]:
    """Return the query of the data sets, which gives run ids, uses of the data set, such as "training", and digests."""
    from sqlalchemy import and_, select

    run, given, tag, data = (
        model.__table__ for model in (models.SqlRun, models.SqlInput, models.SqlInputTag, models.SqlDataset)
    )
    return (
        select(run.c.run_uuid, tag.c.value, data.c.digest)
        .join(given, and_(given.c.destination_type == "RUN", given.c.destination_id == run.c.run_uuid))
        .join(tag, and_(tag.c.input_uuid == given.c.input_uuid, tag.c.name == CONTEXT))
        .join(data, data.c.dataset_uuid == given.c.source_id)
    )


def _by_run(database: Database, query: Select[Any]) -> dict[str, dict[str, Any]]:
    """Return the values by key for each run id, from a query that gives run ids, keys and values."""
    values: dict[str, dict[str, Any]] = {}
    for run_id, key, value in database.execution_options(yield_per=ROWS).execute(query):
        values.setdefault(run_id, {})[key] = value
    return values
