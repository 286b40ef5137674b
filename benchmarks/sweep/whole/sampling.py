"""Estimates of a sum over many cells (runs of a sweep) from a stratified random sample of a quarter of the cells."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SIZE = 4
"""The number of cells in a stratum, of which one is measured."""
SEED = 1


class Estimate(NamedTuple):
    """An estimated sum over all cells of a sweep's grid, with its standard error."""

    total: float
    error: float


def strata(costs: Mapping[str, float]) -> list[list[str]]:
    """Group the cells into strata of four cells with similar expected costs; the last stratum may be smaller.

    Args:
        costs: The expected cost of each cell.
    """
    ordered = sorted(costs, key=lambda cell: (costs[cell], cell))
    return [ordered[start : start + SIZE] for start in range(0, len(ordered), SIZE)]


def trainer_cells(costs: Mapping[str, float]) -> set[str]:
    """Return one random cell of each stratum; the seed is fixed, so that the result is reproducible."""
    draw = random.Random(SEED)
    return {draw.choice(stratum) for stratum in strata(costs)}


def estimated_sum(measured: Mapping[str, float], groups: Sequence[Sequence[str]]) -> Estimate:
    """Estimate the sum over all cells, with the measured cell of each stratum standing for all cells of the stratum.

    The standard error is computed from differences between neighbouring strata (collapsed strata; Cochran 1977,
    Sampling Techniques, section 5A.12). This overestimates it slightly, since neighbouring strata differ in cost.

    Args:
        measured: The measured value of one cell in each stratum.
        groups: The strata, each a list of names of cells.
    """
    parts = [len(group) * next(measured[cell] for cell in group if cell in measured) for group in groups]
    variance = sum((a - b) ** 2 for a, b in zip(parts[::2], parts[1::2], strict=False))
    return Estimate(sum(parts), math.sqrt(variance))
