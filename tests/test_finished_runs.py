"""A run that has finished is recorded, whatever becomes of its measurements, its pictures and its artifacts."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import CommandLine

from alue_bench.measure import peak
from alue_bench.measure.energy import Energy
from alue_bench.measure.memory import PeakMemory
from alue_bench.tracking import recording
from alue_bench.tracking.connection import connect
from alue_bench.tracking.reading import read_notes, read_results
from alue_bench.tracking.spool import MISSING_TAG, all_spools

Runs = Callable[..., list[Any]]


class TestMeasurements:
    @pytest.fixture
    def counter(self, tmp_path: Path) -> Path:
        """The folder of an energy counter, as Linux shows it."""
        folder = tmp_path / "powercap" / "intel-rapl:0"
        folder.mkdir(parents=True)
        (folder / "energy_uj").write_text("1000000\n")
        (folder / "max_energy_range_uj").write_text("9000000\n")
        return folder

    def test_an_energy_counter_that_fails_at_the_end_is_left_out_and_told(self, counter: Path) -> None:
        with Energy("cpu", counter.parent) as energy:
            (counter / "energy_uj").unlink()
        assert energy.joules == {}
        assert [problem.partition(":")[0] for problem in energy.problems] == ["no energy/cpu_j"]

    def test_nor_does_one_that_fails_at_the_start_stop_the_work(self, counter: Path) -> None:
        energy = Energy("cpu", counter.parent)
        (counter / "energy_uj").write_text("none")
        with energy:
            pass
        assert (energy.joules, len(energy.problems)) == ({}, 1)

    def test_nor_does_it_replace_the_error_of_the_work(self, counter: Path) -> None:
        def work() -> None:
            with Energy("cpu", counter.parent):
                (counter / "energy_uj").unlink()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            work()

    def test_a_peak_that_was_not_sampled_to_the_end_is_no_peak(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with PeakMemory("cpu") as memory:
            monkeypatch.setattr(psutil.Process, "memory_info", _raising(psutil.AccessDenied(1)))
        assert memory.process_mib is None
        assert "no memory/process_peak_mib: AccessDenied" in memory.problems[0]

    def test_a_run_without_any_of_them_is_finished_and_tells_what_it_lacks(
        self, run: CommandLine, runs: Runs, store: str, experiment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(peak.SIZE, "cpu", 10**7)  # no memory holds 400 TB
        peak._measured.cache_clear()
        monkeypatch.setattr(psutil.Process, "memory_info", _raising(OSError("no /proc")))
        monkeypatch.setattr(os, "sched_getaffinity", _raising(OSError("not allowed")), raising=False)
        said = run("-s", "full", "--json")
        assert said.code == 0, said.err
        (document,) = json.loads(said.out)["runs"]
        assert document["status"] == "finished"
        (recorded,) = runs()
        assert recorded.info.status == "FINISHED"
        assert "test/score" in recorded.data.metrics
        notes = read_notes(read_results(connect(store, experiment)), recorded.info.run_id)
        for missing in ("throughput/flops_utilisation", "memory/process_peak_mib", "description of the hardware"):
            assert missing not in recorded.data.metrics
            assert [note for note in notes if note.startswith(f"no {missing}")]
            assert f"no {missing}" in said.err


def _raising(error: BaseException) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise error

    return call


@pytest.mark.parametrize("task", ["anger", "sec"])
def test_figures_that_cannot_be_drawn_cost_nothing_else(
    run: CommandLine, runs: Runs, client: Any, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure
    from PIL import Image

    monkeypatch.setattr(Figure, "savefig", _raising(MemoryError()))
    monkeypatch.setattr(Image.Image, "save", _raising(MemoryError()))
    said = run("-s", "full", "-s", "bottom2", task=task)
    assert said.code == 0, said.err
    parent, *children = runs()
    assert Counter(one.info.status for one in (parent, *children)) == {"FINISHED": 3}
    for child in children:
        artifacts = {file.path for file in client.list_artifacts(child.info.run_id)}
        assert "confusion_matrix.png" not in artifacts
        assert artifacts >= {"predictions.csv", "notes.txt"}
        notes = Path(client.download_artifacts(child.info.run_id, "notes.txt")).read_text()
        assert "no confusion_matrix.png: MemoryError" in notes
    assert said.err.count("no confusion_matrix.png: MemoryError") == 2


class TestArtifactsThatCannotBeWritten:
    @pytest.fixture
    def place(self, own_store: str, experiment: str, tmp_path: Path) -> Path:
        """An artifact location below a file, where no folder can be created."""
        from mlflow import MlflowClient

        place = tmp_path / "place"
        place.write_text("")
        MlflowClient(tracking_uri=own_store).create_experiment(experiment, artifact_location=(place / "a").as_uri())
        return place

    def test_results_are_recorded_and_the_artifacts_follow(
        self, run: CommandLine, alue_bench: CommandLine, own_store: str, experiment: str, place: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.setattr(recording, "RETRY_INTERVAL_S", 0.0)
        said = run("-s", "full", "-s", "bottom2", "--tracking-uri", own_store)
        assert said.code == 0, said.err
        assert "stopped answering" not in said.err
        assert said.err.count("artifacts cannot be written to") == 1
        assert str(place) in said.err
        assert "The artifacts of 3 runs" in said.err
        assert "did not accept" not in said.err
        connection = connect(own_store, experiment)

        def recorded() -> list[Any]:
            return list(connection.client.search_runs([connection.experiment_id]))

        assert Counter(one.info.status for one in recorded()) == {"FINISHED": 3}
        assert all(str(place) in one.data.tags[MISSING_TAG] for one in recorded())
        assert list(read_results(connection).frame["score"].notna()) == [True, True]
        again = run("-s", "full", "-s", "bottom2", "--tracking-uri", own_store)
        assert "reused" in again.err

        left = alue_bench("sync", "--tracking-uri", own_store)
        assert left.code == 1
        assert f"cannot be written to file://{place}" in left.err
        place.unlink()
        sent = alue_bench("sync", "--tracking-uri", own_store)
        assert sent.code == 0, sent.err
        assert "the artifacts of 4 runs that were kept on this machine are with their runs now" in sent.err  # two plans
        assert all_spools() == []
        for one in recorded():
            assert MISSING_TAG not in one.data.tags
            wanted = {"plan": {"plan.json", "results.json"}, "run": {"config.json", "predictions.csv"}}
            artifacts = {file.path for file in connection.client.list_artifacts(one.info.run_id)}
            assert artifacts >= wanted[one.data.tags["kind"]]

    def test_those_of_a_result_that_waited_for_its_store_are_kept_on(
        self, own_store: str, experiment: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ALUE_BENCH_STATE", str(tmp_path / "state"))
        connection = connect(own_store, experiment)
        recorder = recording.Recorder(connection)
        recorder.unavailable = recording.UnavailablePeriod("for a test", float("inf"))
        recorder.start_parent({}, name="plan", tags={})
        recorder.finish_parent({}, {"mean_score/full": 0.5}, status="FINISHED")
        recorder.unavailable = None
        assert [sent.outcome for sent in recorder.send_spooled()] == ["without artifacts"]
        (entry,) = recorder.spool.entries()
        assert entry.artifacts_only
        (run,) = connection.client.search_runs([connection.experiment_id])
        assert (run.info.status, run.data.metrics) == ("FINISHED", {"mean_score/full": 0.5})
        place.unlink()
        recorder._artifacts_unavailable = None
        assert [sent.outcome for sent in recorder.send_spooled()] == ["written"]
        artifacts = {file.path for file in connection.client.list_artifacts(run.info.run_id)}
        assert artifacts == {"plan.json", "results.json"}
        assert recorder.spool.entries() == []

    def test_a_place_whose_library_is_missing_is_such_a_one(
        self, run: CommandLine, own_store: str, experiment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=own_store)
        identifier = client.create_experiment(experiment, artifact_location="s3://bucket/of/nobody")
        monkeypatch.setitem(__import__("sys").modules, "boto3", None)
        said = run("-s", "full", "--tracking-uri", own_store)
        assert said.code == 0, said.err
        assert "artifacts cannot be written to s3://bucket/of/nobody" in said.err
        assert "boto3" in said.err
        assert [one.info.status for one in client.search_runs([identifier])] == ["FINISHED"]


def test_a_plan_whose_metrics_the_store_refuses_is_closed_and_names_them(
    run: CommandLine, runs: Runs, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelt = recording.stored_names
    refused = {"mean_score/full": "mean_score/[full]"}  # as a store would that takes fewer names than MLflow's own
    monkeypatch.setattr(recording, "stored_names", lambda names: spelt(names) | refused)
    said = run("-s", "full", "-s", "bottom2")
    assert said.code == 0, said.err
    assert "not recorded, because the tracking store rejects it: metric 'mean_score/[full]'" in said.err
    assert "did not accept" not in said.err
    parent = runs()[0]
    assert parent.info.status == "FINISHED"
    assert {"mean_score/bottom2", "runs/finished"} <= parent.data.metrics.keys()
    assert "mean_score/full" not in parent.data.metrics
    notes = Path(client.download_artifacts(parent.info.run_id, "notes.txt")).read_text()
    assert "mean_score/[full]" in notes
    assert all_spools() == []


def test_files_for_which_the_temporary_folder_has_no_place_are_written_in_the_spool(
    run: CommandLine, runs: Runs, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    said = run("-s", "full")
    assert said.code == 0, said.err
    assert "cannot be written to the folder for temporary files (No such file or directory)" in said.err
    assert "TMPDIR" in said.err
    (recorded,) = runs()
    assert recorded.info.status == "FINISHED"
    monkeypatch.setattr(tempfile, "tempdir", None)
    artifacts = {file.path for file in client.list_artifacts(recorded.info.run_id)}
    assert artifacts >= {"config.json", "predictions.csv"}
    assert not list((tmp_path / "state").glob("scratch-*"))
