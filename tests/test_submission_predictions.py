"""A run predicts what a leaderboard wants, where its rows are at hand, and no result depends on it."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine

from alue_bench import DataFile, Delimited, Labels, Splits, Submission, Task
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import load_rows, submission_rows

QUICK = ("--epochs", "1", "--limit-train", "48", "--max-length", "24")
FILE = "osact4/OSACT2020-sharedTask-test-tweets.txt"


def rows_of(task: Task, folder: Path | None, **limits: Any) -> Any:
    assert task.sample is not None
    unlimited = {"drop_bad": False, "limit_train": None, "limit_eval": None}
    return load_rows(task, DataFolder(folder or task.sample, "sample"), **(unlimited | limits))


@pytest.fixture
def data(registry: Any, tmp_path: Path) -> Path:
    """The sample's files, to be changed."""
    folder = tmp_path / "data"
    shutil.copytree(registry.task("oold").sample / "osact4", folder / "osact4")
    return folder


class TestRows:
    def test_unlabelled_rows_are_there_beside_the_splits_whole(self, registry: Any) -> None:
        rows = rows_of(registry.task("oold"), None)
        assert len(rows.splits["submission"].examples) == 40
        assert all(example.target is None for example in rows.splits["submission"].examples)

    def test_a_run_that_scores_a_part_is_a_rehearsal_and_submits_nothing(self, registry: Any) -> None:
        assert "submission" not in rows_of(registry.task("oold"), None, limit_eval=10).splits

    def test_where_the_test_file_is_the_leaderboards_it_is_not_read_twice(self, registry: Any) -> None:
        task = registry.task("svreg")
        assert "submission" not in rows_of(task, None).splits
        rows = submission_rows(task, DataFolder(task.sample, "sample"))
        assert rows is not None
        assert len(rows.examples) == len(rows_of(task, None).splits["test"].examples)

    def test_a_missing_file_is_no_matter(self, registry: Any, data: Path) -> None:
        (data / FILE).unlink()
        rows = rows_of(registry.task("oold"), data)
        assert "submission" not in rows.splits
        assert rows.notes == ()

    def test_a_bad_row_costs_the_submission_and_not_the_run(self, registry: Any, data: Path) -> None:
        with (data / FILE).open("a", encoding="utf-8") as file:
            file.write("\tone column too many\n")
        rows = rows_of(registry.task("oold"), data)
        assert "submission" not in rows.splits
        (note,) = rows.notes
        assert "offensive.tsv" in note
        assert f"{FILE}:41" in note

    def test_the_splits_are_the_same_with_it_and_without_it(self, registry: Any, data: Path) -> None:
        with_it = rows_of(registry.task("oold"), data).splits
        (data / FILE).unlink()
        without = rows_of(registry.task("oold"), data).splits
        assert without == {name: split for name, split in with_it.items() if name != "submission"}


class TestRun:
    def test_it_records_a_prediction_for_each_row_and_the_same_scores_as_without(
        self, alue_bench: CommandLine, runs: Callable[..., list[Any]], client: Any, tiny_bert: Path, store: str,
        experiment: str, data: Path, tmp_path: Path,
    ) -> None:  # fmt: skip
        command = ("run", "-t", "oold", "-m", tiny_bert, "-s", "bottom1", *QUICK, "--data-dir", data)
        where = ("--tracking-uri", store, "--experiment", experiment)
        assert alue_bench(*command, *where).code == 0
        (data / FILE).unlink()
        assert alue_bench(*command, *where, "--rerun").code == 0
        with_it, without = runs()
        path = client.download_artifacts(with_it.info.run_id, "submission_predictions.csv", str(tmp_path))
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["id"] for row in rows] == [str(number) for number in range(40)]
        assert {row["prediction"] for row in rows} <= {"OFF", "NOT_OFF"}
        for row in rows:
            assert (max("NOT_OFF", "OFF", key=lambda name: float(row[f"score_{name}"]))) == row["prediction"]
        assert "submission_predictions.csv" not in {f.path for f in client.list_artifacts(without.info.run_id)}
        measured = ("test/score", "selection/dev_score", "train/epoch_loss")
        assert [with_it.data.metrics[m] for m in measured] == [without.data.metrics[m] for m in measured]
        assert with_it.data.tags["fingerprint"] == without.data.tags["fingerprint"]


class TestDeclaration:
    def task(self, **changes: Any) -> Task:
        read = Delimited(columns=2, text=0, target=1)
        file = DataFile("rows.tsv", read)
        declared: dict[str, Any] = {
            "name": "mine", "title": "Mine", "languages": ("ar",), "labels": Labels.binary("no", "yes"),
            "splits": Splits(train=file, dev=file, test=file), "source": "this test", "licence": "Apache-2.0",
            "citation": "this test", "submission": Submission(file="mine.tsv"),
        }  # fmt: skip
        return Task(**(declared | changes))

    @pytest.mark.parametrize(
        ("submission", "said"),
        [
            ({"header": ("id", "prediction")}, "header has 2 columns, its lines 1"),
            ({"id": "row", "header": ("id",)}, "header has 1 columns, its lines 2"),
            ({"encode": {"maybe": "1"}}, "'maybe', which is not one of its labels"),
        ],
    )
    def test_a_form_that_does_not_fit_the_task_is_refused(self, submission: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            self.task(submission=dataclasses.replace(Submission(file="mine.tsv"), **submission))

    def test_a_label_misspelt_in_decode_is_refused_and_one_of_ignored_rows_is_not(self) -> None:
        codes = {"0": "no", "1": "yse"}
        reader = Delimited(columns=2, text=0, target=1, decode=codes)
        with pytest.raises(
            ValueError, match="decode gives 'yse', which is not one of the labels; declared are no, yes"
        ):
            self.task(splits=self.splits(reader))
        ignoring = dataclasses.replace(reader, ignore=frozenset({"1"}))
        assert self.task(splits=self.splits(ignoring)).labels.names == ("no", "yes")

    def splits(self, of_test: Delimited) -> Splits:
        file = DataFile("rows.tsv", Delimited(columns=2, text=0, target=1))
        return Splits(train=file, dev=file, test=DataFile("test.tsv", of_test))

    @pytest.mark.parametrize("name", ["", "a/b.tsv", "../up.tsv"])
    def test_a_file_is_a_name_without_a_folder(self, name: str) -> None:
        with pytest.raises(ValueError, match="without a folder"):
            Submission(file=name)
