"""Selectors: strategies that choose K layers to train by inspecting the loaded model, and freeze the rest.

The embeddings are frozen, and the pooler and the head train. The trained layers need not be adjacent. Each module of a
selector states its score, its source and its cost: `fisher_information`, `relative_gradient`, `layer_similarity`,
`weight_spectrum`, `greedy_selection` and `random_layers`, the control.

Cost: All selectors copy the model for the time of the choice. A training in which layer 0 is chosen back-propagates
through all layers, and saves only the gradients of the frozen weights.

When it does not help: the score may grow or shrink with depth for reasons other than the task, such as the position of
layer norms; then every task gets the same layers. Compare with `random-K` and with the contiguous top layers
(`bottom<N>`) at equal FLOPs before relying on a selector.
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
        """Return the costliest choice, the lowest layers: gradients then pass through all layers.

        Raises:
            DoesNotFit: The model has no more layers than are to train.
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
        """Return the choice of the layers with the highest scores."""
        return Choice.highest(probe.shape, self.scores(probe), self.count)

    @abstractmethod
    def scores(self, probe: Probe) -> list[float]:
        """Return the score of each layer, from layer 0 upwards."""


def training_only(shape: EncoderShape, layers: Iterable[int]) -> FreezePlan:
    """Return the plan that trains some layers, the pooler and the head, and freezes everything else."""
    return FreezePlan(shape, frozenset(range(shape.layers)) - frozenset(layers), embeddings=True)


def selector_family(kind: type[Selector], title: str, source: str) -> StrategyFamily:
    """Return the family of the strategies named after the selector's prefix and a number of layers."""

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
