"""Common parts of the benchmarks' command lines: parsing, exit codes, and the command line as shown in reports."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from alue_bench.contract.errors import AlueBenchError, TrainingError, UsageError

FOLDERS = re.compile(r"(^|=)[^=]*/(?=[^/])")
"""The pattern of the part of a path argument that reports leave out: everything before the path's last part."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError` on misuse instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` with the parser's message."""
        raise UsageError(f"{message} (see --help)")


def check_written_files(options: argparse.Namespace) -> None:
    """Check, before hours of work, that the folders of the output files exist.

    Args:
        options: The parsed options, of which `json` and `markdown` are the output files; None means that there is none.

    Raises:
        UsageError: The folder of an output file does not exist.
    """
    for option, file in (("--json", options.json), ("--markdown", options.markdown)):
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"{option} {file}: there is no such folder; create it first")


def shown_command(module: str, arguments: Sequence[str], folders: re.Pattern[str] = FOLDERS) -> str:
    """Return the command line for a report, with each path cut to its last part, since folders differ by machine.

    Args:
        module: The name of the module that `python -m` runs, perhaps followed by further words, such as
            "benchmarks.verdicts searches".
        arguments: The module's command-line arguments.
        folders: The pattern of the text to remove from each argument. Text that matches its first group stays.
    """
    return shlex.join(["python", "-m", *module.split(), *(folders.sub(r"\1", part) for part in arguments)])


def say(line: str) -> None:
    """Print a line about progress on stderr."""
    print(line, file=sys.stderr, flush=True)


def run_command(
    parser: Parser,
    arguments: Sequence[str] | None,
    work: Callable[[argparse.Namespace, str], int],
    folders: re.Pattern[str] = FOLDERS,
) -> int:
    """Parse a command line, do the work, and return the exit code.

    An `AlueBenchError` is printed on stderr as one sentence. The exit code is then 1 for a `TrainingError` (a training
    failed) and 2 for any other error.

    Args:
        parser: The parser, whose `prog` is the command without its arguments.
        arguments: The command-line arguments; None means those of this process (`sys.argv`).
        work: The function that does the work. It gets the parsed options and the command line as reports show it, and
            returns the exit code.
        folders: See `shown_command`.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return work(parser.parse_args(given), shown_command(parser.prog.removeprefix("python -m "), given, folders))
    except AlueBenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError) else 2
