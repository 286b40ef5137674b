"""A random quarter of many cells, and what it says of all of them."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SIZE = 4
"""Cells of a stratum, of which one is measured."""
SEED = 1


class Estimate(NamedTuple):
    """A sum over all cells, with its standard error."""

    total: float
    error: float


def strata(costs: Mapping[str, float]) -> list[list[str]]:
    """The cells in fours of about the same expected cost; what is left over makes a smaller one."""
    ordered = sorted(costs, key=lambda cell: (costs[cell], cell))
    return [ordered[start : start + SIZE] for start in range(0, len(ordered), SIZE)]


def trainer_cells(costs: Mapping[str, float]) -> set[str]:
    """One of each four, drawn by lot; always the same."""
    draw = random.Random(SEED)
    return {draw.choice(stratum) for stratum in strata(costs)}


def estimated_sum(measured: Mapping[str, float], groups: Sequence[Sequence[str]]) -> Estimate:
    """Each measurement stands for its stratum.

    The error comes from the differences between neighbouring strata (Cochran 1977, Sampling Techniques, section 5A.12:
    collapsed strata), which overstates it a little, since neighbours differ in cost.
    """
    parts = [len(group) * next(measured[cell] for cell in group if cell in measured) for group in groups]
    variance = sum((a - b) ** 2 for a, b in zip(parts[::2], parts[1::2], strict=False))
    return Estimate(sum(parts), math.sqrt(variance))
