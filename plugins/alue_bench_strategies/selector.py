"""Selectors: strategies that choose K layers to train by inspecting the loaded model, and freeze the rest.

The embeddings are frozen, and the pooler and the head train. The trained layers need not be adjacent. The modules
`fisher_information`, `relative_gradient`, `layer_similarity`, `weight_spectrum` and `greedy_selection` define one
selector each, and describe how it scores the layers, its source and its cost. `random_layers` is the control.

Cost: while a selector chooses, there is a second copy of the model in memory. If layer 0 is chosen, back-propagation
passes through all layers, and training saves only the gradients of the frozen weights.

When it does not help: the scores of layers may grow or shrink with depth for reasons other than the task, such as the
position of layer norms; then every task gets the same layers. Before relying on a selector, compare it at equal FLOPs
with `random-K` and with training only the top layers (`bottom<N>`).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from alue_bench import Choice, DoesNotFit, EncoderShape, FreezePlan, Probe, Strategy, StrategyFamily, UsageError


@dataclass(frozen=True)
class Selector(Strategy):
    """A strategy that chooses K layers to train by inspecting the loaded model."""

    count: int
    """The number of layers that train."""
    prefix = ""
    """The text before the number in the strategy's name."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "surgical-3"."""
        return f"{self.prefix}-{self.count}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a plan that trains the lowest K layers, from which the cost of a run is estimated.

        This is the costliest choice that the selector may make, because gradients pass through all layers.

        Raises:
            DoesNotFit: The model has K layers or fewer.
        """
        if self.count >= shape.layers:
            raise DoesNotFit(
                f"{self.name} chooses {self.count} layers to train, but the model has only {shape.layers}; choose "
                f"fewer than {shape.layers}"
            )
        return training_only(shape, range(self.count))


class RankingSelector(Selector):
    """A selector that trains the layers with the highest scores."""

    def choose(self, probe: Probe) -> Choice:
        """Return a plan that trains the K layers with the highest scores, together with the scores."""
        return Choice.highest(probe.shape, self.scores(probe), self.count)

    @abstractmethod
    def scores(self, probe: Probe) -> list[float]:
        """Return the score of each layer, from layer 0 upwards; the layers with the highest scores train."""


def training_only(shape: EncoderShape, layers: Iterable[int]) -> FreezePlan:
    """Return a plan that trains the layers with these indices, the pooler and the head, and freezes everything else."""
    return FreezePlan(shape, frozenset(range(shape.layers)) - frozenset(layers), embeddings=True)


def selector_family(kind: type[Selector], title: str, source: str) -> StrategyFamily:
    """Return the family of a selector, whose names consist of a prefix and the number of layers: `surgical-3`.

    Args:
        kind: The selector class, whose `prefix` begins the names.
        title: A description of the layers that train, which lists of strategies show.
        source: The publication of the method.
    """

    def parse(name: str) -> Selector | None:
        match = re.fullmatch(rf"{kind.prefix}-(\d{{1,4}})", name, re.ASCII)
        if match is None:
            return None
        strategy = kind(int(match[1]))
        if strategy.count < 1:
            raise UsageError(f"strategy {name!r}: the number of layers that train must be at least 1")
        if strategy.name != name:
            raise UsageError(f"strategy {name!r} must be written {strategy.name!r}")
        return strategy

    return StrategyFamily(
        grammar=f"{kind.prefix}-<K>",
        title=title,
        source=source,
        examples=(f"{kind.prefix}-1", f"{kind.prefix}-3"),
        parse=parse,
    )
