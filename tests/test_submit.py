"""`alue-bench submit`: files that the leaderboard takes, from the runs that are best on dev."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine, Finished, call_in
from hypothesis import given
from hypothesis import strategies as st
from leaderboard_format import HEADERS, OFFICIAL, problems

from alue_bench import DataError, Example, Labels
from alue_bench.contract.task import Task
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import submission_rows
from alue_bench.evaluation.label_cells import join_labels
from alue_bench.evaluation.submission import submission_text

TASKS = ("mq2q", "mdd", "fid", "svreg", "sec", "oold", "ohsd", "xnli", "diag")
QUICK = (
    "--epochs", "1", "--limit-train", "32", "--max-length", "32", "--batch-size", "16", "-s", "head-only",
    "--no-yardstick",
)  # fmt: skip


@pytest.fixture(scope="module")
def sample(registry: Any) -> Path:
    folder: Path = registry.task("mq2q").sample
    return folder


@pytest.fixture(scope="module")
def where(store: str) -> tuple[str, ...]:
    return ("--tracking-uri", store, "--experiment", "submissions")


@pytest.fixture(scope="module")
def all_run(where: tuple[str, ...], tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """One run on the sample of each task of the leaderboard."""
    with call_in(tmp_path_factory.mktemp("submissions")) as call:
        tasks = [word for task in TASKS for word in ("-t", task)]
        said = call("run", *tasks, "-m", tiny_bert, *QUICK, "--json", *where)
        assert said.code == 0, said.err
        return json.loads(said.out)["runs"]  # type: ignore[no-any-return]


def submitted(alue_bench: CommandLine, *arguments: object) -> tuple[Finished, dict[str, Any]]:
    said = alue_bench("submit", "out", *arguments, "--json")
    return said, json.loads(said.out) if said.out else {}


class TestFiles:
    @pytest.fixture
    def written(self, alue_bench: CommandLine, all_run: list[Any], where: tuple[str, ...]) -> dict[str, Any]:
        said, document = submitted(alue_bench, "--sample", *where)
        assert said.code == 0, said.err
        return document

    def test_every_file_of_the_leaderboard_passes_its_check(self, written: dict[str, Any], sample: Path) -> None:
        assert {entry["file"] for entry in written["files"]} == set(OFFICIAL)
        assert written["missing"] == []
        for name in OFFICIAL:
            assert problems(name, (Path("out") / name).read_bytes(), sample) == []

    def test_the_archive_holds_these_files_and_nothing_else(self, written: dict[str, Any]) -> None:
        with zipfile.ZipFile("out.zip") as archive:
            assert set(archive.namelist()) == set(OFFICIAL)
            for name in OFFICIAL:
                assert archive.read(name) == (Path("out") / name).read_bytes()

    def test_the_record_beside_them_tells_the_runs(self, written: dict[str, Any], all_run: list[Any]) -> None:
        assert json.loads((Path("out") / "submission.json").read_text()) == written
        assert {e["task"]: e["run_id"] for e in written["files"]} == {run["task"]: run["run_id"] for run in all_run}

    def test_a_second_time_nothing_is_overwritten(
        self, written: dict[str, Any], alue_bench: CommandLine, where: tuple[str, ...]
    ) -> None:
        before = {path: path.read_bytes() for path in Path("out").iterdir()}
        said = alue_bench("submit", "out", "--sample", *where)
        assert said.code == 2
        assert "out exists" in said.err
        assert {path: path.read_bytes() for path in Path("out").iterdir()} == before


class TestTheCheckItself:
    """A checker that finds nothing proves nothing."""

    @pytest.mark.parametrize(
        ("name", "damage"),
        [
            (name, damage)
            for name in OFFICIAL
            for damage in ("a row less", "a row more", "two rows swapped", "a wrong label", "a column more")
            if damage != "two rows swapped" or name in HEADERS  # rows without identifiers cannot be told apart
        ],
    )
    def test_it_finds_damage(self, name: str, damage: str, registry: Any, sample: Path) -> None:
        task = next(d.value for d in registry.tasks.values() if d.value.submission and d.value.submission.file == name)
        lines = text_of(task, sample).splitlines()
        damaged = {
            "a row less": lines[:-1],
            "a row more": [*lines, lines[-1]],
            "two rows swapped": [*lines[:-2], lines[-1], lines[-2]],
            "a wrong label": [*lines[:-1], lines[-1].rpartition("\t")[0] + "\tperhaps"],
            "a column more": [*lines[:-1], lines[-1] + "\t1"],
        }[damage]
        assert problems(name, ("\n".join(lines) + "\n").encode(), sample) == []
        assert problems(name, ("\n".join(damaged) + "\n").encode(), sample) != []


def text_of(task: Task, sample: Path) -> str:
    """A submission in which every row has the task's first label."""
    rows = submission_rows(task, DataFolder(sample, "sample"))
    assert rows is not None
    predicted = "0.5" if task.name == "svreg" else task.labels.names[0]
    return submission_text(task, [e.id for e in rows.examples], [predicted] * len(rows.examples), rows.examples)


class TestWriter:
    @given(st.lists(st.sets(st.sampled_from(("angry", "very angry", "[c]"))), min_size=1, max_size=8))
    def test_labels_of_a_multi_label_task_become_marks_in_the_order_of_the_labels(self, marks: list[set[str]]) -> None:
        names = ("angry", "very angry", "[c]")
        task = declared(Labels.multilabel(*names), header=("ID", *names), id="given")
        rows = [Example(f"x{n}", "text", None, None, n) for n in range(len(marks))]
        text = submission_text(task, [row.id for row in rows], [join_labels(sorted(m)) for m in marks], rows)
        body = [line.split("\t") for line in text.splitlines()[1:]]
        assert [row[0] for row in body] == [row.id for row in rows]
        assert [{name for name, mark in zip(names, row[1:], strict=True) if mark == "1"} for row in body] == marks

    @given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=8))
    def test_numbers_lose_nothing(self, numbers: list[float]) -> None:
        task = declared(Labels.regression(0, 1), id="row")
        rows = [Example("same", "text", None, None, n) for n in range(len(numbers))]
        text = submission_text(task, ["same"] * len(rows), [repr(number) for number in numbers], rows)
        body = [line.split("\t") for line in text.splitlines()]
        assert [int(row[0]) for row in body] == list(range(len(rows)))
        assert [float(row[1]) for row in body] == numbers

    @pytest.mark.parametrize(
        ("ids", "predicted", "said"),
        [
            (["0"], ["a"], "1 predictions for the 2 rows"),
            (["1", "0"], ["a", "b"], "prediction 1 is of '1', but row 1 of the official file is '0'"),
            (["0", "1"], ["a", "x"], "prediction 2 of 2: 'x' is not one of the labels a, b"),
        ],
    )
    def test_predictions_of_other_rows_or_labels_are_refused(
        self, ids: list[str], predicted: list[str], said: str
    ) -> None:
        rows = [Example(str(n), "text", None, None, n) for n in range(2)]
        with pytest.raises(DataError, match=said):
            submission_text(declared(Labels.multiclass("a", "b")), ids, predicted, rows)

    def test_a_number_that_is_not_finite_is_refused(self) -> None:
        with pytest.raises(DataError, match="not a finite number"):
            submission_text(declared(Labels.regression(0, 1)), ["0"], ["nan"], [Example("0", "text", None, None, 1)])


def declared(labels: Labels, **form: Any) -> Task:
    from alue_bench import DataFile, Delimited, Splits, Submission

    file = DataFile("rows.tsv", Delimited(header=True, text="text", target="label"))
    return Task(
        name="mine", title="Mine", languages=("ar",), labels=labels, splits=Splits(train=file, dev=file, test=file),
        source="this test", licence="Apache-2.0", citation="this test", submission=Submission(file="mine.tsv", **form),
    )  # fmt: skip


class TestChoice:
    def test_the_best_on_dev_is_taken_whatever_its_test_score(
        self, run: CommandLine, alue_bench: CommandLine, store: str, experiment: str, tiny_bert: Path
    ) -> None:
        whole = ("-t", "svreg", "-m", tiny_bert, "--tracking-uri", store, "--experiment", experiment, *QUICK)
        runs = json.loads(alue_bench("run", *whole, "--seeds", "3", "--json").out)["runs"]
        by_dev = sorted(runs, key=lambda one: one["metrics"]["selection/dev_score"])
        here = ("--sample", "-t", "svreg", "--tracking-uri", store, "--experiment", experiment)
        said, document = submitted(alue_bench, *here)
        assert said.code == 0, said.err
        assert document["files"][0]["run_id"] == by_dev[-1]["run_id"]
        said = alue_bench("submit", "second", *here, "--seed", str(by_dev[0]["seed"]), "--json")
        assert json.loads(said.out)["files"][0]["run_id"] == by_dev[0]["run_id"]

    def test_a_limited_run_gives_way_and_is_named(
        self, run: CommandLine, alue_bench: CommandLine, store: str, experiment: str
    ) -> None:
        assert run("-s", "full", task="svreg").code == 0  # scores 32 test rows
        where = ("--tracking-uri", store, "--experiment", experiment)
        said, document = submitted(alue_bench, "--sample", "-t", "svreg", *where)
        assert said.code == 1
        assert document["files"] == []
        assert "32 predictions for the 100 rows" in document["missing"][0]["reason"]
        assert not Path("out").exists()
        assert run("-s", "full", "--limit-eval", "100000", task="svreg").code == 0
        said, document = submitted(alue_bench, "--sample", "-t", "svreg", *where)
        assert said.code == 0, said.err
        assert len(document["files"]) == 1

    def test_what_is_missing_is_said_with_the_command_that_fills_it(
        self, alue_bench: CommandLine, where: tuple[str, ...], all_run: list[Any]
    ) -> None:
        said, document = submitted(alue_bench, "--sample", "-t", "oold", "-s", "top2", "--seed", "7", *where)
        assert said.code == 1
        (missing,) = document["missing"]
        assert (missing["file"], missing["reason"]) == ("offensive.tsv", "no finished run")
        assert missing["command"].startswith("alue-bench run --task oold --strategy top2 --seed 7 --sample")
        assert missing["command"] in said.err

    def test_runs_on_the_sample_are_not_submitted_as_real_ones(
        self, alue_bench: CommandLine, where: tuple[str, ...], all_run: list[Any]
    ) -> None:
        said, document = submitted(alue_bench, "-t", "oold", *where)
        assert said.code == 1
        assert document["files"] == []
        assert "the official files are not available" in said.err
        assert "give their folder with --data-dir" in said.err
        assert "produce it with" not in said.err  # without official files, another run would be on the sample too


class TestMistakes:
    def test_a_task_without_a_leaderboard(self, alue_bench: CommandLine, where: tuple[str, ...]) -> None:
        said = alue_bench("submit", "out", "-t", "anger", *where)
        assert said.code == 2
        assert "task 'anger' has no leaderboard file; tasks with one: diag, fid" in said.err

    def test_no_store(self, alue_bench: CommandLine) -> None:
        said = alue_bench("submit", "out")
        assert said.code == 2
        assert "there is no store" in said.err
        assert not Path("out").exists()


@pytest.mark.real_data
@pytest.mark.slow
def test_on_the_official_files(
    alue_bench: CommandLine, store: str, experiment: str, tiny_bert: Path, official_data: Path,
    runs: Callable[..., list[Any]],
) -> None:  # fmt: skip
    there = [task for task in TASKS if has_official(task, official_data)]
    where = ("--tracking-uri", store, "--experiment", experiment, "--data-dir", official_data)
    tasks = [word for task in there for word in ("-t", task)]
    said = alue_bench("run", *tasks, "-m", tiny_bert, *QUICK, *where)
    assert said.code == 0, said.err
    said, document = submitted(alue_bench, *where)
    assert said.code == 0, said.err
    assert {entry["task"] for entry in document["files"]} == set(there)
    assert {entry["task"] for entry in document["missing"]} == set(TASKS) - set(there)
    for entry in document["files"]:
        assert problems(entry["file"], (Path("out") / entry["file"]).read_bytes(), official_data) == []


def has_official(task: str, data: Path) -> bool:
    files = dict(zip(("mq2q", "mdd", "fid", "svreg", "sec", "oold", "ohsd", "xnli", "diag"), OFFICIAL, strict=True))
    return (data / OFFICIAL[files[task]][0]).is_file()
