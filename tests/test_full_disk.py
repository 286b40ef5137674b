"""A disk that is full is named, loses no result, and the plan goes on once there is room."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import CommandLine
from stress.outages import small_disk as mounted

from alue_bench.contract.errors import UnavailableError
from alue_bench.tracking.connection import connect
from alue_bench.training.checkpointing import checkpoint_folder

TWO = ("-s", "full", "-s", "bottom2", "--json")

SmallDisk = Callable[[str, int], Path]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of so many kilobytes, mounted below the test's folder."""
    with ExitStack() as stack:

        def mount(name: str, kilobytes: int) -> Path:
            try:
                return stack.enter_context(mounted(tmp_path / name, 1024 * kilobytes))
            except UnavailableError as error:
                pytest.skip(str(error))

        yield mount


def fill(disk: Path) -> Path:
    """Takes all the room there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        block = 1 << 16
        while block:
            try:
                file.write(b"x" * block)
            except OSError:
                block //= 2
    return filler


@pytest.fixture(scope="module")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store without runs: the larger a store, the more room it takes to write a run to it, and the one
    that all tests share has grown by what ran before."""
    database = tmp_path_factory.mktemp("new-store") / "mlflow.db"
    connect(f"sqlite:///{database}", "first")
    return database


@pytest.fixture
def store_on(small_disk: SmallDisk, new_store: Path) -> str:
    """A store on a small disk, artifacts included."""
    disk = small_disk("disk", new_store.stat().st_size // 1024 + 400)
    shutil.copy(new_store, disk / "mlflow.db")
    return f"sqlite:///{disk / 'mlflow.db'}"


def statuses(uri: str, experiment: str) -> Counter[str]:
    connection = connect(uri, experiment)
    recorded = connection.client.search_runs([connection.experiment_id], "tags.kind = 'run'")
    return Counter(run.info.status for run in recorded)


def test_a_full_store_keeps_the_results_elsewhere_until_there_is_room(
    run: CommandLine, store_on: str, tmp_path: Path, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALUE_BENCH_STATE", str(tmp_path / "state"))
    connect(store_on, experiment)
    filler = fill(tmp_path / "disk")
    said = run(*TWO, "--tracking-uri", store_on)
    assert said.code == 0, said.err
    assert "the tracking store stopped answering" in said.err
    assert "disk is full" in said.err or "No space left on device" in said.err
    assert "did not accept" in said.err

    filler.unlink()
    again = run(*TWO, "--tracking-uri", store_on)
    assert [done["status"] for done in json.loads(again.out)["runs"]] == ["reused"] * 2
    assert statuses(store_on, experiment) == {"FINISHED": 2}


def test_where_nothing_is_left_anywhere_the_plan_ends_with_a_sentence_and_goes_on_once_there_is_room(
    run: CommandLine, store_on: str, tmp_path: Path, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALUE_BENCH_STATE", str(tmp_path / "disk" / "state"))
    connect(store_on, experiment)
    filler = fill(tmp_path / "disk")
    again_and_again = (*TWO, "--checkpoint-every", "0", "--tracking-uri", store_on)
    said = run(*again_and_again)
    assert said.code == 2, said.err
    sentence = said.err.rpartition("alue-bench: ")[2]
    assert "No space left on device" in sentence
    assert "free some space" in sentence
    assert "ALUE_BENCH_STATE" in sentence
    assert "Traceback" not in said.everything
    assert list(checkpoint_folder().iterdir())  # the training need not be done again

    filler.unlink()
    again = run(*again_and_again)
    assert again.code == 0, again.err
    assert statuses(store_on, experiment)["FINISHED"] == 2
    assert not list(checkpoint_folder().iterdir())


def test_without_room_for_temporary_files_anywhere_the_plan_ends_with_a_sentence(
    run: CommandLine, small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk("temporary", 64)
    fill(disk)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    monkeypatch.setenv("ALUE_BENCH_STATE", str(disk / "state"))
    said = run("-s", "full")
    assert said.code == 2, said.err
    assert "cannot be written to the folder for temporary files (No space left on device)" in said.err
    assert "TMPDIR" in said.err
    assert "Traceback" not in said.everything


def test_a_full_cache_costs_time_and_nothing_else(
    run: CommandLine, small_disk: SmallDisk, experiment: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk("cache", 64)
    fill(disk)
    monkeypatch.setenv("ALUE_BENCH_CACHE", str(disk))
    with pytest.warns(UserWarning, match="token ids are not kept in .* free some space"):
        said = run(*TWO, "--checkpoint-every", "0")
    assert said.code == 0, said.err
    assert statuses(store, experiment) == {"FINISHED": 2}
