"""Rows that cannot be used, as `alue-bench data verify` and a run report them."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine

from alue_bench import BadRow, DataError, DataFile, Example, Labels
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import load_rows
from alue_bench.data.verification import ReadFile, label_gaps, read_file, verify
from alue_bench.planning.build import build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute

Osact = Callable[..., Path]


@pytest.fixture
def osact(tmp_path: Path) -> Osact:
    """The files of `oold` in a folder of their own: sixty good train rows, twenty test rows, and what is given."""

    def write(train: bytes | str = "", dev: bytes | str = "") -> Path:
        folder = tmp_path / "files"
        (folder / "osact4").mkdir(parents=True, exist_ok=True)
        for name, number, extra in (("train", 60, train), ("dev", 20, dev)):
            good = "".join(f"{name} نص {n}\t{'OFF' if n % 4 == 0 else 'NOT_OFF'}\tNOT_HS\n" for n in range(number))
            more = extra.encode() if isinstance(extra, str) else extra
            (folder / f"osact4/OSACT2020-sharedTask-{name}.txt").write_bytes(good.encode() + more)
        return folder

    return write


@pytest.fixture
def oold(registry: Any) -> Any:
    return registry.task("oold")


def report_of(task: Any, folder: Path) -> Any:
    return verify(task, DataFolder(folder, "real"))


class TestReport:
    def test_counts_by_split_and_label(self, oold: Any, osact: Osact) -> None:
        counts = {file.split: (file.rows, file.labels) for file in report_of(oold, osact()).files}
        assert counts == {"train": (60, {"NOT_OFF": 45, "OFF": 15}), "test": (20, {"NOT_OFF": 15, "OFF": 5})}

    def test_files_that_are_missing(self, oold: Any, osact: Osact) -> None:
        assert report_of(oold, osact()).missing == ["osact4/OSACT2020-sharedTask-test-tweets.txt"]

    def test_repeated_texts_and_overlap(self, oold: Any, osact: Osact) -> None:
        folder = osact(
            train="train نص 1\tOFF\tHS\ntrain نص 1\tOFF\tHS\n", dev="train نص 2\tOFF\tHS\ntrain نص 2\tOFF\tHS\n"
        )
        report = report_of(oold, folder)
        assert {file.split: file.duplicates for file in report.files} == {"train": 2, "test": 1}
        assert report.overlaps == {"test in train": 2}

    def test_a_pair_repeats_only_where_both_texts_do(self, registry: Any, tmp_path: Path) -> None:
        (tmp_path / "xnli").mkdir()
        (tmp_path / "xnli/test-ar.tsv").write_text("أ\tب\tneutral\nأ\tج\tneutral\nأ\tب\tentailment\n")
        (tmp_path / "xnli/dev-ar.tsv").write_text("أ\tد\tneutral\n")
        report = report_of(registry.task("xnli"), tmp_path)
        assert [file.duplicates for file in report.files] == [1, 0]
        assert report.overlaps == {}


class TestGaps:
    """Labels that the rows can neither teach nor test."""

    def test_a_file_with_every_label_has_none(self, oold: Any, osact: Osact) -> None:
        assert all(file.gaps == () for file in report_of(oold, osact()).files)

    @pytest.mark.parametrize(
        ("labels", "targets", "split", "expected"),
        [
            (
                Labels.multiclass(*"abcd"),
                ["a", "b", "a"],
                "test",
                ["labels of no test row: 'c', 'd' (of 4); macro-F1 leaves out those that are not predicted either"],
            ),
            (
                Labels.binary("no", "yes"),
                ["no", "no"],
                "train",
                [
                    "labels of no train row: 'yes' (of 2); they cannot be learnt",
                    "all 2 train rows have no label but 'no': there is nothing to learn about it",
                ],
            ),
            (
                Labels.multilabel(*"abc"),
                [("a", "b"), ("a",), ("a", "b")],
                "dev",
                [
                    "labels of no dev row: 'c' (of 3); macro-F1 leaves out those that are not predicted either",
                    "all 3 dev rows have the label 'a': scores do not tell whether it was learnt",
                ],
            ),
            (
                Labels.multilabel(*"abcdefg"),
                [(), ()],
                "test",
                [
                    "labels of no test row: 'a', 'b', 'c', 'd', 'e' and 2 more (of 7); macro-F1 leaves out those that "
                    "are not predicted either"
                ],
            ),
            (Labels.regression(0, 1), [0.5, 0.5], "test", ["all 2 test rows have the value 0.5: a correlation with "]),
            (Labels.regression(0, 1), [0.5, 0.6], "test", []),
            (Labels.binary("no", "yes"), [None, None], "submission", []),
        ],
    )
    def test_each_kind_of_gap_is_a_sentence(
        self, labels: Labels, targets: list[Any], split: str, expected: list[str]
    ) -> None:
        sentences = label_gaps(split, targets, labels)
        assert len(sentences) == len(expected)
        assert all(sentence.startswith(words) for sentence, words in zip(sentences, expected, strict=True))

    def test_they_are_told_by_verify_and_by_the_notes_of_a_run(
        self, alue_bench: CommandLine, osact: Osact, registry: Any, tiny_bert: Path, folders_of_its_own: None
    ) -> None:
        folder = osact()
        said = alue_bench("data", "verify", "ohsd", "--data-dir", folder, "--json")
        (report,) = json.loads(said.out)
        told = {file["split"]: file["gaps"] for file in report["files"]}
        assert [gap.partition(":")[0] for gap in told["train"]] == ["labels of no train row", "all 60 train rows have "
            "no label but 'NOT_HS'"]  # fmt: skip
        assert "OSACT2020-sharedTask-train.txt: labels of no train row: 'HS' (of 2); they cannot" in said.err
        request = PlanRequest(
            tasks=("ohsd",), models=(str(tiny_bert),), strategies=("full",), data_dir=folder, device="cpu",
            overrides=(("test", {"epochs": 1}),),
        )  # fmt: skip
        (planned,) = build_plan(request, registry).runs
        result, _ = execute(planned.spec, planned.inputs)
        for split in ("train", "dev", "test"):
            assert any(note.startswith(f"labels of no {split} row: 'HS'") for note in result.notes)
        assert result.metrics["test/f1_macro"] in (1.0, 0.0) or "test/f1_class_HS" in result.metrics


class TestBadRows:
    BAD = "نص\nنص\tOFFENSIVE\tHS\n\tOFF\tHS\n".encode() + b"abc\xff\tOFF\tHS\n"
    REASONS = (
        (61, "1 columns instead of 3"),
        (62, "unknown label 'OFFENSIVE' (expected NOT_OFF, OFF)"),
        (63, "empty text"),
        (64, "not valid UTF-8 (byte 4 of line 64)"),
    )

    def test_each_is_named_by_file_and_line(self, alue_bench: CommandLine, osact: Osact) -> None:
        folder = osact(train=self.BAD)
        said = alue_bench("data", "verify", "oold", "--data-dir", folder)
        assert said.code == 1
        for line, reason in self.REASONS:
            assert f"{folder}/osact4/OSACT2020-sharedTask-train.txt:{line}: {reason}" in said.out

    def test_and_for_machines(self, alue_bench: CommandLine, osact: Osact) -> None:
        said = alue_bench("data", "verify", "oold", "--json", "--data-dir", osact(train=self.BAD))
        train = json.loads(said.out)[0]["files"][0]
        assert [(bad["line"], bad["reason"]) for bad in train["bad_rows"]] == list(self.REASONS)
        assert (train["rows"], train["labels"]) == (60, {"NOT_OFF": 45, "OFF": 15})

    def test_files_without_them_are_fine(self, alue_bench: CommandLine) -> None:
        assert alue_bench("data", "verify", "--sample").code == 0

    def test_a_run_refuses_them_and_says_how_to_go_on(self, run: CommandLine, osact: Osact) -> None:
        folder = osact(train=self.BAD)
        said = run("--data-dir", folder, task="oold")
        assert said.code == 2
        for line, reason in self.REASONS:
            assert f"{folder}/osact4/OSACT2020-sharedTask-train.txt:{line}: {reason}" in said.err
        assert "--drop-bad" in said.err
        assert "Traceback" not in said.everything

    def test_the_hint_names_the_same_folder_as_the_run(
        self, run: CommandLine, alue_bench: CommandLine, osact: Osact, tmp_path: Path
    ) -> None:
        folder = osact(train=self.BAD).rename(tmp_path / "my files")
        said = run("--data-dir", folder, task="oold")
        hint = said.err.partition("(to list them: ")[2].partition(")")[0]
        assert hint == f"alue-bench data verify oold --data-dir '{folder}'"
        assert alue_bench(*shlex.split(hint)[1:]).code == 1  # the bad rows are found

    def test_many_are_counted_not_all_shown(self, oold: Any, osact: Osact) -> None:
        with pytest.raises(DataError, match=r"train.txt:61: .*train.txt:65: .*; and 3 more\. Correct"):
            load_rows(
                oold,
                DataFolder(osact(train="نص\n" * 8), "real"),
                drop_bad=False,
                limit_train=None,
                limit_eval=None,
            )

    def test_drop_bad_goes_on_without_them_and_records_how_many(
        self, run: CommandLine, osact: Osact, runs: Callable[..., list[Any]]
    ) -> None:
        said = run("--data-dir", osact(train=self.BAD, dev="نص\n"), "--drop-bad", "-s", "full", "--json", task="oold")
        assert said.code == 0, said.err
        (done,) = json.loads(said.out)["runs"]
        assert done["metrics"]["data/dropped_rows"] == 5
        assert done["data_source"] == "real"
        assert runs()[0].data.metrics["data/dropped_rows"] == 5

    def test_dropping_changes_neither_the_good_rows_nor_their_digests(self, oold: Any, osact: Osact) -> None:
        def load(folder: Path) -> Any:
            return load_rows(oold, DataFolder(folder, "real"), drop_bad=True, limit_train=None, limit_eval=None)

        clean = load(osact())
        dropped = load(osact(train=self.BAD))
        assert (clean.dropped, dropped.dropped) == (0, 4)
        assert dropped.splits == clean.splits


class TestUnusableFiles:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "the file is empty"),
            ("نص\tOFF\tHS\n".encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
            ("نص\tOFF\tHS\n".encode("cp1256") * 9, "the file is not UTF-8 text; convert it"),
        ],
    )
    def test_verify_names_the_file_and_still_looks_at_the_other_tasks(
        self, alue_bench: CommandLine, osact: Osact, content: bytes, reason: str
    ) -> None:
        folder = osact()
        (folder / "osact4/OSACT2020-sharedTask-train.txt").write_bytes(content)
        (folder / "xnli").mkdir()
        (folder / "xnli/test-ar.tsv").write_text("أ\tب\tnonsense\n")
        said = alue_bench("data", "verify", "--data-dir", folder)
        assert said.code == 1
        assert f"{folder}/osact4/OSACT2020-sharedTask-train.txt: {reason}" in said.everything
        assert "xnli/test-ar.tsv:1: unknown label 'nonsense'" in said.everything
        assert "Traceback" not in said.everything


class TestReadersOfPlugins:
    """Whatever a reader gives in the place of a row costs that row alone, and is named by it."""

    LABELS = Labels.binary("no", "yes")

    def read(self, tmp_path: Path, rows: Any, content: bytes = b"rows") -> ReadFile:
        (tmp_path / "rows").write_bytes(content)
        return read_file(DataFile("rows", rows), tmp_path / "rows", self.LABELS)

    def test_none_is_a_bad_row_and_the_rest_is_read(self, tmp_path: Path) -> None:
        first, last = (Example(str(line), "نص", None, "yes", line) for line in (1, 9))
        rows = self.read(tmp_path, lambda path: [None, first, None, last])
        assert rows.examples == (first, last)
        assert [(row.line, row.reason) for row in rows.bad] == [
            (1, "the reader yielded None instead of this row"),
            (2, "the reader yielded None instead of this row"),
        ]

    @pytest.mark.parametrize("change", [{"text": None}, {"id": 7}, {"text_pair": 0}, {"target": 1.0}, {"text": 1.5}])
    def test_a_field_of_a_wrong_type_is_a_bad_row(self, tmp_path: Path, change: dict[str, Any]) -> None:
        good = Example("0", "نص", None, "yes", 1)
        rows = self.read(tmp_path, lambda path: [good, dataclasses.replace(good, line=2, **change)])
        assert rows.examples == (good,)
        assert [row.line for row in rows.bad] == [2]

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("نص".encode(), "rows: the reader failed after line 7: KeyError: 'x'"),
            (b"PAR1\x00", "rows: the reader failed after row 7: KeyError: 'x'"),
        ],
    )
    def test_where_it_fails_the_file_and_the_row_before_are_named(
        self, tmp_path: Path, content: bytes, says: str
    ) -> None:
        def read(path: Path) -> Any:
            yield BadRow(7, "bad")
            raise KeyError("x")

        with pytest.raises(DataError) as refused:
            self.read(tmp_path, read, content)
        assert str(refused.value).endswith(says)

    def test_one_that_returns_none_is_told_so(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="rows: the reader failed: TypeError: it returned None; it must yield"):
            self.read(tmp_path, lambda path: None)

    @pytest.mark.parametrize("content", [b"PK\x03\x04", b"PAR1", b"\x1f\x8b\x08", b"a\0b", bytes(range(1, 9)) * 9])
    def test_rows_of_a_file_without_lines_are_counted(self, tmp_path: Path, content: bytes) -> None:
        read = self.read(tmp_path, lambda path: [BadRow(3, "bad")], content)
        assert read.row_location(read.bad[0]) == f"{tmp_path}/rows, row 3"

    @pytest.mark.parametrize("content", ["نص\tyes\r\n".encode(), "نص\tyes\n".encode("cp1256"), b"a\xff\n", b""])
    def test_those_of_a_text_are_named_by_their_line(self, tmp_path: Path, content: bytes) -> None:
        read = self.read(tmp_path, lambda path: [BadRow(3, "bad")], content)
        assert read.row_location(read.bad[0]) == f"{tmp_path}/rows:3"


def test_verify_names_rows_where_there_are_no_lines(alue_bench: CommandLine, install: Any, tmp_path: Path) -> None:
    install("alue-bench-zipped", ZIPPED)
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.gz").write_bytes(gzip.compress(f"{split}\tyes\nnothing\n".encode()))
    said = alue_bench("data", "verify", "zipped", "--data-dir", tmp_path)
    assert said.code == 1
    assert f"{tmp_path}/train.gz, row 2: no label" in said.out


ZIPPED = """
import gzip
from alue_bench import BadRow, DataFile, Example, Labels, Splits, Task, hookimpl

def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as rows:
        for number, row in enumerate(rows, start=1):
            text, _, label = row.rstrip().partition("\\t")
            yield Example(str(number), text, None, label, number) if label else BadRow(number, "no label")

@hookimpl
def alue_bench_tasks():
    files = {split: DataFile(f"{split}.gz", read) for split in ("train", "dev", "test")}
    return [Task(name="zipped", title="t", languages=("ar",), labels=Labels.binary("no", "yes"),
                 splits=Splits(**files), source="s", licence="l", citation="c")]
"""


class TestAdd:
    def test_files_added_are_used_by_the_next_run(self, alue_bench: CommandLine, osact: Osact) -> None:
        added = alue_bench("data", "add", "oold", osact())
        assert added.code == 0, added.err
        listed = json.loads(alue_bench("list", "tasks", "--json").out)
        assert {task["name"] for task in listed if task["data"] == "real"} == {"oold", "ohsd"}

    def test_files_with_bad_rows_are_not_added_unless_told_to(self, alue_bench: CommandLine, osact: Osact) -> None:
        folder = osact(train="نص\n")
        refused = alue_bench("data", "add", "oold", folder)
        assert refused.code == 2
        assert f"{folder}/osact4/OSACT2020-sharedTask-train.txt:61: 1 columns instead of 3" in refused.everything
        assert "nothing was added" in refused.err
        assert "embedded sample" in alue_bench("data", "status").out
        assert alue_bench("data", "add", "oold", folder, "--drop-bad").code == 0

    @pytest.fixture
    def two_of_one_name(self, install: Any) -> None:
        install("alue-bench-zipped", ZIPPED.replace("{split}.gz", "{split}/rows.gz"))

    @pytest.mark.usefixtures("two_of_one_name")
    def test_official_files_of_one_name_are_told_apart_by_their_folder(
        self, alue_bench: CommandLine, tmp_path: Path
    ) -> None:
        for split in ("train", "dev", "test"):
            file = tmp_path / "download" / "v1" / split / "rows.gz"
            file.parent.mkdir(parents=True)
            file.write_bytes(gzip.compress(f"{split}\tyes\n".encode()))
        said = alue_bench("data", "add", "zipped", tmp_path / "download")
        assert said.code == 0, said.everything
        added = tmp_path / "data-home" / "alue-bench" / "data"
        for split in ("train", "dev", "test"):
            assert gzip.decompress((added / split / "rows.gz").read_bytes()) == f"{split}\tyes\n".encode()
        shutil.copytree(tmp_path / "download" / "v1", tmp_path / "download" / "v2")
        again = alue_bench("data", "add", "zipped", tmp_path / "download")
        assert again.code == 2
        assert "holds more than one train/rows.gz" in again.err

    @pytest.mark.usefixtures("two_of_one_name")
    def test_a_file_that_could_be_any_of_them_is_none(self, alue_bench: CommandLine, tmp_path: Path) -> None:
        (tmp_path / "rows.gz").write_bytes(gzip.compress(b"train\tyes\n"))
        said = alue_bench("data", "add", "zipped", tmp_path / "rows.gz")
        assert said.code == 2
        assert "holds none of the official files; task 'zipped' expects train/rows.gz" in said.err

    def test_a_folder_without_the_official_files_is_told_what_was_expected(
        self, alue_bench: CommandLine, tmp_path: Path
    ) -> None:
        said = alue_bench("data", "add", "oold", tmp_path)
        assert said.code == 2
        assert "expects osact4/OSACT2020-sharedTask-train.txt" in said.err
