"""The handling of SIGTERM in the same way as Ctrl-C.

It imports the standard library only, since the benchmarks use it on machines without the project's requirements.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """The interruption by SIGTERM, which schedulers send before they kill a process."""


_pending: list[type[Terminated]] = []


@contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Raise Terminated on SIGTERM inside the context, so that the work ends as cleanly as after Ctrl-C."""

    def terminate(signum: int, frame: object) -> None:
        _pending.append(Terminated)
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _pending.clear()


def heed_termination() -> None:
    """Raise Terminated if SIGTERM has arrived, also if an earlier exception for it was lost.

    Python ignores an exception that is raised inside a finaliser. Therefore long work calls this between two steps.

    Raises:
        Terminated: SIGTERM has arrived.
    """
    if _pending:
        raise _pending[0]


def stop_behind(error: BaseException) -> KeyboardInterrupt | None:
    """Return the interruption during which an error was raised; None if there was none.

    If an interruption arrives inside a library's context manager, its clean-up may fail and hide the interruption:
    torch says "trying to pop from empty mode stack".
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__context__
    return seen


def code_of_stop(stop: BaseException | None) -> int:
    """Return the exit code of an interrupted command: 143 for SIGTERM, 130 for Ctrl-C."""
    return 143 if isinstance(stop, Terminated) else 130
