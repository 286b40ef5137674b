"""Reading a store gives each finished run once, with typed values, and counts everything else."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
from conftest import CommandLine
from planted_runs import classes, plant, spec

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.task import Labels
from alue_bench.reporting import recorded
from alue_bench.tracking.connection import Connection, connect, open_store
from alue_bench.tracking.reading import (
    COLUMNS,
    Counts,
    count_sentences,
    read_config,
    read_curves,
    read_dev_predictions,
    read_environment,
    read_notes,
    read_predictions,
    read_results,
    read_runs,
)
from alue_bench.tracking.selection_tags import CHOSEN_IN

LABELS = Labels.multiclass("1", "nan", "NOT OFF")
GOLD = np.array([0, 1, 2, 0, 1, 2, 0, 1])


@pytest.fixture
def connection(store: str, experiment: str) -> Connection:
    return connect(store, experiment)


def planted(connection: Connection, *arguments: Any, **more: Any) -> str:
    keys = ("more", "tags", "parent_id", "status", "keep_predictions")
    how = {key: more.pop(key) for key in keys if key in more}
    return plant(
        connection, spec(*arguments, **more), LABELS, GOLD, classes(np.random.default_rng(1), GOLD, 0.7, 3), **how
    )


class TestARunThatWasDone:
    @pytest.fixture
    def results(self, run: CommandLine, store: str, experiment: str) -> Any:
        said = run("-s", "bottom1top2", "-s", "full", "--seed", "7")
        assert said.code == 0, said.err
        return read_results(open_store(store, experiment))

    def test_is_a_typed_row_with_its_files(self, results: Any, client: Any) -> None:
        frame = results.frame
        assert {name: str(frame[name].dtype) for name in COLUMNS} == dict(COLUMNS)
        assert list(frame.columns[: len(COLUMNS)]) == list(COLUMNS)
        assert (frame[results.metrics].dtypes == "float64").all()
        assert results.counts == Counts()
        row = frame.set_index("strategy").loc["bottom1top2"]
        stored = client.get_run(row["run_id"])
        assert (row["task"], row["model"], row["seed"]) == ("anger", "tiny-bert", 7)
        assert (row["freeze_bottom"], row["freeze_top"], row["freeze_embeddings"]) == (1, 2, 1)
        assert (row["epochs"], row["batch_size"], row["max_length"], row["lr"]) == (1, 16, 24, 2e-5)
        assert (row["data_source"], row["device"], row["primary_metric"]) == ("sample", "cpu", "f1_macro")
        assert row["score"] == row["test/score"] == row["test/f1_macro"] == stored.data.metrics["test/f1_macro"]
        assert row["fingerprint"] == stored.data.tags["fingerprint"]
        assert not any(name.startswith(("train/", "dev/")) for name in frame.columns)
        sometimes = ("git_commit", "failure", "first_look", "also_test", "cuda_graphs", "task_options", "folds", "fold")
        always = [
            name for name in COLUMNS if name not in (*sometimes, "repeat", "folds_digest", "chosen_in", "chosen_layers")
        ]
        assert not frame[always].isna().any(axis=None)
        assert "torch 2" in row["versions"]
        assert '"warmup": 0.0' in row["other_hyper"]

        predictions = read_predictions(results, row["run_id"])
        assert len(predictions) == row["data/test_rows"]
        assert (predictions["gold"] == predictions["prediction"]).mean() == pytest.approx(row["test/accuracy"])
        curves = read_curves(results, row["run_id"])
        assert {"train/loss", "dev/f1_macro"} <= set(curves["metric"])
        assert (curves.dtypes.astype(str) == ["string", "int64", "float64"]).all()
        config = read_config(results, row["run_id"])
        assert config is not None
        assert config["model_digest"] == row["model_digest"]
        assert config["data"]["protocol"] == row["protocol"]
        environment = read_environment(results, row["run_id"])
        assert environment is not None
        assert environment["engine"]["precision"] == row["precision"]
        assert isinstance(read_notes(results, row["run_id"]), list)

    def test_belongs_to_the_plan_that_did_not_repeat_it(self, results: Any, run: CommandLine) -> None:
        """A later invocation that reuses a run counts it among its own."""
        connection = results.connection
        assert run("-s", "full", "-s", "top1", "--seed", "7").code == 0
        newest_plan, older_plan = connection.client.search_runs([connection.experiment_id], "tags.kind = 'plan'")
        newest = read_results(connection, parent_id=newest_plan.info.run_id)
        assert sorted(newest.frame["strategy"]) == ["full", "top1"]
        older = read_results(connection, parent_id=older_plan.info.run_id)
        assert sorted(older.frame["strategy"]) == ["bottom1top2", "full"]
        assert len(read_results(connection).frame) == 3


def test_predictions_are_read_in_several_threads_at_once(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first calls, which look the runs' folders up, happen at the same moment."""
    for seed in range(6):
        planted(connection, seed=seed)
    monkeypatch.setattr(recorded, "MAX_TESTED_RUNS", 9)
    for _ in range(5):
        results = read_results(connection)
        start, load = threading.Barrier(6), recorded.limited_reader(results)

        def read(run_id: str, start: threading.Barrier = start, load: Any = load) -> tuple[Any, bool]:
            start.wait()
            targets = load(run_id, False)
            start.wait()
            try:
                load(run_id, False)
            except UnavailableError:
                return targets, False
            return targets, True

        with ThreadPoolExecutor(6) as threads:
            both = list(threads.map(read, results.frame["run_id"]))
        assert all(np.array_equal(targets.gold, GOLD) for targets, _ in both)
        assert sum(again for _, again in both) == 3, "the limit holds for all threads together"


class TestWhatIsNoResult:
    def test_an_empty_experiment(self, connection: Connection) -> None:
        results = read_results(connection)
        assert len(results.frame) == 0
        assert {name: str(results.frame[name].dtype) for name in COLUMNS} == dict(COLUMNS)
        assert (results.counts, results.metrics) == (Counts(), [])
        assert count_sentences(results.counts) == []

    def test_failed_killed_running_foreign_and_broken_runs_are_counted(self, connection: Connection) -> None:
        planted(connection, strategy="full")
        planted(connection, strategy="top1", status="FAILED")
        planted(connection, strategy="top2", status="KILLED")
        planted(connection, strategy="top3", status="RUNNING")
        client = connection.client
        client.set_terminated(client.create_run(connection.experiment_id).info.run_id, "FINISHED")
        client.create_run(connection.experiment_id, tags={"kind": "run", "alue_bench.version": "0.1.0"})
        client.create_run(connection.experiment_id, tags={"kind": "plan", "alue_bench.version": "0.1.0"})
        results = read_results(connection)
        assert list(results.frame["strategy"]) == ["full"]
        assert results.counts == Counts(failed=1, interrupted=1, unfinished=1, foreign=1, unreadable=1)
        said = count_sentences(results.counts)
        assert len(said) == 5
        # Of whatever command: a search and a sweep leave such runs too.
        assert said[0].endswith("repeat the command that started it to retry")
        assert said[1].endswith("repeat the command that started it to continue")

    def test_one_row_a_fingerprint_the_newest(self, connection: Connection) -> None:
        planted(connection, more={"runtime/train_s": 1})
        planted(connection, status="FAILED")
        planted(connection, more={"runtime/train_s": 2})
        results = read_results(connection)
        assert list(results.frame["runtime/train_s"]) == [2]
        assert results.counts == Counts(repeated=1), "the failure was repaired since"

    def test_a_failure_is_counted_once_however_often_it_was_tried(self, connection: Connection) -> None:
        planted(connection, status="FAILED")
        planted(connection, status="FAILED")
        assert read_results(connection).counts == Counts(failed=1)

    def test_files_that_are_gone(self, connection: Connection) -> None:
        run_id = planted(connection, keep_predictions=False)
        results = read_results(connection)
        with pytest.raises(UnavailableError, match=rf"predictions.csv of run {run_id} .*--rerun"):
            read_predictions(results, run_id)
        assert read_dev_predictions(results, run_id) is None
        assert read_notes(results, run_id) == []

    @pytest.mark.parametrize("content", ["", "id,gold\n1,a,b\n", "no,columns\n1,2\n"])
    def test_files_that_are_damaged(self, content: str, connection: Connection) -> None:
        run_id = planted(connection)
        results = read_results(connection)
        folder = Path(urlparse(results.frame["artifact_uri"].iloc[0]).path)
        (folder / "predictions.csv").write_text(content)
        with pytest.raises(UnavailableError, match=rf"predictions.csv of run {run_id} is damaged .*--rerun"):
            read_predictions(results, run_id)
        (folder / "environment.json").write_text("{")
        with pytest.raises(UnavailableError, match=rf"environment.json of run {run_id} is damaged"):
            read_environment(results, run_id)


class TestFilters:
    def test_by_task_model_strategy_and_source(self, connection: Connection) -> None:
        for task in ("anger", "oold"):
            for strategy in ("full", "top1"):
                planted(connection, task, strategy)
        planted(connection, "anger", "full", model="other", source="sample")
        planted(connection, "oold", "top2", status="FAILED")

        def count(**filters: Any) -> int:
            return len(read_results(connection, **filters).frame)

        assert count() == 5
        assert count(tasks=["anger"]) == 3
        assert count(tasks=["anger", "oold"], strategies=["full"]) == 3
        assert count(models=["other"]) == 1
        assert count(data_source="real") == 4
        assert count(tasks=["xnli"]) == 0
        assert read_results(connection, tasks=["anger"]).counts.failed == 0

    def test_a_parent_that_is_not_there(self, connection: Connection) -> None:
        with pytest.raises(UsageError, match="there is no run 'abc'"):
            read_results(connection, parent_id="abc")


def test_labels_are_texts_whatever_they_look_like(connection: Connection) -> None:
    run_id = planted(connection)
    predictions = read_predictions(read_results(connection), run_id)
    assert list(predictions["gold"]) == [LABELS.names[index] for index in GOLD]
    assert list(predictions.columns) == ["id", "gold", "prediction", "score_1", "score_nan", "score_NOT OFF"]


def test_numbers_are_numbers(connection: Connection) -> None:
    gold = np.array([0.25, 0.5, 1.0])
    run_id = plant(connection, spec("svreg"), Labels.regression(0, 1), gold, gold / 2)
    predictions = read_predictions(read_results(connection), run_id)
    assert list(predictions["prediction"]) == [0.125, 0.25, 0.5]


class TestOpening:
    def test_reading_creates_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"no store at .* yet; alue-bench run --tracking-uri .* creates one"):
            open_store(f"sqlite:///{tmp_path / 'none.db'}", "alue-bench")
        assert not list(tmp_path.iterdir())

    def test_an_experiment_that_is_not_there(self, store: str) -> None:
        with pytest.raises(UsageError, match=r"there is no experiment 'nobody' in .*; there are .*'first'"):
            open_store(store, "nobody")


def test_runs_can_be_asked_for_by_their_ids(connection: Connection) -> None:
    ids = [planted(connection, "anger", "full", seed) for seed in range(3)]
    failed = planted(connection, "anger", "full", 9, status="FAILED")
    results = read_runs(connection, [ids[2], ids[0], failed])
    assert list(results.frame["run_id"]) == [ids[0], ids[2]]
    assert results.counts == Counts(failed=1)
    everything = read_results(connection).frame.set_index("run_id").loc[[ids[0], ids[2]]].reset_index()
    assert results.frame.equals(everything[results.frame.columns])
    assert read_runs(connection, []).frame.empty


def test_a_repetition_of_a_run_that_chose_is_no_more_independent(connection: Connection) -> None:
    """Also where the repetition alone is read, as at the end of `run --rerun`."""
    planted(connection, "anger", "full", 1, tags={CHOSEN_IN: "the parent run"})
    planted(connection, "anger", "full", 2, tags={CHOSEN_IN: "the parent run"}, status="FAILED")
    again = [planted(connection, "anger", "full", seed) for seed in (1, 2)]
    frame = read_runs(connection, again).frame.set_index("seed")
    assert frame.loc[1, "chosen_in"] == "the parent run"
    assert frame["chosen_in"].isna().to_dict() == {1: False, 2: True}
