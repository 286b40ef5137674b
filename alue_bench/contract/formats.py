"""The readers of a task's data files: each turns the rows of a file into examples, and reports rows it cannot use.

This module imports only the standard library, because plugins import it whenever alue-bench starts.
"""

from __future__ import annotations

import csv
import difflib
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from alue_bench.contract.errors import DataError
from alue_bench.contract.validation import Kind, check_mapping, check_texts, check_types


@dataclass(frozen=True, slots=True)
class Answers:
    """The gold answers to a question about a text, each a part of the text.

    If the question has no answer, the fields are empty.
    """

    texts: tuple[str, ...] = ()
    """The answers as written in the data file. The model is trained on the first of them. A prediction is compared with
    each of them, and the highest score counts."""
    starts: tuple[int, ...] = ()
    """The position of each answer's first character in the text, counted from 0."""
    ends: tuple[int, ...] = ()
    """The end of each answer in the text: the position after its last character."""
    corrected: int = 0
    """The number of answers whose positions the reader has corrected."""


Target = str | tuple[str, ...] | float | Answers | None
"""The gold target of an example: a label; a tuple of labels, possibly empty, in a multi-label task; a tuple with a tag
for each word in a task that tags words; a number in a regression; `Answers` in span extraction; or None if the example
has no gold target."""

Column = str | int
"""A column of a data file, given by its name in the header, or by its position from 0."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task: a text or a pair of texts, and its target."""

    id: str
    """The identifier of the example; no other example of the same file has it."""
    text: str
    """The text, or the first text of a pair."""
    text_pair: str | None
    """The second text; None if the task's examples are single texts."""
    target: Target
    """The gold label, tags, number or answers; None if the row has no gold target."""
    line: int
    """The line of the file on which the row begins, counted from 1. For a file without lines (XLSX, Parquet), it is the
    number of the row, as a program that displays the file would show it."""
    words: tuple[str, ...] | None = None
    """The words of the text, in a task with a tag for each word; None in every other task. `target` must have one tag
    for each of these words, and `text` must be the words joined by single spaces."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row of a data file that cannot be used, and the reason."""

    line: int
    """The line on which the row begins, or the number of the row; see `Example.line`."""
    reason: str
    """The reason in a few words, such as "empty text"; messages show it after the file and the line."""


class Reader(Protocol):
    """The interface of a function that reads a data file: any function with this signature can be `DataFile.read`."""

    def __call__(self, path: Path) -> Iterator[Example | BadRow]:
        """Yield each row of the file `path` as an example, or as a bad row if it cannot be used.

        Rows that do not belong to the task are left out. If a reader yields None in place of a row, alue-bench counts
        it as a bad row.

        Raises:
            DataError: The file as a whole is unusable: it is empty, is not UTF-8 text, or lacks a column.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Delimited:
    r"""A reader of TSV and CSV files, with or without a header row.

    >>> Delimited(columns=2, text=0, target=1)                        # text<TAB>label, no header
    >>> Delimited(header=True, delimiter=",", quoted=True, text="question1", text_pair="question2",
    ...           target="label", decode={"0": "different", "1": "similar"})

    If `quoted` is False, only line feeds end a row, and only delimiters end a cell. Quotation marks, carriage returns
    inside a line and rare line separators therefore stay part of the text.
    """

    text: Column
    """The column of the text, or of the first text of a pair."""
    text_pair: Column | None = None
    """The column of the second text; None if the examples are single texts."""
    target: Column | tuple[str, ...] | None = None
    """The column of the label or number; None for a file without gold labels. A multi-label task can name a tuple of
    columns instead: one for each label, with the label's name as its header and 0 or 1 in each row."""
    id: Column | None = None
    """The column of the example's identifier; None to use the number of the row, counted from 0."""
    delimiter: str = "\t"
    """The text between two columns."""
    quoted: bool = False
    """True if cells may be enclosed in quotation marks, as in CSV files."""
    header: bool = False
    """True if the first row of the file holds the names of the columns."""
    columns: int | None = None
    """The number of columns that each row must have. It is required for a file without a header; with a header, None
    stands for the number of names in it."""
    decode: Mapping[str, str] = field(default_factory=dict)
    """The label name for each code in the label column; empty if the file contains the label names themselves."""
    labels: tuple[str, ...] | None = None
    """The permitted labels, after `decode` has been applied; None permits every label. A row with any other label is a
    bad row. A plugin need not set this field, because a task sets it from `Task.labels`."""
    ignore: frozenset[str] = frozenset()
    """Codes in the label column that do not belong to the task. Rows with these codes are left out without an error."""
    number: tuple[float, float] | None = None
    """The smallest and largest permitted target of a regression; None for all other tasks. A plugin need not set this
    field, because a task sets it from `Task.labels`."""
    separator: str | None = None
    """The text between two labels in one cell of the target column, for a multi-label task that has such a column; None
    otherwise. An example with an empty cell has no labels."""

    def __post_init__(self) -> None:
        """Check the type and value of each field.

        The position of a column must not be negative or beyond the last column, and no column may be named twice in
        `text`, `text_pair` and `target`.
        """
        _check_fields(self)
        _check_columns(self)

    def __call__(self, path: Path) -> Iterator[Example | BadRow]:
        """Yield each row of the file `path` as an example, or as a bad row if it cannot be used; see `Reader`."""
        lines, undecodable = read_lines(path)
        rows: _Rows = (_QuotedRows if self.quoted else _PlainRows)(lines, self.delimiter)
        width = self.columns
        position: dict[str, int] = {}
        if self.header:
            first = next(rows, None)
            if first is None or isinstance(first, BadRow):
                raise DataError(f"{path}:1: the header cannot be read")
            names, width = first[1], len(first[1])
            if self.columns not in (None, width):
                raise DataError(f"{path}:1: the header has {width} columns instead of {self.columns}")
            position = {name: index for index, name in enumerate(names)}
            header = name_list([excerpt(name, quote=False) for name in names], limit=30)
            for column in (self.text, self.text_pair, self.id, *_as_tuple(self.target)):
                if isinstance(column, str) and column not in position:
                    raise DataError(f"{path}:1: {missing_column(column, names, has='the header has')}")
                if isinstance(column, str) and names.count(column) > 1:
                    raise DataError(f"{path}:1: the header has {names.count(column)} columns of the name {column!r}")
                if isinstance(column, int) and column >= width:
                    raise DataError(f"{path}:1: column {column + 1} is missing; the header has {header}")
            if isinstance(self.target, int) and isinstance(self._example(names, position, 1, 0), Example):
                raise DataError(f"{path}:1: the first line is a row and not a header; the file must have a header")
        number_of_rows, empty = 0, True
        for row in rows:
            empty = False
            if isinstance(row, BadRow):
                yield row
                continue
            line, cells, last_line = row
            row_number, number_of_rows = number_of_rows, number_of_rows + 1
            broken = next((n for n in range(line, last_line + 1) if n in undecodable), None)
            if broken is not None:
                yield BadRow(line, f"not valid UTF-8 (byte {undecodable[broken]} of line {broken})")
            elif last_line > line and (
                len(cells) != width
                or any(self._is_row(text, width, position) for text in lines[line - 1 : last_line - 1])
            ):
                # By the rules of CSV, these lines are one row. However, this row has a wrong number of columns, or one
                # of the lines is a complete row by itself. A quotation mark must therefore be missing or superfluous.
                yield BadRow(line, _unclosed_quotation_mark(last_line))
                rows.resume_after(line)
            elif len(cells) != width:
                yield BadRow(line, f"{len(cells)} columns instead of {width}")
            elif any("\0" in cell for cell in cells):
                yield BadRow(line, "holds a NUL character: the file is damaged, or not UTF-8 text")
            else:
                example = self._example(cells, position, line, row_number)
                if example is not None:
                    yield example
        if empty:
            raise DataError(f"{path}: the file has no rows")

    def _is_row(self, line: str, width: int | None, position: Mapping[str, int]) -> bool:
        """Return whether a line, read without quoting, is a complete row: it has every column and a permitted target.

        The result is False if the permitted targets are not known.

        Args:
            line: The text of the line.
            width: The number of columns that a row must have.
            position: The position of each column by its name in the header; empty without a header.
        """
        cells = line.split(self.delimiter)
        known = self.labels or self.decode or self.number or isinstance(self.target, tuple)
        if self.target is None or not known or len(cells) != width:
            return False
        cells = [cell.strip('"') for cell in cells]
        return isinstance(self._example(cells, position, 0, 0), Example)

    def _example(
        self, cells: list[str], position: Mapping[str, int], line: int, row_number: int
    ) -> Example | BadRow | None:
        """Return a row as an example or a bad row; None if `ignore` contains its label.

        Args:
            cells: The cells of the row, as many as there are columns.
            position: The position of each column by its name in the header; empty without a header.
            line: The line on which the row begins, from 1.
            row_number: The number of the row, from 0.
        """

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
                return BadRow(line, f"column {wrong!r} holds {excerpt(marks[wrong])} instead of 0 or 1")
            target = tuple(name for name, mark in marks.items() if mark == "1")
        elif self.target is not None and self.number is not None:
            low, high = self.number
            try:
                target = float("" if "_" in cell(self.target) else cell(self.target))  # Python reads 1_0 as ten
            except ValueError:
                return BadRow(line, f"{excerpt(cell(self.target))} is not a number")
            if not (low <= target <= high and math.isfinite(target)):
                return BadRow(line, f"{target} is not within {low} to {high}")
        elif self.target is not None:
            codes = [cell(self.target)]
            if self.separator is not None:
                codes = [part for part in map(str.strip, codes[0].split(self.separator)) if part]
            if self.ignore.intersection(codes):
                return None
            names = []
            for code in codes:
                label = self.decode.get(code, None if self.decode else code)
                if label is None or (self.labels is not None and label not in self.labels):
                    return BadRow(line, unknown_label(code, label, self.decode, self.labels))
                names.append(label)
            target = tuple(dict.fromkeys(names)) if self.separator is not None else names[0]
        identifier = cell(self.id) if self.id is not None else str(row_number)
        return Example(identifier, text, pair, target, line)


def unknown_label(
    written: str, decoded: str | None, decode: Mapping[str, str], permitted: tuple[str, ...] | None
) -> str:
    """Return a message about an unknown label, which lists the permitted labels, or codes and their meaning.

    Args:
        written: The label as written in the file.
        decoded: The label name that `written` stands for by `decode`; None if `decode` does not contain it.
        decode: The label name for each code in the file.
        permitted: The labels of the task; None if they are not known.
    """
    labels = sorted(permitted or ())
    if decode and decoded is not None:  # an error in the reader's declaration, not in the file
        return (
            f"label {excerpt(written)} is read as {excerpt(decoded)}, which is not one of the labels "
            f"{name_list(labels)}; correct decode in the task's declaration"
        )
    if not written.strip():
        return f"no label (expected {name_list([excerpt(code, quote=False) for code in sorted(decode)] or labels)})"
    meanings = sorted(decode.items())
    codes = [f"{excerpt(code, quote=False)} for {excerpt(label, quote=False)}" for code, label in meanings]
    return f"unknown label {excerpt(written)} (expected {name_list(codes or labels)})"


def missing_column(column: str, columns: Sequence[str], *, has: str = "the columns are") -> str:
    """Return a message about a missing column, with the most similar name and a list of the existing columns.

    Args:
        column: The name of the missing column.
        columns: The names of the existing columns.
        has: The words that introduce the list of existing columns, such as "the header has".
    """
    near = difflib.get_close_matches(column.casefold(), [name.casefold() for name in columns], n=1)
    meant = next((name for name in columns if near and name.casefold() == near[0]), None)
    suggestion = f" (did you mean {excerpt(meant)}?)" if meant is not None else ""
    names = name_list([excerpt(name, quote=False) for name in columns], limit=30)
    return f"column {column!r} is missing{suggestion}; {has} {names}"


def _check_fields(read: Delimited) -> None:
    """Raise TypeError or ValueError for the first field of a reader with a wrong type or value."""
    nothing = type(None)
    kinds: dict[str, Kind] = {
        "text": (str, int), "text_pair": (str, int, nothing), "target": (str, int, tuple, nothing),
        "id": (str, int, nothing), "delimiter": str, "quoted": bool, "header": bool, "columns": (int, nothing),
        "labels": (tuple, nothing), "ignore": (frozenset, set), "number": (tuple, nothing), "separator": (str, nothing),
    }  # fmt: skip
    check_types("Delimited", vars(read), kinds)
    check_mapping("Delimited", vars(read), "decode")
    if isinstance(read.target, tuple):
        check_texts("Delimited", vars(read), ("target",))
        if not read.target:
            raise ValueError(
                "Delimited: target is empty; name a column, or leave target out if the file has no gold labels"
            )
    if read.separator is not None and (not read.separator or isinstance(read.target, tuple)):
        raise ValueError("Delimited: separator parts the labels of one target column, and must not be empty")
    if read.columns is not None and read.columns < 1:
        raise ValueError(f"Delimited: columns is {read.columns}; a row has at least 1")
    if not read.delimiter or any(end in read.delimiter for end in "\r\n"):
        raise ValueError(f"Delimited: delimiter {read.delimiter!r} cannot separate the columns of a line")
    if read.quoted and (len(read.delimiter) > 1 or read.delimiter == '"'):
        raise ValueError(f"Delimited: delimiter {read.delimiter!r} must be one character if cells are quoted")


def _check_columns(read: Delimited) -> None:
    """Raise ValueError if a column of a reader cannot exist, or is named twice in `text`, `text_pair` and `target`."""
    wanted = [read.text, read.text_pair, read.id, *_as_tuple(read.target)]
    if negative := [column for column in wanted if isinstance(column, int) and column < 0]:
        raise ValueError(f"Delimited: column {negative[0]} is negative; columns are counted from 0")
    content = [column for column in (read.text, read.text_pair, *_as_tuple(read.target)) if column is not None]
    if twice := [column for index, column in enumerate(content) if column in content[:index]]:
        raise ValueError(f"Delimited: column {twice[0]!r} cannot be two of text, text_pair and target at once")
    if read.header:
        return
    if read.columns is None:
        raise ValueError("Delimited without a header needs columns=, the number of columns of each row")
    if by_name := [column for column in wanted if isinstance(column, str)]:
        raise ValueError(f"Delimited without a header names columns by position, not {by_name[0]!r}")
    if beyond := [column for column in wanted if isinstance(column, int) and column >= read.columns]:
        raise ValueError(f"Delimited: column {beyond[0]} (from 0) is beyond the {read.columns} of a row")


def _as_tuple(columns: Column | tuple[str, ...] | None) -> tuple[Column, ...]:
    if columns is None:
        return ()
    return columns if isinstance(columns, tuple) else (columns,)


def excerpt(text: str, *, quote: bool = True, max_length: int = 60) -> str:
    """Return a string from a file or a user in a form that can be shown in a message safely.

    Args:
        text: Any string.
        quote: True to enclose the text in single quotation marks.
        max_length: The largest number of characters of `text`; the rest is replaced by "…".

    Returns:
        The string on one line, with control characters and invisible characters escaped.
    """
    safe = printable(text if len(text) <= max_length else text[:max_length] + "…")
    return f"'{safe}'" if quote else safe


def printable(text: str) -> str:
    """Return `text` with control characters and invisible characters escaped, as in a Python string literal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def csv_text(value: object) -> str:
    """Return the text that a CSV file would contain for a value: "1" for 1, "1.0" for 1.0, "true" for True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def name_list(names: Sequence[str], limit: int = 6) -> str:
    """Return the first `limit` names and the number of the remaining names, as text such as "a, b or 3 more"."""
    return ", ".join(names[:limit]) + (f" or {len(names) - limit} more" if len(names) > limit else "")


def read_lines(path: Path) -> tuple[list[str], dict[int, int]]:
    """Read the lines of a file, and find the lines that are not valid UTF-8.

    Returns:
        The lines without line ends; and a mapping from the number of each line that is not valid UTF-8 to the position
        of the first invalid byte in the line. Lines and bytes are counted from 1.

    Raises:
        DataError: The file cannot be read, is empty, is not UTF-8 text, or has no line feeds.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(
            f"{path}: the file is UTF-16; save it as UTF-8: {_conversion_command('iconv -f UTF-16 -t UTF-8', path)}"
        )
    content = content.removeprefix(b"\xef\xbb\xbf")  # the byte-order mark of UTF-8
    if not content.strip():
        raise DataError(f"{path}: the file is empty")
    if b"\n" not in content and b"\r" in content.strip():
        raise DataError(
            f"{path}: its lines end with carriage returns only; convert them: {_conversion_command(_LINE_FEEDS, path)}"
        )
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
        raise DataError(
            f"{path}: the file is not UTF-8 text; convert it, from Windows' Arabic code page for example: "
            f"{_conversion_command('iconv -f CP1256 -t UTF-8', path)}"
        )
    # UTF-16 without a byte-order mark is valid UTF-8 if its letters are Arabic or Latin; only NUL characters reveal it.
    if sum("\0" in line for line in lines) > len(lines) // 2:
        raise DataError(f"{path}: the file is UTF-16 or not text; save it as UTF-8")
    return lines, undecodable


CSV_DELIMITERS = (",", ";", "\t", "|")
"""The possible delimiters of CSV files. The delimiter that gives the most columns is used."""


def header_of(path: Path, delimiter: str | None = None) -> tuple[list[str], str, bool]:
    """Return the column names of a delimited file, its delimiter, and whether cells are quoted.

    Args:
        path: The file.
        delimiter: The text between two columns. None selects the comma, semicolon, tab or vertical bar, whichever
            gives the most columns.

    Raises:
        DataError: The file cannot be read, is empty, or has no readable header.
    """
    lines, undecodable = read_lines(path)
    if 1 in undecodable or not lines[0].strip():
        raise DataError(f"{path}:1: the header cannot be read; the first line must name the columns")
    quoted = any('"' in line for line in lines)

    def names(by: str) -> list[str]:
        first = next((_QuotedRows if quoted else _PlainRows)(lines, by), None)
        return [] if first is None or isinstance(first, BadRow) else first[1]

    if delimiter is None:
        delimiter = max(CSV_DELIMITERS, key=lambda by: len(names(by)))
    header = names(delimiter)
    if not header:
        raise DataError(f"{path}:1: the header cannot be read; the first line must name the columns")
    # Tab-separated files are seldom quoted. Unless all rows fit the header when read with quoting, quotation marks are
    # part of the texts.
    if quoted and delimiter == "\t":
        rows = _QuotedRows(lines, delimiter)
        quoted = not any(isinstance(row, BadRow) or len(row[1]) != len(header) for row in rows)
    return header, delimiter, quoted


_LINE_FEEDS = r"tr '\r' '\n'"


def _conversion_command(command: str, path: Path) -> str:
    """Return a shell command that converts a file and writes the result to a new file.

    The name of the new file is the name of the old one with `.utf8` added.

    Args:
        command: The converting command, which reads standard input and writes standard output.
        path: The file to convert.
    """
    return f"{command} < {shlex.quote(str(path))} > {shlex.quote(f'{path}.utf8')}"


_Row = tuple[int, list[str], int]
"""A row of a file: the number of its first line, its cells, and the number of its last line."""


class _Rows(Protocol):
    """An iterator over the rows of a file, which can be set back to an earlier line."""

    def __next__(self) -> _Row | BadRow: ...

    def __iter__(self) -> Iterator[_Row | BadRow]: ...

    def resume_after(self, line: int) -> None:
        """Continue the iteration with the line after the line number `line`."""
        ...


class _PlainRows:
    """The rows of a file without quoting: each line is one row."""

    def __init__(self, lines: list[str], delimiter: str) -> None:
        self._lines, self._delimiter, self._next = lines, delimiter, 1

    def __iter__(self) -> Iterator[_Row | BadRow]:
        return self

    def __next__(self) -> _Row | BadRow:
        number = self._next
        if number > len(self._lines):
            raise StopIteration
        self._next += 1
        line = self._lines[number - 1]
        return (number, line.split(self._delimiter), number) if line.strip() else BadRow(number, "empty line")

    def resume_after(self, line: int) -> None:
        self._next = line + 1


class _QuotedRows:
    """The rows of a file whose cells may be quoted; quoted cells may contain delimiters and line feeds.

    A cell whose opening quotation mark is never closed reaches to the next quotation mark, perhaps a thousand rows
    later. The line of the opening mark is reported as a bad row, and reading continues with the line after it. The
    following lines, up to the end of the overlong cell, are accepted only if they have no doubtful quotation mark
    (`_has_stray_quotes`), because nobody can know whether such a mark opens or closes a cell.
    """

    def __init__(self, lines: list[str], delimiter: str) -> None:
        csv.field_size_limit(2**30)  # the module's default rejects texts above 128 kB
        self._lines, self._delimiter = lines, delimiter
        edge = re.escape(delimiter)
        self._whole_cell = re.compile(rf'(?:^|(?<={edge}))"(?:[^"]|"")*"(?={edge}|$)')
        self._doubtful_to = 0
        self._skipped, self._reader = 0, self._reader_after(0)

    def __iter__(self) -> Iterator[_Row | BadRow]:
        return self

    def __next__(self) -> _Row | BadRow:
        first = self._last_line + 1
        try:
            cells = next(self._reader)
        except csv.Error as error:
            last = self._last_line
            if last == first:
                return BadRow(first, f"quotation marks do not match ({error})")
            self.resume_after(first)
            return BadRow(first, _unclosed_quotation_mark(last))
        if not cells:
            return BadRow(first, "empty line")
        last = self._last_line
        if first <= self._doubtful_to and any(map(self._has_stray_quotes, self._lines[first - 1 : last])):
            self.resume_after(first)
            return BadRow(first, "its quotation marks do not match those of an earlier line")
        return first, cells, last

    def resume_after(self, line: int) -> None:
        self._doubtful_to = max(self._doubtful_to, self._last_line)
        self._skipped, self._reader = line, self._reader_after(line)

    def _reader_after(self, line: int) -> Any:
        rest = (self._lines[index] + "\n" for index in range(line, len(self._lines)))
        return csv.reader(rest, delimiter=self._delimiter, strict=True)

    @property
    def _last_line(self) -> int:
        """The number of the last line that was read."""
        return self._skipped + int(self._reader.line_num)

    def _has_stray_quotes(self, line: str) -> bool:
        """Return whether a line has a quotation mark that does not belong to a completely quoted cell.

        A completely quoted cell begins and ends with a quotation mark on this line, and every quotation mark inside it
        is doubled.
        """
        return '"' in self._whole_cell.sub("", line)


def _unclosed_quotation_mark(last: int) -> str:
    """Return the reason for a bad row with an unclosed quotation mark; `last` is the last line of its overlong cell."""
    return (
        f"a quotation mark is opened on this line and not closed, so that everything up to line {last} would be one "
        "cell"
    )
