"""The loss of score to expect on a task that was not swept, predicted from sweeps of other tasks.

A sweep runs many freezing settings, pairs (bottom, top) of numbers of frozen layers. The prediction for a setting is
its mean loss over the tasks that were swept with the same model and hyper-parameters, and with the same options that
select rows (such as `--limit-train`). It has a prediction interval (`evaluation.new_task`). Losses are shares of what
full fine-tuning learnt, that is, of its score minus the score of a baseline without a model, so that tasks with
different metrics can be averaged.

The mean may be corrected by layer scores from a probe, which selectors such as `surgical-3` compute before training. A
setting may lose more on a task if its frozen layers have higher scores there than on other tasks. The feature of a
setting is the sum of the ranks of its frozen layers' scores, as a share of the sum of all ranks. The correction is used
only if it clearly improves predictions when each swept task in turn is left out and predicted from the other tasks
(`new_task.Correction.helps`).

The error of the whole procedure, including the choice of the settings to predict (`Calibration.settings`), is measured
by leaving out each task in turn.
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
from alue_bench.evaluation.across_tasks import MIN_TASKS
from alue_bench.evaluation.intervals import Estimate
from alue_bench.evaluation.new_task import Correction, correction, mean_prediction
from alue_bench.reporting.selector_ranking import DEFAULT_CONTROL, LoadScores, family_of
from alue_bench.reporting.swept_tasks import FULL, SweptTask
from alue_bench.tracking.reproduction import row_options

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

EQUAL_COLUMNS = (
    "model",
    "model_digest",
    "data_source",
    "epochs",
    "batch_size",
    "lr",
    "max_length",
    "other_hyper",
)
"""The columns of the frame of runs that must have equal values in all sweeps of a `Calibration`. The options that
select rows, such as `--limit-train`, must be equal, too."""
NUMBER_OF_SETTINGS = 10
"""The largest number of freezing settings for which the loss is predicted."""


@dataclass(frozen=True)
class Calibration:
    """The sweeps from which the loss of score on another task, against full fine-tuning, is predicted."""

    sweeps: tuple[SweptTask, ...]
    cells: tuple[Cell, ...]
    """The freezing settings (bottom, top) whose loss is known in every sweep, from the cheapest to the most expensive.
    Full fine-tuning is not among them."""
    features: Mapping[str, Array]
    """For each family of selectors (such as `rank-K` for all K), a number for each setting on each task, `[tasks,
    cells]`, which may help to predict the setting's loss: see `feature` and `correction`. Only families that ran on all
    tasks are included. The control that chooses layers at random is not."""

    @cached_property
    def losses(self) -> Array:
        """The loss of each setting on each task, as a share of what full fine-tuning learnt, [tasks, cells]."""
        return np.array([[sweep.loss(cell) for cell in self.cells] for sweep in self.sweeps])

    @cached_property
    def costs(self) -> Array:
        """The mean training FLOPs of each setting over tasks, as a share of those of full fine-tuning, [cells]."""
        return np.array([fmean(sweep.cost(cell) for sweep in self.sweeps) for cell in self.cells])

    def is_alike(self, sweep: SweptTask) -> bool:
        """Return whether a sweep has the same conditions as the sweeps of this calibration."""
        return conditions(sweep) == conditions(self.sweeps[0])

    def without(self, task: int) -> Calibration:
        """Return the calibration without the sweep at index `task`."""
        remaining = [index for index in range(len(self.sweeps)) if index != task]
        return Calibration(
            tuple(self.sweeps[index] for index in remaining),
            self.cells,
            {family: values[remaining] for family, values in self.features.items()},
        )

    @cached_property
    def correction(self) -> tuple[str, Correction] | None:
        """The correction that predicts left-out tasks best, after the family of selectors whose scores it uses.

        None if no correction clearly helps, or if there are fewer than MIN_TASKS sweeps.
        """
        if len(self.sweeps) < MIN_TASKS:
            return None
        fitted = {family: correction(self.losses, values) for family, values in self.features.items()}
        helpful = {family: fitted_correction for family, fitted_correction in fitted.items() if fitted_correction.helps}
        if not helpful:
            return None
        family = min(helpful, key=lambda name: helpful[name].error)
        return family, helpful[family]

    def settings(self, number: int = NUMBER_OF_SETTINGS) -> list[Cell]:
        """Return the setting with the smallest mean loss in each of `number` ranges of cost, the cheapest first.

        Each range has equally many settings, give or take one. If there are fewer settings than ranges, all settings
        are returned.
        """
        means = self.losses.mean(axis=0)
        parts = np.array_split(np.arange(len(self.cells)), min(number, len(self.cells)))
        return [self.cells[min(part, key=means.__getitem__)] for part in parts]

    def predict(self, cell: Cell, features: Mapping[str, Array] | None = None) -> Estimate:
        """Return the predicted loss of a setting on a new task, with a prediction interval.

        Args:
            cell: The freezing setting (bottom, top).
            features: For each family of selectors that probed the new task, the result of `feature` for all settings,
                [cells]. If it is None or lacks the family that `correction` uses, the prediction is not corrected.
        """
        index = self.cells.index(cell)
        values = self.losses[:, index]
        if self.correction is None or not features or self.correction[0] not in features:
            return mean_prediction(values.tolist())
        family, fitted = self.correction
        known = self.features[family][:, index]
        estimate = mean_prediction((values - fitted.slope * (known - known.mean())).tolist())
        shift = fitted.slope * (float(features[family][index]) - float(known.mean()))
        return Estimate(estimate.mean + shift, estimate.half_width, estimate.values)


@dataclass(frozen=True)
class LeftOut:
    """The errors of the predictions for the tasks of a calibration, each of them predicted from the other tasks."""

    error: float
    """The root mean square error of the predicted losses, as a share of what full fine-tuning learnt."""
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
    """The measured loss, which takes no part in the prediction. None if the task itself was not swept under the same
    conditions, or if its sweep did not run this setting."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The predicted loss and cost of a few freezing settings on one task."""

    task: str
    model: str
    calibration: Calibration
    rows: tuple[PredictedSetting, ...]
    """The settings, the cheapest first."""
    left_out: LeftOut
    tolerance: float
    """The largest accepted loss, as a share of what full fine-tuning learns."""
    probe_s: float = 0.0
    """The duration of the probe in seconds; 0 if the predictions use no probe."""

    @property
    def recommended(self) -> PredictedSetting:
        """The cheapest setting with a predicted loss within the tolerance.

        If there is no such setting, it is the setting with the smallest predicted loss.
        """
        within = [row for row in self.rows if row.loss.mean <= self.tolerance]
        return min(within, key=lambda row: row.cost) if within else min(self.rows, key=lambda row: row.loss.mean)

    @property
    def measured(self) -> tuple[int, int] | None:
        """The number of measured losses within their prediction intervals, and the number of all measured losses.

        None if no loss was measured.
        """
        known = [row for row in self.rows if row.measured is not None]
        return (sum(_covers(row.loss, row.measured or 0.0) for row in known), len(known)) if known else None


def calibration(sweeps: Sequence[SweptTask], load: LoadScores, *, without: str) -> Calibration | None:
    """Return the calibration for a task: the largest set of sweeps of other tasks under the same conditions.

    Args:
        sweeps: The sweeps of one model.
        load: The function that reads the layer scores by which a run's strategy chose its layers.
        without: The name of the task to predict, whose own sweep is not used.

    Returns:
        The calibration; None if no other task was swept, or if the sweeps have no freezing setting in common. It may
        have fewer than MIN_TASKS tasks, which are too few for `advise`.
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
    """Return the conditions of a sweep, as texts. They must be equal in all sweeps of a calibration."""
    return (*(str(sweep.example.get(name)) for name in EQUAL_COLUMNS), str(sorted(row_options(sweep.example).items())))


def feature(scores: Sequence[float], cells: Sequence[Cell]) -> Array:
    """Return for each setting the sum of the ranks of its frozen layers, as a share of the sum of all ranks, [cells].

    Args:
        scores: The score of each layer, from layer 0 upwards; the layer with the highest score has the highest rank.
        cells: The freezing settings, as pairs (bottom, top) of numbers of frozen layers.
    """
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    layers = len(ranks)
    frozen = [float(ranks[:bottom].sum() + ranks[layers - top :].sum()) for bottom, top in cells]
    return np.array(frozen) / float(ranks.sum())


def _scores(sweep: SweptTask, load: LoadScores) -> dict[str, list[float]]:
    """Return, for each family of selectors that ran on a sweep's task, the score of each layer as a mean over runs."""
    read: dict[str, list[Sequence[LayerScore]]] = {}
    for run in sweep.others:
        if scores := load(str(run["run_id"])):
            read.setdefault(family_of(str(run["strategy"])), []).append(scores)
    return {
        family: [fmean(layer_score.score for layer_score in layer_scores) for layer_scores in zip(*runs, strict=True)]
        for family, runs in read.items()
    }


def leave_one_task_out(full_calibration: Calibration) -> LeftOut:
    """Predict the losses on each task of a calibration from the other tasks, and return the errors.

    Args:
        full_calibration: The calibration, with at least three tasks.
    """
    errors, covered = [], 0
    for task, sweep in enumerate(full_calibration.sweeps):
        others = full_calibration.without(task)
        features = {family: values[task] for family, values in full_calibration.features.items()}
        for cell in others.settings():
            estimate = others.predict(cell, features)
            errors.append(estimate.mean - sweep.loss(cell))
            covered += _covers(estimate, sweep.loss(cell))
    return LeftOut(math.sqrt(fmean(error * error for error in errors)), covered, len(errors))


def advise(
    task: str,
    model: str,
    full_calibration: Calibration,
    costs: Mapping[str, float],
    *,
    tolerance: float,
    features: Mapping[str, Array] | None = None,
    measured: SweptTask | None = None,
) -> Advice:
    """Predict loss and cost of a few freezing settings on a task.

    Args:
        task: The name of the task.
        model: The name of the model.
        full_calibration: The calibration, with at least three tasks.
        costs: The training FLOPs of each of the calibration's settings on the task, as a share of those of full
            fine-tuning. The keys are the settings' names, such as bottom3top4.
        tolerance: The largest accepted loss, as a share of what full fine-tuning learns.
        features: For each family of selectors that probed the task, the result of `feature` for all settings, [cells];
            None without a probe.
        measured: The sweep of the task itself, whose losses are shown beside the predictions; None if there is none.
    """
    rows = [
        PredictedSetting(
            strategy=cell_name(cell),
            loss=full_calibration.predict(cell, features),
            cost=costs[cell_name(cell)],
            measured=measured.loss(cell) if measured is not None and cell in measured.cells else None,
        )
        for cell in full_calibration.settings()
    ]
    return Advice(
        task=task,
        model=model,
        calibration=full_calibration,
        rows=tuple(sorted(rows, key=lambda row: row.cost)),
        left_out=leave_one_task_out(full_calibration),
        tolerance=tolerance,
    )


def _covers(estimate: Estimate, value: float) -> bool:
    low, high = estimate.interval or (-math.inf, math.inf)
    return low <= value <= high
