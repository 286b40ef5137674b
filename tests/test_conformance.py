"""The conformance kit passes what keeps the contract, and says what is wrong with what does not."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import random
import re
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import alue_bench_models
import alue_bench_strategies
import alue_bench_tasks
import pyarrow
import pyarrow.parquet
import pytest

from alue_bench import (
    Adapter,
    BadRow,
    Choice,
    DataError,
    DataFile,
    Delimited,
    DoesNotFit,
    EncoderShape,
    Example,
    FreezePlan,
    HeldOut,
    Labels,
    Model,
    Probe,
    ProbeCost,
    Revisions,
    Splits,
    Strategy,
    StrategyFamily,
    Submission,
    TaggedColumns,
    Task,
    TrainingProgress,
    UsageError,
)
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import load_rows
from alue_bench.testing import ConformanceError, ConformanceWarning, check_model, check_strategy, check_task

MINI = Path(alue_bench_models.__file__).parent / "mini"
READ = Delimited(columns=2, text=0, target=1)
ROWS = {
    "train": "نعم أوافق\tyes\nلا أوافق\tno\nطبعا\tyes\nأبدا\tno\n",
    "dev": "بالتأكيد\tyes\nكلا\tno\n",
    "test": "أجل\tyes\nمستحيل\tno\n",
}


def violations(check: Callable[[Any], None], declaration: object) -> tuple[str, ...]:
    with pytest.raises(ConformanceError) as caught:
        check(declaration)
    assert str(caught.value) == "\n".join(caught.value.violations)
    return caught.value.violations


class TestBuiltIns:
    @pytest.mark.parametrize("task", alue_bench_tasks.alue_bench_tasks(), ids=lambda task: task.name)
    def test_task(self, task: Task) -> None:
        check_task(task)

    @pytest.mark.parametrize("model", alue_bench_models.alue_bench_models(), ids=lambda model: model.name)
    def test_model(self, model: Model) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConformanceWarning)  # nobody has every checkpoint
            check_model(model)

    @pytest.mark.parametrize(
        "family", alue_bench_strategies.alue_bench_strategies(), ids=lambda family: family.grammar.split(",")[0]
    )
    def test_strategy(self, family: StrategyFamily) -> None:
        check_strategy(family)


@pytest.mark.parametrize("check", [check_task, check_model, check_strategy])
def test_something_else_is_refused(check: Callable[[Any], None]) -> None:
    (only,) = violations(check, "mdd")
    assert "'mdd' is not a" in only


@pytest.fixture
def good_task(tmp_path: Path) -> Task:
    for split, rows in ROWS.items():
        write(tmp_path, split, rows)
    return Task(
        name="agreement",
        title="Yes or no",
        languages=("ar",),
        labels=Labels.binary(negative="no", positive="yes"),
        splits=splits(READ),
        source="this test",
        licence="Apache-2.0",
        citation="this test",
        sample=tmp_path,
    )


def write(folder: Path, split: str, rows: str) -> None:
    path = folder / "agreement" / f"{split}.tsv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(rows, encoding="utf-8")


def splits(read: Any) -> Splits:
    train, dev, test = (DataFile(f"agreement/{split}.tsv", read) for split in ("train", "dev", "test"))
    return Splits(train=train, dev=dev, test=test)


def broken(declaration: Any, **changes: object) -> Any:
    """A copy that its constructor would refuse."""
    copy = dataclasses.replace(declaration)
    for name, value in changes.items():
        object.__setattr__(copy, name, value)
    return copy


class TestTask:
    def test_good(self, good_task: Task) -> None:
        check_task(good_task)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"name": "Agree ment"}, "name must match"),
            ({"title": " "}, "does not state its title"),
            ({"licence": "TODO"}, "does not state its licence ('TODO')"),
            ({"languages": ("Arabic",)}, "'Arabic' in languages is not a BCP 47 code"),
            ({"languages": ()}, "does not state its languages"),
            ({"primary": "bleu"}, "primary metric 'bleu' is not one of f1_macro"),
            ({"defaults": {"learning_rate": 1e-3}}, "unknown hyper-parameter 'learning_rate'"),
            ({"defaults": {"epochs": 0}}, "epochs is 0; it must be at least 1"),
            ({"sample": Path("nowhere")}, "sample folder nowhere does not exist"),
            ({"sample": Path("sample")}, "write Path(__file__).parent / 'sample'"),
            ({"submission": Submission(file="a.tsv", id="given")}, "needs the identifiers of 'agreement/test.tsv'"),
            ({"labels": Labels.multiclass("no", "yes", "maybe")}, "label 'maybe' does not occur in train"),
            ({"labels": Labels.multiclass("no", "maybe")}, "label 'yes' is not declared; declared are no, maybe"),
            ({"labels": Labels.regression(0, 1)}, "'yes' is not a number"),
            ({"labels": Labels.multilabel("no", "yes")}, "'yes' is not a tuple of label names"),
        ],
        ids=itertools.count(),
    )
    def test_broken_declaration(self, good_task: Task, changes: dict[str, object], words: str) -> None:
        assert any(words in violation for violation in violations(check_task, broken(good_task, **changes)))

    @pytest.mark.parametrize(
        ("split", "rows", "words"),
        [
            ("train", "نعم\tyes\nلا\tno\nربما\tmaybe\n", "train.tsv:3: unknown label 'maybe'"),
            ("train", "نعم\tyes\nلا\tno\tno\n", "train.tsv:2: 3 columns instead of 2"),
            ("train", "نعم\tyes\nطبعا\tyes\n", "label 'no' does not occur in train"),
            ("dev", "", "dev.tsv: the file is empty"),
            ("test", "طبعا\tyes\nمستحيل\tno\n", "1 texts of the test split are in train too, such as 'طبعا'"),
            ("test", ROWS["train"], "4 of the 4 rows of test are rows of train too"),
            ("dev", ROWS["train"], "4 of the 4 rows of dev are rows of train too"),
            ("test", ROWS["dev"], "2 of the 2 rows of test are rows of dev too"),
            ("train", "نعم\tyes\nنعم\tno\n", "every row has the same text 'نعم'"),
        ],
    )
    def test_broken_sample(self, good_task: Task, split: str, rows: str, words: str) -> None:
        assert good_task.sample is not None
        write(good_task.sample, split, rows)
        (only,) = violations(check_task, good_task)
        assert words in only
        assert only.startswith("task 'agreement': ")

    def test_missing_file(self, good_task: Task) -> None:
        assert good_task.sample is not None
        (good_task.sample / "agreement" / "dev.tsv").unlink()
        (only,) = violations(check_task, good_task)
        assert "the dev file" in only
        assert "is missing" in only

    def test_a_folder_of_real_files_may_overlap_and_is_checked_in_the_sample_s_place(
        self, good_task: Task, tmp_path: Path
    ) -> None:
        assert good_task.sample is not None
        real = tmp_path / "real"
        shutil.copytree(good_task.sample / "agreement", real / "agreement")
        shared = ROWS["train"].splitlines(keepends=True)[0]
        write(real, "test", ROWS["test"] + shared)
        check_task(dataclasses.replace(good_task, sample=None), data=real)
        write(real, "test", ROWS["train"])
        with pytest.raises(ConformanceError, match="4 of the 4 rows of test are rows of train too"):
            check_task(good_task, data=real)
        write(real, "test", "نعم\n")
        with pytest.raises(ConformanceError, match="1 columns instead of 2"):
            check_task(good_task, data=real)

    def test_held_out_splits_are_told_in_the_protocol(self, good_task: Task) -> None:
        held_out = dataclasses.replace(good_task.splits, dev=HeldOut(0.5))
        (only,) = violations(check_task, dataclasses.replace(good_task, splits=held_out))
        assert "describe the splits in splits.protocol" in only
        told = dataclasses.replace(held_out, protocol="dev is half of train")
        check_task(dataclasses.replace(good_task, splits=told))

    def test_a_reader_of_one_s_own(self, good_task: Task) -> None:
        check_task(dataclasses.replace(good_task, splits=splits(read_strictly)))

    @pytest.mark.parametrize(
        ("read", "words"),
        [
            (lambda path: (row for row in read_strictly(path) if isinstance(row, Example)), "is not reported"),
            (lambda path: shifted(path, BadRow, 1), "reported at line 4 instead of 3"),
            (lambda path: shifted(path, Example, -5), "the reader must count lines from 1"),
            (lambda path: iter(path.read_text("utf-8").split("\n")), "yield an Example or a BadRow"),
            (lambda path: itertools.chain(read_strictly(path), [None]), "yields None as row 5"),
            (lambda path: list(read_strictly(path)).clear(), "it returned None instead of rows"),
            (lambda path: changed(path, line="1"), "line must be an int, not '1'"),
            (lambda path: changed(path, id=7), "id must be a string, not 7"),
            (lambda path: changed(path, text=None), "the text is empty"),
            (lambda path: changed(path, text="yes", target="yes"), "the text of every row is its gold label"),
            (lambda path: read_carelessly(path), "makes the reader raise UnicodeDecodeError"),
            (lambda path: changed(path, id="same"), "id 'same' occurs twice"),
            (lambda path: changed(path, text_pair="نص"), "has a second text"),
            (lambda path: shuffled(path), "twice gives different rows"),
            (lambda path: json.loads(path.read_text("utf-8")), "raised JSONDecodeError"),
            (lambda path: iter(()), "has no rows"),
        ],
        ids=itertools.count(),
    )
    def test_broken_reader(self, good_task: Task, read: Any, words: str) -> None:
        task = dataclasses.replace(good_task, splits=splits(read))
        assert any(words in violation for violation in violations(check_task, task))


TAGGED = {
    "train": "سلمى B-P\nوصلت O\n\nعاد O\nعلي B-P\nسالم I-P\n",
    "dev": "نامت O\nليلى B-P\n",
    "test": "ضحك O\nبدر B-P\n",
}


@pytest.fixture
def tagging_task(good_task: Task) -> Task:
    for split, rows in TAGGED.items():
        write(good_task.sample, split, rows)  # type: ignore[arg-type]
    labels = Labels.tokens("O", "B-P", "I-P", scheme="IOB2")
    return dataclasses.replace(good_task, labels=labels, primary="", splits=splits(TaggedColumns()))


def tagged(path: Path, **changes: object) -> Iterator[Any]:
    """The sentences of a file, each with other values."""
    for row in TaggedColumns(labels=("O", "B-P", "I-P"))(path):
        yield dataclasses.replace(row, **changes) if isinstance(row, Example) else row  # type: ignore[arg-type]


class TestTaskWithTags:
    def test_good(self, tagging_task: Task) -> None:
        check_task(tagging_task)

    @pytest.mark.parametrize(
        ("split", "rows", "words"),
        [
            ("train", TAGGED["train"] + "بدر B-X\n", "train.tsv:7: word 'بدر': unknown label 'B-X'"),
            ("train", TAGGED["train"] + "بدر\n", "train.tsv:7: no tag: column 1 (from 0) is missing in 'بدر'"),
            ("train", "عاد O\n\nنام O\n", "label 'P' does not occur in train"),
            ("test", TAGGED["dev"], "1 of the 1 rows of test are rows of dev too"),
            ("dev", "-DOCSTART- O\n", "the file has no sentences"),
        ],
    )
    def test_broken_sample(self, tagging_task: Task, split: str, rows: str, words: str) -> None:
        assert tagging_task.sample is not None
        write(tagging_task.sample, split, rows)
        (only,) = violations(check_task, tagging_task)
        assert words in only

    @pytest.mark.parametrize(
        ("read", "words"),
        [
            (TaggedColumns(word=1, tag=0), "label 'سلمى' is not declared"),
            (lambda path: tagged(path, words=None), "is not a tuple with a tag for each of the example's words"),
            (lambda path: tagged(path, target=("O",)), "is not a tuple with a tag for each of the example's words"),
            (lambda path: tagged(path, target="O"), "'O' is not a tuple of label names"),
            (lambda path: tagged(path, target=None), "the row has no gold label"),
            (lambda path: tagged(path, text="نص"), "the text is not that of the words"),
            (lambda path: tagged(path, words=("O", "B-P"), target=("O", "B-P"), text="O B-P"), "is its own tag"),
            (lambda path: (row for row in tagged(path) if isinstance(row, Example)), "is not reported"),
        ],
        ids=itertools.count(),
    )
    def test_broken_reader(self, tagging_task: Task, read: Any, words: str) -> None:
        task = broken(tagging_task, splits=splits(read))
        assert any(words in violation for violation in violations(check_task, task))


class TestTaskWithoutSample:
    def test_is_checked_as_far_as_it_goes_with_a_note_of_the_rest(self, good_task: Task) -> None:
        without = dataclasses.replace(good_task, sample=None)
        with pytest.warns(ConformanceWarning, match="its rows, splits and labels were not checked") as caught:
            check_task(without)
        assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
        with pytest.warns(ConformanceWarning), pytest.raises(ConformanceError, match="does not state its licence"):
            check_task(broken(without, licence="TODO"))

    @pytest.mark.parametrize(
        ("read", "words"),
        [
            (lambda: iter(()), "cannot be called with a path"),
            (lambda path: None, "returns None; it must yield"),
            (lambda path: iter([Example("0", "نص", None, "yes", 1)]), "finds rows in an empty file"),
        ],
        ids=itertools.count(),
    )
    def test_what_a_reader_does_without_a_file(self, good_task: Task, read: Any, words: str) -> None:
        task = dataclasses.replace(good_task, sample=None, splits=splits(read))
        with pytest.warns(ConformanceWarning):
            assert any(words in violation for violation in violations(check_task, task))


def read_parquet(path: Path) -> Iterator[Example | BadRow]:
    for number, row in enumerate(pyarrow.parquet.ParquetFile(path).read().to_pylist(), start=1):
        if row["text"] and row["label"] in ("yes", "no"):
            yield Example(str(number), row["text"], None, row["label"], number)
        else:
            yield BadRow(number, "no text, or no label")


def read_workbook(path: Path) -> Iterator[Example | BadRow]:
    """Rows of the first sheet of an XLSX file with its texts in place; the header is row 1."""
    with zipfile.ZipFile(path) as parts:
        sheet = ElementTree.fromstring(parts.read("xl/worksheets/sheet1.xml"))
    for row in list(sheet.iter("row"))[1:]:
        number, cells = int(row.attrib["r"]), [cell.findtext("is/t") for cell in row]
        if len(cells) == 2 and cells[0] and cells[1] in ("yes", "no"):
            yield Example(str(number), cells[0], None, cells[1], number)
        else:
            yield BadRow(number, "no text, or no label")


def as_parquet(rows: list[list[str]]) -> bytes:
    columns = {name: [row[place] for row in rows] for place, name in enumerate(("text", "label"))}
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return bytes(sink.getvalue())


def as_workbook(rows: list[list[str]]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as parts:
        written = "".join(
            f'<row r="{number}">{"".join(f"<c><is><t>{cell}</t></is></c>" for cell in row)}</row>'
            for number, row in enumerate([["text", "label"], *rows], start=1)
        )
        parts.writestr("xl/worksheets/sheet1.xml", f"<worksheet><sheetData>{written}</sheetData></worksheet>")
    return content.getvalue()


class TestBinaryReaders:
    """Files without lines: what is wrong with a row is told by the row's number."""

    @pytest.fixture
    def task(self, good_task: Task) -> Callable[..., Task]:
        def make(read: Any, write: Callable[[list[list[str]]], bytes], extra: tuple[str, ...] = ()) -> Task:
            assert good_task.sample is not None
            for split, rows in ROWS.items():
                cells = [row.split("\t") for row in (*rows.splitlines(), *(extra if split == "train" else ()))]
                (good_task.sample / "agreement" / f"{split}.tsv").write_bytes(write(cells))
            return dataclasses.replace(good_task, splits=splits(read))

        return make

    def test_parquet(self, task: Callable[..., Task]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConformanceWarning)
            check_task(task(read_parquet, as_parquet))

    def test_xlsx_with_a_note_of_what_was_not_tried(self, task: Callable[..., Task]) -> None:
        with pytest.warns(
            ConformanceWarning, match=r"a bad row of the train file was not tried.*BadRow\(row, reason\)"
        ):
            check_task(task(read_workbook, as_workbook))

    @pytest.mark.parametrize(("read", "write", "row"), [(read_parquet, as_parquet, 5), (read_workbook, as_workbook, 6)])
    def test_a_bad_row_is_named_by_file_and_row_in_the_kit_and_in_the_harness(
        self, task: Callable[..., Task], read: Any, write: Any, row: int
    ) -> None:
        bad = task(read, write, extra=("نص\tmaybe",))
        where = f"train.tsv, row {row}: no text, or no label"
        with pytest.warns() if write is as_workbook else nullcontext():
            assert any(where in violation for violation in violations(check_task, bad))
        assert bad.sample is not None
        with pytest.raises(DataError, match=re.escape(where)):
            load_rows(bad, DataFolder(bad.sample, "sample"), drop_bad=False, limit_train=None, limit_eval=None)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"text": str}, "with nothing but nulls is not reported"),
            ({"text": len}, "with nothing but nulls makes the reader raise TypeError"),
        ],
        ids=["takes null for a text", "fails on null"],
    )
    def test_a_parquet_reader_that_cannot_do_without_a_value(
        self, task: Callable[..., Task], change: dict[str, Callable[[Any], Any]], words: str
    ) -> None:
        def read(path: Path) -> Iterator[Example]:
            for number, row in enumerate(pyarrow.parquet.ParquetFile(path).read().to_pylist(), start=1):
                change["text"](row["text"])
                label = "yes" if row["label"] is None else row["label"]
                yield Example(str(number), f"{row['text']} {number}", None, label, number)

        assert any(words in violation for violation in violations(check_task, task(read, as_parquet)))

    def test_a_reader_of_another_file_than_it_is_given(self, task: Callable[..., Task], good_task: Task) -> None:
        kept = good_task.sample / "agreement"  # type: ignore[operator]
        bad = task(lambda path: read_parquet(kept / path.name), as_parquet)
        assert any("finds all rows in one half" in violation for violation in violations(check_task, bad))


def read_strictly(path: Path) -> Iterator[Example | BadRow]:
    for line, raw in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            text, label = raw.decode().split("\t")
        except ValueError as error:
            yield BadRow(line, str(error))
        else:
            yield Example(str(line), text, None, label, line)


def read_carelessly(path: Path) -> Iterator[Example]:
    for line, raw in enumerate(path.read_text("utf-8").splitlines(), start=1):
        yield Example(str(line), raw.split("\t")[0], None, raw.split("\t")[1], line)


def shifted(path: Path, kind: type[Example | BadRow], by: int) -> Iterator[Example | BadRow]:
    return (dataclasses.replace(r, line=r.line + by) if isinstance(r, kind) else r for r in read_strictly(path))


def changed(path: Path, **fields: Any) -> Iterator[Example | BadRow]:
    return (dataclasses.replace(r, **fields) if isinstance(r, Example) else r for r in read_strictly(path))


def shuffled(path: Path) -> Iterator[Example | BadRow]:
    return (dataclasses.replace(r, text=str(random.random())) if isinstance(r, Example) else r for r in READ(path))


GOOD_MODEL = Model(
    name="upper",
    title="Mini, upper case",
    checkpoint=MINI,
    languages=("ar",),
    licence="Apache-2.0",
    citation="this test",
    normalise=lambda text: text.upper(),
    normalisation="upper case",
)


BERT_OF_64_POSITIONS = {"model_type": "bert", "max_position_embeddings": 64}


class TestModel:
    def test_good(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConformanceWarning)
            check_model(GOOD_MODEL)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"name": "Upper"}, "name must match"),
            ({"citation": ""}, "does not state its citation"),
            ({"languages": ()}, "does not state its languages"),
            ({"normalisation": Model.normalisation}, "describe in normalisation what it does"),
            ({"defaults": {"lr": "high"}}, "lr is 'high'; it must be of type float"),
            ({"defaults": {"max_length": 257}}, "the model has positions for 256 tokens; give at most 256"),
            (
                {"defaults": {"max_length": 65}, "checkpoint": "a/b", "architecture": BERT_OF_64_POSITIONS},
                "the model has positions for 64 tokens",
            ),
            ({"architecture": BERT_OF_64_POSITIONS}, "max_position_embeddings=64, but config.json 256"),
            ({"architecture": {"model_type": "brt"}}, "its plugin's architecture cannot be used"),
            ({"languages": ("ar", "zh")}, "the tokenizer knows no word of texts in Chinese script"),
            ({"normalise": lambda text: text + "."}, "normalise is not idempotent"),
            ({"normalise": lambda text: text.split()}, "returned a list; it must return a str"),
            ({"normalise": lambda text: text[0] + text[1:]}, "normalise('') raised IndexError"),
            ({"normalise": lambda text: text.encode("ascii").decode()}, "raised UnicodeEncodeError"),
            ({"normalise": lambda text: f"{random.random()}"}, "gives another text the second time"),
            ({"normalise": lambda text: __import__("no_such_package")}, "name it in requires"),
            ({"normalise": lambda text: ""}, "normalise leaves 0 of"),
            ({"normalise": lambda text: text[:6]}, "letters of a text in Arabic script"),
            ({"normalise": lambda text: "نص"}, "turns all texts into one text in Arabic script"),
            ({"normalise": lambda text: re.sub("[\u0600-\u06ff]", "", text)}, "letters of a text in Arabic script"),
            (
                {"normalise": lambda text: text.encode("ascii", "ignore").decode(), "languages": ("en", "ru")},
                "letters of a text in Cyrillic script: 'Комната чистая и тихая' becomes",
            ),
            ({"normalise": lambda text: text or "\ud800"}, "returned half of a surrogate pair"),
            ({"checkpoint": "mini"}, "is not a hub id like 'owner/name'"),
            ({"checkpoint": Path("mini")}, "write Path(__file__).parent / 'mini'"),
            ({"checkpoint": Path("nowhere")}, "nowhere is not a folder"),
        ],
        ids=itertools.count(),
    )
    def test_broken_declaration(self, changes: dict[str, object], words: str) -> None:
        assert any(words in violation for violation in violations(check_model, broken(GOOD_MODEL, **changes)))

    @pytest.mark.parametrize(
        ("file", "setting", "value", "words"),
        [
            ("config.json", "num_hidden_layers", None, "the checkpoint cannot be used"),
            ("config.json", "vocab_size", 50, "but the model has 50 embeddings"),
            ("config.json", "model_type", "no-such-type", "the checkpoint cannot be used"),
            ("tokenizer_config.json", "pad_token", None, "the tokenizer has no padding token"),
        ],
    )
    def test_broken_checkpoint(self, tmp_path: Path, file: str, setting: str, value: object, words: str) -> None:
        for path in MINI.iterdir():
            if path.suffix == ".json":
                shutil.copy(path, tmp_path)
        (tmp_path / "model.safetensors").symlink_to(MINI / "model.safetensors")
        content = json.loads((tmp_path / file).read_text("utf-8"))
        (tmp_path / file).write_text(json.dumps({**content, setting: value}), encoding="utf-8")
        (only,) = violations(check_model, dataclasses.replace(GOOD_MODEL, checkpoint=tmp_path))
        assert words in only

    @pytest.mark.parametrize(
        ("file", "content", "words"),
        [
            ("model.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", "safetensors has 100000 bytes instead of"),
            ("tokenizer.json", None, "the tokenizer"),
        ],
        ids=["weights cut off", "no tokenizer"],
    )
    def test_incomplete_checkpoint(self, tmp_path: Path, file: str, content: bytes | None, words: str) -> None:
        for path in MINI.iterdir():
            if not path.name.startswith("tokenizer") or content is not None:
                (tmp_path / path.name).symlink_to(path)
        if content is not None:
            (tmp_path / file).unlink()
            (tmp_path / file).write_bytes((MINI / file).read_bytes()[:100_000])
        (only,) = violations(check_model, dataclasses.replace(GOOD_MODEL, checkpoint=tmp_path))
        assert words in only

    def test_a_script_that_is_not_the_model_s_may_be_taken_out_with_a_note(self) -> None:
        arabic_only = dataclasses.replace(GOOD_MODEL, normalise=lambda text: re.sub("[A-Za-z]", "", text))
        with pytest.warns(ConformanceWarning, match="leaves nothing of texts in Latin script"):
            check_model(arabic_only)

    def test_what_is_not_on_this_machine_is_warned_of(self) -> None:
        elsewhere = dataclasses.replace(GOOD_MODEL, checkpoint="nobody/has-this", requires=("no_such_package",))
        with pytest.warns(ConformanceWarning) as caught:
            check_model(elsewhere)
        assert ["normalise was not checked" in str(w.message) for w in caught].count(True) == 1
        assert ["the checkpoint was not checked" in str(w.message) for w in caught].count(True) == 1
        assert {Path(warning.filename) for warning in caught} == {Path(__file__)}


@dataclass(frozen=True)
class First(Strategy):
    """The first N layers: `first<N>`."""

    layers: int

    @property
    def name(self) -> str:
        return f"first{self.layers}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, frozenset(range(self.layers)))


def parse(name: str) -> First | None:
    number = name.removeprefix("first")
    return First(int(number)) if name != number and number.isascii() and number.isdigit() else None


def family(of: Callable[[str], Any] = parse, **changes: object) -> StrategyFamily:
    good = StrategyFamily(
        grammar="first<N>", title="The first N layers", source="this test", examples=("first2", "first3"), parse=of
    )
    return broken(good, **changes)  # type: ignore[no-any-return]


def family_of(kind: type[First], **changes: object) -> StrategyFamily:
    return family(lambda name: kind(parsed.layers) if (parsed := parse(name)) is not None else None, **changes)


class Misnamed(First):
    @property
    def name(self) -> str:
        return f"last{self.layers}"


class Spaced(First):
    @property
    def name(self) -> str:
        return f"first {self.layers}"


class WithIdentity(First):
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Unhashable(First):
    __hash__ = None  # type: ignore[assignment]


class Crashing(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        if shape.layers < self.layers:
            raise IndexError("list index out of range")
        return super().freeze_plan(shape)


class Unexplained(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        if shape.layers < self.layers:
            raise DoesNotFit
        return super().freeze_plan(shape)


class Fickle(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, frozenset(random.sample(range(shape.layers), shape.layers // 2)))


class OfAnotherShape(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(EncoderShape(12), frozenset(range(self.layers)))


class Deep(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        raise DoesNotFit("freezes layer 99")


class KeepsUpsideDown(First):
    def kept_layers(self, shape: EncoderShape) -> tuple[int, ...]:
        return tuple(reversed(range(shape.layers)))


class CountsDroppedLayers(First):
    """Plans for the whole model, though one layer is gone."""

    def kept_layers(self, shape: EncoderShape) -> tuple[int, ...]:
        if shape.layers < 2:
            raise DoesNotFit("drops 1 of 1 layers")
        return tuple(range(shape.layers - 1))

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(EncoderShape(shape.layers + 1, shape.hidden_size))


class AdapterBesideWeights(First):
    def adapter(self) -> Adapter:
        return Adapter("LORA")


class AdapterOfNoKind(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, embeddings=True, trained="adapters")

    def adapter(self) -> Adapter:
        return Adapter("LORRA")


class NeverAsked(First):
    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        return FreezePlan(plan.shape)


class Asked(NeverAsked):
    def revisions(self) -> Revisions:
        return Revisions(per_epoch=2)


class Moody(Asked):
    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        return FreezePlan(plan.shape, frozenset({random.randrange(plan.shape.layers)}))


class Forgetful(Asked):
    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> Any:
        return frozenset({0})


class BreaksPromise(Asked):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, frozenset({0}), embeddings=True)

    def revisions(self) -> Revisions:
        return Revisions(prefix_only_grows=True)


class ReadsNormsItDidNotAskFor(Asked):
    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        return FreezePlan(plan.shape, embeddings=progress.norms[-1].layers[0] is None)


class Idle(First):
    """Says that it freezes layers, and freezes none."""

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape)


class Chooses(First):
    """Trains the layers that train alone worst, which a probe can tell."""

    def choose(self, probe: Probe) -> Choice:
        def alone(layer: int) -> float:
            others = frozenset(range(probe.shape.layers)) - {layer}
            return -probe.train_and_score(FreezePlan(probe.shape, others, embeddings=True)).loss

        shape = probe.shape
        return Choice.highest(shape, [alone(layer) for layer in range(shape.layers)], shape.layers - self.layers)

    def probe_cost(self, shape: EncoderShape) -> ProbeCost | None:
        return ProbeCost(trainings=(FreezePlan(shape, embeddings=True),) * shape.layers)


class ChoosesByChance(Chooses):
    def choose(self, probe: Probe) -> Choice:
        count = probe.shape.layers
        return Choice.highest(probe.shape, [random.random() for _ in range(count)], count - self.layers)


class ChoosesNothing(Chooses):
    def choose(self, probe: Probe) -> Choice:
        return None  # type: ignore[return-value]


class CostsAWord(Chooses):
    def probe_cost(self, shape: EncoderShape) -> ProbeCost | None:
        return "little"  # type: ignore[return-value]


class CostsAnError(Chooses):
    def probe_cost(self, shape: EncoderShape) -> ProbeCost | None:
        return ProbeCost(forward_passes=1 // (self.layers - self.layers))


class Nameless(First):
    @property
    def name(self) -> str:
        return str(1 / 0)


class OneForAll(First):
    """Freezes as many layers whatever its number."""

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, frozenset({0}))


class NeverActs(Idle):
    """Is asked again, and changes nothing."""

    def revisions(self) -> Revisions:
        return Revisions(gradient_norms=True)

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        return plan


class AskedInVain(First):
    def revisions(self) -> Revisions:
        return Revisions()


class ActsLate(NeverActs):
    """Freezes once the dev score is high for long."""

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        long_good = [score for score in progress.dev_scores if score > 0.95]
        return FreezePlan(plan.shape, frozenset({0})) if len(long_good) > self.layers else plan


class BareTrained(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, trained="bias")  # type: ignore[arg-type]


class AdapterOfASet(First):
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, embeddings=True, trained="adapters")

    def adapter(self) -> Adapter:
        return Adapter("LORA", {"target_modules": {"query"}})


def claims_full(name: str) -> First | None:
    return First(2) if name == "full" else parse(name)


def claims_everything(name: str) -> First:
    return First(2)


def raises_key_error(name: str) -> First:
    return {"first2": First(2), "first3": First(3)}[name]


def explains_near_misses(name: str) -> First | None:
    if name.endswith("-no-such-variant"):
        raise UsageError("first<N> has no variants")
    return parse(name)


class TestStrategy:
    @pytest.mark.parametrize(
        "good",
        [
            family(),
            family(explains_near_misses),
            family_of(Asked),
            family_of(ActsLate),
            family_of(Chooses),
            dataclasses.replace(family_of(Idle), title="Everything trains (a control)", examples=("first2",)),
            dataclasses.replace(family_of(Idle), title="Full fine-tuning, by another name", examples=("first2",)),
        ],
        ids=[
            "plain",
            "explains",
            "is asked",
            "acts late",
            "chooses",
            "trains everything and says so",
            "full and says so",
        ],
    )
    def test_good(self, good: StrategyFamily) -> None:
        check_strategy(good)

    @pytest.mark.parametrize(
        ("bad", "words"),
        [
            (family(title="..."), "does not state its title"),
            (family(examples=["first2"]), "examples is a list; give a tuple"),
            (family(examples=("second2",)), "is an example of 'first<N>', but parse returns None"),
            (family(raises_key_error), "parse('no-such-strategy') raises KeyError"),
            (family(claims_everything), "parse('no-such-strategy') returns First(layers=2)"),
            (family(lambda name: name), "but parse returns 'first2'"),
            (family_of(Misnamed), "parse must return the same strategy for this name"),
            (family_of(Spaced), "its name 'first 2' must match"),
            (family_of(WithIdentity), "parsing its name twice gives unequal values"),
            (family_of(Unhashable), "have no equal hash"),
            (family_of(Crashing), "'first2' on 1 layer: freeze_plan raises IndexError"),
            (family_of(Unexplained), "raises DoesNotFit without a reason"),
            (family_of(Fickle), "freeze_plan gives different plans"),
            (family_of(OfAnotherShape), "return a FreezePlan of the shape it is given"),
            (family_of(KeepsUpsideDown), "return a tuple of layers from low to high"),
            (family_of(CountsDroppedLayers), "return a FreezePlan of the shape it is given"),
            (family_of(AdapterBesideWeights), "both must name an adapter, or neither"),
            (family_of(AdapterOfNoKind), "correct the kind or the options of its Adapter"),
            (family_of(NeverAsked), "revise is never called"),
            (family_of(Moody), "revise gives different plans"),
            (family_of(Forgetful), "return a FreezePlan of the same shape"),
            (family_of(BreaksPromise), "the frozen prefix shrinks"),
            (family_of(ReadsNormsItDidNotAskFor), "revise raises IndexError"),
            (family_of(Deep), "fits no encoder of 1 to 24 layers"),
            (family_of(ChoosesByChance), "choose gives different choices for equal probes"),
            (family_of(ChoosesNothing), "choose returned None; it must return a Choice"),
            (family_of(CostsAWord), "probe_cost returns 'little'"),
            (family_of(CostsAnError), "probe_cost raises ZeroDivisionError"),
            (family_of(Idle), "'first2' freezes nothing, removes no layer and inserts no adapter"),
            (family_of(Idle, title="Everything trains but N layers"), "'first2' freezes nothing"),
            (family_of(Nameless), "'first2': name raises ZeroDivisionError"),
            (family_of(OneForAll), "strategy 'first3' and strategy 'first2' have the same effect on every encoder"),
            (family_of(NeverActs), "revise froze nothing in 5 simulated training runs"),
            (family_of(AskedInVain), "but there is no revise to call"),
            (family_of(BareTrained), "trained is 'bias'; it must be weights, biases, norms, attention,"),
            (family_of(AdapterOfASet), "its options are not JSON-like"),
            (family(claims_full), "parse('full') returns First(layers=2), but that name belongs to the family 'full'"),
        ],
        ids=itertools.count(),
    )
    def test_broken(self, bad: StrategyFamily, words: str) -> None:
        assert any(words in violation for violation in violations(check_strategy, bad))
