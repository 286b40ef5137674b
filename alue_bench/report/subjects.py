"""What a page compares: a task with a model under one set of conditions, and which of these stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alue_bench.report import comparison

if TYPE_CHECKING:
    import pandas as pd

APART = ("data_source", "hardware")
"""Conditions that part a whole page: no figure and no average holds runs of two of them."""


@dataclass(frozen=True)
class Subject:
    """Strategies that compare with each other, and their runs."""

    compared: comparison.Block
    runs: pd.DataFrame

    @property
    def task(self) -> str:
        return self.compared.task

    @property
    def model(self) -> str:
        return self.compared.model

    @property
    def metric(self) -> str:
        """Such as f1_macro."""
        return self.compared.metric.removeprefix("test/")

    @property
    def conditions(self) -> str:
        """Those that tell this subject from another of the same task and model; not those that part the page."""
        within = tuple(name for name in self.compared.differing if name not in APART)
        return comparison.describe_conditions(replace(self.compared, differing=within))

    @property
    def label(self) -> str:
        """Task, model, and the conditions that tell this subject from another of the same two."""
        return " · ".join(said for said in (self.task, self.model, self.conditions) if said)

    @property
    def strategies(self) -> list[str]:
        """The baseline first."""
        return [row.strategy for row in self.compared.rows]

    def run_ids(self, strategy: str) -> Sequence[str]:
        """By seed."""
        return next(row.run_ids for row in self.compared.rows if row.strategy == strategy)


@dataclass(frozen=True)
class Comparable:
    """A block of the page: all runs of one data source and one kind of hardware."""

    heading: str
    """What they have in common; empty where all runs of the page do."""
    subjects: Sequence[Subject]

    @property
    def runs(self) -> pd.DataFrame:
        import pandas as pd

        return pd.concat([subject.runs for subject in self.subjects], ignore_index=True)


def arrange(compared: comparison.Comparison, runs: pd.DataFrame) -> list[Comparable]:
    """The subjects of a comparison of these runs, in blocks; that with the most runs first."""
    by_id = runs.set_index("run_id", drop=False)
    blocks: dict[tuple[str, ...], list[Subject]] = {}
    for block in compared.blocks:
        ids = [run_id for row in block.rows for run_id in row.run_ids]
        key = tuple(str(block.conditions[name] or "not recorded") for name in APART)
        blocks.setdefault(key, []).append(Subject(block, by_id.loc[ids].reset_index(drop=True)))
    ordered = sorted(blocks.items(), key=lambda item: -sum(len(subject.runs) for subject in item[1]))
    return [
        Comparable(f"{source} data · {hardware}" if len(ordered) > 1 else "", subjects)
        for (source, hardware), subjects in ordered
    ]
