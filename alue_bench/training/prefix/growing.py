"""The train and dev splits of a training run, with the stored outputs of frozen lower layers if there are any.

The frozen prefix of a model is its embeddings and the contiguous frozen layers above them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from alue_bench.contract.strategy import FreezePlan
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.training.prefix.frozen_prefix import Examples, FrozenPrefix

PrefixOfDepth = Callable[[int | None], FrozenPrefix]
"""A function that takes a number of layers and returns the frozen prefix of this depth. It takes None if not even the
embeddings are frozen."""
StatesOf = Callable[[FrozenPrefix, str, TokenizedSplit], Examples]
"""A function that takes a frozen prefix, the name of a split and the split, and returns the split with the stored
outputs of the prefix."""


class TrainingData(Protocol):
    """The data splits of a training run, named "train" and "dev"."""

    def examples(self, name: str) -> Examples:
        """Return the split "train" or "dev", with the stored outputs of the frozen layers if there are any."""
        ...

    def adapt_to_plan(self, plan: FreezePlan) -> None:
        """Adapt the stored outputs to a new freeze plan, which has already been applied to the model."""
        ...


@dataclass(frozen=True)
class FixedData:
    """Train and dev splits whose stored outputs, if any, stay the same when the freeze plan changes."""

    train: Examples
    dev: Examples

    def examples(self, name: str) -> Examples:
        """Return the split of this name, "train" or "dev"."""
        return {"train": self.train, "dev": self.dev}[name]

    def adapt_to_plan(self, plan: FreezePlan) -> None:
        """Do nothing, because the stored outputs are fixed."""


class GrowingPrefix:
    """The train and dev splits of a training run whose strategy may freeze more layers during training.

    When the frozen prefix grows, its outputs are computed: on a CPU from the stored outputs of the shallower prefix,
    which are never evicted while in use, and on an accelerator from the token ids. If the store has no room for the
    outputs of the deeper prefix, the outputs of the shallower prefix stay in use, and the additional frozen layers are
    computed at every step.
    """

    def __init__(
        self,
        prefix: FrozenPrefix,
        plan: FreezePlan,
        splits: Mapping[str, TokenizedSplit],
        prefix_of_depth: PrefixOfDepth,
        states_of: StatesOf,
    ) -> None:
        """Compute, or read from the store, the outputs of the initial frozen prefix.

        Args:
            prefix: The frozen prefix of `plan`.
            plan: The initial freeze plan.
            splits: The tokenized splits, by name.
            prefix_of_depth: A function that returns the frozen prefix with a given number of layers; see
                `PrefixOfDepth`.
            states_of: A function that returns a split with the stored outputs of a prefix; see `StatesOf`.
        """
        self._splits = splits
        self._prefix_of_depth = prefix_of_depth
        self._states_of = states_of
        self._depth = plan.prefix_layers
        self._current = {name: states_of(prefix, name, split) for name, split in splits.items()}

    def examples(self, name: str) -> Examples:
        """Return the split "train" or "dev", with the outputs of the deepest frozen prefix whose outputs are stored."""
        return self._current[name]

    def adapt_to_plan(self, plan: FreezePlan) -> None:
        """Compute the outputs of the frozen lowest layers if the new plan freezes more of them than before.

        This leaves the model in eval mode.
        """
        if (plan.prefix_layers or 0) <= (self._depth or 0):
            return
        self._depth = plan.prefix_layers
        prefix = self._prefix_of_depth(self._depth)
        for name, split in self._splits.items():
            deeper = self._states_of(prefix, name, split)
            if deeper.depth > self._current[name].depth:
                self._current[name] = deeper
