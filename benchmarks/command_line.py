"""What the commands have in common: how misuse is told, how a stop is taken, how the command is shown again."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

from alue_bench.contract.errors import AlueBenchError, TrainingError, UsageError

FOLDERS = re.compile(r"(^|=)[^=]*/(?=[^/])")
"""All of an argument that stands before the last part of a path."""


class Parser(argparse.ArgumentParser):
    """Misuse is an AlueBenchError."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see --help)")


def check_written_files(options: argparse.Namespace) -> None:
    """Before hours of work, not after them."""
    for option, file in (("--json", options.json), ("--markdown", options.markdown)):
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"{option} {file}: there is no such folder; create it first")


def shown_command(module: str, arguments: Sequence[str], folders: re.Pattern[str] = FOLDERS) -> str:
    """The command line, with each path cut to its last part: the folders above it are this machine's own.

    folders: what is cut, but for its first group.
    """
    return shlex.join(["python", "-m", f"benchmarks.{module}", *(folders.sub(r"\1", part) for part in arguments)])


def told(error: AlueBenchError) -> int:
    """Says it in one sentence. Returns the exit code: 1 where a training failed, 2 where the user must mend it."""
    print(f"error: {error}", file=sys.stderr)
    return 1 if isinstance(error, TrainingError) else 2
