"""The cells of a benchmark (combinations of way of training, strategy and number format) and their random order."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from alue_bench.training.device.hardware import Hardware

TRAINER_WAYS = ("trainer-128", "trainer", "trainer-grouped")
ENGINE, BASE = "engine", "trainer"
"""The way of training that is examined, and the base with which it is compared."""
GRAPHS = "engine-graphs"
WAYS = (*TRAINER_WAYS, "engine-uncached", ENGINE, GRAPHS)
SHARED, SEPARATE = "sweep", "separate"
"""The ways of our engine in the sweep benchmark: all cells share one store, or each cell has a separate store."""
STRATEGIES = ("full", "bottom3top4", "bottom6", "head-only")
PRECISIONS = ("fp32", "bf16")
ORDER_SEED = 1


def possible_ways(device: str) -> list[str]:
    """Return the ways of training that a device supports; only CUDA graphs need a CUDA device."""
    return [way for way in WAYS if way != GRAPHS or Hardware(device).can_record]


class Cell(NamedTuple):
    """A combination of way of training, strategy and number format, which is measured once in each repetition."""

    way: str
    strategy: str
    precision: str

    def __str__(self) -> str:
        """Return the three names, separated by spaces."""
        return " ".join(self)


def schedule(cells: Sequence[Cell], repetitions: int) -> list[tuple[Cell, int]]:
    """Return pairs of cell and repetition by repetition, with all cells of each in random but reproducible order."""
    scheduled = []
    for repetition in range(1, repetitions + 1):
        order = sorted(cells)
        random.Random(ORDER_SEED + repetition).shuffle(order)
        scheduled += [(cell, repetition) for cell in order]
    return scheduled


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """Return the distinct cells, sorted by precision, strategy and way as in PRECISIONS, STRATEGIES and WAYS.

    Strategies that are not in STRATEGIES come last, sorted by name.
    """

    def place(known: Sequence[str], name: str) -> int:
        return known.index(name) if name in known else len(known)

    return sorted(
        set(cells),
        key=lambda cell: (
            place(PRECISIONS, cell.precision),
            place(STRATEGIES, cell.strategy),
            cell.strategy,
            place(WAYS, cell.way),
        ),
    )
