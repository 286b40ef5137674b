"""The content of a report page before it becomes HTML or Markdown: sections of sentences, tables, pictures and so on.

These classes only hold values. Other modules create the values from runs, and templates convert them to HTML or
Markdown. All strings are plain text, which the templates escape.
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
    """A second line in smaller print, such as the confidence interval below a mean."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    label: str
    number: bool = True
    """True if the entries are numbers, which are aligned to the right."""
    explained: str = ""
    """An explanation of the column for the reader."""


@dataclass(frozen=True)
class Row:
    """A row of a table: its header, that is, the text at the left end, and its entries."""

    header: str
    cells: Sequence[Cell]
    note: str = ""


@dataclass(frozen=True)
class RowGroup:
    """A group of table rows below a heading that has the whole width of the table."""

    heading: str
    rows: Sequence[Row]
    remark: str = ""


@dataclass(frozen=True)
class ReportTable:
    """A table: one line of column headings, and below it groups of rows."""

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
    """The number of examples for each pair of labels, as `counts[gold][predicted]`."""

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
    """A group of confusion matrices, shown side by side if the page is wide enough."""

    matrices: Sequence[Matrix]


@dataclass(frozen=True)
class Sentence:
    """A sentence that states a result about a subject, such as a task with a model."""

    subject: str
    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text, either ordinary or a warning."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Gallery:
    """A group of pictures, shown side by side if the page is wide enough."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Missing:
    """A notice that there are no runs for a part of the page, with a command that produces such runs."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class Facts:
    """A list of facts as pairs of (name, value), shown one per line."""

    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Folded:
    """A long part of the page that is hidden until the reader unfolds it. Printed pages and Markdown always show it."""

    summary: str
    items: Sequence[Item]


@dataclass(frozen=True)
class Findings:
    """A list of sentences, each of which states a result."""

    sentences: Sequence[Sentence]


Item = Findings | Paragraph | ReportTable | Matrices | Gallery | Missing | Facts | Folded


@dataclass(frozen=True)
class Block:
    """A part of a section: the results with one data source, one kind of hardware and one number of folds."""

    heading: str
    """The data source, hardware and number of folds; empty if they are the same for all runs of the page."""
    items: Sequence[Item]


@dataclass(frozen=True)
class Section:
    """A section of the page. Its blocks separate results with different data sources, hardware or numbers of folds."""

    anchor: str
    title: str
    blocks: Sequence[Block]
    intro: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report page."""

    title: str
    lead: str
    """The line below the title, which states the experiment and the number of runs that the page shows."""
    sections: Sequence[Section]
    notices: Sequence[str] = field(default_factory=tuple)
    """The warnings at the top of the page, for example that the runs used the embedded sample data."""
    footer: str = ""
