"""The machine that is simulated now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulated_cuda.machine import Machine

_active: list[Machine] = []


def current() -> Machine:
    """Return the machine whose `with` block is active.

    Raises:
        RuntimeError: There is none.
    """
    if not _active:
        raise RuntimeError("a tensor of the simulated device is used outside of the simulation")
    return _active[-1]


@contextmanager
def running(machine: Machine) -> Iterator[Machine]:
    """Make a machine the current one within the `with` block."""
    _active.append(machine)
    try:
        with machine:
            yield machine
    finally:
        _active.remove(machine)
