"""Another task on whose test split a run's trained model is scored, in addition to the test split of the run's task."""

from __future__ import annotations

from dataclasses import dataclass

from alue_bench.contract.label_fit import LabelFit
from alue_bench.contract.task import Task
from alue_bench.data.location import DataFolder
from alue_bench.data.splits import SplitRows


@dataclass(frozen=True)
class Companion:
    """A task on whose test split the models trained on another task are scored (option `--also-test`)."""

    task: Task
    rows: SplitRows
    """The scored test rows: those whose gold label a model of the trained task can predict."""
    fit: LabelFit
    """The correspondence between the labels of the trained task and those of this task."""
    folder: DataFolder
    """The folder that the rows were read from."""
    digest: str
    """A digest of the rows, the labels, the label map, and the version of the plugin."""
    left_out: int = 0
    """The number of test rows that are left out because no label of the trained task counts as their gold label."""
    notes: tuple[str, ...] = ()
    """Sentences that are recorded with each run that scores this task."""
