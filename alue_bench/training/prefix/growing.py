"""The frozen prefix of a model whose strategy may freeze more of it as it trains."""

from __future__ import annotations

from collections.abc import Callable

from alue_bench.contract.strategy import FreezePlan
from alue_bench.data.tokenisation import TokenisedSplit
from alue_bench.training.prefix.frozen_prefix import Examples, FrozenPrefix

BehindPrefix = Callable[[int | None], FrozenPrefix]
"""A view of the model as it is now, with a prefix of so many layers."""
StatesOf = Callable[[FrozenPrefix, str, TokenisedSplit], Examples]
"""Asks a prefix for a split, by name."""


class GrowingPrefix:
    """Holds what is behind the prefix for the splits of a training.

    While one depth's outputs are held, they are not evicted: a deeper prefix starts from them. Where there is no room
    for deeper ones, the ones at hand stay in use, and the layers between are computed at every step.
    """

    def __init__(
        self,
        prefix: FrozenPrefix,
        plan: FreezePlan,
        splits: dict[str, TokenisedSplit],
        behind: BehindPrefix,
        states_of: StatesOf,
    ) -> None:
        """prefix: that of `plan`, with which the training begins."""
        self._splits = splits
        self._behind = behind
        self._states_of = states_of
        self._depth = plan.prefix_layers
        self._current = {name: states_of(prefix, name, split) for name, split in splits.items()}

    def examples(self, name: str) -> Examples:
        return self._current[name]

    def follow(self, plan: FreezePlan) -> None:
        """Where the plan's prefix is deeper, compute what is behind it. Leaves the model in eval mode."""
        if (plan.prefix_layers or 0) <= (self._depth or 0):
            return
        self._depth = plan.prefix_layers
        prefix = self._behind(self._depth)
        for name, split in self._splits.items():
            found = self._states_of(prefix, name, split)
            if found.depth > self._current[name].depth:
                self._current[name] = found
