"""SIGTERM, taken as Ctrl-C is. Needs nothing installed: the benchmarks use it on bare machines."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM: what a scheduler sends before it kills."""


_pending: list[type[Terminated]] = []


@contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Inside, SIGTERM ends the work as cleanly as Ctrl-C does."""

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
    """Raises Terminated where that was raised before and got lost, as in a finaliser: the interpreter goes on after
    whatever is raised there. To be called between two steps of long work."""
    if _pending:
        raise _pending[0]


def code_of_stop(stop: BaseException | None) -> int:
    """143 for SIGTERM, 130 for Ctrl-C."""
    return 143 if isinstance(stop, Terminated) else 130
