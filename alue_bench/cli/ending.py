"""The end of `run`, `sweep` and `search` in a terminal: results, closing messages and the exit code."""

from __future__ import annotations

import sys

import typer

from alue_bench.executors.termination import exit_code_of_interruption
from alue_bench.messages.suggestion import command_line
from alue_bench.studies.results import Runs
from alue_bench.studies.run import Confirm
from alue_bench.tracking.connection import where_options
from alue_bench.views.streams import Streams

CONFIRM_ABOVE = 50
"""The largest number of runs that start without a question to the user. A larger plan starts without a question only if
the command does not run on a terminal or has the option --yes."""


def confirmation_prompt(streams: Streams, *, yes: bool) -> Confirm:
    """Return a function that, on a terminal, asks the user whether to start a plan of many runs.

    Args:
        streams: The command's output streams.
        yes: True to start without asking.
    """

    def confirm(runs: int) -> None:
        if runs > CONFIRM_ABOVE and not yes and sys.stdin.isatty() and streams.stderr.is_terminal:
            typer.confirm(f"Start {runs} runs?", default=True, abort=True, err=True)

    return confirm


def show_results(results: Runs, streams: Streams) -> int:
    """Show the results and the closing messages; with --json, also print the results as JSON.

    Returns:
        The exit code.
    """
    stderr, place = streams.stderr, results.store
    if results.outcomes:
        streams.result(results.view())
    for sentence in results.ending.kept:
        stderr.print(sentence)
    where = where_options(place.uri, place.experiment)
    if any(outcome.spec.scored_elsewhere for outcome in results.outcomes):
        compare = command_line("compare", options={"out_of_domain": True, **where})
        stderr.print(f"Scores on the tasks of --also-test: {compare}")
    stderr.print(f"Compare in the browser: {command_line('ui', options=where)}")
    streams.document(results.document)
    for remark in results.ending.remarks:
        stderr.print(remark, style="yellow")
    execution = results.execution
    if execution.interruption:
        left = (
            f"{execution.unfinished} runs are left; " if execution.unfinished else ""
        )  # 0 for a search, which has no plan
        stderr.print(f"interrupted: {left}run the same command again to continue")
    return exit_code(results)


def exit_code(results: Runs) -> int:
    """Return the exit code: 0 if all runs finished, 1 if some failed, 130 or 143 if Ctrl-C or SIGTERM stopped them."""
    if results.execution.interruption:
        return exit_code_of_interruption(results.execution.interruption.__cause__)
    return 1 if results.execution.failed else 0
