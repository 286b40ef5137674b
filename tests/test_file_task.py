"""A file of one's own is a task: read alike from every format, inferred, shown, written down, and run anywhere."""

from __future__ import annotations

import csv
import json
import pickle
import re
import tomllib
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine
from hypothesis import given, settings
from hypothesis import strategies as st

from alue_bench import DataFile, Delimited, HeldOut, Labels, Splits, Submission, Table, Task, read_task_file
from alue_bench.contract.task_file import COLUMN_KEYS as KEYS_OF_COLUMNS
from alue_bench.contract.task_file import FORMAT_KEYS, TOP_LEVEL_KEYS
from alue_bench.data.file_task.given import GivenTask, from_file, from_task_file
from alue_bench.data.file_task.options import FileOptions
from alue_bench.data.file_task.writing import toml
from alue_bench.data.splits import TaskRows, load_rows
from alue_bench.testing import check_task

LABELS = ("بطيء", "billing", "quality, other")
ROWS = [
    {"complaint": f'شكوى "{n}", with\tmarks {n % 37}', "category": LABELS[n % 3 if n % 2 else 0], "agent": None}
    for n in range(120)
]
"""Rows of three classes with quotation marks, commas, tabs and Arabic letters; some texts are repeated."""
COLUMNS = ("complaint", "category", "agent")
ASKED = {"text": "complaint", "label": ("category",)}


def delimited(name: str, delimiter: str, encoding: str = "utf-8") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with (folder / name).open("w", newline="", encoding=encoding) as file:
            writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)
        return folder / name

    return write


def json_lines(folder: Path) -> Path:
    lines = [json.dumps(row, ensure_ascii=n % 2 == 0) for n, row in enumerate(ROWS)]
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "a.jsonl"


def json_list(folder: Path) -> Path:
    (folder / "a.json").write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    return folder / "a.json"


def parquet(folder: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), folder / "a.parquet")
    return folder / "a.parquet"


def xlsx(folder: Path) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    book.create_sheet("notes")  # an empty one is no second choice
    for row in (COLUMNS, *(tuple(row.values()) for row in ROWS)):
        book.active.append(row)
    book.save(folder / "a.xlsx")
    return folder / "a.xlsx"


def arrow(folder: Path, suffix: str = "") -> Path:
    """Write the folder that `datasets` saves. Classes are numbers; their order is that of the names in a CSV."""
    import datasets

    names = sorted(LABELS)
    rows = [{**row, "category": names.index(str(row["category"])), "agent": "none"} for row in ROWS]
    label = datasets.ClassLabel(names=names)
    features = datasets.Features(complaint=datasets.Value("string"), category=label, agent=datasets.Value("string"))
    data = datasets.Dataset.from_list(rows, features=features)
    if suffix:
        data.to_parquet(folder / "classes.parquet")
        return folder / "classes.parquet"
    data.save_to_disk(str(folder / "a"))
    return folder / "a"


FORMATS: dict[str, Callable[[Path], Path]] = {
    "CSV": delimited("a.csv", ","),
    "CSV with semicolons": delimited("a.csv", ";"),
    "TSV with a BOM": delimited("a.tsv", "\t", "utf-8-sig"),
    "JSON lines with nulls": json_lines,
    "JSON": json_list,
    "Parquet": parquet,
    "Parquet of datasets": lambda folder: arrow(folder, ".parquet"),
    "XLSX": xlsx,
    "Arrow folder": arrow,
}


def rows_of(one: GivenTask, **options: Any) -> TaskRows:
    options = {"drop_bad": False, "limit_train": None, "limit_eval": None} | options
    return load_rows(one.task, one.files, **options)


@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_same_rows(write: Callable[[Path], Path], tmp_path: Path) -> None:
    one = from_file(FileOptions(file=str(write(tmp_path)), **ASKED))
    assert one.task.labels == Labels.multiclass(*sorted(LABELS))
    assert any("target: multiclass (inferred), 3 labels: " in note for note in one.notes)
    assert any("not read: agent" in note for note in one.notes)
    rows = rows_of(one)
    read = {int(e.id): (e.text, e.target) for part in rows.splits.values() for e in part.examples}
    assert [read[n] for n in range(len(ROWS))] == [(row["complaint"], row["category"]) for row in ROWS]
    texts = [{e.text for e in part.examples} for part in rows.splits.values()]
    assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]


def test_the_splits_of_a_saved_data_set_are_taken_unless_they_have_no_gold_labels(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        idx=datasets.Value("int64"), premise=datasets.Value("string"), hypothesis=datasets.Value("string"),
        label=datasets.ClassLabel(names=["no", "yes"]),
    )  # fmt: skip

    def part(number: int, gold: bool) -> Any:
        rows = [
            {"idx": n, "premise": f"p{n}", "hypothesis": "h", "label": n % 2 if gold else -1} for n in range(number)
        ]
        return datasets.Dataset.from_list(rows, features=features)

    parts = {"train": part(40, True), "validation": part(10, True), "test": part(12, False)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "nli"))
    one = from_file(FileOptions(file=str(tmp_path / "nli")))
    assert one.task.labels == Labels.binary("no", "yes")
    assert one.task.is_pair
    sizes = {split: len(part.examples) for split, part in rows_of(one).splits.items()}
    assert sizes == {"train": 32, "dev": 10, "test": 8}
    assert any("its split test has no gold labels, so that rows are held out" in note for note in one.notes)


KINDS: dict[str, tuple[str, dict[str, Any], Labels, str]] = {
    "two labels": ("text,label\n{n} a,yes\n{n} b,no\n", {}, Labels.binary("no", "yes"), "text = text (guessed)"),
    "two labels, said to be classes": (
        "tweet,class\n{n} a,yes\n{n} b,no\n",
        {"target": "multiclass"},
        Labels.multiclass("no", "yes"),
        "target: multiclass (--target)",
    ),
    "whole numbers": (
        "review,label\n{n} a,10\n{n} b,9\n{n} c,8\n", {}, Labels.multiclass("8", "9", "10"), "3 whole numbers are",
    ),
    "whole numbers with a fraction": (
        "text,label\n{n} a,0.0\n{n} b,1.0\n", {}, Labels.binary("0", "1"), "0.0 … 1.0 are read as",
    ),
    "a label left out": (
        "text,label\n{n} a,x\n{n} b,y\n{n} c,z\n", {"ignore": ("z",)}, Labels.binary("x", "y"), "2 labels: x 40, y 40",
    ),
    "numbers": (
        "text,score\n{n} a,0.5\n{n} b,-3\n",
        {"label": ("score",), "target": "regression"},
        Labels.regression(-3, 0.5),
        "numbers from -3 to 0.5",
    ),
    "columns of 0 and 1": (
        "text,joy,fear\n{n} a,1,0\n{n} b,1,1\n{n} c,0,0\n",
        {"label": ("joy", "fear")},
        Labels.multilabel("joy", "fear"),
        "joy 80, fear 40",
    ),
    "several labels in a cell": (
        "text,labels\n{n} a,joy; fear\n{n} b,\n{n} c,joy\n",
        {"label_separator": ";"},
        Labels.multilabel("fear", "joy"),
        "fear 40, joy 80",
    ),
    "pairs": (
        "id,sentence1,sentence2,label\n{n}a,a {n},b,x\n{n}b,c {n},d,y\n", {}, Labels.binary("x", "y"),
        "text = sentence1 (guessed); pair = sentence2 (guessed); label = label (guessed); id = id (guessed)",
    ),
    "identifiers that are none": ("id,text,label\n7,{n} a,x\n7,{n} b,y\n", {}, Labels.binary("x", "y"), "not read: id"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "options", "labels", "said"), KINDS.values(), ids=KINDS)
def test_what_is_inferred_is_said_and_can_be_written_down(
    content: str, options: dict[str, Any], labels: Labels, said: str, alue_bench: CommandLine, tmp_path: Path
) -> None:
    header, _, rows = content.partition("\n")
    path = tmp_path / "some" / "My Data.csv"
    path.parent.mkdir()
    path.write_text(header + "\n" + "".join(rows.format(n=n) for n in range(40)))
    one = from_file(FileOptions(file=str(path), **options))
    assert one.task.labels == labels
    assert any(said in note for note in one.notes)
    flags = [
        part
        for name, value in options.items()
        for each in (value if isinstance(value, tuple) else (value,))
        for part in (f"--{name.replace('_', '-')}", each)
    ]
    written = alue_bench("new-task", path, *flags)
    assert written.code == 0, written.err
    again = from_task_file(str(tmp_path / "some" / "my-data.task.toml"))
    assert said in written.err
    digests, expected = ({s: p.digest for s, p in rows_of(each).splits.items()} for each in (again, one))
    assert digests == expected
    assert again.task.splits.protocol == one.task.splits.protocol
    assert (again.task.name, again.task.labels, again.task.primary) == ("my-data", labels, one.task.primary)


WHOLE = """
name = "reviews"
title = "Reviews"
languages = ["ar-EG", "en"]
kind = "multiclass"
labels = ["good", "bad", "neither"]
metric = "mcc"
official_metric = "accuracy"
source = "the publisher"
licence = "CC BY 4.0"
citation = "A paper"
protocol = "official"
sample = "small"

[files]
train = "reviews/train.tsv"
dev = { holdout = 0.1, seed = 7 }
test = { path = "reviews/test.jsonl", label = "gold", decode = { "1" = "good", "2" = "bad", "3" = "neither" } }
submission = { path = "reviews/unseen.xlsx", sheet = "May", text = "review" }

[columns]
text = "review"
label = "rating"
id = "number"
ignore = ["spam"]

[defaults]
epochs = 3

[submission]
file = "reviews.tsv"
header = ["id", "label"]
id = "given"
encode = { good = "+" }
leaderboard = "Ours"
"""


def test_a_task_file_declares_what_a_plugin_can(tmp_path: Path) -> None:
    path = tmp_path / "reviews.task.toml"
    common = {"text": "review", "id": "number", "ignore": frozenset({"spam"})}
    path.write_text(WHOLE)
    decode = {"1": "good", "2": "bad", "3": "neither"}
    assert read_task_file(path) == Task(
        name="reviews",
        title="Reviews",
        languages=("ar-EG", "en"),
        labels=Labels.multiclass("good", "bad", "neither"),
        splits=Splits(
            train=DataFile("reviews/train.tsv", Delimited(**common, target="rating", header=True)),
            dev=HeldOut(0.1, seed=7),
            test=DataFile("reviews/test.jsonl", Table(**common, target="gold", decode=decode)),
            submission=DataFile("reviews/unseen.xlsx", Table(**common, sheet="May")),
            protocol="official",
        ),
        source="the publisher",
        licence="CC BY 4.0",
        citation="A paper",
        primary="mcc",
        official_metric="accuracy",
        defaults={"epochs": 3},
        submission=Submission(
            file="reviews.tsv", header=("id", "label"), id="given", encode={"good": "+"}, leaderboard="Ours"
        ),
        sample=tmp_path / "small",
    )


VALUES = st.recursive(
    st.text(st.characters(exclude_categories=("Cs",))) | st.booleans() | st.integers(-(2**62), 2**62),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=40)
@given(VALUES)
def test_what_is_written_as_toml_is_read_back(value: object) -> None:
    assert tomllib.loads(f"value = {toml(value)}")["value"] == value


def test_files_in_several_folders_and_the_same_files_elsewhere(tmp_path: Path) -> None:
    content = "text,label\n" + "".join(f"{n},{n % 2}\n" for n in range(9))
    for place in ("here", "there"):
        (tmp_path / place / "deep").mkdir(parents=True)
        for name in ("train.csv", "deep/dev.csv", "deep/test.csv"):
            (tmp_path / place / name).write_text(content)
    digests = []
    for place in ("here", "there"):
        folder = tmp_path / place
        files = {"file": folder / "train.csv", "dev": folder / "deep/dev.csv", "test": folder / "deep/test.csv"}
        one = from_file(FileOptions(**{option: str(path) for option, path in files.items()}))
        assert one.folder == folder
        assert any("9 of 9 test rows have a text of the train file" in note for note in one.notes)
        digests.append({split: part.digest for split, part in rows_of(one).splits.items()})
    assert digests[0] == digests[1]


def test_a_file_is_planned_run_reused_and_planned_again_in_a_worker(
    run: CommandLine, runs: Callable[..., list[Any]], registry: Any, tiny_bert: Path, tmp_path: Path
) -> None:
    from alue_bench.executors.replan import rebuild_run, source_of
    from alue_bench.planning.available import PlanCache
    from alue_bench.planning.build import build_plan
    from alue_bench.studies.settings import plan_request

    path = json_lines(tmp_path)
    path.write_text(path.read_text() + '\n{"complaint": null, "category": "billing"}\n')
    asked = ("--file", path, "--text", "complaint", "-s", "full", "--drop-bad")
    first = run(*asked, task=None)
    assert first.code == 0, first.err
    assert "note: task a: a.jsonl: 120 rows; columns: text = complaint; label = category (guessed)" in first.err
    again = run(*asked, task=None)
    assert "reused" in again.everything
    (recorded,) = runs("tags.kind = 'run'")
    options = json.loads(recorded.data.tags["task.options"])
    assert options == {"file": str(path), "text": "complaint"}
    request = plan_request({**options, "model": [str(tiny_bert)], "strategy": ["full"], "drop_bad": True}, ())
    (planned,) = build_plan(request, registry).runs
    source = pickle.loads(pickle.dumps(source_of(planned, registry)))
    assert rebuild_run(planned.spec, source, registry, PlanCache()).spec.fingerprint == planned.spec.fingerprint
    (one,) = request.given
    by_accuracy = replace(request, given=(replace(one, task=replace(one.task, primary="accuracy")),))
    assert build_plan(by_accuracy, registry).runs[0].spec.training_key != planned.spec.training_key


def test_data_verify_shows_the_rows_of_a_file_and_of_a_task_file(alue_bench: CommandLine) -> None:
    Path("a.csv").write_text("text,label\n" + "".join(f"{n},{n % 2}\n" for n in range(9)) + ",1\n")
    assert alue_bench("new-task", "a.csv").code == 0
    for named in (("--file", "a.csv"), ("./a.task.toml",)):
        seen = alue_bench("data", "verify", *named)
        assert seen.code == 1
        assert "a.csv:11: empty text" in seen.out


def test_the_task_file_of_the_guide_can_be_read(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[1] / "docs" / "your-own-data.md").read_text(encoding="utf-8")
    block, *others = re.findall(r"^```toml\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "x.task.toml").write_text(block, encoding="utf-8")
    task = read_task_file(tmp_path / "x.task.toml")
    assert task.name == "complaints"
    keys = {*TOP_LEVEL_KEYS, *KEYS_OF_COLUMNS, *FORMAT_KEYS} - {
        "files",
        "columns",
        "format",
        "width",
        "header",
        "delimiter",
        "sheet",
        "split",
    }
    assert all(re.search(rf"\b{key}\b", block + "".join(others)) for key in keys)


class TestHub:
    def test_a_data_set_is_copied_once(
        self, alue_bench: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        # The library takes a local folder of the same name, as it takes a repository of the hub.
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
        Path("someone/complaints").mkdir(parents=True)
        json_lines(Path("someone/complaints"))
        one = from_file(FileOptions(file="hub:someone/complaints@1.0", **ASKED))
        assert one.task.name == "complaints"
        (Path("someone/complaints") / "a.jsonl").unlink()
        again = from_file(FileOptions(file="hub:someone/complaints@1.0", **ASKED))
        assert sum(len(part.examples) for part in rows_of(again).splits.values()) == len(ROWS)

    def test_without_a_network_a_sentence_says_what_to_do(
        self, alue_bench: CommandLine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        said = alue_bench("run", "--file", "hub:someone/nothing", "-m", "mini")
        assert said.code == 2
        assert "hub data set someone/nothing cannot be loaded" in said.err
        assert "save it elsewhere with save_to_disk" in said.err
        assert "Traceback" not in said.err


def test_a_tab_separated_file_with_stray_marks_is_read_without_quoting(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("text\tlabel\n" + "".join(f'"so" {n}\t{n % 2}\n"{n}\t{n % 2}\n' for n in range(9)))
    rows = rows_of(from_file(FileOptions(file=str(path))))
    assert {e.text for part in rows.splits.values() for e in part.examples} >= {'"so" 1', '"1'}


@pytest.mark.parametrize("write", [json_lines, json_list, parquet, arrow, delimited("a.csv", ",")])
def test_a_task_file_passes_the_conformance_kit(write: Callable[[Path], Path], tmp_path: Path) -> None:
    name = write(tmp_path).name
    (tmp_path / "a.task.toml").write_text(
        f'kind = "multiclass"\nlabels = {toml(sorted(LABELS))}\nsample = "."\nlicence = "CC0-1.0"\n'
        f'[files]\ntrain = "{name}"\ndev = {{ holdout = "20%" }}\ntest = {{ holdout = "20%" }}\n'
        '[columns]\ntext = "complaint"\nlabel = "category"\n'
    )
    with warnings.catch_warnings(record=True):
        check_task(read_task_file(tmp_path / "a.task.toml"))


def test_labels_and_identifiers_that_differ_between_files_by_form_alone(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("id,text,label\n" + "".join(f"{n},text {n},{n % 3}\n" for n in range(12)))
    (tmp_path / "test.csv").write_text("text,label\n" + "".join(f"other {n},{n % 3}.0\n" for n in range(6)))
    one = from_file(FileOptions(file=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv")))
    assert one.task.labels.names == ("0", "1", "2")
    assert [e.target for e in rows_of(one).splits["test"].examples] == ["0", "1", "2"] * 2
