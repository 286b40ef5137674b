"""What a page is made of, before it becomes HTML or Markdown: sections of sentences, tables, pictures and matrices.

Plain values: whoever fills them knows nothing of markup, and the templates know nothing of runs. Text in them is text;
the templates escape it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from alue_bench.report.drawing import Picture

Tone = Literal["", "good", "bad", "muted", "strong"]


@dataclass(frozen=True)
class Cell:
    """One entry of a table."""

    text: str
    tone: Tone = ""
    detail: str = ""
    """A second, smaller line, such as an interval below a mean."""


@dataclass(frozen=True)
class Column:
    """A column of a table and what its entries mean."""

    label: str
    number: bool = True
    """Numbers stand to the right, below each other."""
    explained: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table: what it is about, and its entries."""

    header: str
    cells: Sequence[Cell]
    note: str = ""


@dataclass(frozen=True)
class RowGroup:
    """Rows below a heading that spans the table."""

    heading: str
    rows: Sequence[Row]
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """Rows in groups below one line of column headings."""

    caption: str
    corner: str
    """Heading of the rows' own headers."""
    columns: Sequence[Column]
    groups: Sequence[RowGroup]


@dataclass(frozen=True)
class Matrix:
    """How often each gold label (rows) was predicted as each label (columns)."""

    caption: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]
    """[gold, predicted]"""

    def share(self, row: int, column: int) -> float:
        """Of the examples with this gold label, the part predicted so; 0 where there are none."""
        total = sum(self.counts[row])
        return self.counts[row][column] / total if total else 0.0


@dataclass(frozen=True)
class Matrices:
    """Confusion matrices side by side where there is room."""

    matrices: Sequence[Matrix]


@dataclass(frozen=True)
class Sentence:
    """A finding, and what it is about."""

    subject: str
    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Paragraph:
    text: str
    warning: bool = False


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side where there is room."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Missing:
    """A part for which there are no runs, and the command that makes them."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class Facts:
    """Named facts, one a line."""

    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Folded:
    """Something long, shown on demand; always shown in print and in Markdown."""

    summary: str
    items: Sequence[Item]


@dataclass(frozen=True)
class Findings:
    """Sentences in a list."""

    sentences: Sequence[Sentence]


Item = Findings | Paragraph | Table | Matrices | Gallery | Missing | Facts | Folded


@dataclass(frozen=True)
class Block:
    """Results that compare with each other: of the same data source, protocol and hardware."""

    heading: str
    """What its results have in common; empty where the page has but one block."""
    items: Sequence[Item]


@dataclass(frozen=True)
class Section:
    anchor: str
    title: str
    blocks: Sequence[Block]
    intro: str = ""


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    lead: str
    """One line below the title: what and how much is on the page."""
    sections: Sequence[Section]
    notices: Sequence[str] = field(default_factory=tuple)
    """What a reader must know before the first number, such as that the data are a sample."""
    footer: str = ""
