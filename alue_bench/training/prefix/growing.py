"""The data of a training: its splits, with stored outputs of frozen layers where there are any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from alue_bench.contract.strategy import FreezePlan
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.training.prefix.frozen_prefix import Examples, FrozenPrefix

BehindPrefix = Callable[[int | None], FrozenPrefix]
"""A function from a number of layers to the frozen prefix that they form in the model as it is now."""
StatesOf = Callable[[FrozenPrefix, str, TokenizedSplit], Examples]
"""A function that gives a split, named by its second argument, with the outputs of a frozen prefix."""


class TrainingData(Protocol):
    """The splits of a training, named "train" and "dev"."""

    def examples(self, name: str) -> Examples:
        """Return a split, with the outputs of its frozen prefix where they are at hand."""
        ...

    def follow(self, plan: FreezePlan) -> None:
        """Note that the strategy has frozen more or less: from now on this plan is in effect."""
        ...


@dataclass(frozen=True)
class FixedData:
    """Splits whose frozen prefix, if there is any, stays as it is whatever the strategy freezes."""

    train: Examples
    dev: Examples

    def examples(self, name: str) -> Examples:
        """Return the split of this name, "train" or "dev"."""
        return {"train": self.train, "dev": self.dev}[name]

    def follow(self, plan: FreezePlan) -> None:
        """Change nothing."""


class GrowingPrefix:
    """The splits of a training whose strategy may freeze more layers as it goes along.

    While one depth's outputs are held, they are not evicted: a deeper prefix starts from them. Where there is no room
    for deeper ones, the ones at hand stay in use, and the layers between are computed at every step.
    """

    def __init__(
        self,
        prefix: FrozenPrefix,
        plan: FreezePlan,
        splits: Mapping[str, TokenizedSplit],
        behind: BehindPrefix,
        states_of: StatesOf,
    ) -> None:
        """Compute, or read from the store, the outputs of the prefix that is frozen from the beginning.

        Args:
            prefix: The frozen prefix of `plan`.
            plan: The plan with which the training begins.
            splits: The token ids of each split, by its name.
            behind: It makes the frozen prefix of another depth.
            states_of: It asks a prefix for its outputs.
        """
        self._splits = splits
        self._behind = behind
        self._states_of = states_of
        self._depth = plan.prefix_layers
        self._current = {name: states_of(prefix, name, split) for name, split in splits.items()}

    def examples(self, name: str) -> Examples:
        """Return the split of this name with the outputs of the deepest prefix that is at hand."""
        return self._current[name]

    def follow(self, plan: FreezePlan) -> None:
        """Compute the outputs of the plan's prefix where it is deeper than before; leave the model in eval mode."""
        if (plan.prefix_layers or 0) <= (self._depth or 0):
            return
        self._depth = plan.prefix_layers
        prefix = self._behind(self._depth)
        for name, split in self._splits.items():
            deeper = self._states_of(prefix, name, split)
            if deeper.depth > self._current[name].depth:
                self._current[name] = deeper
