"""The end of commands that execute plans by Ctrl-C or SIGTERM, wherever they are in their work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from alue_bench.executors.termination import code_of_stop, stop_on_sigterm


@contextmanager
def stoppable() -> Iterator[None]:
    """End the work inside the block by SIGTERM as cleanly as by Ctrl-C.

    An interruption that nothing inside heeds, as while a plan is made, ends the command with a word and with the exit
    code of whichever it was: typer would give 130 for both.
    """
    try:
        with stop_on_sigterm():
            yield
    except KeyboardInterrupt as stop:
        from alue_bench.views.console import remarks

        remarks().print("alue-bench: interrupted")
        raise typer.Exit(code_of_stop(stop)) from None
