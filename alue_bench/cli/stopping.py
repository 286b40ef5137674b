"""The handling of Ctrl-C and SIGTERM in the commands that execute plans."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from alue_bench.executors.termination import exit_code_of_interruption, stop_on_sigterm


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM end the work inside the context as cleanly as Ctrl-C.

    If the work does not handle the interruption itself (for example, while a plan is built), the command ends with a
    message and the exit code of the signal: 130 for Ctrl-C, 143 for SIGTERM. Typer would exit with 130 for both.

    Raises:
        typer.Exit: The work was interrupted; the exit code is that of the signal.
    """
    try:
        with stop_on_sigterm():
            yield
    except KeyboardInterrupt as stop:
        from alue_bench.views.console import remarks

        remarks().print("alue-bench: interrupted")
        raise typer.Exit(exit_code_of_interruption(stop)) from None
