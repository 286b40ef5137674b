"""Task files: the declaration of a task as a TOML file instead of a `Task` in Python.

    title = "Complaints of a shop"
    languages = ["en"]
    kind = "multiclass"
    labels = ["billing", "delivery", "quality"]
    licence = "CC BY 4.0"

    [files]
    train = "complaints.csv"
    test = { path = "complaints-2024.csv", label = "final_category" }
    dev = { holdout = "20%" }

    [columns]
    text = "complaint"
    label = "category"

`alue-bench new-task FILE` writes a task file for a data file, and `--task ./complaints.task.toml` reads it. A plugin
that contains a task file returns `read_task_file(path)` from its hook `alue_bench_tasks`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from alue_bench.contract.answers import SquadJson
from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import Delimited, Reader, excerpt
from alue_bench.contract.tables import TABLE_SUFFIXES, Table
from alue_bench.contract.tagged import TaggedColumns, TaggedJson
from alue_bench.contract.task import NAME, DataFile, HeldOut, Labels, Splits, Submission, TargetKind, Task

TASK_FILE_ENDING = ".task.toml"
"""The usual ending of a task file's name."""
HUB_PREFIX = "hub:"
"""The beginning of a reference to a data set of the Hugging Face hub, which can be given instead of the path of a file.
The form of a reference is hub:owner/name[@revision][/config]."""
DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
"""The default delimiters of the files that `Delimited` reads, by file ending."""
OF_JSON_TAGS, OF_COLUMNS = ("id",), ("delimiter", "comment", "document")
"""For files of words with tags: the keys that apply to JSON lines only, and those that apply to text in columns only.
"""
JSON_LINES = (".jsonl", ".ndjson")
"""The endings of files with a JSON object on each line."""
SPLITS = ("train", "dev", "test", "submission")
NOT_STATED = "not stated"
"""The text that replaces a licence, source or citation that a task file leaves out."""

KeyPath = tuple[str, ...]
"""The keys of nested TOML tables that lead to a value, outermost first, such as ("files", "dev", "holdout")."""


@dataclass(frozen=True)
class _Key:
    """The kind of value that a key of a task file may have."""

    wanted: str
    """The kind of value in words, which follow "it must be" in an error message."""
    fits: Callable[[object], bool]
    """The function that returns whether a value is of this kind."""


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_column(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_table_of_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


TEXT = _Key("a string", _is_text)
TEXTS = _Key("a list of strings", _are_texts)
NUMBER = _Key("a number", _is_number)
WHOLE_NUMBER = _Key("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))
BOOLEAN = _Key("true or false", lambda value: isinstance(value, bool))
COLUMN = _Key("the name of a column, or its position from 0", _is_column)
TABLE = _Key("a table", lambda value: isinstance(value, dict))
TABLE_OF_TEXTS = _Key("a table of strings", _is_table_of_texts)
SHARE = _Key("a share such as 20%", lambda value: _is_text(value) or _is_number(value))

COLUMN_KEYS: Mapping[str, _Key] = {
    "text": COLUMN,
    "pair": COLUMN,
    "label": _Key("a column, or a list of columns of 0 and 1", lambda value: _is_column(value) or _are_texts(value)),
    "id": COLUMN,
    "separator": TEXT,
    "decode": TABLE_OF_TEXTS,
    "ignore": TEXTS,
}
"""The keys that name the columns of texts, labels and identifiers, and that say how labels are written."""
FORMAT_KEYS: Mapping[str, _Key] = {
    "delimiter": TEXT, "quoted": BOOLEAN, "header": BOOLEAN, "width": WHOLE_NUMBER, "sheet": TEXT, "split": TEXT,
    "comment": TEXT, "document": TEXT,
}  # fmt: skip
"""The keys that describe the format of the data files."""
FILE_KEYS: Mapping[str, _Key] = {"path": TEXT, "holdout": SHARE, "seed": WHOLE_NUMBER, **COLUMN_KEYS, **FORMAT_KEYS}
"""The permitted keys of a split under `[files]`, if the split is given as a table and not as a path."""
SUBMISSION_KEYS: Mapping[str, _Key] = {
    "file": TEXT, "header": TEXTS, "id": TEXT, "encode": TABLE_OF_TEXTS, "leaderboard": TEXT,
}  # fmt: skip
KINDS = tuple(map(str, TargetKind))
TOP_LEVEL_KEYS: Mapping[str, _Key] = {
    "name": TEXT,
    "title": TEXT,
    "languages": TEXTS,
    "kind": _Key(f"{', '.join(KINDS[:-1])} or {KINDS[-1]}", lambda value: value in KINDS),
    "labels": TEXTS,
    "scheme": TEXT,
    "no_answer": BOOLEAN,
    "threshold": NUMBER,
    "minimum": NUMBER,
    "maximum": NUMBER,
    "metric": TEXT,
    "official_metric": TEXT,
    "protocol": TEXT,
    "source": TEXT,
    "licence": TEXT,
    "citation": TEXT,
    "trained_on": TEXT,
    "sample": TEXT,
    "files": TABLE,
    "columns": TABLE,
    "format": TABLE,
    "label_map": TABLE_OF_TEXTS,
    "defaults": TABLE,
    "submission": TABLE,
}
"""The permitted keys at the top level of a task file."""
TABLE_KEYS: Mapping[str, Mapping[str, _Key]] = {
    "columns": COLUMN_KEYS,
    "format": FORMAT_KEYS,
    "submission": SUBMISSION_KEYS,
}
"""The permitted keys of each TOML table whose keys do not depend on the task."""


@dataclass(frozen=True)
class TaskFile:
    """The checked content of a task file."""

    path: Path
    content: Mapping[str, Any]
    """The keys and values of the parsed TOML file."""
    text: str
    """The text of the file, in which error messages look up the line of a key."""

    def usage_error(self, problem: str, *keys: str) -> UsageError:
        """Return (not raise) an error about a value; its message names the file and the line of the value.

        Args:
            problem: A description of the error, which becomes the end of the message.
            *keys: The keys that lead to the value, outermost first.
        """
        return UsageError(f"{self.path}:{line_of(self.text, keys)}: {problem}")

    def task(self) -> Task:
        """Return the task that the file declares. Raise UsageError, with the file's path, if the task is invalid."""
        try:
            return task_of(self.content, name=name_of(self.path.name), folder=self.path.parent)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{self.path}: {error}") from error


def read_task_file(path: Path) -> Task:
    """Return the task that a task file (TOML) declares, for example in a plugin's hook `alue_bench_tasks`.

    In the returned task, the paths of data files are relative to the data folder, to which `alue-bench data add` copies
    the files. (If a user gives the same task file with `--task FILE`, they are relative to the task file's folder.)

    Args:
        path: The task file. `docs/your-own-data.md` describes its keys.

    Raises:
        UsageError: The file cannot be read, a key is unknown or missing, or a value is invalid.
    """
    return load_task_file(path).task()


def load_task_file(path: Path) -> TaskFile:
    """Read a task file, check its keys and the types of its values, and return its content.

    Raises:
        UsageError: The file cannot be read or is not valid TOML, or a key is missing, unknown or has a value of a wrong
            type.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # not UTF-8; a NUL in the name
        raise UsageError(f"task file {path} cannot be read: {error}") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise UsageError(f"{path}:{line.group(1) if line else 1}: not valid TOML: {error}") from error
    except (ValueError, RecursionError) as error:  # a number with thousands of digits; too many nested brackets
        raise UsageError(f"{path}: cannot be read as TOML: {error}") from error
    file = TaskFile(path, content, text)
    _check(file, content, TOP_LEVEL_KEYS)
    for name, keys in TABLE_KEYS.items():
        _check(file, content.get(name, {}), keys, name)
    for split, given in content.get("files", {}).items():
        if split not in SPLITS:
            raise file.usage_error(f"unknown file {excerpt(split)}; known are {', '.join(SPLITS)}", "files", split)
        if isinstance(given, dict):
            _check(file, given, FILE_KEYS, "files", split)
            if ("path" in given) == ("holdout" in given):
                raise file.usage_error(f"{split} needs either a path or a holdout, and not both", "files", split)
            if "holdout" in given and (problem := share_problem(given["holdout"])):
                raise file.usage_error(f"holdout {problem}", "files", split, "holdout")
        elif not isinstance(given, str):
            raise file.usage_error(f"{split} is {given!r:.60}; it must be a path or a table", "files", split)
    for needed, where in (("kind", content), ("files", content)):
        if needed not in where:
            raise UsageError(f"{path}: the key {needed} is missing")
    return file


def _check(file: TaskFile, content: Mapping[str, object], keys: Mapping[str, _Key], *within: str) -> None:
    """Raise UsageError for the first key that is unknown or has a value of a wrong type.

    Args:
        file: The task file, for error messages.
        content: The keys and values of one TOML table of the file.
        keys: The permitted keys of the table.
        *within: The keys that lead to the table, outermost first; none for the top level.
    """
    for key, value in content.items():
        if key not in keys:
            raise file.usage_error(f"unknown key {excerpt(key)}; known are {', '.join(keys)}", *within, key)
        if not keys[key].fits(value):
            seen = excerpt(repr(value), quote=False)
            raise file.usage_error(f"{key} is {seen}; it must be {keys[key].wanted}", *within, key)


def line_of(text: str, keys: KeyPath) -> int:
    """Return the number of the line, from 1, on which a task file gives the value at a key path.

    If the file does not contain all keys of the path, the line of the last key that it contains is returned.

    Args:
        text: The text of the task file.
        keys: The keys that lead to the value, outermost first.
    """
    start = 0
    for key in keys:
        quoted = rf"[\"']?{re.escape(key)}[\"']?"
        pattern = rf"^\s*\[+\s*(?:[\w\"'-]+\.)*{quoted}\s*\]|(?:^|[{{,.])\s*{quoted}\s*[=.]"
        if where := re.compile(pattern, flags=re.MULTILINE).search(text, start):
            start = where.end() - 1
    return text.count("\n", 0, start) + 1


def name_of(file_name: str) -> str:
    """Return the name of a task that is given as a file: the file's name without its ending, in lower case.

    Each sequence of characters other than ASCII letters, digits, ".", "_" and "-" is replaced by one hyphen. If no
    valid name remains, the name is "task-" followed by a digest of the file's name.
    """
    stem = (
        file_name.removesuffix(TASK_FILE_ENDING)
        if file_name.endswith(TASK_FILE_ENDING)
        else PurePosixPath(file_name).stem
    )
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("._-")
    if NAME.fullmatch(name):
        return name[:100]
    import hashlib

    return f"task-{hashlib.sha256(stem.encode(errors='surrogatepass')).hexdigest()[:6]}"


def share_problem(given: object) -> str | None:
    """Return what is wrong with the size of a held-out part, as the end of an error message; None if it is valid.

    Args:
        given: The size, such as "20%" or 0.2.
    """
    try:
        share = share_of(given)
    except ValueError:
        return f"is {excerpt(str(given))}; write it as 20%"
    if not 0 < share <= 0.5:
        return f"is {excerpt(str(given), quote=False)}; it must be above 0 and at most 50%"
    return None


def share_of(given: object) -> float:
    """Return the size of a held-out part as a fraction: 0.2 for "20%", "0.2" and 0.2.

    Raises:
        ValueError: The value has none of these forms.
    """
    if isinstance(given, str):
        match = re.fullmatch(r"\s*(\d{1,3}(?:\.\d{1,9})?)\s*(%?)\s*", given, re.ASCII)
        if match is None:
            raise ValueError(given)
        return float(match[1]) / (100 if match[2] else 1)
    if not isinstance(given, int | float):
        raise ValueError(given)
    return float(given)


def percent_of(given: object) -> str:
    """Return the size of a held-out part as a percentage: "20%" for 0.2, "0.2" and "20%"."""
    return f"{100 * share_of(given):.4g}%"


def task_of(content: Mapping[str, Any], *, name: str, folder: Path) -> Task:
    """Return the task that the content of a task file declares.

    Args:
        content: The keys and values; `load_task_file` has checked their types.
        name: The task's name if `content` has no key `name`.
        folder: The folder to which the path in the key `sample` is relative.

    Raises:
        TypeError, ValueError: A value is invalid, or contradicts another value.
    """
    files = content["files"]
    common = {**content.get("columns", {}), **content.get("format", {})}
    parts: dict[str, Any] = {
        split: _declared_split(split, given, common, kind=content["kind"]) for split, given in files.items()
    }
    if "trained_on" not in content and "test" not in parts:
        raise ValueError('files has no test; name a file, or hold rows out: test = { holdout = "20%" }')
    name = content.get("name", name)
    submission = content.get("submission")
    return Task(
        name=name,
        title=content.get("title") or name,
        languages=tuple(content.get("languages", ("und",))),
        labels=_labels(content),
        splits=Splits(**parts, protocol=content.get("protocol") or protocol_of(content)),
        source=content.get("source") or NOT_STATED,
        licence=content.get("licence") or NOT_STATED,
        citation=content.get("citation") or NOT_STATED,
        primary=content.get("metric", ""),
        official_metric=content.get("official_metric", ""),
        trained_on=content.get("trained_on"),
        label_map={theirs: own or None for theirs, own in content.get("label_map", {}).items()},
        defaults=content.get("defaults", {}),
        submission=Submission(**_submission(submission)) if submission else None,
        sample=folder / content["sample"] if "sample" in content else None,
    )


def _labels(content: Mapping[str, Any]) -> Labels:
    kind, names = TargetKind(content["kind"]), tuple(content.get("labels", ()))
    if kind is not TargetKind.SPAN and "no_answer" in content:
        raise ValueError(f"a {kind} task has no answers; leave no_answer out")
    if kind is TargetKind.REGRESSION:
        bounds = [content.get(bound) for bound in ("minimum", "maximum")]
        if None in bounds:
            raise ValueError("a regression needs minimum and maximum, the range of its numbers")
        if names:
            raise ValueError("a regression has no labels; leave them out")
        return Labels.regression(*map(float, bounds))  # type: ignore[arg-type]
    if kind is TargetKind.MULTILABEL:
        return Labels.multilabel(*names, threshold=content.get("threshold", 0.5))
    if kind is TargetKind.TOKENS:
        return Labels.tokens(*names, scheme=content.get("scheme"))
    if "scheme" in content:
        raise ValueError(f"a {kind} task has no tags with a scheme; leave scheme out")
    if kind is TargetKind.SPAN:
        if names:
            raise ValueError("span extraction has no labels; leave them out")
        return Labels.span(no_answer=content.get("no_answer", False))
    return Labels(kind, names)


def _submission(given: Mapping[str, Any]) -> dict[str, Any]:
    if "file" not in given:
        raise ValueError('submission names no file, such as file = "complaints.tsv"')
    return {**given, "header": tuple(given.get("header", ())), "id": given.get("id") or None}


def _declared_split(
    split: str, given: str | Mapping[str, Any], common: Mapping[str, Any], *, kind: str
) -> DataFile | HeldOut:
    """Return the declaration of a split: a data file, or a part that is held out from the train file.

    Args:
        split: The name of the split.
        given: The value of the split under `[files]`: a path, or a TOML table.
        common: The keys and values of `[columns]` and `[format]`; those in the table of the split override them.
        kind: The kind of target.
    """
    own: Mapping[str, Any] = {"path": given} if isinstance(given, str) else given
    if "holdout" in own:
        if split not in ("dev", "test"):
            raise ValueError(f"{split} cannot be held out; name a file")
        return HeldOut(share_of(own["holdout"]), **({"seed": own["seed"]} if "seed" in own else {}))
    if kind == TargetKind.TOKENS:
        foreign_to_file = {*OF_JSON_TAGS, *OF_COLUMNS} - _keys_of_tagged_files(own["path"])
        shared = {key: value for key, value in common.items() if key not in foreign_to_file}
        return DataFile(own["path"], tagged_reader_of(own["path"], {**shared, **own}))
    if kind == TargetKind.SPAN:
        return DataFile(own["path"], squad_reader_of(own["path"], {**common, **own}))
    foreign = _inapplicable_keys(own["path"], {**common, **own})
    reading = {key: value for key, value in common.items() if key not in foreign}
    reading |= {key: value for key, value in own.items() if key != "path"}
    if split == "submission" and "label" not in own:
        reading.pop("label", None)
    return DataFile(own["path"], reader_of(own["path"], reading))


def reader_of(path: str, reading: Mapping[str, Any]) -> Reader:
    """Return the reader for a data file; the file's ending determines the format.

    Args:
        path: The path of the file, or a reference to a data set of the hub.
        reading: The keys of a task file that name columns and describe the format, with their values.

    Raises:
        ValueError: The ending is unknown, no text column is named, or a key does not apply to the format.
    """
    if "text" not in reading:
        raise ValueError(f'file {path!r} has no text; name its column: text = "COLUMN" in [columns]')
    target = reading.get("label")
    fields = {
        "text": reading["text"],
        "text_pair": reading.get("pair"),
        "target": tuple(target) if isinstance(target, list) else target,
        "id": reading.get("id"),
        "separator": reading.get("separator"),
        "decode": reading.get("decode", {}),
        "ignore": frozenset(reading.get("ignore", ())),
    }
    suffix = _suffix(path)
    if wrong := next((key for key in _inapplicable_keys(path, reading) if key in reading), None):
        raise ValueError(f"file {path!r}: {wrong} says nothing about a file of this format; leave it out")
    if _is_delimited(path, reading):
        delimiter = reading.get("delimiter", DELIMITERS.get(suffix, ","))
        quoted, header = reading.get("quoted", delimiter != "\t"), reading.get("header", True)
        return Delimited(**fields, delimiter=delimiter, quoted=quoted, header=header, columns=reading.get("width"))
    if suffix and suffix not in TABLE_SUFFIXES:
        raise ValueError(unknown_ending(path))
    if by_place := next((value for value in fields.values() if isinstance(value, int)), None):
        raise ValueError(f"file {path!r}: columns of this format have names; write a name instead of {by_place}")
    return Table(**fields, sheet=reading.get("sheet"), split=reading.get("split"))


def tagged_reader_of(path: str, reading: Mapping[str, Any]) -> Reader:
    """Return the reader for a file of words with tags: JSON lines if the ending is in `JSON_LINES`, otherwise columns.

    Args:
        path: The path of the file.
        reading: The keys of a task file that name columns and describe the format, with their values. `text` is the
            column of the words, and `label` is the column of the tags.

    Raises:
        ValueError: The format cannot be read, a key does not apply to it, or a column has a value of a wrong type.
    """
    of_json = _suffix(path) in JSON_LINES
    if path.startswith(HUB_PREFIX) or _suffix(path) in (".json", ".xlsx", ".parquet"):
        raise ValueError(f"file {path!r}: words with tags are read from columns of text or from JSON lines; convert it")
    known = _keys_of_tagged_files(path)
    if wrong := next((key for key in reading if key not in known), None):
        raise ValueError(f"file {path!r}: {wrong} says nothing about a file of this format; leave it out")
    wanted, kind = (str, "the name of a list") if of_json else (int, "the position of a column, from 0")
    columns = {key: reading[key] for key in ("text", "label") if key in reading}
    if bad := next((key for key, value in columns.items() if not isinstance(value, wanted)), None):
        raise ValueError(f"file {path!r}: {bad} is {columns[bad]!r}; it must be {kind}")
    if of_json:
        names = {"text": "words", "label": "tags", "id": "id", "decode": "decode"}
        return TaggedJson(**{names[key]: value for key, value in reading.items() if key != "path"})
    names = {"text": "word", "label": "tag", "delimiter": "separator"}
    return TaggedColumns(**{names.get(key, key): value for key, value in reading.items() if key != "path"})


def squad_reader_of(path: str, reading: Mapping[str, Any]) -> SquadJson:
    """Return the reader for a file of questions about texts, in SQuAD's JSON format.

    Args:
        path: The path of the file.
        reading: The keys of a task file that the user gives for this file, with their values. Only the key `path` is
            permitted, because the format has fixed keys.

    Raises:
        ValueError: The ending is not .json, or `reading` has a key other than `path`.
    """
    if _suffix(path) != ".json":
        raise ValueError(f"file {path!r}: answers in a text are read from SQuAD's JSON (.json); convert it")
    if wrong := next((key for key in reading if key != "path"), None):
        raise ValueError(f"file {path!r}: {wrong} says nothing about a file of this format; leave it out")
    return SquadJson()


def _keys_of_tagged_files(path: str) -> set[str]:
    """Return the keys of a task file that apply to a file of words with tags."""
    of_json = _suffix(path) in JSON_LINES
    return {"path", "text", "label", "decode", *(OF_JSON_TAGS if of_json else OF_COLUMNS)}


def unknown_ending(path: str) -> str:
    """Return the error message for a data file whose ending is not supported."""
    suffix = PurePosixPath(path).suffix.lower()
    known = f"use {', '.join([*DELIMITERS, *TABLE_SUFFIXES])}, a folder of save_to_disk, or hub:owner/name"
    if suffix in (".gz", ".zip", ".bz2", ".xz", ".zst"):
        return f"file {path!r} is compressed; unpack it first"
    if suffix in (".xls", ".ods"):
        return f"file {path!r} has the format {suffix}, which is not read; save it as XLSX or CSV"
    return f"file {path!r} has the ending {suffix or 'of no format'}, which is not known; {known}"


def _suffix(path: str) -> str:
    """Return the ending of a file's name in lower case; empty for a folder or a data set of the hub."""
    return "" if path.startswith(HUB_PREFIX) else PurePosixPath(path).suffix.lower()


def _is_delimited(path: str, reading: Mapping[str, Any]) -> bool:
    """Return whether a file is read as CSV or TSV: because of its ending, or because a delimiter is given."""
    suffix = _suffix(path)
    return suffix in DELIMITERS or (suffix not in ("", *TABLE_SUFFIXES) and "delimiter" in reading)


def _inapplicable_keys(path: str, reading: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of `[format]` that do not apply to the format of a data file."""
    other = ("sheet", "split") if _is_delimited(path, reading) else ("delimiter", "quoted", "header", "width")
    return (*other, "comment", "document")


def protocol_of(content: Mapping[str, Any]) -> str:
    """Return a sentence on where the splits come from, which is recorded with every run (`Splits.protocol`).

    The sentence names files without their folders. If both test and dev are held out from the train file, the share of
    dev is given as a share of the "other rows", because the test rows are drawn first.

    Args:
        content: The keys and values of a task file.
    """
    files, phrases = content["files"], []
    train = files.get("train")
    if train is not None:
        phrases.append(f"train: {_shown_file(train)}")
    rest = ""
    for split in ("test", "dev"):
        given = files.get(split)
        if isinstance(given, Mapping) and "holdout" in given:
            phrases.append(f"{split}: {percent_of(given['holdout'])} of its{rest} rows, held out")
            rest = " other"
        elif given is not None:
            phrases.append(f"{split}: {_shown_file(given)}")
    by_label = content["kind"] in (TargetKind.BINARY, TargetKind.MULTICLASS)
    how = f", {'stratified by label' if by_label else 'drawn at random'}, repeated texts together" if rest else ""
    return "; ".join(phrases) + how


def _shown_file(given: str | Mapping[str, Any]) -> str:
    """Return the name of a split's data file without its folder, followed by the value of the key `split`, if given.

    A reference to a data set of the hub is returned in full instead of the file's name.

    Args:
        given: The value of the split under `[files]`: a path, or a TOML table.
    """
    path = given if isinstance(given, str) else given["path"]
    name = path if path.startswith(HUB_PREFIX) else PurePosixPath(path).name
    split = "" if isinstance(given, str) or "split" not in given else f" ({given['split']})"
    return f"{name}{split}"
