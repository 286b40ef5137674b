"""The subjects of a report page, grouped into blocks of comparable runs.

A subject is the comparison of strategies for one task and model under one set of conditions, such as hyper-parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alue_bench.reporting import comparison

if TYPE_CHECKING:
    import pandas as pd

BLOCK_COLUMNS = ("data_source", "hardware", "folds")
"""The columns whose values divide the runs of a report page into blocks. No figure and no average mixes runs with
different values in these columns."""


@dataclass(frozen=True)
class Subject:
    """A subject of a report page: the strategies for one task and model under the same conditions, with their runs."""

    compared: comparison.ComparisonBlock
    """The comparison of the strategies."""
    runs: pd.DataFrame
    """The runs that were compared, one row per run."""

    @property
    def task(self) -> str:
        """The task's name."""
        return self.compared.task

    @property
    def model(self) -> str:
        """The model's name."""
        return self.compared.model

    @property
    def metric(self) -> str:
        """The metric's name, such as f1_macro."""
        return self.compared.metric.removeprefix("test/")

    @property
    def conditions(self) -> str:
        """The conditions that distinguish this subject from other subjects of its task and model; empty if none do."""
        within = tuple(name for name in self.compared.differing if name not in BLOCK_COLUMNS)
        return comparison.describe_conditions(replace(self.compared, differing=within))

    @property
    def label(self) -> str:
        """A text with the task, the model, and the conditions that distinguish subjects of this task and model."""
        return " · ".join(part for part in (self.task, self.model, self.conditions) if part)

    @property
    def strategies(self) -> list[str]:
        """The names of the strategies, the baseline first."""
        return [row.strategy for row in self.compared.rows]

    def run_ids(self, strategy: str) -> Sequence[str]:
        """Return the ids of a strategy's runs in the order of their seeds."""
        return next(row.run_ids for row in self.compared.rows if row.strategy == strategy)


@dataclass(frozen=True)
class ComparableRuns:
    """A set of comparable runs, which have the same data source, kind of hardware and number of folds.

    Within the set, each subject is the comparison of strategies for one task and model.
    """

    heading: str
    """The data source, hardware and number of folds; empty if these are the same for all runs of the page."""
    subjects: Sequence[Subject]

    @property
    def runs(self) -> pd.DataFrame:
        """The runs of this set, one row per run."""
        import pandas as pd

        return pd.concat([subject.runs for subject in self.subjects], ignore_index=True)


def arrange(compared: comparison.Comparison, runs: pd.DataFrame) -> list[ComparableRuns]:
    """Convert a comparison to the blocks of a report page; the block with the most runs comes first.

    Each block has subjects, that is, comparisons of strategies for one task and model under one set of conditions.

    Args:
        compared: The comparison of strategies.
        runs: The frame of the runs that were compared, one row per run.
    """
    by_id = runs.set_index("run_id", drop=False)
    blocks: dict[tuple[str, ...], list[Subject]] = {}
    for block in compared.blocks:
        ids = [run_id for row in block.rows for run_id in (*row.run_ids, *row.left_out)]
        key = tuple(str(block.conditions[name] or "not recorded") for name in BLOCK_COLUMNS)
        blocks.setdefault(key, []).append(Subject(block, by_id.loc[ids].reset_index(drop=True)))
    ordered = sorted(blocks.items(), key=lambda item: -sum(len(subject.runs) for subject in item[1]))
    return [
        ComparableRuns(_heading(key, subjects[0].compared.folds) if len(ordered) > 1 else "", subjects)
        for key, subjects in ordered
    ]


def _heading(key: tuple[str, ...], folds: int) -> str:
    source, hardware, _ = key
    return " · ".join([f"{source} data", hardware, *([f"{folds} folds"] if folds else [])])
