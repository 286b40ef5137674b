"""The loss of a freezing setting that a report recommends, measured by runs that took no part in the choice.

A report recommends one of many settings by the dev scores of their runs. Because the setting was chosen among many, its
scores in these runs are too high on average, even if no sweep has tagged the runs as used for a choice. The loss to
expect is therefore computed from runs with other, fresh seeds only. If there are no such runs, the loss is not known,
and the report states the command that runs the setting with fresh seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alue_bench.evaluation.margins import Margins
from alue_bench.planning.grid import DEFAULT_TOLERANCE
from alue_bench.reporting import grid
from alue_bench.reporting.choosing_runs import confirming_command, unrecorded_options
from alue_bench.reporting.comparison import ComparisonBlock, LoadTargets, compare
from alue_bench.reporting.subjects import Subject

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RecommendationRule:
    """The rule by which a report recommends one of many settings, and finds the loss of this setting in fresh runs."""

    load: LoadTargets
    """The function that reads a run's test predictions."""
    tolerance: float = DEFAULT_TOLERANCE
    """The largest accepted loss of dev score, as a share of the dev score of full fine-tuning or, if that was not run,
    of the setting with the best dev score."""

    def fresh(self, subject: Subject, strategy: str) -> ComparisonBlock | None:
        """Compare a recommended setting with the baseline in the runs that took no part in the choice of the setting.

        Args:
            subject: The comparison of all strategies for one task and model, with their runs.
            strategy: The recommended setting.

        Returns:
            The comparison; None if the setting has no such run with a score, or if the baseline did not run with the
            same seeds.
        """
        runs, baseline = subject.runs, subject.compared.baseline
        chose = runs["run_id"].isin(grid.choosing_runs(runs)["run_id"]) | runs["chosen_in"].notna()
        fresh = runs[runs["strategy"].eq(strategy) & ~chose]
        if fresh.empty or fresh[subject.compared.metric].isna().all():
            return None
        seeds = runs["seed"].isin(fresh["seed"])
        compared = runs[runs["run_id"].isin(fresh["run_id"]) | (runs["strategy"].eq(baseline) & seeds)]
        blocks = compare(
            compared,
            self.load,
            baseline=baseline,
            metric=subject.compared.metric,
            margins=Margins(subject.compared.margin),
        ).blocks
        for block in blocks:
            row = next((row for row in block.rows if row.strategy == strategy), None)
            if row is not None and row.difference is not None and row.difference.seeds:
                return block
        return None


def how_to_confirm(subject: Subject, strategy: str) -> str:
    """Return a sentence which states that the loss of a chosen setting is not known, and the command to measure it."""
    return (
        f"The loss to expect is not known, since {strategy} was chosen by these runs, whose scores are therefore too "
        f"high on average; confirm it with other seeds: {command_to_confirm(subject, strategy)}"
    )


def command_to_confirm(subject: Subject, strategy: str) -> str:
    """Return the command that runs a chosen setting and the baseline with fresh seeds."""
    chosen, baseline = _records(subject.runs, strategy), subject.compared.baseline
    command = confirming_command(strategy, chosen, {baseline: _records(subject.runs, baseline)})
    return command + unrecorded_options(chosen)


def _records(runs: pd.DataFrame, strategy: str) -> list[dict[object, object]]:
    return [dict(run) for run in runs[runs["strategy"] == strategy].to_dict("records")]
