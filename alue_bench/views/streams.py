"""The two output streams of `run`, `sweep` and `search`: one for progress and remarks, one for results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType

from alue_bench.contract.registry import Registry
from alue_bench.messages.redaction import redact, redacted
from alue_bench.views.console import PlainConsole, print_document, remarks, results, silent


@dataclass(frozen=True)
class Streams:
    """The consoles of one call: progress and remarks go to stderr (`talk`), the result to stdout (`show`).

    With --json, stdout holds nothing but the document.
    """

    talk: PlainConsole
    show: PlainConsole
    as_json: bool = False

    @classmethod
    def of_command(cls, *, as_json: bool) -> Streams:
        """Return the streams of a command in a terminal."""
        return cls(remarks(), results(), as_json=as_json)

    @classmethod
    def of_call(cls, *, quiet: bool) -> Streams:
        """Return the streams of a call from Python. They print nothing if `quiet`."""
        return cls(silent(), silent()) if quiet else cls(remarks(), results())

    def warn_of_plugins(self, registry: Registry) -> None:
        """Warn of each plugin that could not be loaded."""
        for report in registry.failures():
            self.talk.print(f"warning: plugin {report.origin} failed: {report.problems[0]}", style="yellow")

    def warn(self, message: str) -> None:
        """Print a warning."""
        self.talk.print(f"warning: {redact(message)}", style="yellow")

    def result(self, view: RenderableType) -> None:
        """Show a result to people: on stdout, or with --json on stderr."""
        (self.talk if self.as_json else self.show).print(view)

    def document(self, document: Mapping[str, Any]) -> None:
        """Print the document on stdout if `--json` was given. Passwords are removed from it."""
        if self.as_json:
            print_document(redacted(dict(document)))
