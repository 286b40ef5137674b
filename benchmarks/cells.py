"""What is measured: a way of training, with a strategy, in a number format; and in which order."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

TRAINER_WAYS = ("trainer-128", "trainer", "trainer-grouped")
ENGINE, BASE = "engine", "trainer"
"""What is in question, and what it is held against."""
GRAPHS = "engine-graphs"
WAYS = (*TRAINER_WAYS, "engine-uncached", ENGINE, GRAPHS)
SHARED, SEPARATE = "sweep", "separate"
"""Our engine's ways in a comparison of sweeps."""
STRATEGIES = ("full", "bottom3top4", "bottom6", "head-only")
PRECISIONS = ("fp32", "bf16")
ORDER_SEED = 1


def possible_ways(device: str) -> list[str]:
    """Steps are recorded on a GPU only."""
    return [way for way in WAYS if way != GRAPHS or device == "cuda"]


class Cell(NamedTuple):
    """What is measured, once in each repetition."""

    way: str
    strategy: str
    precision: str

    def __str__(self) -> str:
        return " ".join(self)


def schedule(cells: Sequence[Cell], repetitions: int) -> list[tuple[Cell, int]]:
    """Repetition by repetition, each in a random order that is the same whenever it is asked for."""
    found = []
    for repetition in range(1, repetitions + 1):
        order = sorted(cells)
        random.Random(ORDER_SEED + repetition).shuffle(order)
        found += [(cell, repetition) for cell in order]
    return found


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """Each once, in the order of the lists above; strategies that they do not name come last, by name."""

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
