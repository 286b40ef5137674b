"""The cells of a benchmark (combinations of way of training, strategy and number format) and their random order.

A way of training is a program, our engine or `Trainer`, in one configuration; the docstring of
`benchmarks.engine.command` lists the ways.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from alue_bench.training.device.hardware import Hardware

TRAINER_WAYS = ("trainer-128", "trainer", "trainer-grouped")
ENGINE, BASE = "engine", "trainer"
"""The way of training that is examined (our engine), and the baseline with which it is compared (`Trainer`)."""
GRAPHS = "engine-graphs"
WAYS = (*TRAINER_WAYS, "engine-uncached", ENGINE, GRAPHS)
SHARED, SEPARATE = "sweep", "separate"
"""The ways of training by our engine in the benchmark `sweep`. With `SHARED`, all cells share one store for the outputs
of frozen layers; with `SEPARATE`, each cell has a separate store."""
STRATEGIES = ("full", "bottom3top4", "bottom6", "head-only")
PRECISIONS = ("fp32", "bf16")
ORDER_SEED = 1


def possible_ways(device: str) -> list[str]:
    """Return the ways of training that a device supports; the way with CUDA graphs needs a CUDA device."""
    return [way for way in WAYS if way != GRAPHS or Hardware(device).supports_graphs]


class Cell(NamedTuple):
    """A combination of way of training, strategy and number format, which is measured once in each repetition."""

    way: str
    strategy: str
    precision: str

    def __str__(self) -> str:
        """Return the names of way, strategy and number format, separated by spaces."""
        return " ".join(self)


def schedule(cells: Sequence[Cell], repetitions: int) -> list[tuple[Cell, int]]:
    """Return the measurements of all repetitions, in order: all cells once, in random order, then all cells again.

    The random order is different in each repetition, but reproducible.

    Args:
        cells: The combinations of way of training, strategy and number format.
        repetitions: The number of repetitions.

    Returns:
        Pairs of a cell and the number of its repetition.
    """
    scheduled = []
    for repetition in range(1, repetitions + 1):
        order = sorted(cells)
        random.Random(ORDER_SEED + repetition).shuffle(order)
        scheduled += [(cell, repetition) for cell in order]
    return scheduled


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """Return the distinct cells, sorted by number format, strategy and way of training, in the order of reports.

    The order is that of PRECISIONS, STRATEGIES and WAYS. Strategies that are not in STRATEGIES come last, sorted by
    name.
    """

    def rank(known: Sequence[str], name: str) -> int:
        return known.index(name) if name in known else len(known)

    return sorted(
        set(cells),
        key=lambda cell: (
            rank(PRECISIONS, cell.precision),
            rank(STRATEGIES, cell.strategy),
            cell.strategy,
            rank(WAYS, cell.way),
        ),
    )
