"""A reader of tables whose cells have types: JSON lines, JSON, Parquet, XLSX, and folders saved by `datasets`.

CSV and TSV files are read by `Delimited` (see `alue_bench.contract.formats`). Plugins import this module whenever
alue-bench starts. To keep the start fast, it imports a library that parses files only when such a file is read.

The Hugging Face library `datasets` reads the folders that it has saved, and data sets of the hub. JSON files are read
with Python's module `json`, because the parser of `datasets` does not report the line of an error. Parquet files are
read with pyarrow, because `datasets` would first copy them into its cache.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import DataError, UnavailableError
from alue_bench.contract.formats import (
    BadRow,
    Example,
    Target,
    csv_text,
    excerpt,
    missing_column,
    name_list,
    unknown_label,
)
from alue_bench.contract.validation import Kind, check_mapping, check_texts, check_types

JSON_LINES = (".jsonl", ".ndjson")
TABLE_SUFFIXES = (*JSON_LINES, ".json", ".parquet", ".xlsx")
"""The endings of the files that `Table` reads. It also reads folders that `datasets.save_to_disk` has written."""

Cells = Mapping[str, object]
"""The cells of one table row by column name. A missing column counts as null."""


@dataclass(frozen=True)
class OpenTable:
    """An opened table file: its columns, and a function that reads its rows."""

    columns: tuple[str, ...]
    """The names of the columns in their order. A name may occur more than once."""
    rows: Callable[[Sequence[str]], Iterator[tuple[int, Cells | str]]]
    """A function that takes the names of columns and yields, for each row, its number and its cells in these columns.
    For a row that cannot be read, it yields the reason (a string) instead of the cells."""
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The names of the classes, in their order, for each column that the file declares as a `ClassLabel` of
    `datasets`."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A reader of JSON lines, JSON, Parquet and XLSX files and of folders saved by `datasets.save_to_disk`.

    >>> Table(text="complaint", target="category")
    >>> Table(text="premise", text_pair="hypothesis", target="label", split="validation")

    The ending of a file determines its format. Numbers and truth values can be labels: 1 becomes the label "1", and
    true becomes "true". In a multi-label task, the target column holds a list of labels, or a string of labels
    separated by `separator`. If the file declares a column as a `ClassLabel` of `datasets`, class names replace its
    numbers.
    """

    text: str
    """The column of the text, or of the first text of a pair."""
    text_pair: str | None = None
    """The column of the second text; None if the examples are single texts."""
    target: str | tuple[str, ...] | None = None
    """The column of the label, the number or the list of labels; None for a file without gold labels. A multi-label
    task can name a tuple of columns instead: one for each label, with the label's name and with 0 or 1 in each row."""
    id: str | None = None
    """The column of the example's identifier; None to use the number of the row, counted from 0."""
    separator: str | None = None
    """The string between two labels in one cell, for a multi-label task whose cells are strings; None otherwise."""
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
    sheet: str | None = None
    """The name of the sheet to read from an XLSX file; None to read the only sheet that has rows."""
    split: str | None = None
    """The split to read from a folder or a hub data set, such as "validation"; None to read the only split."""

    def __post_init__(self) -> None:
        """Check the type of each field, and that no column is named twice in `text`, `text_pair` and `target`."""
        optional = (str, type(None))
        kinds: dict[str, Kind] = {
            "text": str, "text_pair": optional, "target": (str, tuple, type(None)), "id": optional,
            "separator": optional, "labels": (tuple, type(None)), "ignore": (frozenset, set),
            "number": (tuple, type(None)), "sheet": optional, "split": optional,
        }  # fmt: skip
        check_types("Table", vars(self), kinds)
        check_mapping("Table", vars(self), "decode")
        if isinstance(self.target, tuple):
            check_texts("Table", vars(self), ("target",))
            if not self.target:
                raise ValueError("Table: target names no column; leave it out where the file has no gold labels")
        content = [self.text, *([self.text_pair] if self.text_pair is not None else []), *self._targets]
        if twice := [column for index, column in enumerate(content) if column in content[:index]]:
            raise ValueError(f"Table: column {twice[0]!r} cannot be two of text, text_pair and target at once")

    @property
    def _targets(self) -> tuple[str, ...]:
        return (self.target,) if isinstance(self.target, str) else self.target or ()

    def __call__(self, path: Path) -> Iterator[Example | BadRow]:
        """Yield each row of the file `path` as an example, or as a bad row if it cannot be used; see `Reader`."""
        table = open_table(path, sheet=self.sheet, split=self.split)
        wanted = [column for column in (self.text, self.text_pair, self.id, *self._targets) if column is not None]
        for column in wanted:
            if column not in table.columns:
                raise DataError(f"{path}: {missing_column(column, table.columns)}")
            if table.columns.count(column) > 1:
                raise DataError(f"{path}: the file has {table.columns.count(column)} columns of the name {column!r}")
        row_number = -1
        for row_number, (line, cells) in enumerate(table.rows(wanted)):
            row = BadRow(line, cells) if isinstance(cells, str) else self._example(cells, line, row_number)
            if row is not None:
                yield row
        if row_number < 0:
            raise DataError(f"{path}: the file has no rows")

    def _example(self, cells: Cells, line: int, row_number: int) -> Example | BadRow | None:
        """Return a row as an example or a bad row; None if `ignore` contains its label.

        Args:
            cells: The cells of the row.
            line: The line or row number that messages show.
            row_number: The number of the row, from 0.
        """
        try:
            text = _text(cells, self.text)
            pair = _text(cells, self.text_pair) if self.text_pair is not None else None
            target = self._target(cells)
            identifier = str(row_number) if self.id is None else _identifier(cells, self.id)
        except _UnusableRow as error:
            return BadRow(line, str(error))
        except _IgnoredLabel:
            return None
        return Example(identifier, text, pair, target, line)

    def _target(self, cells: Cells) -> Target:
        """Return a row's target. Raise _UnusableRow if it is invalid, _IgnoredLabel if `ignore` contains the label."""
        if self.target is None:
            return None
        if isinstance(self.target, tuple):
            marks = {name: _zero_or_one(cells, name) for name in self.target}
            wrong = next((name for name, mark in marks.items() if mark not in ("0", "1")), None)
            if wrong is not None:
                raise _UnusableRow(f"column {wrong!r} holds {excerpt(str(marks[wrong]))} instead of 0 or 1")
            return tuple(name for name, mark in marks.items() if mark == "1")
        value = cells.get(self.target)
        if self.number is not None:
            return self._number(value)
        if isinstance(value, list | tuple) or self.separator is not None:  # a cell with any number of labels
            codes = _codes(value, self.target, self.separator)
            if self.ignore.intersection(codes):
                raise _IgnoredLabel
            return tuple(dict.fromkeys(self._label(code) for code in codes))
        return self._label(_code(cells, self.target))

    def _label(self, code: str) -> str:
        """Return the label name for a code in the file.

        Raises:
            _IgnoredLabel: The field `ignore` contains the code.
            _UnusableRow: The code does not stand for a permitted label.
        """
        if code in self.ignore:
            raise _IgnoredLabel
        label = self.decode.get(code, None if self.decode else code)
        if label is None or (self.labels is not None and label not in self.labels):
            raise _UnusableRow(unknown_label(code, label, self.decode, self.labels))
        return label

    def _number(self, value: object) -> float:
        low, high = self.number or (-math.inf, math.inf)
        if _is_null(value):
            raise _UnusableRow(f"no number in column {self.target!r} (null)")
        try:
            if isinstance(value, bool) or not isinstance(value, int | float | str) or "_" in str(value):
                raise ValueError
            number = float(value)
        except ValueError:
            raise _UnusableRow(f"{excerpt(str(value))} is not a number") from None
        if not (low <= number <= high and math.isfinite(number)):
            raise _UnusableRow(f"{number} is not within {low} to {high}")
        return number


class _UnusableRow(Exception):
    """An exception for a row that cannot be used; its message is the reason."""


class _IgnoredLabel(Exception):
    """An exception for a row that is left out, because its label is in `Table.ignore`."""


def _is_null(value: object) -> bool:
    """Return whether the value of a cell is missing: None, or NaN, which pandas writes for an empty cell."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(cells: Cells, column: str) -> str:
    value = cells.get(column)
    if _is_null(value):
        raise _UnusableRow(f"no text in column {column!r} (null)")
    if not isinstance(value, str):
        what = "a nested value" if isinstance(value, list | tuple | dict) else f"the {_kind(value)} {csv_text(value)}"
        raise _UnusableRow(f"column {column!r} holds {what} instead of a text")
    if not value.strip():
        raise _UnusableRow("empty text")
    return value


def _code(cells: Cells, column: str) -> str:
    """Return the label in a cell as a string. Raise _UnusableRow if the cell is empty or holds a list or an object."""
    value = cells.get(column)
    if _is_null(value) or value == "":
        raise _UnusableRow(f"no label in column {column!r} (null)")
    if isinstance(value, list | tuple | dict):
        what = "an object" if isinstance(value, dict) else "a list"
        raise _UnusableRow(f"column {column!r} holds {what} instead of one label")
    return csv_text(value)


def _zero_or_one(cells: Cells, column: str) -> str:
    """Return, as a string, a cell that should hold 0 or 1; the truth values true and false become "1" and "0"."""
    value = cells.get(column)
    return str(int(value)) if isinstance(value, bool) else _code(cells, column)


def _codes(value: object, column: str, separator: str | None) -> list[str]:
    """Return the labels in one cell of a multi-label task; none if the cell holds an empty list or an empty string.

    Args:
        value: The content of the cell: a list, or a string that is divided at `separator`.
        column: The name of the column, for error messages.
        separator: The string between two labels in a string; None if the cell holds a list.
    """
    if isinstance(value, list | tuple):
        if any(_is_null(item) or isinstance(item, list | tuple | dict) for item in value):
            raise _UnusableRow(f"column {column!r} holds a list with a null or a nested value in it")
        return [csv_text(item) for item in value]
    if _is_null(value):
        return []  # an empty cell of an XLSX file. In a column of lists, `Table` has refused null before.
    return [part for part in (part.strip() for part in csv_text(value).split(separator)) if part]


def _identifier(cells: Cells, column: str) -> str:
    value = cells.get(column)
    if _is_null(value) or isinstance(value, list | tuple | dict):
        raise _UnusableRow(f"no identifier in column {column!r} ({'null' if _is_null(value) else 'a nested value'})")
    return csv_text(value)


def _kind(value: object) -> str:
    return {bool: "truth value", int: "number", float: "number"}.get(type(value), type(value).__name__)


def open_table(path: Path, *, sheet: str | None = None, split: str | None = None) -> OpenTable:
    """Open a table file (its ending determines the format), or a folder saved by `datasets.save_to_disk`.

    Args:
        path: The file or folder.
        sheet: The sheet to read from an XLSX file; None to read the only sheet that has rows.
        split: The split to read from a folder; None to read the only split.

    Raises:
        DataError: The file cannot be read as a whole: its format is unknown, or it is damaged, empty or encrypted; or
            the sheet or split does not exist.
        UnavailableError: A package that is needed to read XLSX files is not installed.
    """
    if path.is_dir():
        return _open_folder(path, split)
    suffix = path.suffix.lower()
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        if suffix in JSON_LINES:
            return _table_of(list(_json_lines(path)))
        if suffix == ".json":
            return _table_of(list(_json_array(path)))
        if suffix == ".parquet":
            return _open_parquet(path)
        if suffix == ".xlsx":
            return _open_xlsx(path, sheet)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise DataError(f"{path}: the format {excerpt(suffix)} is unknown; use {', '.join(TABLE_SUFFIXES)}")


NumberedRow = tuple[int, Cells | str]
"""The number of a row, together with its cells or, if the row cannot be read, a string with the reason."""


def _table_of(rows: list[NumberedRow]) -> OpenTable:
    """Return a table of rows in memory; its columns are all columns that occur in a row."""
    columns = dict.fromkeys(name for _, cells in rows if not isinstance(cells, str) for name in cells)
    return OpenTable(tuple(columns), lambda wanted: iter(rows))


def _decoded(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        what = "UTF-16" if error.object.startswith((b"\xff\xfe", b"\xfe\xff")) else "not UTF-8 text"
        raise DataError(f"{path}:{line}: the file is {what}; save it as UTF-8") from error


def _json_lines(path: Path) -> Iterator[NumberedRow]:
    """Yield the object on each line, with the number of the line."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise DataError(f"{path}: the file is empty")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}:1: the file is UTF-16; save it as UTF-8")
    # splitlines() would also divide lines at other line separators, which JSON strings may contain.
    for line, raw in enumerate(content.rstrip().split(b"\n"), start=1):
        if not raw.strip():
            yield line, "empty line"
            continue
        try:
            yield line, _as_cells(json.loads(raw.decode("utf-8"), object_pairs_hook=_dict_without_duplicates))
        except UnicodeDecodeError as error:
            yield line, f"not valid UTF-8 (byte {error.start + 1} of line {line})"
        except RecursionError:
            yield line, "not valid JSON: it is nested too deeply"
        except ValueError as error:
            yield line, f"not valid JSON: {error}"


def _json_array(path: Path) -> Iterator[NumberedRow]:
    """Yield the objects of a JSON list, each with the number of the line on which it begins."""
    content = _decoded(path)
    decoder = json.JSONDecoder(object_pairs_hook=_dict_without_duplicates)
    position, line, counted = _after_space(content, 0), 1, 0
    if position == len(content):
        raise DataError(f"{path}: the file is empty")
    if content[position] != "[":
        raise DataError(
            f"{path}: the file is not a list of objects; write one, with pandas for example by "
            "to_json(FILE, orient='records'), or write JSON lines into a file that ends with .jsonl"
        )
    position = _after_space(content, position + 1)
    while content[position : position + 1] != "]":
        line, counted = line + content.count("\n", counted, position), position
        try:
            value, position = decoder.raw_decode(content, position)
        except RecursionError:
            raise DataError(f"{path}:{line}: not valid JSON: it is nested too deeply") from None
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
        except ValueError as error:  # a number with thousands of digits, or a name that occurs twice in an object
            raise DataError(f"{path}:{line}: not valid JSON: {error}") from error
        yield line, _as_cells(value)
        position = _after_space(content, position)
        if content[position : position + 1] == ",":
            position = _after_space(content, position + 1)
        elif content[position : position + 1] != "]":
            line = content.count("\n", 0, position) + 1
            raise DataError(f"{path}:{line}: not valid JSON: a comma or the end of the list is missing")
    if _after_space(content, position + 1) < len(content):
        line = content.count("\n", 0, position) + 1
        raise DataError(f"{path}:{line}: not valid JSON: something follows the end of the list")


def _after_space(content: str, position: int) -> int:
    """Return the first position from `position` on that is not white space."""
    while position < len(content) and content[position] in " \t\r\n":
        position += 1
    return position


def _dict_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object as a dict. Raise ValueError if a name occurs twice in it, although JSON permits this.

    Args:
        pairs: The names and values of the object, in the order of the file.
    """
    cells = dict(pairs)
    if len(cells) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{excerpt(next(n for n in names if names.count(n) > 1))} is given twice")
    return cells


def _as_cells(value: object) -> Cells | str:
    """Return a parsed JSON value as the cells of a row; a string with the reason if it is not an object."""
    return value if isinstance(value, dict) else f"{excerpt(json.dumps(value), quote=False)} is not an object"


def _open_parquet(path: Path) -> OpenTable:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        schema = file.schema_arrow
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({_first_line(error)}); write the file again") from error
    names = _class_names(schema.metadata or {})

    def rows(wanted: Sequence[str]) -> Iterator[NumberedRow]:
        line = 0
        try:
            for batch in file.iter_batches(columns=list(wanted)):
                for cells in batch.to_pylist():
                    line += 1
                    yield line, _with_names(cells, names)
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path}: damaged after row {line} ({_first_line(error)}); write the file again") from error

    return OpenTable(tuple(schema.names), rows, names)


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of the classes for each column that a Parquet file declares as a `ClassLabel` of `datasets`.

    Args:
        metadata: The metadata of the file's Arrow schema, in which `datasets` stores the types of columns.
    """
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }


def _with_names(cells: dict[str, object], names: Mapping[str, Sequence[str]]) -> Cells:
    """Replace class numbers by class names in the cells of a row, and return the cells.

    The class number -1, which means "no label" in `datasets`, is replaced by None.

    Args:
        cells: The cells of a row, which are changed in place.
        names: The class names for each column with class numbers.
    """
    for column in names.keys() & cells.keys():
        value = cells[column]
        if isinstance(value, int):
            cells[column] = names[column][value] if 0 <= value < len(names[column]) else None
    return cells


def _open_folder(path: Path, split: str | None) -> OpenTable:
    data = load_folder(path)
    if isinstance(data, Mapping):
        if split is None and len(data) == 1:
            (split,) = data
        if split not in data:
            wanted = "name one of them" if split is None else f"it has no split {excerpt(split)}"
            raise DataError(f"{path}: the folder has the splits {name_list(list(data))}; {wanted}")
        data = data[split]
    features: Mapping[str, Any] = data.features
    names = {name: one.names for name, one in features.items() if type(one).__name__ == "ClassLabel" and one.names}

    def rows(wanted: Sequence[str]) -> Iterator[NumberedRow]:
        line = 0
        for batch in data.select_columns(list(wanted)).iter(batch_size=1000):
            for values in zip(*(batch[column] for column in wanted), strict=True):
                line += 1
                yield line, _with_names(dict(zip(wanted, values, strict=True)), names)

    return OpenTable(tuple(features), rows, names)


def load_folder(path: Path) -> Any:
    """Load a folder saved by `datasets.save_to_disk`.

    Returns:
        A `datasets.Dataset`, or a mapping from the names of splits to data sets.

    Raises:
        DataError: The folder was not written by `save_to_disk`, or is damaged.
    """
    if not any((path / name).is_file() for name in ("dataset_dict.json", "dataset_info.json")):
        raise DataError(
            f"{path}: the folder was not written by save_to_disk of the datasets library; name a file in it, or such "
            "a folder"
        )
    import datasets

    try:
        return datasets.load_from_disk(str(path))
    except Exception as error:  # Arrow, JSON and the library's own errors
        raise DataError(f"{path}: the folder cannot be read ({_first_line(error)}); save it again") from error


ENCRYPTED = b"\xd0\xcf\x11\xe0"
"""The first bytes of an XLSX file with a password, and of a file in the old format XLS."""


def _open_xlsx(path: Path, sheet: str | None) -> OpenTable:
    with path.open("rb") as file:
        if file.read(4) == ENCRYPTED:
            raise DataError(
                f"{path}: the file has a password, or has the old format XLS; save it as XLSX without a password"
            )
    try:
        import openpyxl
    except ImportError:
        raise UnavailableError(f"{path}: reading XLSX needs openpyxl: pip install openpyxl") from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheets = {one.title: one for one in book.worksheets}
        for one in sheets.values():
            one.reset_dimensions()  # some programs write wrong dimensions
        filled = [name for name, one in sheets.items() if any(_has_value(row) for row in one.iter_rows(max_row=9))]
        if sheet is not None and sheet not in sheets:
            raise DataError(f"{path}: the file has no sheet {excerpt(sheet)}, but {name_list(list(sheets))}")
        if sheet is None and len(filled) > 1:
            raise DataError(f"{path}: the sheets {name_list(filled)} hold rows; name one of them with --sheet")
        if sheet is None and not filled:
            raise DataError(f"{path}: the file is empty")
        chosen = sheets[sheet if sheet is not None else filled[0]]
        lines = [[cell for cell in row] for row in chosen.iter_rows(values_only=True)]  # noqa: C416 - rows are tuples
    except DataError:
        raise
    except Exception as error:  # openpyxl raises errors of zipfile and XML parsers, KeyError and others
        raise DataError(f"{path}: cannot be read as XLSX ({_first_line(error)}); save the file again") from error
    return _table_of_sheet(path, lines)


def _table_of_sheet(path: Path, lines: list[list[object]]) -> OpenTable:
    """Return a sheet of an XLSX file as an opened table.

    Args:
        path: The XLSX file, for error messages.
        lines: The cells of each line of the sheet; the first line holds the column names.
    """
    while lines and all(_is_null(cell) for cell in lines[-1]):
        lines.pop()
    if len(lines) < 2:
        raise DataError(f"{path}: the file has no rows")
    header = ["" if _is_null(cell) else str(cell) for cell in lines[0]]

    def rows(wanted: Sequence[str]) -> Iterator[NumberedRow]:
        positions = [(name, header.index(name)) for name in wanted]
        for line, cells in enumerate(lines[1:], start=2):
            if all(_is_null(cell) for cell in cells):
                yield line, "empty row"
            else:
                yield line, {name: cells[index] if index < len(cells) else None for name, index in positions}

    return OpenTable(tuple(name for name in header if name), rows)


def _has_value(row: Sequence[Any]) -> bool:
    return any(not _is_null(cell.value) for cell in row)


def _first_line(error: BaseException) -> str:
    text = next(iter(str(error).splitlines()), "") or type(error).__name__
    return excerpt(text, quote=False, max_length=160)
