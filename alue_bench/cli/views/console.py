"""The one way onto the terminal: every command prints through it, and every text is shown as it is written.

rich reads markup in square brackets and emoji names between colons, colours what looks like a number or a path, and
breaks long lines. Titles, labels, folders and causes of errors come from outside, and none of that is meant: the
consoles of this module interpret nothing. A line of text is never broken, so that paths and commands can be copied;
only tables are fitted to the terminal. Colours are given as styles: `styled(text, "red")`, or `style=` of `print`.

    remarks().print(f"warning: {cause}", style="yellow")     stderr: progress, remarks, errors
    results().print(view)                                    stdout: tables and other results, for people
    print_document(value)                                    stdout: JSON, for programs
    print_exactly(text)                                      stdout: CSV, Markdown, LaTeX, for programs
"""

from __future__ import annotations

import json
import os
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import Task, TextColumn
from rich.text import Text

from alue_bench.cli.views.standard_output import takes_any_letter, write_exactly
from alue_bench.messages.display import visible

LOG_WIDTH = 120
"""Columns of a table in logs and pipes, which have no width of their own: most tables stay in one piece."""


class PlainConsole(Console):
    """A console that shows every text as it is written."""

    def __init__(self, *, width: int | None = None, **options: Any) -> None:
        super().__init__(width=width, markup=False, emoji=False, highlight=False, soft_wrap=True, **options)
        if width is None and "COLUMNS" not in os.environ and not self.is_terminal:
            self.width = LOG_WIDTH

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text of a line, a cell or a title."""
        return super().render_str(visible(text), **options)

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the command's end, as with any other output."""
        raise BrokenPipeError


class PlainColumn(TextColumn):
    """A column of a progress bar that shows its text as it is written."""

    def __init__(self, template: str) -> None:
        super().__init__(template, markup=False)

    def render(self, task: Task) -> Text:
        return styled(self.text_format.format(task=task))


def results() -> PlainConsole:
    """Return the console of a command's results: stdout."""
    return PlainConsole()


def remarks() -> PlainConsole:
    """Return the console of progress, remarks and errors: stderr."""
    return PlainConsole(stderr=True)


def styled(text: str, style: str = "") -> Text:
    """Return a text in a style, shown as it is written."""
    return Text(visible(text), style=style)


def print_document(value: object) -> None:
    """Print JSON on stdout. Letters that its encoding does not have are escaped as JSON does it."""
    print_exactly(json.dumps(value, ensure_ascii=not takes_any_letter(), indent=2) + "\n")


def print_exactly(text: str) -> None:
    """Print a text for programs on stdout, character by character."""
    write_exactly(text)
