"""Tables as values, and their rendering for a terminal and as Markdown."""

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
WORDS = 2
WIDTH_OF_LOGS = 200
"""The width of tables in characters if stdout is not a terminal, such as in logs and pipes."""


@dataclass(frozen=True)
class Sheet:
    """A table that is not rendered yet; its first two columns hold words, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def number(value: float | None, style: str = ".3f") -> str:
    """Format a number by a format specification such as ".3f"; None becomes a dash."""
    return NONE if value is None else format(value, style)


def span(summary: Summary | None, style: str) -> str:
    """Format the minimum and maximum of a summary, each by the format specification `style`; None becomes a dash."""
    return NONE if summary is None else f"{summary.low:{style}}–{summary.high:{style}}"


def show(sheets: Sequence[Sheet], lines: Sequence[str]) -> None:
    """Print tables and lines of text on stdout."""
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
    """Return a sheet as a table of the library rich, for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=sheet.title, title_justify="left", title_style="bold")
    for place, column in enumerate(sheet.columns):
        table.add_column(column, justify="left" if place < WORDS else "right")
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    return table


def as_markdown(sheet: Sheet) -> str:
    """Return a sheet as a table in GitHub Markdown."""
    rules = ["---" if place < WORDS else "---:" for place in range(len(sheet.columns))]
    lines = ["| " + " | ".join(cells) + " |" for cells in (sheet.columns, rules, *sheet.rows)]
    return "\n".join([f"**{sheet.title}**", "", *lines])
