"""Tables of a report, and their rendering for a terminal and as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from benchmarks.timing.comparison import Summary

NONE = "–"
"""The text for a missing value."""
WORDS = 2
"""The number of columns on the left that hold words; the columns to their right hold numbers."""
WIDTH_OF_LOGS = 200
"""The width of tables in characters if stdout is not a terminal, such as in logs and pipes."""


@dataclass(frozen=True)
class Sheet:
    """A table before rendering: the first `WORDS` columns hold words, the others formatted numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def number(value: float | None, style: str = ".3f") -> str:
    """Format a number according to a format specification such as ".3f"; return a dash for None."""
    return NONE if value is None else format(value, style)


def span(summary: Summary | None, style: str) -> str:
    """Format the range from minimum to maximum, both according to the format `style`; return a dash for None."""
    return NONE if summary is None else f"{summary.low:{style}}–{summary.high:{style}}"


def show(sheets: Sequence[Sheet], lines: Sequence[str]) -> None:
    """Print tables and lines of text on stdout; tables are printed as Markdown if the library rich is missing."""
    try:
        screen = _console()
    except ModuleNotFoundError:  # a machine without rich
        print("\n\n".join([*map(as_markdown, sheets), *lines]))
        return
    for sheet in sheets:
        screen.print(as_rich(sheet))
    screen.print("\n".join(lines), markup=False, highlight=False)


def write_page(file: Path | None, sheets: Sequence[Sheet], lines: Sequence[str]) -> None:
    """Write tables and lines of text to a Markdown file, unless `file` is None."""
    if file is not None:
        file.write_text("\n\n".join([*map(as_markdown, sheets), *lines]) + "\n", encoding="utf-8")


def _console() -> Console:
    """Return a rich console for stdout."""
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH_OF_LOGS)


def as_rich(sheet: Sheet) -> Table:
    """Convert a sheet to a table of the library rich, for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=sheet.title, title_justify="left", title_style="bold")
    for index, column in enumerate(sheet.columns):
        table.add_column(column, justify="left" if index < WORDS else "right")
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    return table


def as_markdown(sheet: Sheet) -> str:
    """Convert a sheet to a table in GitHub Markdown, below its title."""
    rules = ["---" if index < WORDS else "---:" for index in range(len(sheet.columns))]
    lines = ["| " + " | ".join(cells) + " |" for cells in (sheet.columns, rules, *sheet.rows)]
    return "\n".join([f"**{sheet.title}**", "", *lines])
