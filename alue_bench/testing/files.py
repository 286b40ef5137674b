"""The conformance checks of a task's data files: the reader must read all rows, and report a bad row that is added."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import DataError
from alue_bench.contract.formats import Answers, BadRow, Delimited, Example, Target
from alue_bench.contract.task import DataFile, Labels, TargetKind, Task
from alue_bench.data.location import file_in
from alue_bench.data.verification import bad_row_of, is_text, row_location
from alue_bench.testing.violations import MAX_SHOWN, Remark, cause

PARQUET = b"PAR1"
"""The first bytes of a Parquet file."""


@dataclass(frozen=True)
class _File:
    """A data file that is checked, with the task and the split to which it belongs."""

    task: Task
    split: str
    declared: DataFile
    path: Path
    """The path of the file on this machine; for some formats, it is a folder."""

    @property
    def subject(self) -> str:
        """The beginning of a message about the task."""
        return f"task {self.task.name!r}"

    @cached_property
    def content(self) -> bytes:
        """The bytes of the file; empty for a folder."""
        return b"" if self.path.is_dir() else self.path.read_bytes()

    @cached_property
    def has_lines(self) -> bool:
        """True if the file is a text file, so that its rows have line numbers."""
        return not self.path.is_dir() and is_text(self.content)

    @property
    def unit(self) -> str:
        """The word that messages put before the number of a row: "line" or "row"."""
        return "line" if self.has_lines else "row"

    def where(self, row: Example | BadRow) -> str:
        """Return the beginning of a message about a row: the task, the file, and the line or the number of the row."""
        return f"{self.subject}: {row_location(self.path, row.line, has_lines=self.has_lines)}"


def check_reader_alone(task: Task, split: str, file: DataFile) -> Iterator[str]:
    """Yield the violations of a task's reader that can be found without the task's data file.

    The reader must be callable with a path, and must not yield examples for an empty file.

    Args:
        task: The task.
        split: The name of the split to which the file belongs.
        file: The declaration of the file and its reader.
    """
    subject = f"task {task.name!r}: the reader of the {split} file"
    try:
        inspect.signature(file.read).bind(Path(file.path))
    except TypeError as error:
        yield f"{subject} cannot be called with a path ({error}); it must be a function of one Path"
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            rows: Any = file.read(_written(Path(folder) / file.path, b""))
            invented = rows is not None and any(isinstance(row, Example) for row in rows)
        except Exception:  # an error is correct, because the file is empty
            return
    if rows is None:
        yield f"{subject} returns None; it must yield an Example or a BadRow for each row"
    elif invented:
        yield f"{subject} finds rows in an empty file; it must read the path that it is given"


def check_file(task: Task, split: str, declared: DataFile, folder: Path) -> Iterator[str]:
    """Yield a sentence for each violation of the plugin contract by a data file or its reader.

    The reader reads the file twice. For most formats, it then also reads altered copies of the file, for example one to
    which a bad row was added.

    Args:
        task: The task.
        split: The name of the split to which the file belongs.
        declared: The declaration of the file and its reader.
        folder: The data folder.
    """
    file = _File(task, split, declared, file_in(folder, declared))
    subject, path = file.subject, file.path
    if not path.exists():
        yield f"{subject}: the {split} file {path} is missing; add it, or correct the path of its DataFile"
        return
    try:
        rows = _rows(declared, path)
        again = _rows(declared, path)
    except DataError as error:
        yield f"{subject}: the {split} file cannot be used: {error}; correct the file or its DataFile"
        return
    except Exception as error:  # a plugin's reader may raise anything
        yield (
            f"{subject}: the reader of {path} raised {cause(error)}; it must yield BadRow({file.unit}, reason) for a "
            "bad row, and raise DataError if the whole file is unusable"
        )
        return
    if not _equal(rows, again):
        yield f"{subject}: reading {path} twice gives different rows; the reader may depend only on the file"
    for number, row in enumerate(rows, start=1):
        if (wrong := _malformed(row)) is not None:
            yield f"{subject}: the reader of {path} yields {row!r:.60} as row {number}; {wrong}"
            return
    yield from _bad_rows(file, [row for row in rows if isinstance(row, BadRow)])
    examples = [row for row in rows if isinstance(row, Example)]
    if not rows:
        yield f"{subject}: the {split} file {path} has no rows; add some, or correct the reader"
    yield from _misfits(file, examples)
    yield from _identifiers(file, examples)
    yield from _constants(file, examples)
    if not path.is_dir():
        yield from _added_bad_row(file, rows)


def _rows(declared: DataFile, path: Path) -> list[Any]:
    """Return all values that a declared reader yields for the file `path`."""
    rows: Any = declared.read(path)
    if rows is None:
        raise TypeError("it returned None instead of rows")
    return list(rows)


def _equal(rows: list[Any], again: list[Any]) -> bool:
    """Return whether two lists of rows are equal. NaN (an empty cell in pandas) counts as equal to NaN."""
    return repr(rows) == repr(again)


def _malformed(row: object) -> str | None:
    """Return how to correct a value that a reader yields, if it or one of its fields has a wrong type; None otherwise.

    The other checks of rows need values of correct types.
    """
    if not isinstance(row, (Example, BadRow)):
        return "yield an Example or a BadRow, or leave the row out if it is not part of the task"
    if not isinstance(row.line, int) or isinstance(row.line, bool):
        return f"line must be an int, not {row.line!r:.40}"
    if isinstance(row, BadRow):
        return None if isinstance(row.reason, str) else f"reason must be a string, not {row.reason!r:.40}"
    return None if isinstance(row.id, str) else f"id must be a string, not {row.id!r:.40}"


def _bad_rows(file: _File, bad: list[BadRow]) -> Iterator[str]:
    """Yield a violation for each bad row of a file, up to a limit, and the number of the remaining bad rows."""
    for row in bad[:MAX_SHOWN]:
        yield f"{file.where(row)}: {row.reason}; correct the row or the DataFile's format"
    if len(bad) > MAX_SHOWN:
        yield f"{file.subject}: {file.path} has {len(bad) - MAX_SHOWN} more bad rows; correct them too"


def _identifiers(file: _File, examples: list[Example]) -> Iterator[str]:
    """Yield a violation for the first row with a repeated or unusable identifier, or with a wrong line.

    A line is wrong if its number is not larger than that of the row before.
    """
    submission = file.task.submission
    goes_out = submission is not None and submission.id == "given" and file.split in ("submission", "test")
    seen: set[str] = set()
    last_line = 0 if file.has_lines else -1  # some programs count the rows of a table from 0
    for example in examples:
        if example.id in seen:
            yield f"{file.where(example)}: id {example.id!r} occurs twice; give each row of a file a different id"
            return
        if example.line <= last_line:
            yield (
                f"{file.where(example)} follows {file.unit} {last_line}; the reader must count {file.unit}s from 1, "
                "in file order"
            )
            return
        if goes_out and any(mark in example.id for mark in "\t\r\n"):
            yield (
                f"{file.where(example)}: id {example.id!r} cannot be written to a submission file; remove its tab or "
                "line end"
            )
            return
        seen.add(example.id)
        last_line = example.line


def _constants(file: _File, examples: list[Example]) -> Iterator[str]:
    """Yield violations if a task's reader seems to read a wrong column of a file.

    Signs of a wrong column are equal texts or equal gold numbers in all rows, pairs of equal texts, and texts or words
    that are equal to their gold labels or tags.
    """
    if len(examples) < 2:
        return
    what = f"{file.subject}: in the {file.split} file {file.path}"
    if len({(example.text, example.text_pair) for example in examples}) == 1:
        yield f"{what} every row has the same text {examples[0].text!r:.40}; name the column of the texts"
    if all(example.text == example.text_pair for example in examples):
        yield f"{what} both texts of every pair are the same; name two columns"
    if all(example.text == str(example.target) for example in examples):
        yield f"{what} the text of every row is its gold label; name the column of the texts"
    if all(example.words is not None and example.words == example.target for example in examples):
        yield f"{what} every word is its own tag; name the column of the words, or that of the tags"
    has_numbers = file.task.labels.kind is TargetKind.REGRESSION and file.split != "submission"
    if has_numbers and len({str(example.target) for example in examples}) == 1:
        yield (
            f"{what} every row has the gold number {examples[0].target}, so that correlations are undefined; name the "
            "column of the numbers, or add rows with other numbers"
        )


def _misfits(file: _File, examples: list[Example]) -> Iterator[str]:
    """Yield a violation for each row, up to a limit, whose texts or gold target contradict the task's declaration."""
    misfits = 0
    for example in examples:
        misfit = _misfit(file.task, example)
        if misfit is None and file.split != "submission":
            misfit = _misfit_of_target(file.task.labels, example.target)
        if misfit is None and (bad := bad_row_of(example, file.task.labels)) is not None:
            misfit = f"{bad.reason}; the reader must yield BadRow for it"
        if misfit is not None and (misfits := misfits + 1) <= MAX_SHOWN:
            yield f"{file.where(example)}: {misfit}"


def _misfit(task: Task, example: Example) -> str | None:
    """Return why the texts of an example contradict the task's declaration, with a remedy; None if they do not."""
    if not isinstance(example.text, str) or not example.text.strip():
        return "the text is empty; the reader must yield BadRow for it, with the reason 'empty text'"
    if task.is_pair and example.text_pair is None:
        return "is_pair says that rows are pairs, but this one has no second text; correct text_pair in the reader"
    if not task.is_pair and example.text_pair is not None:
        return (
            "is_pair says that rows are single texts, but this one has a second text; give the reader an attribute "
            "text_pair that is not None"
        )
    if example.words is not None and example.text != " ".join(example.words):
        return "the text is not that of the words; the reader must give the words joined by single spaces as text"
    return None


def _misfit_of_target(labels: Labels, target: Target) -> str | None:
    """Return why a gold target does not belong to the label space, with a remedy; None if it does."""
    if target is None:
        return "the row has no gold label; name its column in target, or make the file the submission split"
    known = f"declared are {', '.join(labels.names)}; correct the labels, or decode= in the reader"
    if labels.kind is TargetKind.REGRESSION:
        if isinstance(target, bool) or not isinstance(target, (int, float)):
            return f"{target!r} is not a number; the reader must convert it"
        if not labels.minimum <= target <= labels.maximum:
            return f"{target} is not within {labels.minimum} to {labels.maximum}; correct the row or Labels.regression"
    elif labels.kind in (TargetKind.MULTILABEL, TargetKind.TOKENS):
        if not isinstance(target, tuple):
            return f"{target!r:.60} is not a tuple of label names; the reader must give one"
        unknown = [name for name in target if name not in labels.names]
        if unknown:
            return f"label {unknown[0]!r} is not declared; {known}"
    elif labels.extracts_spans:
        if not isinstance(target, Answers):
            return f"{target!r:.60} is not an Answers value; the reader must give one"
    elif target not in labels.names:
        return f"label {target!r} is not declared; {known}"
    return None


# The report of a bad row ---------------------------------------------------------------------------------------------


def _added_bad_row(file: _File, rows: list[Any]) -> Iterator[str]:
    """Yield a violation if the reader does not report a bad row that is appended to a copy of its file.

    Args:
        file: The file.
        rows: The values that the reader yields for the original file.
    """
    content = file.content
    if not file.has_lines:
        yield from _first_half(file, rows)
    if content.startswith(PARQUET):
        yield from _row_of_nulls(file, rows)
        return
    if not file.has_lines or not _is_utf8(content):
        yield Remark(
            f"{file.subject}: a bad row of the {file.split} file was not tried, because {file.path} is not a UTF-8 "
            f"text; make sure that its reader yields BadRow({file.unit}, reason) for one"
        )
        return
    content += b"" if content.endswith(b"\n") else b"\n"
    if file.task.labels.tags_words:
        content += b"\n"  # the bad row begins a new sentence
    line = content.count(b"\n") + 1
    read = file.declared.read
    if isinstance(read, Delimited):
        width = read.columns or content.splitlines()[0].count(read.delimiter.encode()) + 1
        what, row = "a wrong number of columns", read.delimiter.join(["x"] * (width + 1)).encode()
    else:  # bytes that are not UTF-8 are a bad row in every text format
        what, row = "bytes that are not UTF-8", b"\xff\xfe\xff"
    yield from _unreported(file, content + row + b"\n", kind=what, at=line)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _unreported(file: _File, content: bytes, *, kind: str, at: int | None) -> Iterator[str]:
    """Yield a violation if the reader does not report the bad row in a file with the given content.

    Args:
        file: The file whose reader is checked.
        content: The content of a file with one bad row.
        kind: A phrase that describes the bad row, such as "a wrong number of columns".
        at: The line, or the number of the row, that the reader must report; None if it is not known.
    """
    subject = f"{file.subject}: a row of the {file.split} file with {kind}"
    remedy = f"the reader of {file.declared.path} must yield BadRow({at or file.unit}, reason) for it"
    labels = file.task.labels
    with tempfile.TemporaryDirectory() as folder:
        try:
            rows = _rows(file.declared, _written(Path(folder) / file.declared.path, content))
        except DataError:
            return  # the reader reports that the whole file is unusable, which is permitted
        except Exception as error:  # a plugin's reader may raise anything
            yield f"{subject} makes the reader raise {cause(error)}; {remedy}"
            return
    bad = [row for row in rows if not isinstance(row, Example) or bad_row_of(row, labels) is not None]
    lines = [getattr(row, "line", None) for row in bad]
    if not bad:
        yield f"{subject} is not reported; {remedy}"
    elif at is not None and at not in lines:
        yield f"{subject} is reported at {file.unit} {lines[-1]} instead of {at}; {remedy}"


def _written(path: Path, content: bytes) -> Path:
    """Write a file, creating its folder if necessary, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _first_half(file: _File, rows: list[Any]) -> Iterator[str]:
    """Yield a violation if the reader yields all rows although it is given only the first half of a binary file.

    Args:
        file: The file.
        rows: The values that the reader yields for the original file.
    """
    half = file.content[: len(file.content) // 2]
    with tempfile.TemporaryDirectory() as folder:
        try:
            rows_of_half = _rows(file.declared, _written(Path(folder) / file.declared.path, half))
        except Exception:  # an error is correct, because half of a file is not a file of this format
            return
    if rows and _equal(rows_of_half, rows):
        yield (
            f"{file.subject}: the reader of the {file.split} file finds all rows in one half of {file.declared.path}; "
            "it must read the path that it is given"
        )


def _row_of_nulls(file: _File, rows: list[Any]) -> Iterator[str]:
    """Yield a violation if the reader does not report a row of nulls that is appended to a copy of a Parquet file.

    Args:
        file: The file.
        rows: The values that the reader yields for the original file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file.path).read().replace_schema_metadata()
        schema = pa.schema([field.with_nullable(True) for field in table.schema])
        empty = pa.table([pa.nulls(1, field.type) for field in schema], schema=schema)
        sink = pa.BufferOutputStream()
        pq.write_table(pa.concat_tables([table.cast(schema), empty]), sink)
    except (pa.ArrowException, OSError) as error:
        yield Remark(f"{file.subject}: a bad row of the {file.split} file was not tried: {cause(error)}")
        return
    # The number of the appended row is known only if the reader yields a value for every row of the table.
    known = rows and len(rows) == table.num_rows
    at = rows[-1].line + 1 if known else None
    yield from _unreported(file, sink.getvalue().to_pybytes(), kind="nothing but nulls", at=at)
