"""Work beside a result, such as a measurement or a picture, whose failure must not cost the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from alue_bench.contract.errors import AlueBenchError

T = TypeVar("T")


def best_effort(missing: str, work: Callable[[], T], on_problem: Callable[[str], None]) -> T | None:
    """Return what `work` returns; where it raises, report what is missing and why, and return None.

    missing: what the result then lacks, as "no peak memory". An interruption by the user passes through.
    """
    try:
        return work()
    except Exception as error:  # whatever a driver, a figure's back end or a full memory raises
        on_problem(f"{missing}: {cause_of(error)}")
        return None


def cause_of(error: BaseException) -> str:
    """An error in one line: its type, unless it is one of ours, and the first line of its text."""
    first_line = next((line for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, AlueBenchError):
        return first_line
    return f"{type(error).__name__}: {first_line:.300}" if first_line else type(error).__name__
