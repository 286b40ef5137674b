"""The inference of a task file's content from a data file and the options that describe it."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import DataError, UsageError
from alue_bench.contract.formats import BadRow, Example, excerpt, header_of, missing_column, name_list
from alue_bench.contract.tables import TABLE_SUFFIXES, OpenTable, load_folder, open_table
from alue_bench.contract.task_file import DELIMITERS, HUB_PREFIX, reader_of, unknown_ending
from alue_bench.data.file_task.columns import Columns, chosen_columns
from alue_bench.data.file_task.labels import LabelledRows, LabelSpace, check_enough_rows, decoding_of, inferred_labels
from alue_bench.data.file_task.options import DEFAULT_HOLDOUT, FileOptions
from alue_bench.data.hub_data import HubData
from alue_bench.data.verification import SNIFFED_BYTES, is_text, label_counts, row_location

DEV_SPLITS, TEST_SPLITS = ("validation", "dev", "valid", "val"), ("test",)
"""The usual names of the dev split and of the test split in a data set of the `datasets` library."""
Reading = dict[str, Any]
"""The keys and values of a task file that say how to read one data file."""


@dataclass(frozen=True)
class InferredTask:
    """The content of a task file that was inferred from data, with sentences about what was inferred."""

    content: dict[str, Any]
    """The keys and values of the task file. Paths of data files are as the user wrote them."""
    notes: tuple[str, ...]
    """Sentences for the user about what was inferred."""


@dataclass(frozen=True)
class _Source:
    """A data file whose format and column names are known."""

    given: str
    """The path of the file, or the reference to a hub data set, as the user wrote it."""
    path: Path
    columns: tuple[str, ...]
    reading: Reading = field(default_factory=dict)
    """The keys and values of a task file that describe the format of this file: delimiter, quoted, sheet, split."""
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The names of the classes, by column, for columns that the `datasets` library declares as class labels."""
    splits: tuple[str, ...] = ()
    """The names of the splits, if the data is a folder or hub data set that is divided into splits; empty otherwise."""

    def reader(self, columns: Columns, options: FileOptions) -> Any:
        """Return a reader of the data file that accepts any label, because the task's labels are not known yet.

        Raises:
            UsageError: An option does not belong to the file's format.
        """
        path = self.given if self.given.startswith(HUB_PREFIX) else str(self.path)
        reading = {**self.reading, **_column_keys(columns, options)}
        try:
            return reader_of(path, reading)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{self.given}: {error}") from error

    def labelled(self, columns: Columns, options: FileOptions) -> LabelledRows:
        """Return the usable rows of the data file. Raise DataError, naming the first bad rows, if none is usable."""
        rows = list(self.reader(columns, options)(self.path))
        has_lines = _has_lines(self.path)
        examples = [row for row in rows if isinstance(row, Example) and _has_label(row)]
        if not examples:
            bad = [row for row in rows if isinstance(row, BadRow)]
            reasons = "; ".join(
                f"{row_location(self.path, row.line, has_lines=has_lines)}: {row.reason}" for row in bad[:3]
            )
            raise DataError(reasons or f"{self.path}: no row is left")
        return LabelledRows(self.path, examples, has_lines, columns.labels)


def _has_lines(path: Path) -> bool:
    """Return whether a file is a text file, so that messages can name the line of a row."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return is_text(file.read(SNIFFED_BYTES))


def _has_label(row: Example) -> bool:
    """Return whether a row has a label.

    Rows without a label are left out of the inference. They are reported as bad rows when the task is read.
    """
    return isinstance(row.target, tuple) or bool(str(row.target).strip())


def _column_keys(columns: Columns, options: FileOptions) -> Reading:
    """Return the keys and values of a task file that state the columns, the label separator and the ignored labels."""
    label: str | list[str] = list(columns.labels) if len(columns.labels) > 1 else columns.labels[0]
    named = {
        "text": columns.text, "pair": columns.pair, "label": label, "id": columns.id,
        "separator": options.label_separator, "ignore": list(options.ignore) or None,
    }  # fmt: skip
    return {key: value for key, value in named.items() if value is not None}


def infer(options: FileOptions) -> InferredTask:
    """Infer the content of a task file from a data file and its options.

    Args:
        options: The user's options, which name the file and may name its columns, its kind of target and so on.

    Raises:
        UsageError: No file is named, a file does not exist, or an option contradicts another option or the file's
            format.
        DataError: The file cannot be read, a column cannot be guessed, or the labels are ambiguous.
        UnavailableError: A hub data set cannot be loaded.
    """
    if options.file is None:
        raise UsageError("no data file is named; name one with --file")
    train = _open_source(options.file, "--file", options, split="train")
    columns = chosen_columns(train.path, train.columns, options)
    rows = train.labelled(columns, options)
    if repeated := _repeated_ids(rows, columns):
        if options.id is not None:
            raise DataError(repeated)
        columns = columns.without_id()
        rows = train.labelled(columns, options)
    space = inferred_labels(rows, options, train.classes.get(columns.labels[0], ()))
    others, notes = _other_files(train, columns, options)
    if "id" in columns.guessed and any(columns.id not in source.columns for source in others.values()):
        columns = columns.without_id()
    read = {split: source.labelled(columns, options) for split, source in others.items()}
    parts = [split for split in ("test", "dev") if split not in others]
    check_enough_rows(rows, space, len(parts))
    space = _covering_label_space(space, read.values())
    files: dict[str, Any] = {"train": _file_entry(train, space.decode)}
    for split, source in others.items():
        files[split] = _file_entry(source, decoding_of(read[split], space))
    for split in parts:
        files[split] = {"holdout": options.holdout or DEFAULT_HOLDOUT}
    content = {
        "title": _title(options.file),
        "languages": ["und"],
        "kind": str(space.kind),
        **({"labels": list(space.names)} if space.names else {}),
        **({"minimum": space.range[0], "maximum": space.range[1]} if space.range else {}),
        "source": _title(options.file),
        "files": {split: files[split] for split in ("train", "dev", "test")},
        "columns": _column_keys(columns, options),
    }
    sentences = [
        f"{_title(options.file)}: {len(rows.examples)} rows{_format_note(train)}; {columns.describe(train.columns)}",
        f"{_kind_note(space, rows, options)}",
        *space.notes,
        *notes,
        *_repeat_notes(rows, read, parts),
    ]
    return InferredTask(content, tuple(sentences))


def _open_source(given: str, flag: str, options: FileOptions, *, split: str) -> _Source:
    """Open a data file and read its column names.

    Args:
        given: The path or hub reference as the user gave it.
        flag: The option that names the file, for error messages, such as "--dev".
        options: The user's options.
        split: The split of the task that the file is for: "train", "dev" or "test".
    """
    if given.startswith(HUB_PREFIX):
        return _open_folder(given, HubData.read(given).fetch(), split)
    path = Path(os.path.expanduser(given))  # Path.expanduser raises an error for ~NAME if there is no user NAME
    if path.is_dir():
        return _open_folder(given, path, split)
    if not path.exists():
        raise UsageError(f"{flag} {excerpt(given, quote=False)}: there is no such file{_similar_file_hint(path)}")
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        names, delimiter, has_marks = header_of(path, None if suffix == ".csv" else DELIMITERS[suffix])
        reading: Reading = {"delimiter": delimiter, "quoted": suffix == ".csv" or has_marks}
        return _Source(given, path, tuple(names), reading)
    if suffix not in TABLE_SUFFIXES:
        raise UsageError(f"{flag}: {unknown_ending(given)}")
    table = open_table(path, sheet=options.sheet)
    reading = {"sheet": options.sheet} if options.sheet is not None and suffix == ".xlsx" else {}
    return _Source(given, path, table.columns, reading, table.classes)


def _open_folder(given: str, path: Path, split: str) -> _Source:
    """Open a folder of the `datasets` library; among several splits, open one with a usual name for `split`.

    Args:
        given: The path or hub reference as the user gave it.
        path: The folder.
        split: The split of the task that the data is for: "train", "dev" or "test".
    """
    data = load_folder(path)
    splits = tuple(data) if isinstance(data, Mapping) else ()
    usual = {"train": ("train",), "dev": DEV_SPLITS, "test": TEST_SPLITS}[split]
    chosen = next((name for name in usual if name in splits), None)
    if chosen is None and len(splits) == 1:
        (chosen,) = splits
    if splits and chosen is None:
        raise DataError(
            f"{given}: none of its splits {name_list(splits)} is called {' or '.join(usual)}; save one split alone "
            "with save_to_disk, and name its folder"
        )
    table: OpenTable = open_table(path, split=chosen)
    return _Source(given, path, table.columns, {"split": chosen} if chosen else {}, table.classes, splits)


def _similar_file_hint(path: Path) -> str:
    """Return the end of an error message that suggests an existing file with a similar name; empty if there is none."""
    try:
        names = [other.name for other in path.parent.iterdir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, names, n=1)
    return f" (did you mean {excerpt(str(path.with_name(near[0])))}?)" if near else ""


def _other_files(train: _Source, columns: Columns, options: FileOptions) -> tuple[dict[str, _Source], list[str]]:
    """Return the sources of the dev and test rows, by split, and notes for the user.

    A source is a file, or another split of the folder or hub data set of the train rows. The notes name splits without
    gold labels, which cannot be used.
    """
    sources: dict[str, _Source] = {}
    notes: list[str] = []
    for split, given, usual in (("dev", options.dev, DEV_SPLITS), ("test", options.test, TEST_SPLITS)):
        if given is not None:
            source = _open_source(given, f"--{split}", options, split=split)
            needed = columns.without_id() if "id" in columns.guessed else columns
            for name in (needed.text, needed.pair, *needed.labels, needed.id):
                if name is not None and name not in source.columns:
                    raise DataError(f"{source.path}: {missing_column(name, source.columns)}, unlike {train.given}")
            sources[split] = source
        elif any(name in train.splits for name in usual):
            source = _open_folder(train.given, train.path, split)
            if _has_gold(source, columns, options):
                sources[split] = source
            else:
                notes.append(f"its split {source.reading['split']} has no gold labels, so that rows are held out")
    path_of = {split: source.path.resolve() for split, source in (("train", train), *sources.items())}
    for split, source in sources.items():
        twin = next((other for other, path in path_of.items() if other != split and path == path_of[split]), None)
        if twin is not None and not source.splits:
            raise UsageError(f"--{split} {source.given} is the {twin} file too; name another file, or hold rows out")
    return sources, notes


def _has_gold(source: _Source, columns: Columns, options: FileOptions) -> bool:
    """Return whether a split has gold labels; public data sets often give -1 as the label of unlabelled rows."""
    rows = source.reader(columns, options)(source.path)
    return any(isinstance(row, Example) and row.target != "-1" for row in rows)


def _repeated_ids(rows: LabelledRows, columns: Columns) -> str:
    """Return an error message if two rows have the same identifier; an empty string if all identifiers differ."""
    if columns.id is None:
        return ""
    seen: dict[str, Example] = {}
    for example in rows.examples:
        first = seen.setdefault(example.id, example)
        if first is not example:
            return (
                f"{rows.row_location(example)}: the identifier {excerpt(example.id)} in column {excerpt(columns.id)} "
                f"is used in {rows.row_location(first)} too; name another column with --id, or none"
            )
    return ""


def _covering_label_space(space: LabelSpace, others: Any) -> LabelSpace:
    """Return the label space of the train file; the range of a regression is widened to cover the other files.

    Args:
        space: The label space of the train file.
        others: The rows of the dev file and of the test file, if there are any.

    Raises:
        DataError: A target in one of these files is not a number.
    """
    if space.range is None:
        return space
    numbers = list(space.range)
    for rows in others:
        for example in rows.examples:
            try:
                numbers.append(float(example.target))
            except ValueError:
                raise DataError(
                    f"{rows.row_location(example)}: {excerpt(str(example.target))} is not a number"
                ) from None
    return replace(space, range=(min(numbers), max(numbers)))


def _file_entry(source: _Source, decode: Mapping[str, str]) -> str | dict[str, Any]:
    """Return the entry for a data file under `[files]` in a task file: its path, or a table if it needs more keys.

    Args:
        source: The data file.
        decode: The label for each text in the label column; empty if the column holds the labels themselves.
    """
    usual = DELIMITERS.get(source.path.suffix.lower())
    reading = {
        key: value
        for key, value in source.reading.items()
        if not (key == "delimiter" and value == usual) and not (key == "quoted" and value == (usual != "\t"))
    }
    if decode:
        reading["decode"] = dict(decode)
    return {"path": source.given, **reading} if reading else source.given


def _title(given: str) -> str:
    return given if given.startswith(HUB_PREFIX) else Path(given).name


def _format_note(source: _Source) -> str:
    delimiter, split = source.reading.get("delimiter"), source.reading.get("split")
    if delimiter is not None and delimiter != DELIMITERS.get(source.path.suffix.lower()):
        return f", columns parted by {excerpt(delimiter)}"
    return f" of split {split}" if split else ""


def _kind_note(space: LabelSpace, rows: LabelledRows, options: FileOptions) -> str:
    how = "--target" if options.target is not None else "inferred"
    if space.range is not None:
        return f"target: {space.kind} ({how}), numbers from {space.range[0]:g} to {space.range[1]:g}"
    counts = label_counts([one.target for one in rows.examples])
    codes = {label: code for code, label in space.decode.items()}
    counted = [f"{excerpt(name, quote=False)} {counts.get(codes.get(name, name), 0)}" for name in space.names]
    return f"target: {space.kind} ({how}), {len(space.names)} labels: {name_list(counted, limit=12)}"


def _repeat_notes(rows: LabelledRows, read: Mapping[str, LabelledRows], parts: Sequence[str]) -> list[str]:
    """Return notes for the user on texts that occur several times in the train file, or also in the dev or test file.

    Args:
        rows: The rows of the train file.
        read: The rows of the dev and test files, by split.
        parts: The splits that are held out from the train file.
    """
    texts = Counter((example.text, example.text_pair) for example in rows.examples)
    notes = []
    repeated = len(rows.examples) - len(texts)
    if repeated:
        where = "; rows with one text stay in one part" if parts else ""
        notes.append(f"{repeated} rows repeat an earlier text{where}")
    for split, other in read.items():
        seen = sum((example.text, example.text_pair) in texts for example in other.examples)
        if seen:
            notes.append(f"{seen} of {len(other.examples)} {split} rows have a text of the train file")
    return notes
