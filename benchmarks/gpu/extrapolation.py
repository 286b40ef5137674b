"""The time of a sweep of 91 freezing strategies (cells), extrapolated from a few timed ones.

The time of a training step is modelled as a sum: a constant, a term for trained embeddings, and terms proportional to
the numbers of trained layers, of frozen layers through which gradients pass, and of the remaining frozen layers. With
our engine, the last term is left out: the output of the remaining frozen layers is cached, so that they cost nothing in
a step. The coefficients are fitted by least squares to the timed cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.gpu.sizes import WHOLE_EPOCHS

LAYERS = 12


@dataclass(frozen=True)
class Sweep:
    """The extrapolated time of training with all strategies of a sweep."""

    way: str
    timed_cells: int
    """The number of timed strategies, to which the model of a step's time was fitted."""
    seconds: float
    """The seconds of all training steps of all strategies, each with `WHOLE_EPOCHS` epochs."""
    prefix_s: float
    """The seconds of computing the cached outputs of frozen layers, once for each text and layer."""
    largest_error: float
    """The largest relative difference between the time of a timed strategy and its time in the fitted model."""


def frozen_layers(strategy: str) -> tuple[int, int]:
    """Return the numbers of frozen bottom layers and of frozen top layers of a strategy of the sweep.

    Args:
        strategy: The name of the strategy: "full", "head-only", or one of static freezing.
    """
    from alue_bench.contract.strategy import EncoderShape
    from benchmarks.timing.starting_point import freeze_plan

    frozen = freeze_plan(strategy, EncoderShape(LAYERS, 768)).frozen_layers
    bottom = next((layer for layer in range(LAYERS) if layer not in frozen), LAYERS)
    return bottom, len(frozen) - bottom


def extrapolated(way: str, step_s: Mapping[str, float], *, steps: float, prefix_s: float, stores: bool) -> Sweep | None:
    """Extrapolate the time of all 91 strategies of a sweep; return None if too few strategies were timed for the fit.

    Args:
        way: The way of training.
        step_s: The seconds of a training step with each timed strategy, by the strategy's name.
        steps: The number of steps of an epoch; a training has `WHOLE_EPOCHS` epochs.
        prefix_s: The seconds of computing the outputs of all layers for all texts.
        stores: Whether the outputs of frozen bottom layers are computed once and stored, so that these layers cost
            nothing in a step.
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
    """Return the numbers by which the coefficients in the model of a step's time are multiplied for one strategy.

    Args:
        cell: The numbers of frozen bottom layers and of frozen top layers.
        stores: Whether the outputs of frozen bottom layers are stored, so that these layers cost nothing in a step.
    """
    bottom, top = cell
    trained = LAYERS - bottom - top
    passed = top if trained or not bottom else 0  # layers through which a gradient passes
    idle = LAYERS - trained - passed
    return [1.0, float(not bottom), float(trained), float(passed), *([] if stores else [float(idle)])]
