"""The ledger: a JSON file with a benchmark's results, with which an interrupted benchmark continues.

It begins with the name of the benchmark, the version, the command, the date and the settings that results depend on.
Each result is written as soon as it is measured. If the same command is run again, it measures only the missing
results. A file with other settings than those of the command is refused, because its results are not comparable with
new ones.

Benchmarks whose results are runs in MLflow need no ledger, because they continue from the MLflow store. They write a
similar file with `write_json` at the end.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UsageError
from alue_bench.contract.version import __version__


class Ledger:
    """The results of a benchmark so far, kept in memory and, if a file is given, in that file."""

    def __init__(
        self,
        file: Path | None,
        benchmark: str,
        settings: Mapping[str, Any],
        command: str,
        *,
        instead: str = "another --json file",
        explained: Mapping[str, str] | None = None,
    ) -> None:
        """Read the results in the file, if it exists.

        Args:
            file: The file; None keeps results in memory only.
            benchmark: The name of the benchmark.
            settings: The settings that results must have in common to be comparable.
            command: The command line to show in the report.
            instead: The words for the thing that the user can name in place of a refused file, for the error message.
            explained: Descriptions of settings that are not command-line options, by the setting's name, for error
                messages.

        Raises:
            UsageError: The file is not from this benchmark, or its results have other settings than `settings`.
        """
        self.file = file
        self._instead, self._explained = instead, explained or {}
        given = json.loads(json.dumps(dict(settings), default=str))
        self.head = header(benchmark, command) | {"settings": given}
        self.content: dict[str, Any] = {}
        """The entries of the file after the header, by key, such as "measurements"."""
        if file is not None and file.exists():
            self.content = self._read(file)

    def document(self) -> dict[str, Any]:
        """Return the header and the results, as `write` writes them."""
        return {**self.head, **self.content}

    def write(self) -> None:
        """Write the header and the results to the file; do nothing if results are kept in memory only."""
        if self.file is not None:
            write_json(self.file, self.document())

    def foreign(self) -> UsageError:
        """Return the error to raise for a file that this benchmark did not write."""
        return UsageError(f"{self.file} was not written by this benchmark; choose {self._instead}")

    def _read(self, file: Path) -> dict[str, Any]:
        """Return the results in the file.

        Raises:
            UsageError: The file is not from this benchmark, or its results have other settings than this ledger.
        """
        try:
            content = json.loads(file.read_text("utf-8"))
            benchmark, recorded = content["benchmark"], dict(content["settings"])
        except (ValueError, TypeError, KeyError) as error:
            raise self.foreign() from error
        if benchmark != self.head["benchmark"]:
            raise self.foreign()
        given = self.head["settings"]
        differing = [name for name in {**recorded, **given} if recorded.get(name) != given.get(name)]
        if differing:
            names = ", ".join(self._explained.get(name, name) for name in differing)
            raise UsageError(
                f"{file} was measured with other settings ({names}), which are not comparable with these; "
                f"name {self._instead} to measure everything anew"
            )
        return {name: value for name, value in content.items() if name not in self.head}


def header(benchmark: str, command: str) -> dict[str, Any]:
    """Return the first entries of a file of results: the benchmark, the version, the command line and the date."""
    today = datetime.now(UTC).date().isoformat()
    return {"benchmark": benchmark, "version": __version__, "command": command, "date": today}


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a document atomically, so that an interruption leaves no incomplete file.

    Numbers that are not finite become null, since JSON has no NaN.
    """
    text = json.dumps(_finite(content), ensure_ascii=False, indent=1, allow_nan=False)
    scratch = file.with_name(f".{file.name}.part")
    scratch.write_text(text + "\n", encoding="utf-8")
    os.replace(scratch, file)


def _finite(value: Any) -> Any:
    """Return the value with None in place of every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
