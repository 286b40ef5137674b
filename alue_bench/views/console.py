"""The consoles (output objects of the package rich) through which all commands print. They show every text literally.

By default, rich interprets markup in square brackets and emoji names between colons, colours numbers and paths, and
breaks long lines. Titles, labels, folder names and error messages come from users and plugins and must not be
interpreted, so the consoles of this module switch all of this off. A line of text is never broken, so that paths and
commands can be copied; only tables are fitted to the terminal. For colours, use `styled(text, "red")` or the argument
`style=` of `print`.

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

from alue_bench.messages.display import visible
from alue_bench.views.standard_output import can_encode_all_characters, write_exactly

LOG_WIDTH = 120
"""The width, in characters, of tables in logs and pipes, where no terminal gives a width. Most tables fit into it."""


class PlainConsole(Console):
    """A console (output object of the package rich) that shows every text literally, without markup."""

    def __init__(self, *, width: int | None = None, **options: Any) -> None:
        """Create a console that shows every text literally.

        Args:
            width: The width in characters; None for the terminal's width.
            **options: Further arguments of `rich.console.Console`.
        """
        super().__init__(width=width, markup=False, emoji=False, highlight=False, soft_wrap=True, **options)
        if width is None and "COLUMNS" not in os.environ and not self.is_terminal:
            self.width = LOG_WIDTH

    @property
    def is_live(self) -> bool:
        """True if printed output can be updated in place, like a progress bar.

        Such updates are possible on a terminal and in a notebook.
        """
        return (self.is_terminal or self.is_jupyter) and not self.quiet

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string (a line, a table entry or a title) for rich, with control characters made visible."""
        return super().render_str(visible(text), **options)

    def on_broken_pipe(self) -> NoReturn:
        """Raise BrokenPipeError, which the command line's `main` handles; rich itself would end the process."""
        raise BrokenPipeError


class PlainColumn(TextColumn):
    """A column of a progress bar that shows its text literally."""

    def __init__(self, template: str) -> None:
        """Create the column from the format string of its text."""
        super().__init__(template, markup=False)

    def render(self, task: Task) -> Text:
        """Return the text that the column shows for a task, that is, for one bar of the display."""
        return styled(self.text_format.format(task=task))


def results() -> PlainConsole:
    """Return the console for a command's results, which prints on stdout."""
    return PlainConsole()


def remarks() -> PlainConsole:
    """Return the console for progress, remarks and errors, which prints on stderr."""
    return PlainConsole(stderr=True)


def silent() -> PlainConsole:
    """Return a console whose `print` prints nothing."""
    return PlainConsole(quiet=True)


def styled(text: str, style: str = "") -> Text:
    """Return a string in a style such as "bold red", for printing on a console. Markup in it is not interpreted."""
    return Text(visible(text), style=style)


def print_document(value: object) -> None:
    """Print a value as JSON on stdout, with JSON escapes if stdout's encoding cannot represent all characters."""
    print_exactly(json.dumps(value, ensure_ascii=not can_encode_all_characters(), indent=2) + "\n")


def print_exactly(text: str) -> None:
    """Print a string unchanged on stdout, such as CSV for another program."""
    write_exactly(text)
