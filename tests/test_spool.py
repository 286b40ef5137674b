"""A result is in the store, or kept whole on this machine until it is; never lost, never doubled."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import SHORT, CommandLine
from stress.servers import binaries, running_mlflow, running_postgresql

from alue_bench.contract.errors import StoreUnavailableError
from alue_bench.contract.executor import Assignment
from alue_bench.executors.worker import execute_assignment
from alue_bench.tracking import recording, retry
from alue_bench.tracking.connection import Connection, connect, store_name
from alue_bench.tracking.record import Closing, DataUsed, Opening
from alue_bench.tracking.selection_tags import CHOSEN_IN, tag_selection_runs
from alue_bench.tracking.spool import RECORD, SPOOL_TAG, Spool, all_spools, damaged_entries

Runs = Callable[..., list[Any]]

OPENING = Opening(
    "anger/m/full/seed1", 1_000, {"kind": "run", "fingerprint": "f" * 32, "stage": "claiming"}, {"lr": "0.1"},
    (DataUsed("anger-train", "d", "{}", "{}", "training"),), {"config.json": "{}"},
)  # fmt: skip
CLOSING = Closing("FINISHED", 9_000, {"stage": "done"}, (("test/score", 0.5, 9_000, 0), ("dev/score", 0.4, 8_000, 3)))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALUE_BENCH_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def connection(store: str, experiment: str) -> Connection:
    return connect(store, experiment)


@pytest.fixture
def spool(connection: Connection) -> Spool:
    return Spool(store_name(connection.uri), connection.experiment)


@pytest.fixture
def keep(spool: Spool, tmp_path: Path) -> Callable[..., None]:
    """Puts a run into the spool."""

    def add(run_id: str = "spool-1", fingerprint: str | None = "f" * 32, **options: Any) -> None:
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        (folder / "predictions.csv").write_text("id,gold\n1,نعم\n", encoding="utf-8")
        given = {"again": False, "opening": OPENING, "closing": CLOSING, **options}
        spool.add(folder, run_id=run_id, fingerprint=fingerprint, **given)

    return add


class TestSpool:
    def test_what_is_kept_is_written_once_and_then_gone(
        self, spool: Spool, keep: Callable[..., None], connection: Connection, runs: Runs, client: Any
    ) -> None:
        keep()
        assert [sent.outcome for sent in spool.send(connection)] == ["written"]
        assert spool.entries() == []
        assert spool.send(connection) == []
        (run,) = runs()
        assert (run.info.status, run.info.run_name) == ("FINISHED", "anger/m/full/seed1")
        assert (run.info.start_time, run.info.end_time) == (1_000, 9_000)
        assert run.data.params == {"lr": "0.1"}
        assert run.data.tags["stage"] == "done"
        assert run.data.metrics == {"test/score": 0.5, "dev/score": 0.4}
        assert [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["anger-train"]
        assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"config.json", "predictions.csv"}

    @pytest.mark.parametrize("dies_after", ["create_run", "log_batch", "log_inputs", "log_artifacts", "set_terminated"])
    def test_an_upload_that_is_cut_off_goes_on_and_doubles_nothing(
        self, spool: Spool, keep: Callable[..., None], connection: Connection, runs: Runs, dies_after: str
    ) -> None:
        class Dying:
            """The real client, cut off after one call."""

            def __getattr__(self, name: str) -> Any:
                method = getattr(connection.client, name)

                def call(*args: Any, **kwargs: Any) -> Any:
                    result = method(*args, **kwargs)
                    if name == dies_after:
                        raise KeyboardInterrupt
                    return result

                return call

        keep()
        with pytest.raises(KeyboardInterrupt):
            spool.send(Connection(Dying(), connection.uri, connection.experiment, connection.experiment_id))  # type: ignore[arg-type]
        assert len(spool.entries()) == 1
        spool.send(connection)
        (run,) = runs()
        assert run.info.status == "FINISHED"
        history = connection.client.get_metric_history(run.info.run_id, "test/score")
        assert len(history) == 1

    def test_a_run_that_another_process_finished_meanwhile_is_not_written(
        self, spool: Spool, keep: Callable[..., None], connection: Connection, runs: Runs
    ) -> None:
        theirs = connection.client.create_run(connection.experiment_id, tags={"fingerprint": "f" * 32})
        connection.client.set_terminated(theirs.info.run_id, "FINISHED")
        mine = connection.client.create_run(connection.experiment_id, tags={"fingerprint": "f" * 32})
        keep(run_id=mine.info.run_id)
        assert [sent.outcome for sent in spool.send(connection)] == ["there already"]
        assert Counter(run.info.status for run in runs()) == {"FINISHED": 1, "KILLED": 1}

    def test_unless_it_was_to_be_done_again(
        self, spool: Spool, keep: Callable[..., None], connection: Connection, runs: Runs
    ) -> None:
        theirs = connection.client.create_run(connection.experiment_id, tags={"fingerprint": "f" * 32})
        connection.client.set_terminated(theirs.info.run_id, "FINISHED")
        keep(again=True)
        spool.send(connection)
        assert len(runs("attributes.status = 'FINISHED'")) == 2

    def test_a_run_that_was_opened_before_the_store_went_away_is_closed(
        self, spool: Spool, keep: Callable[..., None], connection: Connection, runs: Runs
    ) -> None:
        opened = connection.client.create_run(connection.experiment_id, tags=dict(OPENING.tags))
        keep(run_id=opened.info.run_id)
        spool.send(connection)
        (run,) = runs()
        assert (run.info.run_id, run.info.status) == (opened.info.run_id, "FINISHED")

    def test_a_plan_comes_before_its_runs(
        self, spool: Spool, keep: Callable[..., None], connection: Connection, runs: Runs
    ) -> None:
        child = Opening("child", 2_000, {"fingerprint": "f" * 32, "mlflow.parentRunId": "spool-9"})
        keep(run_id="spool-1", opening=child)
        plan = Opening("plan", 1_000, {"kind": "plan"})
        keep(run_id="spool-9", fingerprint=None, again=True, opening=plan, closing=Closing("FINISHED", 9_500))
        spool.send(connection)
        parent, written = runs()
        assert written.data.tags["mlflow.parentRunId"] == parent.info.run_id

    def test_tags_of_a_run_follow_it_into_the_store_with_the_plan_that_they_name(
        self, spool: Spool, keep: Callable[..., None], connection: Connection, runs: Runs
    ) -> None:
        recorder = recording.Recorder(connection)
        there = connection.client.create_run(connection.experiment_id, tags={"fingerprint": "e" * 32})
        connection.client.set_terminated(there.info.run_id)
        keep(run_id="spool-1")
        keep(run_id="spool-9", fingerprint=None, again=True, opening=Opening("plan", 1_000, {"kind": "plan"}))
        chosen = {"spool-1": "f" * 32, there.info.run_id: "e" * 32, "gone": "e" * 32}
        tag_selection_runs(recorder, chosen, "spool-9")
        assert {sent.outcome for sent in recorder.send_spooled()} == {"written"}
        (plan,) = runs("tags.kind = 'plan'")
        tagged = [run.data.tags.get(CHOSEN_IN) for run in runs() if run.info.run_id != plan.info.run_id]
        assert tagged == [plan.info.run_id] * 2
        assert spool.entries() == []
        tag_selection_runs(recorder, {there.info.run_id: "e" * 32}, "another")
        assert connection.client.get_run(there.info.run_id).data.tags[CHOSEN_IN] == "another"

    def test_one_that_the_store_refuses_does_not_hold_up_the_others(
        self, spool: Spool, keep: Callable[..., None], connection: Connection, runs: Runs
    ) -> None:
        keep(run_id="spool-1", opening=Opening("x", 1, {"mlflow.runName": "another"}))
        keep(run_id="spool-2", fingerprint="e" * 32)
        assert sorted(sent.outcome for sent in spool.send(connection)) == ["refused", "written"]
        assert len(spool.entries()) == 1

    def test_what_the_store_refuses_of_a_run_is_left_out_and_named(
        self, spool: Spool, keep: Callable[..., None], connection: Connection, runs: Runs, client: Any
    ) -> None:
        opening = replace(OPENING, tags={**OPENING.tags, "a:b;c": "d"}, params={"lr": "0.1", "p" * 300: "1"})
        points = (*CLOSING.points, ("test/f1_class_C+", 0.3, 9_000, 0), ("..", 0.2, 9_000, 0))
        keep(opening=opening, closing=replace(CLOSING, points=points))
        (sent,) = spool.send(connection)
        assert (sent.outcome, len(sent.problems)) == ("written", 4)
        for name, problem in zip(("ppp", "a:b;c", "test/f1_class_C+", ".."), sent.problems, strict=True):
            assert problem.startswith("not recorded, because the tracking store rejects it: ")
            assert name in problem
        assert spool.entries() == []
        (run,) = runs()
        assert run.info.status == "FINISHED"
        assert run.data.params == {"lr": "0.1"}
        assert run.data.metrics == {"test/score": 0.5, "dev/score": 0.4}
        notes = Path(client.download_artifacts(run.info.run_id, "notes.txt")).read_text()
        assert "metric '..'" in notes

    def test_a_store_that_takes_nothing_of_a_run_does_not_refuse_its_parts(
        self, spool: Spool, keep: Callable[..., None], connection: Connection
    ) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import BAD_REQUEST

        class Gone:
            """The real client, whose database is gone when the metrics come: MLflow then says BAD_REQUEST too."""

            def __getattr__(self, name: str) -> Any:
                if name != "log_batch":
                    return getattr(connection.client, name)

                def call(run_id: str, *, metrics: Any = (), **others: Any) -> None:
                    if metrics:
                        raise MlflowException("connection already closed", error_code=BAD_REQUEST)
                    connection.client.log_batch(run_id, **others)

                return call

        keep()
        gone = replace(connection, client=Gone())  # type: ignore[arg-type]
        (sent,) = spool.send(gone)
        assert (sent.outcome, sent.reason) == ("refused", "connection already closed")
        assert [entry.artifacts_only for entry in spool.entries()] == [False]
        assert [sent.outcome for sent in spool.send(connection)] == ["written"]

    def test_a_damaged_entry_is_told_and_left(self, spool: Spool, keep: Callable[..., None], state: Path) -> None:
        keep()
        (record,) = state.rglob(RECORD)
        record.write_text(record.read_text().replace("0.5", "0.9"))
        assert spool.entries() == []
        assert spool.finished("f" * 32) is None
        assert damaged_entries() == [record.parent]
        assert all_spools() == []

    def test_what_is_not_asked_for_is_hardly_looked_at(self, spool: Spool, keep: Callable[..., None]) -> None:
        points = tuple(("train/loss", 1 / step, 9_000, step) for step in range(1, 3_000))
        for number in range(8):
            closing = replace(CLOSING, points=points, ended=number)
            opening = replace(OPENING, tags=OPENING.tags | {"invocation": f"i{number // 2}"})
            keep(f"spool-{number}", f"{number % 2:032d}", closing=closing, opening=opening)

        def seconds(call: Callable[[], object]) -> float:
            started = time.perf_counter()
            call()
            return time.perf_counter() - started

        whole = min(seconds(spool.entries) for _ in range(3))
        assert min(seconds(lambda: spool.finished("a" * 32)) for _ in range(3)) < whole / 5
        newest, ours = spool.finished(f"{1:032d}"), spool.finished(f"{1:032d}", invocation="i1")
        assert (newest and newest.id, ours and ours.id) == ("spool-7", "spool-3")

    def test_half_an_entry_is_none(self, spool: Spool, keep: Callable[..., None], state: Path) -> None:
        keep()
        (entry,) = spool.folder.glob("spool-*")
        shutil.move(entry, spool.folder / ".scratch-x")  # as a process that is killed in the middle leaves it
        assert spool.entries() == []

    def test_a_disk_that_takes_nothing_is_a_sentence(self, keep: Callable[..., None], state: Path) -> None:
        state.write_text("")  # a file where the folder should be
        with pytest.raises(StoreUnavailableError, match=r"cannot be kept in .* either .*ALUE_BENCH_STATE"):
            keep()

    def test_several_processes_write_an_entry_once(
        self, spool: Spool, keep: Callable[..., None], connection: Connection, runs: Runs
    ) -> None:
        for number in range(6):
            keep(run_id=f"spool-{number}", fingerprint=f"{number:032d}")
        threads = [threading.Thread(target=spool.send, args=(connection,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(runs()) == 6


class TestABusyDatabase:
    @pytest.fixture
    def locked(self, own_store: str) -> Callable[[float], threading.Thread]:
        """Another process's writing, for so many seconds."""

        def hold(seconds: float) -> threading.Thread:
            taken = threading.Event()

            def write() -> None:
                with sqlite3.connect(own_store.removeprefix("sqlite:///"), timeout=30) as database:
                    database.execute("begin exclusive")
                    taken.set()
                    time.sleep(seconds)
                    database.rollback()

            thread = threading.Thread(target=write)
            thread.start()
            taken.wait()
            return thread

        return hold

    def test_is_waited_for(self, locked: Callable[[float], threading.Thread], own_store: str) -> None:
        connection = connect(own_store, "busy")
        thread = locked(1.5)
        started = time.monotonic()
        connection.client.create_run(connection.experiment_id)
        assert time.monotonic() - started > 1
        thread.join()

    def test_what_fails_because_of_it_is_tried_again(self) -> None:
        calls = []

        def write(value: int) -> int:
            calls.append(value)
            if len(calls) < 4:
                raise RuntimeError("(sqlite3.OperationalError) database is locked")
            return value

        assert retry.retrying(write)(7) == 7
        assert calls == [7] * 4

    def test_and_given_up_in_the_end(self) -> None:
        def write() -> None:
            raise RuntimeError("database is locked")

        with pytest.raises(RuntimeError, match="locked"):
            retry.retrying(write, timeout_s=0.3)()

    def test_what_fails_otherwise_is_not(self) -> None:
        calls = []

        def write() -> None:
            calls.append(1)
            raise RuntimeError("no such table")

        with pytest.raises(RuntimeError):
            retry.retrying(write)()
        assert calls == [1]


# Does between runs what a test tells it to.
SWITCH = """
import sys
from alue_bench import hookimpl

@hookimpl
def alue_bench_run_started(spec):
    sys.modules["fault_switch"].before(spec)
"""

Before = Callable[[Callable[[int], None]], None]


@pytest.fixture
def before_runs(install: Any, monkeypatch: pytest.MonkeyPatch) -> Before:
    """Calls a function with the number of each run, from 1, when it begins."""
    install("alue-bench-switch", SWITCH)

    def tell(act: Callable[[int], None]) -> None:
        counted = iter(range(1, 1000))
        switch = ModuleType("fault_switch")
        switch.before = lambda spec: act(next(counted))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "fault_switch", switch)

    return tell


FOUR = ("-s", "full", "-s", "bottom1", "-s", "bottom2", "-s", "bottom3", "--json")


class TestAStoreThatVanishes:
    @pytest.fixture
    def away(self, own_store: str) -> Callable[[], None]:
        """Takes the database away, and leaves a folder in its place."""
        database = Path(own_store.removeprefix("sqlite:///"))

        def take() -> None:
            database.rename(database.with_suffix(".away"))
            database.mkdir()

        return take

    def back(self, own_store: str) -> None:
        database = Path(own_store.removeprefix("sqlite:///"))
        database.rmdir()
        database.with_suffix(".away").rename(database)

    def test_does_not_end_the_plan_and_gets_everything_from_the_next_run(
        self, run: CommandLine, before_runs: Before, away: Callable[[], None], own_store: str, experiment: str
    ) -> None:
        before_runs(lambda number: away() if number == 2 else None)
        said = run(*FOUR, "--tracking-uri", own_store)
        assert said.code == 0, said.err
        assert [done["status"] for done in json.loads(said.out)["runs"]] == ["finished"] * 4
        assert "the tracking store stopped answering" in said.err
        assert "did not accept 4 results" in said.err  # three runs, and the plan's own
        assert "alue-bench sync --tracking-uri" in said.err

        self.back(own_store)
        again = run(*FOUR, "--tracking-uri", own_store)
        assert "4 results that were kept on this machine are in the tracking store now" in again.err
        assert [done["status"] for done in json.loads(again.out)["runs"]] == ["reused"] * 4
        connection = connect(own_store, experiment)
        recorded = connection.client.search_runs([connection.experiment_id], "tags.kind = 'run'")
        assert Counter(one.info.status for one in recorded) == {"FINISHED": 4}
        parents = {one.data.tags["mlflow.parentRunId"] for one in recorded}
        assert len(parents) == 1
        kept = next(one for one in recorded if SPOOL_TAG in one.data.tags)
        artifacts = {file.path for file in connection.client.list_artifacts(kept.info.run_id)}
        assert artifacts >= {"predictions.csv", "config.json", "environment.json", "confusion_matrix.png"}
        assert all_spools() == []

    def test_what_is_kept_counts_as_finished(
        self, run: CommandLine, before_runs: Before, away: Callable[[], None], own_store: str, alue_bench: CommandLine
    ) -> None:
        before_runs(lambda number: away() if number == 1 else None)
        assert run("-s", "full", "--tracking-uri", own_store).code == 0
        self.back(own_store)
        (spool,) = all_spools()
        (entry,) = spool.entries()
        connection = connect(own_store, spool.experiment)
        recorder = recording.Recorder(connection)
        assert recorder.finished(entry.fingerprint or "").metrics["test/score"] is not None  # type: ignore[union-attr]

        sent = alue_bench("sync", "--tracking-uri", own_store)
        assert sent.code == 0, sent.err
        assert "1 results that were kept on this machine are in the tracking store now" in sent.err
        assert "No results are waiting" in alue_bench("sync", "--tracking-uri", own_store).err

    def test_ends_a_search_which_goes_by_what_it_reads_there_and_no_run_is_lost(
        self,
        alue_bench: CommandLine,
        before_runs: Before,
        away: Callable[[], None],
        own_store: str,
        experiment: str,
        tiny_bert: Path,
        easy: tuple[str, str],
    ) -> None:
        what = ("--task", easy[0], "--model", tiny_bert, *SHORT, "--grid", "bottom=0..2/2")
        wide = ("--tolerance", "0.7", "--margin", "0.9", "--budget", "400%")
        given = ("search", *what, *wide, "--tracking-uri", own_store, "--experiment", experiment, "--json")
        begun: list[int] = []

        def act(number: int) -> None:
            begun.append(number)
            if number == 2:
                away()

        before_runs(act)
        said = alue_bench(*given)
        assert (said.code, said.out) == (2, "")
        assert "No run is lost: run the same command again once the store answers" in said.err

        self.back(own_store)
        again = alue_bench(*given)
        assert again.code == 0, again.err
        (searched,) = json.loads(again.out)["searches"]
        done = len(begun) - sum(not step["reused"] for step in searched["steps"])
        assert done >= 2
        assert [step["reused"] for step in searched["steps"]] == [n < done for n in range(len(searched["steps"]))]

    def test_a_worker_that_begins_writes_what_one_before_it_had_to_leave(
        self, keep: Callable[..., None], spool: Spool, store: str, experiment: str, runs: Runs
    ) -> None:
        keep()
        nothing = Assignment(
            number=1, runs=(), tracking_uri=store, experiment=experiment, parent_id=None, invocation="i",
            disabled_plugins=(), rerun=False, device="cpu",
        )  # fmt: skip
        execute_assignment(nothing, lambda report: None)
        assert spool.entries() == []
        assert [run.info.status for run in runs()] == ["FINISHED"]

    def test_those_of_a_deleted_experiment_do_not_hold_up_others(
        self, alue_bench: CommandLine, keep: Callable[..., None], spool: Spool, store: str, experiment: str,
        client: Any, tmp_path: Path,
    ) -> None:  # fmt: skip
        keep()
        gone = connect(store, f"{experiment} gone")
        others = Spool(spool.store, gone.experiment)
        others.add(
            tmp_path / "files", run_id="spool-2", fingerprint="e" * 32, again=False, opening=OPENING, closing=CLOSING
        )
        client.delete_experiment(gone.experiment_id)
        said = alue_bench("sync", "--tracking-uri", store)
        assert said.code == 1
        assert (len(spool.entries()), len(others.entries())) == (0, 1)
        assert f"1 results are still kept in {others.folder}" in said.err
        assert "was deleted in" in said.err
        assert "restore it in MLflow, and run the same command again" in said.err
        assert "--experiment" not in said.err  # sync has no such option

    def test_results_of_another_store_are_named(
        self, alue_bench: CommandLine, keep: Callable[..., None], own_store: str, store: str
    ) -> None:
        keep()
        said = alue_bench("sync", "--tracking-uri", own_store)
        assert f"alue-bench sync --tracking-uri {store_name(store)}" in " ".join(said.err.split())


@pytest.mark.slow
def test_a_server_holds_the_same_as_a_file(run: CommandLine, tmp_path: Path, store: str, experiment: str) -> None:
    from mlflow import MlflowClient

    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(store.removeprefix("sqlite:///"), folder / "mlflow.db")
    with running_mlflow(folder) as server:
        what = ("-s", "bottom2", "--json")
        said = run(*what, "--tracking-uri", server.address.replace("://", "://me:secret-of-a-test@"))
        assert said.code == 0, said.err
        assert "secret-of-a-test" not in said.everything
        assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"secret-of-a-test" in p.read_bytes()]
        client = MlflowClient(tracking_uri=server.address)
        (recorded,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        assert recorded.info.status == "FINISHED"
        assert {f.path for f in client.list_artifacts(recorded.info.run_id)} >= {"config.json", "predictions.csv"}
        assert recorded.data.params["freeze.bottom"] == "2"
        assert len(recorded.inputs.dataset_inputs) == 3
        again = json.loads(run(*what, "--tracking-uri", server.address).out)
        assert again["tracking_uri"] == server.address
        assert [done["status"] for done in again["runs"]] == ["reused"]


@pytest.mark.slow
class TestPostgreSQL:
    @pytest.fixture(scope="class")
    def database(self) -> Iterator[Any]:
        pytest.importorskip("psycopg2", reason="PostgreSQL's driver psycopg2 is not installed")
        if binaries() is None:
            pytest.skip("PostgreSQL's server programs (initdb, postgres) are not installed")
        with running_postgresql() as server:
            yield server

    def test_behind_it_a_plan_runs_is_reused_and_survives_a_restart(
        self, run: CommandLine, before_runs: Before, database: Any, experiment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recording, "RETRY_INTERVAL_S", 0.5)

        def act(number: int) -> None:
            if number == 2:
                database.stop()
            if number == 4:
                database.start()
                time.sleep(1)

        before_runs(act)
        first = run(*FOUR, "--tracking-uri", database.uri)
        assert first.code == 0, first.err
        assert "secret-of-a-test" not in first.everything
        assert json.loads(first.out)["tracking_uri"] == f"postgresql+psycopg2://***@127.0.0.1:{database.port}/postgres"
        assert "did not accept" not in first.err
        again = run(*FOUR, "--tracking-uri", database.uri)
        assert [done["status"] for done in json.loads(again.out)["runs"]] == ["reused"] * 4
        connection = connect(database.uri, experiment)
        recorded = connection.client.search_runs([connection.experiment_id], "tags.kind = 'run'")
        assert Counter(one.info.status for one in recorded) == {"FINISHED": 4}

    def test_a_wrong_password_is_a_sentence_without_it(self, database: Any, alue_bench: CommandLine) -> None:
        uri = database.uri.replace("secret-of-a-test", "guessed-at-random")
        said = alue_bench("run", "-t", "anger", "-m", "mini", "-s", "full", "--tracking-uri", uri)
        assert said.code == 2
        assert "cannot be used" in said.err
        assert "password authentication failed" in said.err
        assert "guessed-at-random" not in said.everything
