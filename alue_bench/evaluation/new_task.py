"""The prediction of a value, such as a loss of score, for a new task from the values of measured tasks.

The measured tasks and the new one count as a random sample of tasks. With n measured values of mean m and standard
deviation s, the value of the new task lies in m ± t s sqrt(1 + 1/n) with the probability `LEVEL`, where t is a quantile
of Student's distribution with n - 1 degrees of freedom. This is a prediction interval: even with many tasks its width
does not go to zero, because tasks differ. If each measured value is a mean over seeds, the interval is for the mean
over the same number of seeds on the new task (Hahn & Meeker 1991, Statistical Intervals, section 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.intervals import LEVEL, Estimate

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def mean_prediction(values: Sequence[float]) -> Estimate:
    """Return the prediction for a new task: the mean of the values of measured tasks, and a prediction interval.

    Args:
        values: The finite value of each measured task.

    Raises:
        ValueError: There are fewer than two values, so that the variation between tasks is unknown.
    """
    import numpy as np
    from scipy.special import stdtrit

    if len(values) < 2:
        raise ValueError(f"{len(values)} values: a prediction for a new task needs at least 2")
    known = np.asarray(values, dtype="float64")
    quantile = float(stdtrit(len(known) - 1, (1 + LEVEL) / 2))
    return Estimate(
        float(known.mean()), quantile * float(known.std(ddof=1)) * math.sqrt(1 + 1 / len(known)), len(known)
    )


WORTHWHILE = 0.1
"""The smallest reduction of the error on left-out tasks, as a share of this error, with which a correction is used. In
simulations with four or five tasks, a feature that is unrelated to the values reduces the error in a quarter of the
cases, and by at least this share in a tenth of the cases."""


@dataclass(frozen=True)
class Correction:
    """A correction of the mean over tasks by a feature, and its error on left-out tasks; see `correction`."""

    slope: float
    """The change of the value for each unit of the feature's deviation from its mean over tasks."""
    error: float
    """The root mean square error, with the correction, when each task is predicted from all other tasks."""
    error_without: float
    """The same error without the correction."""

    @property
    def helps(self) -> bool:
        """True if the correction reduces the error on left-out tasks by at least the share `WORTHWHILE`."""
        return self.error <= (1 - WORTHWHILE) * self.error_without


def correction(values: Array, features: Array) -> Correction:
    """Fit the slope of a correction by a feature, and measure the correction's error on left-out tasks.

    The model is: value of a setting on a task = mean of the setting over tasks + slope x (feature of the setting on the
    task - mean of the feature of the setting over tasks). Least squares over all tasks and settings give the slope. For
    the error, each task is predicted in turn; both means and the slope are then computed without this task.

    Args:
        values: The values, [tasks, settings], for at least three tasks.
        features: The feature, [tasks, settings].

    Raises:
        ValueError: There are fewer than three tasks.
    """
    import numpy as np

    tasks = len(values)
    if tasks < 3:
        raise ValueError(f"{tasks} tasks: leaving out each of them in turn needs at least 3")
    corrected, uncorrected = [], []
    for task in range(tasks):
        others = np.arange(tasks) != task
        mean, centre = values[others].mean(axis=0), features[others].mean(axis=0)
        uncorrected.append(values[task] - mean)
        corrected.append(values[task] - mean - _slope(values[others], features[others]) * (features[task] - centre))
    error, error_without = (float(np.sqrt(np.mean(np.square(part)))) for part in (corrected, uncorrected))
    return Correction(_slope(values, features), error, error_without)


def _slope(values: Array, features: Array) -> float:
    """Return the least-squares slope of the deviations from the settings' means; 0 if the feature does not vary."""
    values, features = values - values.mean(axis=0), features - features.mean(axis=0)
    size = float((features * features).sum())
    return float((values * features).sum()) / size if size > 0 else 0.0
