"""Tables before they are drawn, and how they are drawn: for a terminal, and as a page of Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from benchmarks.comparison import Summary

NONE = "–"
WORDS = 2
WIDTH_OF_LOGS = 200
"""Logs and pipes have no width of their own; tables take what they need of this."""


@dataclass(frozen=True)
class Sheet:
    """A table before it is drawn; the first two columns hold words, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def number(value: float | None, style: str = ".3f") -> str:
    return NONE if value is None else format(value, style)


def span(found: Summary | None, style: str) -> str:
    return NONE if found is None else f"{found.low:{style}}–{found.high:{style}}"


def show(sheets: Sequence[Sheet], lines: Sequence[str]) -> None:
    """On stdout."""
    try:
        screen = console(sys.stdout)
    except ModuleNotFoundError:  # a bare machine
        print("\n\n".join([*map(as_markdown, sheets), *lines]))
        return
    for sheet in sheets:
        screen.print(as_rich(sheet))
    screen.print("\n".join(lines), markup=False, highlight=False)


def write_page(file: Path | None, sheets: Sequence[Sheet], lines: Sequence[str]) -> None:
    """Where a file is asked for."""
    if file is not None:
        file.write_text("\n\n".join([*map(as_markdown, sheets), *lines]) + "\n", encoding="utf-8")


def console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else WIDTH_OF_LOGS)


def as_rich(sheet: Sheet) -> Table:
    """For a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=sheet.title, title_justify="left", title_style="bold")
    for place, column in enumerate(sheet.columns):
        table.add_column(column, justify="left" if place < WORDS else "right")
    for row in sheet.rows:
        table.add_row(*map(Text, row))
    return table


def as_markdown(sheet: Sheet) -> str:
    """For GitHub."""
    rules = ["---" if place < WORDS else "---:" for place in range(len(sheet.columns))]
    lines = ["| " + " | ".join(cells) + " |" for cells in (sheet.columns, rules, *sheet.rows)]
    return "\n".join([f"**{sheet.title}**", "", *lines])
