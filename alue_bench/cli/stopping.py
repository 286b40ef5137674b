"""How Ctrl-C and SIGTERM end the commands that execute plans, wherever they are in their work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from alue_bench.executors.termination import code_of_stop, stop_on_sigterm


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, SIGTERM ends the work as cleanly as Ctrl-C does. What is not heeded there, as while a plan is made, ends
    the command with a word and the exit code of whichever it was: typer would say 130 of both.
    """
    try:
        with stop_on_sigterm():
            yield
    except KeyboardInterrupt as stop:
        from alue_bench.cli.views.console import remarks

        remarks().print("alue-bench: interrupted")
        raise typer.Exit(code_of_stop(stop)) from None
