"""MLflow holds enough after a run to read it, trust it, compare it, and never repeat it."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine
from sklearn.metrics import f1_score

from alue_bench.contract.errors import UnavailableError
from alue_bench.contract.spec import Predictions
from alue_bench.tracking import liveness
from alue_bench.tracking.connection import connect, sqlite_path, tracking_uri
from alue_bench.tracking.figures import draw_predictions

Runs = Callable[..., list[Any]]

# A model whose normalisation does what a file tells it to: the way in for trouble in the middle of a run.
TROUBLE = """
import os, time
from pathlib import Path
from alue_bench import Model, hookimpl

def normalise(text):
    trouble = Path({cue!r}).read_text() if Path({cue!r}).exists() else ""
    if trouble == "fail":
        raise RuntimeError("the preprocessor is out of order")
    if trouble == "interrupt":
        raise KeyboardInterrupt
    return text

@hookimpl
def alue_bench_models():
    return [Model(name="moody", title="t", checkpoint=Path({folder!r}), normalise=normalise, normalisation="none")]
"""


@pytest.fixture
def moody(install: Any, tiny_bert: Path, tmp_path: Path) -> Callable[[str], None]:
    """Installs the model `moody`, and says in which mood it is."""
    cue = tmp_path / "cue"
    install("alue-bench-moody", TROUBLE.format(cue=str(cue), folder=str(tiny_bert)))

    def be(mood: str) -> None:
        cue.write_text(mood)

    return be


def artifacts(run: Any) -> Path:
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(run.info.artifact_uri))


class TestARun:
    @pytest.fixture
    def recorded(self, run: CommandLine, runs: Runs) -> Any:
        said = run("-s", "bottom1top2", "--seed", "7", "--json")
        assert said.code == 0, said.err
        (stored,) = runs()
        assert stored.info.run_id == json.loads(said.out)["runs"][0]["run_id"]
        return stored

    def test_everything_the_design_promises(self, recorded: Any, client: Any) -> None:
        assert recorded.info.status == "FINISHED"
        assert recorded.info.run_name == "anger/tiny-bert/bottom1top2/seed7"
        assert recorded.data.params == {
            "task": "anger",
            "model": "tiny-bert",
            "strategy": "bottom1top2",
            "freeze.bottom": "1",
            "freeze.top": "2",
            "freeze.embeddings": "1",
            "layers": "4",
            "seed": "7",
            "lr": "2e-05",
            "epochs": "1",
            "batch_size": "16",
            "max_length": "24",
        }

        tags = recorded.data.tags
        assert tags["data.source"] == "sample"
        assert "Embedded sample data" in tags["mlflow.note.content"]
        assert tags["data.protocol"] == "official train, dev and test files"
        assert tags["host"] == socket.gethostname()
        assert tags["process"].startswith(f"{os.getpid()}@")
        assert {"hardware", "device", "precision", "alue_bench.version"} <= tags.keys()
        assert tags["primary_metric"] == "f1_macro"
        assert len(tags["fingerprint"]) == 32
        assert "mlflow.parentRunId" not in tags  # a single run needs no parent

        metrics = recorded.data.metrics
        for name in (
            "test/score", "test/f1_macro", "test/f1_micro", "test/f1_weighted", "test/f1_class_anger", "test/accuracy",
            "test/mcc", "test/trivial_score", "selection/dev_score", "runtime/train_s", "runtime/loop_s",
            "throughput/train_samples_per_s", "memory/process_peak_mib", "flops/train", "flops/train_vs_full",
            "params/trainable", "params/total", "train/loss", "dev/f1_macro",
        ):  # fmt: skip
            assert name in metrics
        assert metrics["test/score"] == metrics["test/f1_macro"]
        assert metrics["runtime/train_s"] > 0
        assert [point.step for point in client.get_metric_history(recorded.info.run_id, "dev/f1_macro")] == [3]

        inputs = {entry.tags[0].value: entry.dataset for entry in recorded.inputs.dataset_inputs}
        assert {context: data.name for context, data in inputs.items()} == {
            "training": "anger-train",
            "validation": "anger-dev",
            "testing": "anger-test",
        }
        assert json.loads(inputs["training"].profile)["rows"] == 48
        assert len({data.digest for data in inputs.values()}) == 3

    def test_artifacts(self, recorded: Any) -> None:
        folder = artifacts(recorded)
        assert {path.name for path in folder.iterdir()} == {
            "config.json", "environment.json", "predictions.csv", "predictions.arrow", "dev_predictions.csv",
            "confusion_matrix.png", "notes.txt",
        }  # fmt: skip
        config = json.loads((folder / "config.json").read_text())
        assert config["fingerprint"] == recorded.data.tags["fingerprint"]
        assert config["freeze_plan"] == {
            "layers": 4,
            "frozen_layers": [0, 2, 3],
            "embeddings": True,
            "pooler": False,
            "trained": "weights",
        }
        assert config["hyper"]["weight_decay"] == 0
        environment = json.loads((folder / "environment.json").read_text())
        assert {"hardware", "python", "libraries", "git"} <= environment.keys()
        assert environment["libraries"]["torch"]
        assert (folder / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")

    def test_predictions_have_scores_but_no_texts(self, recorded: Any, registry: Any) -> None:
        with (artifacts(recorded) / "predictions.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["id", "gold", "prediction", "score_no_anger", "score_anger"]
        assert len(rows) == 32
        task = registry.task("anger")
        official = {e.id: e for e in task.splits.test.read(task.sample / task.splits.test.path)}
        assert all(official[row["id"]].target == row["gold"] for row in rows)
        assert all(
            float(row["score_no_anger"]) + float(row["score_anger"]) == pytest.approx(1, abs=1e-5) for row in rows
        )
        right = sum(row["gold"] == row["prediction"] for row in rows) / len(rows)
        assert right == pytest.approx(recorded.data.metrics["test/accuracy"])

    def test_dev_predictions_are_those_of_the_selected_epoch(self, run: CommandLine, runs: Runs) -> None:
        said = run("-s", "full", "--epochs", "3", "--lr", "1e-3", task="mdd")
        assert said.code == 0, said.err
        (recorded,) = runs()
        with (artifacts(recorded) / "dev_predictions.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        f1 = f1_score([r["gold"] for r in rows], [r["prediction"] for r in rows], average="macro", zero_division=0.0)
        labels = len(rows[0]) - 3  # absent ones count as 0
        present = len({r["gold"] for r in rows} | {r["prediction"] for r in rows})
        assert f1 * present / labels == pytest.approx(recorded.data.metrics["selection/dev_score"])

    @pytest.mark.parametrize(
        ("task", "columns"),
        [("sec", 3 + 11), ("svreg", 3 + 1), ("mdd", 3 + 26)],
    )
    def test_other_kinds_of_targets_have_a_table_and_a_figure_too(
        self, run: CommandLine, runs: Runs, task: str, columns: int
    ) -> None:
        said = run("-s", "full", task=task)
        assert said.code == 0, said.err
        folder = artifacts(runs()[0])
        assert (folder / "confusion_matrix.png").stat().st_size > 1000
        with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
            assert {len(row) for row in csv.reader(file)} == {columns}


@pytest.mark.parametrize("task", ["anger", "mdd"])
def test_a_matrix_shows_its_own_predictions_whatever_was_drawn_before(registry: Any, tmp_path: Path, task: str) -> None:
    labels = registry.tasks[task].value.labels
    gold = list(labels.names) * 3

    def drawn(title: str, predicted: list[str]) -> bytes:
        ids = [str(number) for number in range(len(gold))]
        predictions = Predictions(ids=ids, gold=gold, predicted=predicted, scores=None, columns=())
        draw_predictions(tmp_path / "matrix.png", predictions, labels, title=title)
        return (tmp_path / "matrix.png").read_bytes()

    right, wrong = drawn("one", gold), drawn("one", gold[::-1])
    assert right != wrong
    assert drawn("two", gold) != right
    assert drawn("one", gold) == right


class TestAPlan:
    def test_its_runs_have_a_parent_that_holds_the_plan_and_the_aggregates(self, run: CommandLine, runs: Runs) -> None:
        said = run("-s", "full", "-s", "bottom2", "-s", "bottom9", "--json")
        parent, full, bottom = runs()
        assert (parent.info.status, parent.data.tags["kind"]) == ("FINISHED", "plan")
        assert {child.data.tags["mlflow.parentRunId"] for child in (full, bottom)} == {parent.info.run_id}
        folder = artifacts(parent)
        plan = json.loads((folder / "plan.json").read_text())
        assert [planned["strategy"] for planned in plan["planned"]] == ["full", "bottom2"]
        assert plan["skipped"][0]["strategy"] == "bottom9"
        assert json.loads((folder / "results.json").read_text()) == json.loads(said.out)
        metrics = parent.data.metrics
        assert (metrics["runs/finished"], metrics["runs/failed"]) == (2, 0)
        assert metrics["mean_score/full"] == full.data.metrics["test/score"]
        assert metrics["total_train_s/bottom2"] == bottom.data.metrics["runtime/train_s"]

    def test_it_leaves_no_temporary_files(
        self, run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
        assert run("-s", "full", "-s", "bottom2").code == 0
        assert list((tmp_path / "temporary").iterdir()) == []


class TestTrouble:
    def test_a_failed_run_keeps_its_traceback(
        self, run: CommandLine, runs: Runs, moody: Callable[[str], None], tiny_bert: Path
    ) -> None:
        moody("fail")
        assert run("-s", "full", "-m", "moody").code == 1
        parent, fine, failed = runs()
        assert [r.info.status for r in (parent, fine, failed)] == ["FAILED", "FINISHED", "FAILED"]
        assert failed.data.tags["failure"] == "RuntimeError: the preprocessor is out of order"
        trace = (artifacts(failed) / "traceback.txt").read_text()
        assert trace.startswith("Traceback")
        assert "in normalise" in trace

    def test_a_failed_run_is_done_again_by_the_next_invocation(
        self, run: CommandLine, moody: Callable[[str], None]
    ) -> None:
        moody("fail")
        run("-s", "full", model="moody")
        moody("well")
        again = json.loads(run("-s", "full", "--json", model="moody").out)["runs"][0]
        assert again["status"] == "finished"

    def test_an_interrupted_one_is_killed_and_what_was_finished_stays(
        self, run: CommandLine, runs: Runs, moody: Callable[[str], None], tiny_bert: Path
    ) -> None:
        moody("interrupt")
        said = run("-m", "moody", "-s", "full", "--json", model=tiny_bert)
        assert said.code == 130
        assert "interrupted: 1 runs are left; run the same command again to continue" in said.err
        assert "Traceback" not in said.everything
        assert [done["status"] for done in json.loads(said.out)["runs"]] == ["finished"]
        assert [r.info.status for r in runs()] == ["KILLED", "FINISHED", "KILLED"]
        moody("well")
        said = run("-m", "moody", "-s", "full", "--json", model=tiny_bert)
        assert [done["status"] for done in json.loads(said.out)["runs"]] == ["reused", "finished"]


class TestLeftRunning:
    """MLflow never closes a run whose process is gone; the next invocation does."""

    @pytest.fixture
    def leave(self, client: Any, store: str, experiment: str) -> Callable[..., str]:
        def create(process: str, machine: str | None = None) -> str:
            connection = connect(store, experiment)
            tags = {"machine": machine or liveness.this_machine(), "process": process}
            return str(client.create_run(connection.experiment_id, tags=tags).info.run_id)

        return create

    def status_after(self, run: CommandLine, client: Any, run_id: str) -> tuple[str, str]:
        said = run("-s", "full")
        return client.get_run(run_id).info.status, said.err

    def test_by_a_process_that_is_gone(self, run: CommandLine, client: Any, leave: Callable[..., str]) -> None:
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        status, said = self.status_after(run, client, leave(f"{gone.pid}@12345"))
        assert status == "KILLED"
        assert "1 runs of an earlier invocation were interrupted" in said

    def test_by_one_whose_number_another_has_now(
        self, run: CommandLine, client: Any, leave: Callable[..., str]
    ) -> None:
        assert self.status_after(run, client, leave(f"{os.getpid()}@12345"))[0] == "KILLED"

    def test_by_one_that_died_but_was_not_buried(
        self, run: CommandLine, client: Any, leave: Callable[..., str]
    ) -> None:
        import psutil

        who = "import sys; from alue_bench.tracking.liveness import this_process; print(this_process())"
        zombie = subprocess.Popen([sys.executable, "-c", who], stdout=subprocess.PIPE, text=True)
        assert zombie.stdout is not None
        process = zombie.stdout.read().strip()
        while psutil.Process(zombie.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert self.status_after(run, client, leave(process))[0] == "KILLED"
        zombie.wait()

    def test_by_one_that_lives(self, run: CommandLine, client: Any, leave: Callable[..., str]) -> None:
        status, said = self.status_after(run, client, leave(liveness.this_process()))
        assert status == "RUNNING"
        assert "interrupted" not in said

    def test_by_one_on_another_machine(self, run: CommandLine, client: Any, leave: Callable[..., str]) -> None:
        # Nothing tells at first sight whether it lives.
        assert self.status_after(run, client, leave("1@1", machine="elsewhere"))[0] == "RUNNING"


class TestStore:
    @pytest.mark.slow
    def test_it_is_created_below_the_working_folder_with_its_artifacts_beside_it(
        self, alue_bench: CommandLine, tiny_bert: Path, tmp_path: Path
    ) -> None:
        said = alue_bench("run", "-t", "anger", "-m", tiny_bert, "-s", "full", "--epochs", "1", "--limit-train", "20")
        assert said.code == 0, said.err
        folder = tmp_path / "work" / "mlruns"
        assert (folder / "mlflow.db").is_file()
        assert len(list((folder / "artifacts").rglob("predictions.csv"))) == 1
        assert [path.name for path in (tmp_path / "work").iterdir()] == ["mlruns"]

    def test_the_option_comes_before_the_variable_before_the_default(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert tracking_uri(None) == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
        assert tracking_uri(None) == "http://there"
        assert tracking_uri("http://here") == "http://here"

    @pytest.mark.parametrize(
        ("uri", "path"),
        [("sqlite:///a/b.db", "a/b.db"), ("sqlite:////a/b.db", "/a/b.db"), ("sqlite:///b.db?x=1", "b.db")],
    )
    def test_the_file_of_a_sqlite_uri(self, uri: str, path: str) -> None:
        assert sqlite_path(uri) == Path(path)

    def test_a_deleted_experiment_is_not_silently_used(
        self, run: CommandLine, client: Any, store: str, experiment: str
    ) -> None:
        client.delete_experiment(connect(store, experiment).experiment_id)
        said = run("-s", "full")
        assert said.code == 2
        assert "was deleted" in said.err


class TestUnreachableServer:
    @pytest.mark.parametrize("silent", [False, True], ids=["nobody listens", "nobody answers"])
    def test_is_one_sentence_within_seconds(self, silent: bool) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            if silent:
                listening.listen()
            started = time.monotonic()
            with pytest.raises(UnavailableError, match=f"tracking server {address} does not answer"):
                connect(address, "x")
            assert time.monotonic() - started < 10
