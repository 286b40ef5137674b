"""Readers: from an official file to examples, naming every row that is not what it should be.

Only the standard library is used here: plugin authors import this module at start-up.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from alue_bench.errors import DataError

# One label, several labels (multi-label, possibly none), a number (regression), or no gold label at all.
Target = str | tuple[str, ...] | float | None

Column = str | int
"""A column by its name in the header, or by its position (from 0) where the file has none."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task: a text or a pair of texts, and what is to be predicted."""

    id: str
    text: str
    text_pair: str | None
    target: Target
    line: int
    """The row's first line in its file, counted from 1."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why."""

    line: int
    reason: str


class Reader(Protocol):
    """Anything with this method can be the `read` of a `DataFile`."""

    def __call__(self, path: Path) -> Iterator[Example | BadRow]:
        """Yield each row of `path` as an example or as a bad row.

        Raises DataError where the file as a whole is unusable: empty, not UTF-8 text, a column missing.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Delimited:
    r"""Reads TSV and CSV files, with or without a header.

    >>> Delimited(columns=2, text=0, target=1)                        # text<TAB>label, no header
    >>> Delimited(header=True, delimiter=",", quoted=True, text="question1", text_pair="question2",
    ...           target="label", decode={"0": "different", "1": "similar"})

    A file without quoting is split at each delimiter and each line feed and at nothing else, so that quotation marks,
    carriage returns inside a text and exotic line separators stay part of the text.
    """

    text: Column
    text_pair: Column | None = None
    target: Column | tuple[str, ...] | None = None
    """The column of the label or number; several columns of 0 and 1 for a multi-label task; None for a file
    without gold labels."""
    id: Column | None = None
    """The column of the example's identifier; without one, the row's number from 0."""
    delimiter: str = "\t"
    quoted: bool = False
    header: bool = False
    columns: int | None = None
    """How many columns each row must have; taken from the header where there is one."""
    decode: Mapping[str, str] = field(default_factory=dict)
    """Label names by what the file writes, where the two differ."""
    labels: tuple[str, ...] | None = None
    """Where given, any other label (after `decode`) makes a bad row. A task fills this in from its label space."""
    ignore: frozenset[str] = frozenset()
    """Labels of the file that are not of this task: their rows are left out and are not an error."""
    number: tuple[float, float] | None = None
    """For regression: the smallest and largest number allowed."""

    def __post_init__(self) -> None:
        if not self.header:
            if self.columns is None:
                raise ValueError("Delimited without a header needs columns=, the number of columns of each row")
            wanted = [self.text, self.text_pair, self.id, *_as_tuple(self.target)]
            by_name = [column for column in wanted if isinstance(column, str)]
            if by_name:
                raise ValueError(f"Delimited without a header names columns by position, not {by_name[0]!r}")
            beyond = [column for column in wanted if isinstance(column, int) and column >= self.columns]
            if beyond:
                raise ValueError(f"Delimited: column {beyond[0]} (from 0) is beyond the {self.columns} of a row")

    def __call__(self, path: Path) -> Iterator[Example | BadRow]:
        lines, undecodable = _lines(path)
        rows = _quoted_rows(lines, self.delimiter) if self.quoted else _plain_rows(lines, self.delimiter)
        width = self.columns
        position: dict[str, int] = {}
        if self.header:
            first = next(rows, None)
            if first is None or isinstance(first, BadRow):
                raise DataError(f"{path}:1: the header cannot be read")
            position = {name: index for index, name in enumerate(first[1])}
            width = len(first[1])
            for column in (self.text, self.text_pair, self.id, *_as_tuple(self.target)):
                if isinstance(column, str) and column not in position:
                    raise DataError(f"{path}:1: column {column!r} is missing; the header has {', '.join(first[1])}")
                if isinstance(column, int) and column >= width:
                    names = ", ".join(first[1])
                    raise DataError(f"{path}:1: column {column + 1} is missing; the header has {names}")
        number_of_rows = 0
        for row in rows:
            if isinstance(row, BadRow):
                yield row
                continue
            line, cells, last_line = row
            row_number, number_of_rows = number_of_rows, number_of_rows + 1
            broken = next((n for n in range(line, last_line + 1) if n in undecodable), None)
            if broken is not None:
                yield BadRow(line, f"not valid UTF-8 (byte {undecodable[broken]} of line {broken})")
            elif len(cells) != width:
                yield BadRow(line, f"{len(cells)} columns instead of {width}")
            else:
                example = self._example(cells, position, line, row_number)
                if example is not None:
                    yield example
        if number_of_rows == 0:
            raise DataError(f"{path}: the file has no rows")

    def _example(
        self, cells: list[str], position: Mapping[str, int], line: int, row_number: int
    ) -> Example | BadRow | None:
        def cell(column: Column) -> str:
            return cells[position[column] if isinstance(column, str) else column]

        text = cell(self.text)
        pair = cell(self.text_pair) if self.text_pair is not None else None
        if not text.strip() or (pair is not None and not pair.strip()):
            return BadRow(line, "empty text")
        target: Target = None
        if isinstance(self.target, tuple):
            marks = {name: cell(name) for name in self.target}
            wrong = next((name for name, mark in marks.items() if mark not in ("0", "1")), None)
            if wrong is not None:
                return BadRow(line, f"column {wrong!r} holds {marks[wrong]!r} instead of 0 or 1")
            target = tuple(name for name, mark in marks.items() if mark == "1")
        elif self.target is not None and self.number is not None:
            low, high = self.number
            try:
                target = float(cell(self.target))
            except ValueError:
                return BadRow(line, f"{cell(self.target)!r} is not a number")
            if not low <= target <= high:
                return BadRow(line, f"{target} is not within {low} to {high}")
        elif self.target is not None:
            written = cell(self.target)
            if written in self.ignore:
                return None
            target = self.decode.get(written, None if self.decode else written)
            if target is None or (self.labels is not None and target not in self.labels):
                known = sorted(self.decode) if self.decode else sorted(self.labels or ())
                return BadRow(line, f"unknown label {written!r} (expected {_listed(known)})")
        identifier = cell(self.id) if self.id is not None else str(row_number)
        return Example(identifier, text, pair, target, line)


def _as_tuple(columns: Column | tuple[str, ...] | None) -> tuple[Column, ...]:
    if columns is None:
        return ()
    return columns if isinstance(columns, tuple) else (columns,)


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" or {len(names) - most} more" if len(names) > most else "")


def _lines(path: Path) -> tuple[list[str], dict[int, int]]:
    """The file's lines without their ends, and for each line that is not UTF-8 the number of its first bad byte."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: the file is UTF-16; save it as UTF-8")
    content = content.removeprefix(b"\xef\xbb\xbf")  # a byte-order mark is not text
    if not content.strip():
        raise DataError(f"{path}: the file is empty")
    lines: list[str] = []
    undecodable: dict[int, int] = {}
    for number, raw in enumerate(content.rstrip(b"\r\n").split(b"\n"), start=1):
        raw = raw.removesuffix(b"\r")
        try:
            lines.append(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            undecodable[number] = error.start + 1
            lines.append(raw.decode("utf-8", errors="replace"))
    if len(undecodable) > len(lines) // 2:
        raise DataError(f"{path}: the file is not UTF-8 text; convert it (for example: iconv -f CP1256 -t UTF-8)")
    return lines, undecodable


_Row = tuple[int, list[str], int]  # first line, cells, last line


def _plain_rows(lines: list[str], delimiter: str) -> Iterator[_Row | BadRow]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line.split(delimiter), number
        else:
            yield BadRow(number, "empty line")


def _quoted_rows(lines: list[str], delimiter: str) -> Iterator[_Row | BadRow]:
    csv.field_size_limit(2**30)  # the module's default rejects texts above 128 kB
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(first, f"quotation marks do not fit ({error})")
            continue
        if cells:
            yield first, cells, reader.line_num
        else:
            yield BadRow(first, "empty line")
