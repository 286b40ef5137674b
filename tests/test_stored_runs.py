"""A whole experiment is read from a database by SQL, and gives the same runs as MLflow's own search."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from planted_runs import classes, plant, spec

from alue_bench.contract.task import Labels
from alue_bench.tracking import stored_runs
from alue_bench.tracking.connection import Connection, connect
from alue_bench.tracking.stored_runs import StoredRun, all_runs, runs_that_match, runs_with_ids

LABELS = Labels.binary("NO", "YES")
GOLD = np.array([0, 1, 0, 1, 1, 0])


@pytest.fixture(scope="module")
def connection(store: str) -> Connection:
    """Runs of all kinds, written by alue-bench and by another program, and one in another experiment."""
    connection = connect(store, "as it is stored")
    predicted = classes(np.random.default_rng(0), GOLD, 0.7, 2)
    for seed in (3, 1, 2):
        more = {"test/spearman": math.nan, "test/f1_class_لا أدري": 0.5, "energy/gpu_j": math.inf}
        plant(connection, spec("oold", "full", seed), LABELS, GOLD, predicted, more=more)
    plant(connection, spec("oold", "head-only", 1), LABELS, GOLD, predicted, status="FAILED")
    gone = plant(connection, spec("oold", "head-only", 2), LABELS, GOLD, predicted)
    connection.client.delete_run(gone)
    for place in range(3):  # begun in the same millisecond, so that their order is that of their ids
        other = connection.client.create_run(connection.experiment_id, start_time=17, run_name=f"other {place}")
        connection.client.log_metric(other.info.run_id, "loss", 1.5)
        connection.client.log_metric(other.info.run_id, "loss", 0.5, step=1)
    plant(connect(store, "another experiment"), spec("oold", "full", 1), LABELS, GOLD, predicted)
    return connection


def comparable(runs: list[StoredRun]) -> list[Any]:
    """The runs with texts for metrics, since nan is not equal to itself."""
    return [replace(run, metrics={name: str(value) for name, value in run.metrics.items()}) for run in runs]


def test_sql_gives_the_runs_of_mlflows_search_in_its_order(connection: Connection) -> None:
    runs, found = all_runs(connection), runs_that_match(connection, "")
    assert comparable(runs) == comparable(found)
    assert [run.status for run in runs] == ["RUNNING"] * 3 + ["FINISHED"] * 3 + ["FAILED"]
    assert [run.metrics["loss"] for run in runs[:3]] == [0.5] * 3
    metrics = runs[3].metrics
    assert math.isnan(metrics["test/spearman"])
    assert metrics["energy/gpu_j"] > 1e300
    assert runs[3].digests["testing"] == runs[4].digests["testing"]


@pytest.mark.parametrize("ids_in_one_query", [2, 100])
def test_runs_are_found_by_their_ids_oldest_first(
    ids_in_one_query: int, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_runs, "IDS_PER_QUERY", ids_in_one_query)
    runs = all_runs(connection)
    wanted = [run.run_id for run in runs[1:6]]
    assert comparable(runs_with_ids(connection, wanted[::-1])) == comparable(runs[1:6])


def test_a_run_without_a_name_of_its_own_has_that_of_its_tag(connection: Connection) -> None:
    from sqlalchemy import create_engine, text

    connection = connect(connection.uri, "without names")
    connection.client.create_run(connection.experiment_id, run_name="named")
    engine = create_engine(connection.uri)
    with engine.begin() as database:
        database.execute(text(f"UPDATE runs SET name = NULL WHERE experiment_id = {connection.experiment_id}"))
    engine.dispose()
    (run,) = all_runs(connection)
    assert run.run_name == "named"
    assert [run] == runs_that_match(connection, "")
