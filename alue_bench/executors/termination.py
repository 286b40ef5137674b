"""The handling of SIGTERM: it ends the work in the same way as Ctrl-C.

The module imports only the standard library, since the benchmarks of alue-bench use it on machines without the
project's requirements.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """The exception raised on SIGTERM, which cluster schedulers such as Slurm send before they kill a process."""


_pending: list[type[Terminated]] = []


@contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Raise Terminated on SIGTERM inside the `with` block, so that the work ends as cleanly as after Ctrl-C.

    If the signal arrives inside a finaliser, Python ignores the exception there, and `raise_if_terminated` raises it
    again at the next step of the work. Python's report of an ignored exception on standard error is therefore
    suppressed.
    """

    def terminate(signum: int, frame: object) -> None:
        _pending.append(Terminated)
        raise Terminated

    def report(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, Terminated):
            reported_before(unraisable)

    before = signal.signal(signal.SIGTERM, terminate)
    reported_before, sys.unraisablehook = sys.unraisablehook, report
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.unraisablehook = reported_before
        _pending.clear()


def raise_if_terminated() -> None:
    """Raise Terminated if SIGTERM has arrived inside `stop_on_sigterm`.

    A long computation calls this function between its steps, because the exception that the signal handler raises can
    be lost: Python ignores exceptions inside a finaliser.

    Raises:
        Terminated: SIGTERM has arrived.
    """
    if _pending:
        raise _pending[0]


def interruption_behind(error: BaseException) -> KeyboardInterrupt | None:
    """Return the interruption (Ctrl-C or SIGTERM) that caused an error; None if no interruption caused it.

    If an interruption arrives inside a library's context manager, the clean-up of the context manager may fail, and its
    error hides the interruption. An example is torch's error "trying to pop from empty mode stack".
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__context__
    return seen


def exit_code_of_interruption(interruption: BaseException | None) -> int:
    """Return the exit code of an interrupted command: 143 for SIGTERM, 130 for Ctrl-C."""
    return 143 if isinstance(interruption, Terminated) else 130
