"""The output streams of the commands `run`, `sweep` and `search`: one for progress and remarks, one for results."""

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
    """The two consoles of a command: `stderr` prints progress and remarks on stderr, `stdout` the result on stdout.

    With the option --json, nothing but a JSON document is printed on stdout.
    """

    stderr: PlainConsole
    stdout: PlainConsole
    as_json: bool = False

    @classmethod
    def of_command(cls, *, as_json: bool) -> Streams:
        """Return the output streams (consoles) for a command that is called from a shell."""
        return cls(remarks(), results(), as_json=as_json)

    @classmethod
    def of_call(cls, *, quiet: bool) -> Streams:
        """Return the output streams (consoles) for a call from Python. They print nothing if `quiet` is True."""
        return cls(silent(), silent()) if quiet else cls(remarks(), results())

    def warn_of_plugins(self, registry: Registry) -> None:
        """Print a warning for each plugin that could not be loaded."""
        for report in registry.failures():
            self.stderr.print(f"warning: plugin {report.origin} failed: {report.problems[0]}", style="yellow")

    def warn(self, message: str) -> None:
        """Print a warning on the console for progress and remarks."""
        self.stderr.print(f"warning: {redact(message)}", style="yellow")

    def result(self, view: RenderableType) -> None:
        """Print a result for people: on stdout, or on stderr with the option --json."""
        (self.stderr if self.as_json else self.stdout).print(view)

    def document(self, document: Mapping[str, Any]) -> None:
        """Print a JSON document on stdout if the option --json was given. Passwords are removed first."""
        if self.as_json:
            print_document(redacted(dict(document)))
