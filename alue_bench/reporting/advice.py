"""The loss of score to expect on a task that was not swept, predicted from sweeps of other tasks.

A prediction is the mean loss of a setting over the tasks that were swept with the same model, hyper-parameters and
options for rows, with a prediction interval (`evaluation.new_task`). Losses are shares of what full fine-tuning learnt,
its score minus the trivial score, so that tasks with different metrics can be averaged.

Scores of layers from a probe may correct the mean: a setting that freezes layers with higher scores than on other
tasks may lose more. The feature of a setting is the sum of the ranks of its frozen layers, as a share of the sum of all
ranks. The correction is used only if it predicts tasks that are left out clearly better
(`new_task.Correction.helps`).

The error of the whole procedure, including the choice of settings, is measured by leaving out each task in turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from alue_bench.contract.cells import Cell, cell_name
from alue_bench.contract.probe import LayerScore
from alue_bench.evaluation.across_tasks import FEWEST_TASKS
from alue_bench.evaluation.intervals import Estimate
from alue_bench.evaluation.new_task import Correction, correction, predicted
from alue_bench.reporting.selector_ranking import DEFAULT_CONTROL, LoadScores, family_of
from alue_bench.reporting.swept_tasks import FULL, SweptTask
from alue_bench.tracking.reproduction import row_options

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

ALIKE = (
    "model",
    "model_digest",
    "data_source",
    "epochs",
    "batch_size",
    "lr",
    "max_length",
    "other_hyper",
)
"""The columns of the frame of runs whose values must be equal in sweeps that predict together, as must be the options
that select rows."""
SETTINGS = 10
"""The number of settings for which the loss is predicted."""


@dataclass(frozen=True)
class Calibration:
    """The sweeps from which losses on another task are predicted."""

    sweeps: tuple[SweptTask, ...]
    cells: tuple[Cell, ...]
    """The cells that every sweep has, without full fine-tuning, from the cheapest to the costliest."""
    features: Mapping[str, Array]
    """The feature of each family of selectors, [tasks, cells], for families that ran beside every sweep."""

    @cached_property
    def losses(self) -> Array:
        """The loss of each cell on each task, as a share of what full fine-tuning learnt, [tasks, cells]."""
        return np.array([[sweep.loss(cell) for cell in self.cells] for sweep in self.sweeps])

    @cached_property
    def costs(self) -> Array:
        """The mean training FLOPs of each cell over tasks, as a share of those of full fine-tuning, [cells]."""
        return np.array([fmean(sweep.cost(cell) for sweep in self.sweeps) for cell in self.cells])

    def is_alike(self, sweep: SweptTask) -> bool:
        """Return whether another sweep has the conditions of these sweeps."""
        return conditions(sweep) == conditions(self.sweeps[0])

    def without(self, task: int) -> Calibration:
        """Return the calibration without one of its sweeps."""
        kept = [place for place in range(len(self.sweeps)) if place != task]
        return Calibration(
            tuple(self.sweeps[place] for place in kept),
            self.cells,
            {family: values[kept] for family, values in self.features.items()},
        )

    @cached_property
    def correction(self) -> tuple[str, Correction] | None:
        """The family whose feature predicts tasks that are left out best, if it clearly helps; None otherwise."""
        if len(self.sweeps) < FEWEST_TASKS:
            return None
        fitted = {family: correction(self.losses, values) for family, values in self.features.items()}
        helpful = {family: one for family, one in fitted.items() if one.helps}
        if not helpful:
            return None
        family = min(helpful, key=lambda name: helpful[name].error)
        return family, helpful[family]

    def settings(self, number: int = SETTINGS) -> list[Cell]:
        """Return at most a number of cells: of each range of costs, the one with the smallest mean loss."""
        means = self.losses.mean(axis=0)
        parts = np.array_split(np.arange(len(self.cells)), min(number, len(self.cells)))
        return [self.cells[min(part, key=means.__getitem__)] for part in parts]

    def predict(self, cell: Cell, features: Mapping[str, Array] | None = None) -> Estimate:
        """Return the predicted loss of a cell on a new task, with a prediction interval.

        Args:
            cell: The cell.
            features: The new task's feature of each cell by family, [cells]; None for no correction.
        """
        place = self.cells.index(cell)
        values = self.losses[:, place]
        if self.correction is None or not features or self.correction[0] not in features:
            return predicted(values.tolist())
        family, fitted = self.correction
        known = self.features[family][:, place]
        told = predicted((values - fitted.slope * (known - known.mean())).tolist())
        shift = fitted.slope * (float(features[family][place]) - float(known.mean()))
        return Estimate(told.mean + shift, told.half_width, told.values)


@dataclass(frozen=True)
class LeftOut:
    """The errors of predictions on each task of a calibration, made from the other tasks."""

    error: float
    """The root mean square error, as a share of what full fine-tuning learnt."""
    covered: int
    """The number of measured losses that lie in their prediction intervals."""
    predictions: int


@dataclass(frozen=True, kw_only=True)
class PredictedSetting:
    """A setting with its predicted loss and cost on a task."""

    strategy: str
    loss: Estimate
    """The predicted loss, as a share of what full fine-tuning learns, with its prediction interval."""
    cost: float
    """The training FLOPs on this task, as a share of those of full fine-tuning."""
    measured: float | None
    """The measured loss, if the task itself was swept under the same conditions; it takes no part in the prediction."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The predicted loss and cost of a handful of settings on one task."""

    task: str
    model: str
    calibration: Calibration
    rows: tuple[PredictedSetting, ...]
    """The settings, the cheapest first."""
    left_out: LeftOut
    tolerance: float
    """The largest accepted loss, as a share of what full fine-tuning learns."""
    probe_s: float = 0.0
    """The seconds of the probe; 0 if the predictions use none."""

    @property
    def recommended(self) -> PredictedSetting:
        """The cheapest setting whose predicted loss is within the tolerance; else the one with the smallest loss."""
        within = [row for row in self.rows if row.loss.mean <= self.tolerance]
        return min(within, key=lambda row: row.cost) if within else min(self.rows, key=lambda row: row.loss.mean)

    @property
    def measured(self) -> tuple[int, int] | None:
        """The number of measured losses within their intervals, and their number; None if none was measured."""
        known = [row for row in self.rows if row.measured is not None]
        return (sum(_covers(row.loss, row.measured or 0.0) for row in known), len(known)) if known else None


def calibration(sweeps: Sequence[SweptTask], load: LoadScores, *, without: str) -> Calibration | None:
    """Return the largest set of sweeps that predict together, without those of the task to predict.

    Args:
        sweeps: The sweeps of one model.
        load: The function that reads the scores by which a run's strategy chose.
        without: The task to predict.

    Returns:
        The calibration; None if there is no sweep of another task, or the sweeps have no cell in common. It may have
        fewer than FEWEST_TASKS tasks.
    """
    alike: dict[tuple[str, ...], list[SweptTask]] = {}
    for sweep in sweeps:
        if sweep.task != without:
            alike.setdefault(conditions(sweep), []).append(sweep)
    if not alike:
        return None
    chosen = max(alike.values(), key=len)
    shared = set.intersection(*(set(sweep.cells) for sweep in chosen)) - {FULL}
    usable = [cell for cell in shared if all(math.isfinite(sweep.loss(cell)) for sweep in chosen)]
    cells = tuple(sorted(usable, key=lambda cell: (fmean(sweep.cost(cell) for sweep in chosen), cell)))
    if not cells:
        return None
    by_task = [_scores(sweep, load) for sweep in chosen]
    families = set.intersection(*(set(scores) for scores in by_task)) - {DEFAULT_CONTROL}
    features = {family: np.array([feature(scores[family], cells) for scores in by_task]) for family in sorted(families)}
    return Calibration(tuple(chosen), cells, features)


def conditions(sweep: SweptTask) -> tuple[str, ...]:
    """Return the conditions of a sweep that must be equal in sweeps that predict together, as texts."""
    return (*(str(sweep.example.get(name)) for name in ALIKE), str(sorted(row_options(sweep.example).items())))


def feature(scores: Sequence[float], cells: Sequence[Cell]) -> Array:
    """Return the sum of the ranks of each cell's frozen layers, as a share of the sum of all ranks, [cells].

    Args:
        scores: The score of each layer, from layer 0 upwards; the highest has the highest rank.
        cells: The cells.
    """
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    layers = len(ranks)
    frozen = [float(ranks[:bottom].sum() + ranks[layers - top :].sum()) for bottom, top in cells]
    return np.array(frozen) / float(ranks.sum())


def _scores(sweep: SweptTask, load: LoadScores) -> dict[str, list[float]]:
    """Return the mean score of each layer over the runs of each family of selectors beside a sweep."""
    read: dict[str, list[Sequence[LayerScore]]] = {}
    for run in sweep.others:
        if scores := load(str(run["run_id"])):
            read.setdefault(family_of(str(run["strategy"])), []).append(scores)
    return {
        family: [fmean(one.score for one in of_layer) for of_layer in zip(*runs, strict=True)]
        for family, runs in read.items()
    }


def leave_out(whole: Calibration) -> LeftOut:
    """Predict the losses on each task of a calibration from the other tasks, and return the errors.

    Args:
        whole: The calibration, with at least three tasks.
    """
    misses, covered = [], 0
    for task, sweep in enumerate(whole.sweeps):
        others = whole.without(task)
        own = {family: values[task] for family, values in whole.features.items()}
        for cell in others.settings():
            told = others.predict(cell, own)
            misses.append(told.mean - sweep.loss(cell))
            covered += _covers(told, sweep.loss(cell))
    return LeftOut(math.sqrt(fmean(miss * miss for miss in misses)), covered, len(misses))


def advise(
    task: str,
    model: str,
    whole: Calibration,
    costs: Mapping[str, float],
    *,
    tolerance: float,
    features: Mapping[str, Array] | None = None,
    own: SweptTask | None = None,
) -> Advice:
    """Predict loss and cost of a handful of settings on a task.

    Args:
        task: The task.
        model: The model.
        whole: The calibration, with at least three tasks.
        costs: The training FLOPs of each of the calibration's settings on the task, as a share of those of full
            fine-tuning, by strategy.
        tolerance: The largest accepted loss, as a share of what full fine-tuning learns.
        features: The task's feature of each cell by family, [cells]; None without a probe.
        own: The task's own sweep, whose losses are shown beside the predictions; None if there is none.
    """
    rows = [
        PredictedSetting(
            strategy=cell_name(cell),
            loss=whole.predict(cell, features),
            cost=costs[cell_name(cell)],
            measured=own.loss(cell) if own is not None and cell in own.cells else None,
        )
        for cell in whole.settings()
    ]
    return Advice(
        task=task,
        model=model,
        calibration=whole,
        rows=tuple(sorted(rows, key=lambda row: row.cost)),
        left_out=leave_out(whole),
        tolerance=tolerance,
    )


def _covers(told: Estimate, value: float) -> bool:
    low, high = told.interval or (-math.inf, math.inf)
    return low <= value <= high
