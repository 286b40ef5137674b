"""The selection of the columns of a data file that hold the text, the second text, the label and the identifier."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alue_bench.contract.errors import DataError
from alue_bench.contract.formats import excerpt, missing_column, name_list
from alue_bench.data.file_task.options import FileOptions

TEXTS = (
    "text", "texts", "sentence", "tweet", "content", "comment", "review", "message", "document", "utterance",
    "النص", "نص", "التغريدة", "تغريدة", "الجملة", "التعليق",
)  # fmt: skip
"""The usual names of a column of texts, if an example is a single text."""
PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("text_a", "text_b"),
    ("text1", "text2"), ("sentence_a", "sentence_b"), ("query", "passage"), ("question", "sentence"),
)  # fmt: skip
"""The usual names of the two text columns, if an example is a pair of texts."""
LABELS = (
    "label", "labels", "class", "category", "target", "sentiment", "emotion", "topic", "intent", "dialect",
    "gold_label", "التصنيف", "الفئة", "الصنف",
)  # fmt: skip
"""The usual names of a column of labels."""
IDS = ("id", "idx", "guid", "uid", "example_id", "الرقم")
"""The usual names of a column of identifiers."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that a task reads from a file, by their names in the file."""

    text: str
    pair: str | None
    """The column of the second text; None if an example is a single text."""
    labels: tuple[str, ...]
    """The column of the label; or, for a multi-label task, one column for each label, which holds 0 or 1."""
    id: str | None
    """The column of the identifiers; None to count the rows instead."""
    guessed: tuple[str, ...] = ()
    """The purposes ("text", "pair", "label", "id") whose column was guessed from its name, not stated by the user."""

    def without_id(self) -> Columns:
        """Return a copy without the column of identifiers."""
        return replace(self, id=None, guessed=tuple(purpose for purpose in self.guessed if purpose != "id"))

    def describe(self, all_columns: Sequence[str]) -> str:
        """Return a note that states the purpose of each column that is read, and the columns that are not read.

        Args:
            all_columns: The names of all columns of the file.
        """
        named: dict[str, list[str | None]] = {
            "text": [self.text], "pair": [self.pair], "label": [*self.labels], "id": [self.id],
        }  # fmt: skip
        uses = [
            f"{purpose} = {', '.join(excerpt(str(name), quote=False) for name in names)}"
            + (" (guessed)" if purpose in self.guessed else "")
            for purpose, names in named.items()
            if names != [None]
        ]
        used = {self.text, self.pair, self.id, *self.labels}
        others = [excerpt(name, quote=False) for name in all_columns if name not in used]
        return f"columns: {'; '.join(uses)}" + (f"; not read: {name_list(others)}" if others else "")


def chosen_columns(path: Path, columns: Sequence[str], options: FileOptions) -> Columns:
    """Return the columns to read: columns that the options name, or columns whose usual names reveal their purpose.

    Args:
        path: The path of the data file, for error messages.
        columns: The names of all columns of the file.
        options: The user's options.

    Raises:
        DataError: A named column does not exist, or the column of the text or of the label cannot be guessed because
            none or several of the file's columns have a usual name for it.
    """
    for name in (options.text, options.pair, options.id, *options.label):
        if name is not None and name not in columns:
            raise DataError(f"{path}: {missing_column(name, columns)}")
    guessed: list[str] = []
    named = [name for name in (options.text, options.pair, options.id, *options.label) if name is not None]
    free = [name for name in columns if name not in named]
    text, pair = options.text, options.pair
    if text is None:
        text, other = _guessed_texts(path, free, alone=pair is not None)
        guessed.append("text")
        if other is not None:
            pair = other
            guessed.append("pair")
    labels = options.label
    if not labels:
        labels = (_guessed_label(path, [name for name in free if name not in (text, pair)]),)
        guessed.append("label")
    identifier = options.id
    if identifier is None and len(matches := _with_usual_names(IDS, free)) == 1:
        (identifier,) = matches
        guessed.append("id")
    return Columns(text=text, pair=pair, labels=labels, id=identifier, guessed=tuple(guessed))


def _normalised(name: str) -> str:
    return name.strip().casefold()


def _with_usual_names(usual: Iterable[str], columns: Sequence[str]) -> list[str]:
    """Return the column names that are among the usual names for a purpose, such as "text"."""
    return [name for name in dict.fromkeys(columns) if _normalised(name) in usual]


def _guessed_texts(path: Path, columns: Sequence[str], *, alone: bool) -> tuple[str, str | None]:
    """Guess the text column and the column of the second text; the latter is None if an example is a single text.

    Args:
        path: The path of the data file, for error messages.
        columns: The names of the columns whose purpose the options do not state.
        alone: Whether to guess the text column only, because the options name the column of the second text.
    """
    by_name = {_normalised(name): name for name in columns}
    pairs = [] if alone else [(by_name[a], by_name[b]) for a, b in PAIRS if a in by_name and b in by_name]
    in_pairs = {name for pair in pairs for name in pair}
    single = [name for name in _with_usual_names(TEXTS, columns) if name not in in_pairs]
    if len(pairs) == 1 and not single:
        return pairs[0]
    if len(single) == 1 and not pairs:
        return single[0], None
    raise DataError(
        _which_column_message(path, columns, [*(" and ".join(pair) for pair in pairs), *single], "the text", "--text")
    )


def _guessed_label(path: Path, columns: Sequence[str]) -> str:
    matching = _with_usual_names(LABELS, columns)
    if len(matching) != 1:
        raise DataError(_which_column_message(path, columns, matching, "the label", "--label"))
    return matching[0]


def _which_column_message(path: Path, columns: Sequence[str], matching: Sequence[str], purpose: str, flag: str) -> str:
    names = name_list([excerpt(name, quote=False) for name in (matching or columns)], limit=30)
    if matching:
        return f"{path}: several columns may hold {purpose}: {names}; name it with {flag} COLUMN"
    return f"{path}: no column has a usual name for {purpose}; name it with {flag} COLUMN, one of {names}"
