"""The content of a page before it becomes HTML or Markdown: sections of sentences, tables, pictures and matrices.

The classes only hold values. The code that creates them from runs writes no markup, and the templates that write the
markup see no runs. All strings are plain text, which the templates escape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from alue_bench.reporting.drawing import Picture

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
    """A column of a table."""

    label: str
    number: bool = True
    """True if the entries are numbers; they are then aligned to the right."""
    explained: str = ""
    """An explanation of the column's entries for the reader."""


@dataclass(frozen=True)
class Row:
    """A row of a table: its header (the text at its left end) and its entries."""

    header: str
    cells: Sequence[Cell]
    note: str = ""


@dataclass(frozen=True)
class RowGroup:
    """A group of rows below a heading that spans the table."""

    heading: str
    rows: Sequence[Row]
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """A table: groups of rows below one line of column headings."""

    caption: str
    corner: str
    """The heading of the first column, which holds the rows' headers."""
    columns: Sequence[Column]
    groups: Sequence[RowGroup]


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: the number of examples of each gold label (rows) with each predicted label (columns)."""

    caption: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]
    """The numbers of examples, indexed by `[gold label, predicted label]`."""

    def share(self, row: int, column: int) -> float:
        """Return the share of a gold label's examples that have a predicted label; 0 if the gold label has no examples.

        Args:
            row: The index of the gold label.
            column: The index of the predicted label.
        """
        total = sum(self.counts[row])
        return self.counts[row][column] / total if total else 0.0


@dataclass(frozen=True)
class Matrices:
    """A group of confusion matrices, side by side where there is room."""

    matrices: Sequence[Matrix]


@dataclass(frozen=True)
class Sentence:
    """A sentence that states a finding about a subject, such as a task with a model."""

    subject: str
    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text, which may be a warning."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Gallery:
    """A group of pictures, side by side where there is room."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Missing:
    """A notice that no runs exist for a part of the page, with the command that produces such runs."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class Facts:
    """A list of named facts, one per line."""

    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Folded:
    """A long part of the page that is hidden until the reader unfolds it; print and Markdown always show it."""

    summary: str
    items: Sequence[Item]


@dataclass(frozen=True)
class Findings:
    """A list of sentences, each stating a finding."""

    sentences: Sequence[Sentence]


Item = Findings | Paragraph | Table | Matrices | Gallery | Missing | Facts | Folded


@dataclass(frozen=True)
class Block:
    """A part of a section: the results of one data source, one kind of hardware and one number of folds."""

    heading: str
    """The data source, hardware and number of folds; empty if the page has only one block."""
    items: Sequence[Item]


@dataclass(frozen=True)
class Section:
    """A section of the page, with one `Block` for each set of comparable results."""

    anchor: str
    title: str
    blocks: Sequence[Block]
    intro: str = ""


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    lead: str
    """The line below the title, which says how many runs the page is about."""
    sections: Sequence[Section]
    notices: Sequence[str] = field(default_factory=tuple)
    """The warnings at the top of the page, for example that the runs used the embedded sample data."""
    footer: str = ""
