"""The time of a sweep of 91 cells, extrapolated from a few cells.

The time of a step is modelled as a sum: a constant, a part for trained embeddings, and a part each for the number of
trained layers, of frozen layers above a trained one, and of frozen layers below, which our engine does not compute. The
parts are fitted by least squares to the timed cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.gpu.sizes import WHOLE_EPOCHS

LAYERS = 12


@dataclass(frozen=True)
class Sweep:
    """The extrapolated time of training all cells of a sweep."""

    way: str
    timed_cells: int
    seconds: float
    """The seconds of all steps."""
    prefix_s: float
    """The seconds of computing the outputs of frozen layers, once for each text and layer."""
    largest_error: float
    """The largest relative difference between a timed cell and the model fitted to all timed cells."""


def frozen_layers(strategy: str) -> tuple[int, int]:
    """Return the numbers of frozen bottom and top layers of a cell of the sweep.

    Args:
        strategy: The name of the strategy: "full", "head-only", or one of static freezing.
    """
    from alue_bench.contract.strategy import EncoderShape
    from benchmarks.timing.starting_point import freeze_plan

    frozen = freeze_plan(strategy, EncoderShape(LAYERS, 768)).frozen_layers
    bottom = next((layer for layer in range(LAYERS) if layer not in frozen), LAYERS)
    return bottom, len(frozen) - bottom


def extrapolated(way: str, step_s: Mapping[str, float], *, steps: float, prefix_s: float, stores: bool) -> Sweep | None:
    """Return the time of all 91 cells; None if too few cells were timed.

    Args:
        way: The way of training.
        step_s: The seconds of a step of each timed cell, by the name of the strategy.
        steps: The number of steps of an epoch.
        prefix_s: The seconds of computing the outputs of all layers for all texts.
        stores: Whether frozen bottom layers are computed once only, so that they cost nothing in a step.
    """
    import numpy as np

    cells = [frozen_layers(strategy) for strategy in step_s]
    known = np.array([_parts(cell, stores=stores) for cell in cells])
    if len(cells) < known.shape[1] if cells else True:
        return None
    seconds = np.array(list(step_s.values()))
    parts, *_ = np.linalg.lstsq(known, seconds, rcond=None)
    everything = [(bottom, top) for bottom in range(LAYERS + 1) for top in range(LAYERS + 1 - bottom)]
    every_step = np.array([_parts(cell, stores=stores) for cell in everything]) @ parts
    return Sweep(
        way=way,
        timed_cells=len(cells),
        seconds=float(every_step.sum()) * steps * WHOLE_EPOCHS,
        prefix_s=prefix_s,
        largest_error=float(np.abs(known @ parts / seconds - 1).max()),
    )


def _parts(cell: Sequence[int], *, stores: bool) -> list[float]:
    """Return the numbers by which the model multiplies its parts for a cell."""
    bottom, top = cell
    trained = LAYERS - bottom - top
    passed = top if trained or not bottom else 0  # layers through which a gradient passes
    idle = LAYERS - trained - passed
    return [1.0, float(not bottom), float(trained), float(passed), *([] if stores else [float(idle)])]
