"""Common parts of the command lines: parsing with our errors, exit codes, and the command as shown in reports."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

from alue_bench.contract.errors import AlueBenchError, TrainingError, UsageError

FOLDERS = re.compile(r"(^|=)[^=]*/(?=[^/])")
"""A pattern of the folders in an argument that is a path, that is, everything before the last part of the path."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` on misuse instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` with the parser's message."""
        raise UsageError(f"{message} (see --help)")


def check_written_files(options: argparse.Namespace) -> None:
    """Check that output files can be written, before hours of work.

    Raises:
        UsageError: The folder of an output file does not exist.
    """
    for option, file in (("--json", options.json), ("--markdown", options.markdown)):
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"{option} {file}: there is no such folder; create it first")


def shown_command(module: str, arguments: Sequence[str], folders: re.Pattern[str] = FOLDERS) -> str:
    """Return the command line with each path cut to its last part, since its folders exist on this machine only.

    Args:
        module: The name after `python -m`.
        arguments: The arguments.
        folders: A pattern of what is cut from an argument; its first group is kept.
    """
    return shlex.join(["python", "-m", module, *(folders.sub(r"\1", part) for part in arguments)])


def say(line: str) -> None:
    """Print a line about progress on stderr."""
    print(line, file=sys.stderr, flush=True)


def told(error: AlueBenchError) -> int:
    """Print an error in one sentence and return the exit code: 1 if a training failed, 2 for a user's mistake."""
    print(f"error: {error}", file=sys.stderr)
    return 1 if isinstance(error, TrainingError) else 2
