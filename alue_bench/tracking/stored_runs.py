"""The runs of an MLflow experiment as they are stored: params, tags, metrics and the digests of the data sets.

A whole experiment in a database is read by five SQL queries on the tables that MLflow declares. MLflow's own search
makes an object of each param, tag and metric, about a hundred for a run, and takes five times as long. Runs on a
server, and runs that are selected by a filter, are read by MLflow's search. Both ways give the same runs in the same
order (tests/test_stored_runs.py).
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
from alue_bench.tracking.retry import retrying

if TYPE_CHECKING:
    from sqlalchemy import Connection as Database
    from sqlalchemy import Select

RUNS_PER_PAGE = 1000
"""The number of runs in one page of MLflow's answer to a query."""
IDS_PER_QUERY = 100
"""The most run ids in one query. (The query's text becomes longer with each id.)"""
ROWS_PER_FETCH = 10_000
"""The number of rows that are fetched from a database at once."""
NAME = "mlflow.runName"
"""The tag with a run's name. Very old versions of MLflow store the name only there."""
CONTEXT = "mlflow.data.context"
"""The tag that MLflow gives to a data set of a run. Its value is the use of the data set, such as "training"."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as it is stored in MLflow."""

    run_id: str
    run_name: str | None
    status: str
    start_time: int | None
    """The start time in milliseconds since 1970."""
    end_time: int | None
    """The end time in milliseconds since 1970; None if the run has not ended."""
    artifact_uri: str | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    """The newest value of each metric, which may be nan."""
    digests: Mapping[str, str]
    """The digest of each data set, by its use in the run, such as "training"."""


def all_runs(connection: Connection) -> list[StoredRun]:
    """Return all runs of an experiment that are not deleted, oldest first.

    Args:
        connection: The open store.

    Raises:
        UnavailableError: The store does not answer.
    """
    with convert_store_errors(connection), _without_garbage_collection():
        if connection.uri.startswith(("http://", "https://")):
            return list(_search(connection, ""))
        runs: list[StoredRun] = retrying(_query)(connection)
        return runs


def runs_with_ids(connection: Connection, run_ids: Sequence[str]) -> list[StoredRun]:
    """Return the experiment's runs with the given ids, except deleted ones, oldest first.

    Args:
        connection: The open store.
        run_ids: The ids, in any order.

    Raises:
        UnavailableError: The store does not answer.
    """
    parts = [run_ids[at : at + IDS_PER_QUERY] for at in range(0, len(run_ids), IDS_PER_QUERY)]
    with convert_store_errors(connection), _without_garbage_collection():
        runs = [run for part in parts for run in _search(connection, _filter_of_ids(part))]
    # The order of MLflow's search, over all queries.
    return sorted(runs, key=lambda run: (run.start_time is None, run.start_time or 0, run.run_id))


def runs_that_match(connection: Connection, filter_string: str) -> list[StoredRun]:
    """Return the experiment's runs that match a filter, except deleted ones, oldest first.

    Args:
        connection: The open store.
        filter_string: The filter, in the syntax of MLflow's `search_runs`.

    Raises:
        UnavailableError: The store does not answer.
    """
    with convert_store_errors(connection), _without_garbage_collection():
        return list(_search(connection, filter_string))


@contextmanager
def convert_store_errors(connection: Connection) -> Iterator[None]:
    """Convert errors of MLflow and of databases inside the `with` block to UnavailableError."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        cause = first_line(error)
        raise UnavailableError(f"tracking store {connection.uri} cannot be read: {cause}") from error


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Switch Python's cyclic garbage collector off inside the `with` block.

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


def _search(connection: Connection, filter_string: str) -> Iterator[StoredRun]:
    """Yield the runs of an experiment that match a filter, oldest first."""
    token = None
    while True:
        page = connection.client.search_runs(
            [connection.experiment_id],
            filter_string,
            max_results=RUNS_PER_PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from map(_stored_run, page)
        token = page.token
        if not token:
            break


def _filter_of_ids(run_ids: Iterable[str]) -> str:
    return f"attributes.run_id IN ({', '.join(repr(run_id) for run_id in run_ids)})"


def _stored_run(run: Any) -> StoredRun:
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


def _query(connection: Connection) -> list[StoredRun]:
    """Return all runs of an experiment in a database, oldest first.

    A run's metrics are written before its status becomes FINISHED. The statuses are therefore read first, so that the
    metrics of a finished run are complete.
    """
    from mlflow.store.tracking.dbmodels import models
    from sqlalchemy import case, create_engine, select, true

    run, metric = models.SqlRun.__table__.c, models.SqlLatestMetric.__table__.c
    ours = (run.experiment_id == int(connection.experiment_id), run.lifecycle_stage == "active")
    order = (case((run.start_time.is_(None), 1), else_=0), run.start_time, run.run_uuid)  # the order of MLflow's search
    runs = select(run.run_uuid, run.name, run.status, run.start_time, run.end_time, run.artifact_uri)
    defined = case((metric.is_nan == true(), None), else_=metric.value)
    parts = [
        _values_query(models.SqlParam),
        _values_query(models.SqlTag),
        _values_query(models.SqlLatestMetric, defined),
        _digests_query(models),
    ]

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


def _values_query(model: Any, value: Any = None) -> Select[Any]:
    """Return an SQL query that selects run ids, keys and values from a table of MLflow.

    Args:
        model: MLflow's class for the table, such as `SqlParam`. The table has a row for each run and key.
        value: The SQL expression of the value; None for the column `value`.
    """
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from sqlalchemy import select

    part, run = model.__table__, SqlRun.__table__
    value = part.c.value if value is None else value
    return select(part.c.run_uuid, part.c.key, value).join(run, run.c.run_uuid == part.c.run_uuid)


def _digests_query(models: Any) -> Select[Any]:
    """Return an SQL query with a row for each data set of a run: the run's id, the data set's use and its digest.

    The use is, for example, "training".

    Args:
        models: MLflow's module with the classes for its tables.
    """
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
    """Execute a query that selects run ids, keys and values, and return each run's values by key."""
    values: dict[str, dict[str, Any]] = {}
    for run_id, key, value in database.execution_options(yield_per=ROWS_PER_FETCH).execute(query):
        values.setdefault(run_id, {})[key] = value
    return values
