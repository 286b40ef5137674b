"""Readers of files in which each word has a tag: text in columns, as in CoNLL's shared tasks, and JSON lines.

Both yield an example for each sentence. If a line of a sentence cannot be used, the sentence becomes one bad row with
the number of this line. A tag I-TYPE without an entity of this type before it is not an error: the metrics treat it as
the beginning of an entity, and `alue-bench data verify` counts such tags.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alue_bench.contract.errors import DataError
from alue_bench.contract.formats import BadRow, Example, csv_text, excerpt, read_lines, unknown_label
from alue_bench.contract.validation import Kind, check_mapping, check_types


@dataclass(frozen=True, kw_only=True)
class TaggedColumns:
    r"""A reader of files with one word on each line, its tag in another column, and a blank line after each sentence.

    >>> TaggedColumns()                                # word tag
    >>> TaggedColumns(separator="\t", word=1, tag=3, comment="# ")   # CoNLL-U: the universal part of speech
    >>> TaggedColumns(tag=-1)                          # CoNLL 2003: the last of four columns

    Other columns are not read, and lines may have different numbers of columns.
    """

    word: int = 0
    """The position of the column of words, from 0; negative positions count from the end (-1 is the last column)."""
    tag: int = 1
    """The position of the column of tags, counted like `word`."""
    separator: str | None = None
    """The text between two columns; None for any number of spaces and tabs."""
    comment: str | None = None
    """The text at the beginning of comment lines, which are not read; None if there are no comment lines. The default
    is not "#", because a word may begin with it."""
    document: str = "-DOCSTART-"
    """The word on lines that separate documents. Such a line ends a sentence and is left out. Empty if there are none.
    """
    decode: Mapping[str, str] = field(default_factory=dict)
    """The tag for each code in the file; empty if the file contains the tags themselves."""
    labels: tuple[str, ...] | None = None
    """The permitted tags; None permits every tag. A sentence with any other tag is a bad row. A plugin need not set
    this field, because a task sets it from `Task.labels`."""

    def __post_init__(self) -> None:
        """Check the type and value of each field."""
        nothing = type(None)
        kinds: dict[str, Kind] = {
            "word": int, "tag": int, "separator": (str, nothing), "comment": (str, nothing), "document": str,
            "labels": (tuple, nothing),
        }  # fmt: skip
        check_types("TaggedColumns", vars(self), kinds)
        check_mapping("TaggedColumns", vars(self), "decode")
        if self.word == self.tag:
            raise ValueError(f"TaggedColumns: column {self.word} cannot be both the word and the tag")
        for name in ("separator", "comment"):
            if getattr(self, name) == "":
                raise ValueError(f"TaggedColumns: {name} is empty; leave it out, or name a text")

    def __call__(self, path: Path) -> Iterator[Example | BadRow]:
        """Yield each sentence of the file `path` as an example, or as a bad row if it cannot be used; see `Reader`."""
        lines, undecodable = read_lines(path)
        sentence = _Sentence()
        number = 0
        for line, text in enumerate([*lines, ""], start=1):
            if self.comment is not None and text.startswith(self.comment):
                continue
            cells = self._cells(text)
            if cells and not (self.document and self._word(cells) == self.document):
                self._add(sentence, line, cells, undecodable)
                continue
            if (row := sentence.row(number)) is not None:
                yield row
                number, sentence = number + 1, _Sentence()
        if not number:
            raise DataError(f"{path}: the file has no sentences")

    def _cells(self, line: str) -> list[str]:
        """Return the cells of a line; an empty list if the line is blank."""
        if not line.strip():
            return []
        if self.separator is not None:
            return line.split(self.separator)
        # Other kinds of space, such as the no-break space, are part of words.
        return [cell for cell in line.replace("\t", " ").split(" ") if cell]

    def _word(self, cells: Sequence[str]) -> str | None:
        return cells[self.word] if -len(cells) <= self.word < len(cells) else None

    def _add(self, sentence: _Sentence, line: int, cells: Sequence[str], undecodable: Mapping[int, int]) -> None:
        """Add the word and the tag of a line to a sentence, or the reason why the line cannot be used.

        Args:
            sentence: The sentence to which the line belongs.
            line: The number of the line, from 1.
            cells: The cells of the line.
            undecodable: The lines of the file that are not valid UTF-8, from `read_lines`.
        """
        last = len(cells)
        missing = next((c for c in (self.word, self.tag) if not -last <= c < last), None)
        if line in undecodable:
            sentence.refuse(line, f"not valid UTF-8 (byte {undecodable[line]} of line {line})")
        elif any("\0" in cell for cell in cells):
            sentence.refuse(line, "holds a NUL character: the file is damaged, or not UTF-8 text")
        elif missing is not None:
            what = "word" if missing == self.word else "tag"
            sentence.refuse(line, f"no {what}: column {missing} (from 0) is missing in {excerpt(' '.join(cells))}")
        else:
            sentence.add(line, cells[self.word], cells[self.tag], self)


@dataclass(frozen=True, kw_only=True)
class TaggedJson:
    """A reader of JSON lines: each line is an object with a list of words and a list of the same number of tags.

    >>> TaggedJson(words="tokens", tags="ner_tags", decode={"0": "O", "1": "B-PER", "2": "I-PER"})
    """

    words: str = "tokens"
    """The key of the list of words."""
    tags: str = "tags"
    """The key of the list of tags, which are strings or whole numbers."""
    id: str | None = None
    """The key of the example's identifier; None to use the number of the line, counted from 0."""
    decode: Mapping[str, str] = field(default_factory=dict)
    """The tag for each code in the file, such as {"0": "O"}; empty if the file contains the tags themselves."""
    labels: tuple[str, ...] | None = None
    """The permitted tags; None permits every tag. A sentence with any other tag is a bad row. A plugin need not set
    this field, because a task sets it from `Task.labels`."""

    def __post_init__(self) -> None:
        """Check the type of each field."""
        nothing = type(None)
        check_types(
            "TaggedJson", vars(self), {"words": str, "tags": str, "id": (str, nothing), "labels": (tuple, nothing)}
        )
        check_mapping("TaggedJson", vars(self), "decode")

    def __call__(self, path: Path) -> Iterator[Example | BadRow]:
        """Yield each line of the file `path` as an example, or as a bad row if it cannot be used; see `Reader`."""
        lines, undecodable = read_lines(path)
        for line, text in enumerate(lines, start=1):
            if line in undecodable:
                yield BadRow(line, f"not valid UTF-8 (byte {undecodable[line]} of line {line})")
            else:
                yield self._row(line, text)

    def _row(self, line: int, text: str) -> Example | BadRow:
        """Return the sentence on a line as an example, or as a bad row with the reason why it cannot be used."""
        if not text.strip():
            return BadRow(line, "empty line")
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            return BadRow(line, f"not valid JSON: {error}")
        if not isinstance(content, dict):
            return BadRow(line, "not a JSON object, such as {...}")
        lists = []
        for key in (self.words, self.tags):
            given = content.get(key)
            if not isinstance(given, list):
                return BadRow(line, f"{excerpt(key)} is missing" if given is None else f"{excerpt(key)} is not a list")
            lists.append(given)
        words, tags = lists
        if len(words) != len(tags):
            return BadRow(line, f"{len(words)} words, but {len(tags)} tags")
        if self.id is not None and self.id not in content:
            return BadRow(line, f"{excerpt(self.id)} is missing")
        sentence = _Sentence()
        for word, tag in zip(words, tags, strict=True):
            if not isinstance(word, str) or not isinstance(tag, str | int):
                return BadRow(line, f"{excerpt(repr(word))} with {excerpt(repr(tag))} is not a word with a tag")
            sentence.add(line, word, csv_text(tag), self)
        row = sentence.row(line - 1, None if self.id is None else csv_text(content[self.id]))
        return BadRow(line, "no words") if row is None else row


@dataclass
class _Sentence:
    """The words and tags of a sentence that is being read."""

    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    line: int = 0
    """The line of the first word; 0 if there is no word yet."""
    bad: BadRow | None = None
    """The first line that cannot be used, with the reason; None if all lines so far can be used."""

    def add(self, line: int, word: str, code: str, read: TaggedColumns | TaggedJson) -> None:
        """Add a word and its tag, or note why they cannot be used.

        Args:
            line: The number of the line with the word.
            word: The word; a blank word cannot be used.
            code: The tag as written in the file.
            read: The reader, whose fields `decode` and `labels` determine the tag.
        """
        tag = read.decode.get(code) if read.decode else code
        if not word.strip():
            self.refuse(line, "a word is empty")
        elif tag is None or not tag or (read.labels is not None and tag not in read.labels):
            self.refuse(line, f"word {excerpt(word)}: {unknown_label(code, tag, read.decode, read.labels)}")
        else:
            self.line = self.line or line
            self.words.append(word)
            self.tags.append(tag)

    def refuse(self, line: int, reason: str) -> None:
        """Note that a line of the sentence cannot be used; only the first such line is reported."""
        self.bad = self.bad or BadRow(line, reason)

    def row(self, number: int, identifier: str | None = None) -> Example | BadRow | None:
        """Return the sentence as an example, or as a bad row if one of its lines cannot be used; None if it is empty.

        Args:
            number: The number of the sentence in the file, from 0.
            identifier: The identifier of the example; None to use `number`.
        """
        if self.bad is not None or not self.words:
            return self.bad
        words = tuple(self.words)
        name = str(number) if identifier is None else identifier
        return Example(name, " ".join(words), None, tuple(self.tags), self.line, words)


def tags_without_beginning(tags: Sequence[str]) -> int:
    """Return the number of tags I-TYPE in a sentence that follow neither B-TYPE nor I-TYPE of the same type."""
    before, count = "", 0
    for tag in tags:
        count += tag.startswith("I-") and before[2:] != tag[2:]
        before = tag
    return count


def is_tagged(row: Example) -> bool:
    """Return whether an example has words and the same number of tags, as tasks with `Labels.tokens` require."""
    return isinstance(row.words, tuple) and isinstance(row.target, tuple) and len(row.words) == len(row.target)
