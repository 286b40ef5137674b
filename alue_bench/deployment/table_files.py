"""Reading and writing tables in chunks of rows: CSV, TSV, JSON lines and Parquet, recognised by the file suffix.

Two formats without column names are read as tables with the single column `text`. A .txt file has a text on each line;
its output has a prediction on each line. A .conll file has a word on each line and a blank line after each sentence; a
sentence is read as one text, its words joined by spaces, and the output has a tag after each word.

The reader holds one chunk of rows in memory, however large the file is. Messages name a row by its line in the file or,
for Parquet, by its number.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

from alue_bench.contract.errors import DataError, UnavailableError, UsageError
from alue_bench.contract.formats import CSV_DELIMITERS, excerpt
from alue_bench.data.words import words_of
from alue_bench.messages.display import first_line

Format = Literal["csv", "tsv", "jsonl", "parquet", "txt", "conll"]
SUFFIXES: Mapping[str, Format] = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet",
    ".txt": "txt", ".conll": "conll",
}  # fmt: skip
DELIMITERS = {"csv": ",", "tsv": "\t"}
DOCUMENT = "-DOCSTART-"
"""The marker between two documents in a CoNLL file, which is not a word of a sentence."""
STDOUT = "-"
TEXT = "text"
"""The name of the only column of a file without column names (.txt and .conll)."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a table that are read together."""

    rows: Sequence[Mapping[str, Any]]
    lines: Sequence[int]
    """For each row, its line in the file or, in a Parquet file, its row number; both are counted from 1."""
    batch: Any = None
    """The rows as an Arrow record batch, if the file is Parquet; `rows` is then empty."""

    def __len__(self) -> int:
        """Return the number of rows in the chunk."""
        return len(self.lines)

    def column(self, name: str) -> list[Any]:
        """Return the values of a column for all rows of the chunk; None for a row without a value."""
        if self.batch is not None:
            values: list[Any] = self.batch.column(name).to_pylist()
            return values
        return [row.get(name) for row in self.rows]


def format_of(path: Path) -> Format:
    """Return the format of a file by its suffix.

    Raises:
        UsageError: The suffix is unknown.
    """
    known = SUFFIXES.get(path.suffix.lower())
    if known is None:
        raise UsageError(f"{path}: its suffix must be one of {', '.join(SUFFIXES)}; rename or convert the file")
    return known


class ChunkedTable(ABC):
    """A table in a file, which is read in chunks of rows."""

    def __init__(self, path: Path) -> None:
        """Store the path of the table's file. Nothing is read yet."""
        self.path = path

    @abstractmethod
    def columns(self) -> list[str]:
        """Return the names of the table's columns.

        For JSON lines, these are the keys of all rows, in order of appearance.
        """

    @abstractmethod
    def chunks(self, size: int, wanted: Sequence[str] | None = None) -> Iterator[Chunk]:
        """Yield the rows in order, at most `size` at a time.

        Args:
            size: The largest number of rows of a chunk.
            wanted: The columns that the caller needs; None for all. Only Parquet files are read faster with it; the
                other formats yield all columns.

        Raises:
            DataError: The file is damaged, or a row does not fit the header.
        """

    def row_location(self, line: int) -> str:
        """Return the position of a row for messages, such as `file.csv:12`, given its line or row number."""
        return f"{self.path}:{line}"


def open_table(path: Path) -> ChunkedTable:
    """Return a reader of the table in a file.

    Raises:
        UsageError: There is no such file, or its suffix is unknown.
    """
    kind = format_of(path)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    if kind == "parquet":
        return _Parquet(path)
    if kind == "jsonl":
        return _JsonLines(path)
    if kind in ("txt", "conll"):
        return _Lines(path) if kind == "txt" else _Words(path)
    return _Delimited(path, _delimiter_of(path) if kind == "csv" else DELIMITERS[kind])


def _delimiter_of(path: Path) -> str:
    """Return the delimiter of a CSV file: the one that divides its header into the most columns."""
    with _text(path) as file:
        try:
            header = file.readline()
        except UnicodeDecodeError as error:
            raise DataError(_not_utf8(path, 0, error)) from error
    header = header[:100_000]  # the csv module refuses cells of more than 131,072 characters
    return max(CSV_DELIMITERS, key=lambda by: len(next(csv.reader([header], delimiter=by), [])))


class _Delimited(ChunkedTable):
    def __init__(self, path: Path, delimiter: str) -> None:
        super().__init__(path)
        self._delimiter = delimiter

    def columns(self) -> list[str]:
        for _, cells in self._rows():
            if twice := next((name for place, name in enumerate(cells) if name in cells[:place]), None):
                raise DataError(f"{self.path}:1: the header has two columns of the name {excerpt(twice)}; rename one")
            return cells
        raise DataError(f"{self.path}: the file has no rows")

    def chunks(self, size: int, wanted: Sequence[str] | None = None) -> Iterator[Chunk]:
        rows = self._rows()
        _, header = next(rows)
        kept: list[Mapping[str, Any]] = []
        lines: list[int] = []
        for line, cells in rows:
            if not cells and len(header) > 1:  # a blank line is a row (an empty cell) only in a table with one column
                continue
            cells = cells or [""]
            if len(cells) != len(header):
                raise DataError(
                    f"{self.path}:{line}: {len(cells)} columns instead of {len(header)}; quote cells that hold a "
                    "delimiter, a quotation mark or a line end"
                )
            kept.append(dict(zip(header, cells, strict=True)))
            lines.append(line)
            if len(kept) == size:
                yield Chunk(kept, lines)
                kept, lines = [], []
        if kept:
            yield Chunk(kept, lines)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield, for each row, the number of the row's first line in the file, and the row's cells."""
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default limit of a cell is 131,072 characters
        with _text(self.path) as file:
            reader = csv.reader(file, delimiter=self._delimiter, strict=True)
            before = 0
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    raise DataError(f"{self.path}:{before + 1}: {error}; quote the cell as CSV files do") from error
                except UnicodeDecodeError as error:
                    raise DataError(_not_utf8(self.path, before, error)) from error
                if cells is None:
                    return
                line, before = before + 1, reader.line_num
                yield line, cells


class _Lines(ChunkedTable):
    """A file with a text on each line."""

    def columns(self) -> list[str]:
        return [TEXT]

    def chunks(self, size: int, wanted: Sequence[str] | None = None) -> Iterator[Chunk]:
        rows = self._rows()
        while part := list(islice(rows, size)):
            yield Chunk([{TEXT: text} for _, text in part], [line for line, _ in part])

    def _rows(self) -> Iterator[tuple[int, str]]:
        """Yield each text with its line number, which is the line of its first word in a .conll file."""
        yield from self._lines()

    def _lines(self) -> Iterator[tuple[int, str]]:
        line = 0
        with _text(self.path) as file:
            try:
                for line, text in enumerate(file, start=1):
                    yield line, text.rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(_not_utf8(self.path, line, error)) from error


class _Words(_Lines):
    """A file with a word in the first column of each line, and a blank line after each sentence."""

    def _rows(self) -> Iterator[tuple[int, str]]:
        words: list[str] = []
        first = 0
        for line, text in chain(self._lines(), [(0, "")]):
            word = next((cell for cell in text.replace("\t", " ").split(" ") if cell.strip()), None)
            if word is not None and word != DOCUMENT:
                first = first if words else line
                words.append(word)
            elif words:
                yield first, " ".join(words)
                words = []


class _JsonLines(ChunkedTable):
    def columns(self) -> list[str]:
        names: dict[str, None] = {}
        for _, row in self._rows():
            names.update(dict.fromkeys(row))
        if not names:
            raise DataError(f"{self.path}: the file has no rows")
        return list(names)

    def chunks(self, size: int, wanted: Sequence[str] | None = None) -> Iterator[Chunk]:
        kept: list[Mapping[str, Any]] = []
        lines: list[int] = []
        for line, row in self._rows():
            kept.append(row)
            lines.append(line)
            if len(kept) == size:
                yield Chunk(kept, lines)
                kept, lines = [], []
        if kept:
            yield Chunk(kept, lines)

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        line = 0
        with _text(self.path) as file:
            while True:
                try:
                    text = file.readline()
                except UnicodeDecodeError as error:
                    raise DataError(_not_utf8(self.path, line, error)) from error
                if not text:
                    return
                line += 1
                if not text.strip():
                    continue
                try:
                    row = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{self.path}:{line}: not a JSON object on one line ({error})") from error
                if not isinstance(row, dict):
                    raise DataError(f"{self.path}:{line}: {excerpt(text.strip())} is no JSON object; write one a line")
                yield line, row


class _Parquet(ChunkedTable):
    def columns(self) -> list[str]:
        with self._opened() as file:
            return list(file.schema_arrow.names)

    def chunks(self, size: int, wanted: Sequence[str] | None = None) -> Iterator[Chunk]:
        import pyarrow as pa

        start = 1
        with self._opened() as file:
            try:
                for batch in file.iter_batches(batch_size=size, columns=None if wanted is None else list(wanted)):
                    yield Chunk((), range(start, start + batch.num_rows), batch)
                    start += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{self.path}: cannot be read as Parquet ({first_line(error)})") from error

    def row_location(self, line: int) -> str:
        return f"{self.path}, row {line}"

    def _opened(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{self.path}: cannot be read as Parquet ({first_line(error)})") from error


def _text(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror}") from error


def _not_utf8(path: Path, before: int, error: UnicodeDecodeError) -> str:
    return f"{path}: not valid UTF-8 after line {before} (byte {error.object[error.start]:#x}); convert it to UTF-8"


# Writing ---------------------------------------------------------------------------------------------------------


class Stream(Protocol):
    """A text stream that can be written and flushed, such as `sys.stdout`."""

    def write(self, text: str, /) -> object:
        """Write a string to the stream."""
        ...

    def flush(self) -> object:
        """Write all buffered text."""
        ...


class Output(ABC):
    """An output table that is written chunk by chunk: the columns of the input table, followed by new columns."""

    @abstractmethod
    def write(self, chunk: Chunk, new: Mapping[str, Sequence[Any]]) -> None:
        """Write the rows of a chunk; `new` maps the names of the new columns to their values."""

    @abstractmethod
    def close(self) -> None:
        """Write rows that are still buffered, and finish the table."""


class OutputFile:
    """A context manager for an output file, which gets its final name only when it is complete.

    with OutputFile(path, "csv", table.columns()) as output:
        output.write(chunk, {"prediction": [...]})
    """

    def __init__(
        self, path: str, kind: Format, columns: Sequence[str], stdout: Stream | None = None, text: str = TEXT
    ) -> None:
        """Store the settings of the output; `__enter__` opens the file.

        Args:
            path: The path of the file, or "-" for stdout.
            kind: The format of the file.
            columns: The names of the input table's columns.
            stdout: The stream to use for "-"; None for `sys.stdout`.
            text: The column of the texts, whose words are repeated in a .conll file.
        """
        self._text = text
        self._path, self._kind, self._columns, self._stdout = path, kind, list(columns), stdout
        self._aside = Path(f"{path}.part")
        self._stream: Any = None

    def __enter__(self) -> Output:
        """Open a temporary file next to the final one (or use stdout), and return the `Output` to write to."""
        try:
            if self._kind == "parquet":
                self._output: Output = _ParquetOutput(self._aside)
                self._aside.touch()
                return self._output
            if self._path == STDOUT:
                self._stream = self._stdout or sys.stdout
            else:
                self._stream = self._aside.open("w", encoding="utf-8", newline="", errors="backslashreplace")
        except OSError as error:
            raise UnavailableError(f"{self._path} cannot be written: {error.strerror}; name another file") from error
        if self._kind == "jsonl":
            self._output = _JsonLinesOutput(self._stream)
        elif self._kind in ("txt", "conll"):
            self._output = _LinesOutput(self._stream, self._text if self._kind == "conll" else None)
        else:
            self._output = _DelimitedOutput(self._stream, DELIMITERS[self._kind], self._columns)
        return self._output

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None:
        """Rename the complete temporary file to its final name, or remove an incomplete one."""
        if self._path == STDOUT:
            self._stream.flush()
            return
        try:
            if kind is None:
                self._output.close()
            if self._stream is not None:
                self._stream.close()
            if kind is None:
                self._aside.replace(self._path)
        except OSError as error:
            raise UnavailableError(f"{self._path} cannot be written: {error.strerror}; free some space") from error
        finally:
            with suppress(OSError):
                self._aside.unlink(missing_ok=True)


class _DelimitedOutput(Output):
    def __init__(self, stream: Stream, delimiter: str, columns: Sequence[str]) -> None:
        self._stream, self._delimiter = stream, delimiter
        self._columns, self._begun = list(columns), False

    def write(self, chunk: Chunk, new: Mapping[str, Sequence[Any]]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, delimiter=self._delimiter, lineterminator="\n")
        if not self._begun:
            self._begun = True
            writer.writerow([*self._columns, *new])
        old = [[_cell(value) for value in chunk.column(name)] for name in self._columns]
        writer.writerows(zip(*old, *([_cell(value) for value in column] for column in new.values()), strict=True))
        self._stream.write(text.getvalue())

    def close(self) -> None:
        pass


def _cell(value: Any) -> Any:
    """Convert a value to a cell of a CSV or TSV file: lists and objects to JSON, None to an empty cell."""
    if value is None:
        return ""
    return value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False, default=str)


class _JsonLinesOutput(Output):
    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, chunk: Chunk, new: Mapping[str, Sequence[Any]]) -> None:
        rows = chunk.rows if chunk.batch is None else chunk.batch.to_pylist()
        whole = (
            {**row, **dict(zip(new, values, strict=True))} for row, *values in zip(rows, *new.values(), strict=True)
        )
        self._stream.write("".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in whole))

    def close(self) -> None:
        pass


class _LinesOutput(Output):
    """A .txt file, with a prediction on each line, or a .conll file, with a word and its tag on each line.

    The argument `text` is the column with the words for a .conll file; None for a .txt file.
    """

    def __init__(self, stream: Stream, text: str | None) -> None:
        self._stream, self._text_column = stream, text

    def write(self, chunk: Chunk, new: Mapping[str, Sequence[Any]]) -> None:
        predictions = [_cell(value) for value in next(iter(new.values()))]
        if self._text_column is None:
            self._stream.write("".join(f"{prediction}\n" for prediction in predictions))
            return
        for text, tags in zip(chunk.column(self._text_column), predictions, strict=True):
            words = words_of(text or "")
            pairs = zip(words, tags.split(" "), strict=True) if words else ()
            self._stream.write("".join(f"{word} {tag}\n" for word, tag in pairs) + "\n")

    def close(self) -> None:
        pass


class _ParquetOutput(Output):
    def __init__(self, path: Path) -> None:
        self._path, self._writer = path, None

    def write(self, chunk: Chunk, new: Mapping[str, Sequence[Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        writer: Any = self._writer
        table = pa.Table.from_pylist(list(chunk.rows)) if chunk.batch is None else pa.Table.from_batches([chunk.batch])
        for name, values in new.items():
            is_number = any(isinstance(value, float) for value in values)
            kind = pa.float32() if is_number else pa.string()
            if writer is not None:
                kind = writer.schema.field(name).type
            table = table.append_column(name, pa.array(list(values), kind))
        if writer is None:
            self._writer = writer = pq.ParquetWriter(self._path, table.schema)
        try:
            writer.write_table(table.select(writer.schema.names).cast(writer.schema))
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise DataError(
                f"row {chunk.lines[0]} and those after it do not have the columns and types of the first rows "
                f"({first_line(error)}); write the output as .jsonl"
            ) from error

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
