"""The data of a training: its splits, with stored outputs of frozen layers where there are any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from alue_bench.contract.strategy import FreezePlan
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.training.prefix.frozen_prefix import Examples, FrozenPrefix

BehindPrefix = Callable[[int | None], FrozenPrefix]
"""A function that returns the frozen prefix of a given number of the model's lowest layers."""
StatesOf = Callable[[FrozenPrefix, str, TokenizedSplit], Examples]
"""A function that gives a split, named by its second argument, with the outputs of a frozen prefix."""


class TrainingData(Protocol):
    """The splits of a training, named "train" and "dev"."""

    def examples(self, name: str) -> Examples:
        """Return a split, with the outputs of its frozen prefix if they are available."""
        ...

    def follow(self, plan: FreezePlan) -> None:
        """Adapt to a new plan of the strategy, which is in effect from now on."""
        ...


@dataclass(frozen=True)
class FixedData:
    """Splits with a fixed frozen prefix, or none, that does not follow changes of the plan."""

    train: Examples
    dev: Examples

    def examples(self, name: str) -> Examples:
        """Return the split of this name, "train" or "dev"."""
        return {"train": self.train, "dev": self.dev}[name]

    def follow(self, plan: FreezePlan) -> None:
        """Do nothing."""


class GrowingPrefix:
    """The splits of a training whose strategy may freeze further layers as training proceeds.

    The outputs in use are never evicted, because those of a deeper prefix are computed from them. If the store has no
    room for the deeper outputs, the present ones stay in use, and the layers in between are computed at every step.
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
            behind: A function that returns the frozen prefix of another depth.
            states_of: A function that returns a split with the outputs of a prefix.
        """
        self._splits = splits
        self._behind = behind
        self._states_of = states_of
        self._depth = plan.prefix_layers
        self._current = {name: states_of(prefix, name, split) for name, split in splits.items()}

    def examples(self, name: str) -> Examples:
        """Return the split of this name with the outputs of the deepest prefix that is available."""
        return self._current[name]

    def follow(self, plan: FreezePlan) -> None:
        """Compute the outputs of the plan's prefix if it is deeper than before; leave the model in eval mode."""
        if (plan.prefix_layers or 0) <= (self._depth or 0):
            return
        self._depth = plan.prefix_layers
        prefix = self._behind(self._depth)
        for name, split in self._splits.items():
            deeper = self._states_of(prefix, name, split)
            if deeper.depth > self._current[name].depth:
                self._current[name] = deeper
