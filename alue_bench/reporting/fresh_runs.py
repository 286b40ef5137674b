"""The loss of a setting that a report chose itself, by the runs that took no part in the choice.

A report recommends one of many settings by its dev scores. The setting's runs with these seeds were lucky on average,
and say nothing about the loss to expect, even if no sweep has tagged them. Runs with other seeds do. If there are none,
the loss is not known, and the report names the command that runs the setting with fresh seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from alue_bench.evaluation.margins import Margins
from alue_bench.planning.grid import DEFAULT_TOLERANCE
from alue_bench.reporting import grid
from alue_bench.reporting.choosing_runs import confirming_command, unrecorded_options
from alue_bench.reporting.comparison import ComparisonBlock, Load, compare
from alue_bench.reporting.subjects import Subject

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RecommendationRule:
    """The rule by which a report recommends one of many settings, and finds the loss of this setting in fresh runs."""

    load: Load
    """The function that reads a run's test predictions."""
    tolerance: float = DEFAULT_TOLERANCE
    """The largest accepted loss of dev score, as a share of the reference's dev score."""

    def fresh(self, subject: Subject, strategy: str) -> ComparisonBlock | None:
        """Return the comparison of a chosen setting with the baseline by runs that took no part in the choice.

        Args:
            subject: The comparison of all strategies, with their runs.
            strategy: The chosen setting.

        Returns:
            The comparison of both; None if the setting or the baseline has no such run, or no seed is common to both.
        """
        runs, baseline = subject.runs, subject.compared.baseline
        chose = runs["run_id"].isin(grid.choosing_runs(runs)["run_id"]) | runs["chosen_in"].notna()
        fresh = runs[runs["strategy"].eq(strategy) & ~chose]
        if fresh.empty or fresh[subject.compared.metric].isna().all():
            return None
        seeds = runs["seed"].isin(fresh["seed"])
        both = runs[runs["run_id"].isin(fresh["run_id"]) | (runs["strategy"].eq(baseline) & seeds)]
        blocks = compare(
            both, self.load, baseline=baseline, metric=subject.compared.metric, margins=Margins(subject.compared.margin)
        ).blocks
        for block in blocks:
            row = next((row for row in block.rows if row.strategy == strategy), None)
            if row is not None and row.difference is not None and row.difference.seeds:
                return block
        return None


def how_to_confirm(subject: Subject, strategy: str) -> str:
    """Return the sentence that the loss of a chosen setting is not known, with the command that confirms it."""
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
