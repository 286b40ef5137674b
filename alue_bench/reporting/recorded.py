"""The recorded runs of one command, and their comparison with the baseline.

The table at the end of `run` and the report of the MLflow parent run show the same comparison, which is computed once.
It is the comparison of `alue-bench compare`, restricted to these runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from alue_bench.contract.errors import UnavailableError
from alue_bench.evaluation.margins import Margins
from alue_bench.planning.grid import DEFAULT_TOLERANCE
from alue_bench.reporting.comparison import Comparison, LoadTargets, compare
from alue_bench.tracking.connection import Connection
from alue_bench.tracking.reading import Results, read_runs, read_targets

if TYPE_CHECKING:
    from alue_bench.evaluation.predictions import GoldAndPredicted

MAX_TESTED_RUNS = 1000
"""The largest number of runs whose predictions are read for the significance tests. Reading the
files of ten thousand runs takes several seconds, and far longer if they are on another machine."""


@dataclass(frozen=True)
class RecordedRuns:
    """The runs of one command, read from the MLflow store when they are first needed."""

    connection: Connection
    run_ids: Sequence[str]
    """The MLflow ids of the runs. Failed runs are not compared."""
    parent_id: str | None = None
    """The MLflow id of their parent run; None if there is none."""
    margins: Margins | None = None
    """The margin (largest acceptable loss of score) for each metric; None for the default."""
    tolerance: float = DEFAULT_TOLERANCE
    """The largest accepted loss of dev score of a recommended setting, as a share of full fine-tuning's dev score."""

    @cached_property
    def results(self) -> Results:
        """The finished runs of the command."""
        return read_runs(self.connection, self.run_ids, parent_id=self.parent_id)

    @cached_property
    def comparison(self) -> Comparison:
        """The comparison of the runs with the baseline, by each task's primary metric."""
        margins = self.margins and self.margins.of_recorded(self.results.metrics)
        return compare(self.results.frame, limited_reader(self.results), margins=margins)


def limited_reader(results: Results) -> LoadTargets:
    """Return a function that reads a run's test predictions, of the type `comparison.LoadTargets`.

    The function raises UnavailableError if it is called more than `MAX_TESTED_RUNS` times. This limit keeps the time
    short if there are many runs.
    """
    numbers = itertools.count(1)  # safe if several threads count at once, unlike `+= 1`

    def load(run_id: str, multilabel: bool) -> GoldAndPredicted:
        if next(numbers) > MAX_TESTED_RUNS:
            raise UnavailableError(
                f"the predictions of {MAX_TESTED_RUNS} runs at most are read here; alue-bench compare tests all, and "
                "--task, --model and --strategy choose fewer"
            )
        return read_targets(results, run_id, multilabel)

    return load
