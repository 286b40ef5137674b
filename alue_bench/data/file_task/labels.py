"""The inference of a data file's label space from its label column: kind of target, label names, range of numbers."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alue_bench.contract.errors import DataError
from alue_bench.contract.formats import Example, excerpt, name_list
from alue_bench.contract.task import TargetKind
from alue_bench.data.file_task.options import FileOptions

MAX_NUMBERS = 20
"""The largest number of different whole numbers that are taken to be classes. If a label column has more of them, the
user must state the kind of target."""
MAX_LABELS_SHARE = 0.5
"""The largest number of different labels in a column that does not only hold numbers, as a share of the rows. Up to
`MAX_NUMBERS` labels are always accepted. If the share is larger and the user does not state the kind of target, an
error is raised, because the column probably does not hold labels."""


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """The label space of a file: the kind of target, and the labels or the range of numbers."""

    kind: TargetKind
    names: tuple[str, ...] = ()
    """The labels, in the order of the model's outputs; empty for a regression."""
    range: tuple[float, float] | None = None
    """The smallest and the largest number of a regression; None for all other kinds."""
    decode: Mapping[str, str] = field(default_factory=dict)
    """The label for each text in the label column, if labels are whole numbers written with a decimal point: the label
    "1" for the text "1.0". Empty otherwise."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about what was inferred."""


@dataclass(frozen=True)
class LabelledRows:
    """The usable rows of a data file, before the file's label space is known."""

    path: Path
    examples: Sequence[Example]
    has_lines: bool
    """True if the file is a text file, so that `Example.line` is a line number; otherwise it is a row number."""
    columns: tuple[str, ...]
    """The names of the file's columns that hold the labels."""

    def row_location(self, example: Example) -> str:
        """Return the position of a row in its file, such as "data.csv:7", for a message."""
        return f"{self.path}:{example.line}" if self.has_lines else f"{self.path}, row {example.line}"

    def first(self, label: str) -> str:
        """Return the position of the first row that has this label, for a message."""
        has = (one for one in self.examples if label == one.target or label in _labels_of(one))
        return self.row_location(next(has))


def _labels_of(example: Example) -> tuple[str, ...]:
    return example.target if isinstance(example.target, tuple) else (str(example.target),)


def inferred_labels(rows: LabelledRows, options: FileOptions, classes: Sequence[str] = ()) -> LabelSpace:
    """Infer the label space of a file from its rows.

    Args:
        rows: The rows of the train file.
        options: The user's options; if `target` is given, it decides the kind of target.
        classes: The names of the classes in their order, if the file declares them.

    Raises:
        DataError: The labels are ambiguous, or there is nothing to learn.
    """
    column = ", ".join(excerpt(name) for name in rows.columns)
    lists = [example for example in rows.examples if isinstance(example.target, tuple)]
    if lists and len(lists) < len(rows.examples):
        odd = min((lists, [example for example in rows.examples if not isinstance(example.target, tuple)]), key=len)[0]
        raise DataError(
            f"{rows.row_location(odd)}: column {column} holds a list of labels in some rows and one label in others; "
            "write lists everywhere"
        )
    if lists:
        return _multilabel(rows, options, classes)
    if options.target == "multilabel":
        raise DataError(
            f"{rows.path}: column {column} holds one label for each row; for several say --label-separator ';', or "
            "--label for each column of 0 and 1"
        )
    codes = Counter(str(example.target) for example in rows.examples)
    if options.target == "regression":
        return _regression(rows, column)
    numbers = {code: number for code in codes if (number := _number(code)) is not None}
    decode: dict[str, str] = {}
    notes: list[str] = []
    if len(numbers) == len(codes):
        decode = _whole_numbers(rows, numbers, column, options)
        if decode:
            first, last = min(decode, key=float), max(decode, key=float)
            notes.append(f"the labels {first} … {last} are read as the whole numbers {decode[first]} … {decode[last]}")
        elif len(codes) > 2 and options.target is None:
            notes.append(f"the {len(codes)} whole numbers are taken for classes; --target regression predicts numbers")
    elif options.target is None and len(codes) > max(MAX_NUMBERS, MAX_LABELS_SHARE * len(rows.examples)):
        raise DataError(
            f"{rows.path}: column {column} has {len(codes)} different values in {len(rows.examples)} rows, too many "
            "for labels; name the label column with --label COLUMN, or say --target multiclass"
        )
    _check_spelling(rows, list(codes))
    names = _ordered([decode.get(code, code) for code in codes], classes)
    if len(names) < 2:
        raise DataError(
            f"{rows.path}: all {len(rows.examples)} rows have the label {excerpt(names[0])} in column {column}; there "
            "is nothing to learn with fewer than two labels"
        )
    if options.target == "binary" and len(names) != 2:
        raise DataError(
            f"{rows.path}: column {column} has {len(names)} labels, which is not binary: "
            f"{name_list([excerpt(name, quote=False) for name in names])}; leave out --target, or rows with --ignore "
            "LABEL"
        )
    kind = TargetKind.BINARY if len(names) == 2 and options.target != "multiclass" else TargetKind.MULTICLASS
    return LabelSpace(kind=kind, names=names, decode=decode, notes=tuple(notes))


def _multilabel(rows: LabelledRows, options: FileOptions, classes: Sequence[str]) -> LabelSpace:
    column = ", ".join(excerpt(name) for name in rows.columns)
    if options.target not in (None, "multilabel"):
        raise DataError(
            f"{rows.path}: column {column} holds several labels for each row, which is not {options.target}; leave "
            "out --target"
        )
    counts = Counter(label for example in rows.examples for label in _labels_of(example))
    _check_spelling(rows, list(counts))
    names = rows.columns if len(rows.columns) > 1 else _ordered(list(counts), classes)
    if len(names) < 2:
        raise DataError(
            f"{rows.path}: column {column} has {len(names)} different labels in {len(rows.examples)} rows; there is "
            "nothing to learn with fewer than two"
        )
    if unseen := [name for name in names if not counts[name]]:
        raise DataError(f"{rows.path}: no row has the label {excerpt(unseen[0])}; leave its column out of --label")
    return LabelSpace(kind=TargetKind.MULTILABEL, names=names)


def _regression(rows: LabelledRows, column: str) -> LabelSpace:
    numbers = []
    for example in rows.examples:
        number = _number(str(example.target))
        if number is None:
            raise DataError(
                f"{rows.row_location(example)}: {excerpt(str(example.target))} in column {column} is not a number"
            )
        numbers.append(number)
    low, high = min(numbers), max(numbers)
    if low == high:
        raise DataError(
            f"{rows.path}: all {len(numbers)} rows have the number {low:g} in column {column}; there is nothing to "
            "learn"
        )
    return LabelSpace(kind=TargetKind.REGRESSION, range=(low, high))


def _whole_numbers(
    rows: LabelledRows, numbers: Mapping[str, float], column: str, options: FileOptions
) -> dict[str, str]:
    """Return a mapping from each label such as "1.0" to the whole number "1" without decimal point.

    The mapping is empty if every label is already written as a whole number without decimal point, or if a number is
    not whole.

    Args:
        rows: The rows of the train file.
        numbers: The value of each label, by the label as it is written in the file.
        column: The name of the label column, for error messages.
        options: The user's options.

    Raises:
        DataError: The column may hold the targets of a regression and the user states no kind of target, or one label
            is written in two ways, such as "1" and "1.0".
    """
    fractions = sorted(number for number in numbers.values() if not number.is_integer())
    if options.target is None and (fractions or len(numbers) > MAX_NUMBERS):
        such = f"numbers such as {fractions[0]:g}" if fractions else f"{len(numbers)} different numbers"
        raise DataError(
            f"{rows.path}: column {column} holds {such}; say --target regression to predict the number, or --target "
            "multiclass to make each value a class"
        )
    if fractions:
        return {}
    by_value = defaultdict(list)
    for code, number in numbers.items():
        by_value[int(number)].append(code)
    if twice := next((codes for codes in by_value.values() if len(codes) > 1), None):
        raise DataError(
            f"{rows.first(twice[1])}: the label is written {excerpt(twice[1])} here and {excerpt(twice[0])} at "
            f"{rows.first(twice[0])}; write it in one way"
        )
    exact = {code: str(int(number)) for code, number in numbers.items()}
    return exact if any(code != whole for code, whole in exact.items()) else {}


def decoding_of(rows: LabelledRows, space: LabelSpace) -> dict[str, str]:
    """Return a mapping from each text in a file's label column to its label, if the file has "1.0" for the label "1".

    Args:
        rows: The rows of the dev or test file.
        space: The label space of the train file.

    Returns:
        The mapping; empty if the label column holds the labels themselves.
    """
    exact: dict[str, str] = {}
    for code in {str(one.target) for one in rows.examples}:
        number = _number(code)
        if number is not None and number.is_integer() and str(int(number)) in space.names:
            exact[code] = str(int(number))
    if all(code == name for code, name in exact.items()):
        return {}
    return {**{name: name for name in space.names}, **exact}


def _number(code: str) -> float | None:
    """Return the value of a label that is written as a finite number; None for any other label."""
    try:
        number = float("" if "_" in code else code)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _ordered(names: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """Return each distinct name once, in an order that does not depend on the order of `names`.

    The names are in the order of `classes` if `classes` contains every name. Otherwise numbers come first, sorted by
    value, and then all other names, sorted alphabetically.
    """
    different = set(names)
    if different <= set(classes):
        return tuple(name for name in classes if name in different)
    return tuple(sorted(different, key=lambda name: (_number(name) is None, _number(name) or 0.0, name)))


def _check_spelling(rows: LabelledRows, codes: Sequence[str]) -> None:
    """Raise DataError if two labels differ only in case, white space or Unicode composition."""
    seen: dict[str, str] = {}
    for code in codes:
        plain = " ".join(unicodedata.normalize("NFC", code).split()).casefold()
        other = seen.setdefault(plain, code)
        if other != code:
            raise DataError(
                f"{rows.first(code)}: the label {excerpt(code)} differs from {excerpt(other)} at {rows.first(other)} "
                "by case or white space alone; write them in one way"
            )


def check_enough_rows(rows: LabelledRows, space: LabelSpace, parts: int) -> None:
    """Raise DataError if a class has too few different texts to occur in the train part and in each held-out part.

    Args:
        rows: The rows of the train file.
        space: The label space of the file.
        parts: The number of parts that are held out.
    """
    if space.kind not in (TargetKind.BINARY, TargetKind.MULTICLASS) or parts == 0:
        return
    texts: defaultdict[str, set[str]] = defaultdict(set)
    for one in rows.examples:
        code = str(one.target)
        texts[space.decode.get(code, code)].add(one.text)
    rare = [name for name in space.names if len(texts[name]) <= parts]
    if not rare:
        return
    codes = {name: code for code, name in space.decode.items()}
    name = rare[0]
    ways = "add rows or give --dev and --test"
    if len(space.names) - len(rare) >= 2:
        ways += f", or leave it out: {' '.join(f'--ignore {excerpt(codes.get(one, one))}' for one in rare)}"
    number, what = len(texts[name]), "first text" if rows.examples[0].text_pair is not None else "text"
    raise DataError(
        f"{rows.first(codes.get(name, name))}: the label {excerpt(name)} has {number} different "
        f"{what}{'' if number == 1 else 's'}, too few for {parts + 1} parts (train and {parts} held out); {ways}"
    )
