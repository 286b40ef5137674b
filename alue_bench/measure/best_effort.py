"""Best-effort execution of optional work, such as a measurement or a figure, whose failure must not lose a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from alue_bench.contract.errors import AlueBenchError

T = TypeVar("T")


def best_effort(missing: str, work: Callable[[], T], on_problem: Callable[[str], None]) -> T | None:
    """Call `work` and return its result; if it raises an exception, report the exception and return None.

    Exceptions that are not subclasses of `Exception`, such as KeyboardInterrupt, are not caught.

    Args:
        missing: A phrase for the message that says what is missing if `work` fails, such as "no peak memory".
        work: A function that does the optional work.
        on_problem: A function that is called with a sentence that says what is missing and why.
    """
    try:
        return work()
    except Exception as error:  # drivers, figure back ends and exhausted memory raise errors of many types
        on_problem(f"{missing}: {cause_of(error)}")
        return None


def cause_of(error: BaseException) -> str:
    """Describe an error in one line: its type (unless it is an `AlueBenchError`) and the first line of its message."""
    first_line = next((line for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, AlueBenchError):
        return first_line
    return f"{type(error).__name__}: {first_line:.300}" if first_line else type(error).__name__
