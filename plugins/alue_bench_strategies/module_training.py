"""Training of one part of each layer: its attention, its feed-forward part, its norms or its biases.

`bottom3top4-attention` freezes the bottom 3 and top 4 layers completely, and trains only the attention of the layers
between them. `full-feedforward` trains the feed-forward parts of all layers. The embeddings are frozen, and pooler and
head train. The parts are found in any encoder: attention is the module of a layer in which tokens exchange information,
with its projections; norms are the normalisation layers; the feed-forward part is the rest. Attention, feed-forward
parts and norms do not overlap.

Source: AkbarTajari, Rajaee & Pilehvar 2022, "An Empirical Study on the Transferability of Transformer Modules in
Parameter-efficient Fine-tuning", arXiv 2302.00378. The authors train single modules of all layers. Combining this with
frozen layers is a choice made here.

Cost: let the forward pass of a layer cost F; the matrix products with the weights of attention are about a third of it.
Then a layer costs 2.3 F per step with `-attention`, 2.7 F with `-feedforward`, and 2 F with `-norms` or `-biases`,
instead of 3 F. Layers frozen at the bottom form a frozen prefix: they cost 1 F, and their output is computed once.

When it does not help: training only a part of each layer saves at most a third of the compute. With the same number of
trained parameters, freezing the lower layers saves more. In SqueezeBERT, the output projection of attention is outside
the attention module, so that it counts as feed-forward there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from alue_bench import EncoderShape, FreezePlan, Strategy, StrategyFamily, UsageError, cell_name, read_cell
from alue_bench_strategies.static_freezing import StaticFreezing

PARTS: dict[str, Literal["attention", "feed-forward", "norms", "biases"]] = {
    "attention": "attention",
    "feedforward": "feed-forward",
    "norms": "norms",
    "biases": "biases",
}
"""The value of `FreezePlan.trained` for each ending of a strategy's name."""
STRATEGY_NAME_OF_PART = {"norms": "lntune", "biases": "bitfit"}
"""The names to use instead of `full-norms` and `full-biases`: `lntune` and `bitfit` train the same parameters."""


@dataclass(frozen=True)
class ModuleTraining(Strategy):
    """A strategy that freezes bottom and top layers, and trains only one part of each layer between them."""

    bottom: int
    """The number of frozen layers at the bottom."""
    top: int
    """The number of frozen layers at the top."""
    part: str
    """The part that trains in the layers that are not frozen, a key of `PARTS`."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "bottom3top4-attention" or "full-feedforward"."""
        return f"{cell_name((self.bottom, self.top))}-{self.part}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a plan that trains one part of each layer between the frozen bottom and top layers.

        Raises:
            DoesNotFit: The model has too few layers.
        """
        plan = StaticFreezing(self.bottom, self.top).freeze_plan(shape)
        return replace(plan, embeddings=True, trained=PARTS[self.part])


def parse(name: str) -> ModuleTraining | None:
    """Return the strategy for a name such as `bottom3top4-attention`, or None for a name of another form.

    Raises:
        UsageError: The strategy must be written differently, such as `bitfit` instead of `full-biases`.
    """
    layers, dash, part = name.rpartition("-")
    cell = read_cell(layers) if dash and part in PARTS else None
    if cell is None:
        return None
    if cell == (0, 0) and part in STRATEGY_NAME_OF_PART:
        raise UsageError(f"strategy {name!r} is called {STRATEGY_NAME_OF_PART[part]!r}")
    strategy = ModuleTraining(*cell, part)
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} must be written {strategy.name!r}")
    return strategy


FAMILIES = (
    StrategyFamily(
        grammar="full, bottom<N>, top<M> or bottom<N>top<M>, then -attention, -feedforward, -norms or -biases",
        title="Only one part of the layers trains, while the bottom N and top M layers and the embeddings stay frozen",
        source="AkbarTajari, Rajaee & Pilehvar 2022, Transferability of Transformer Modules, arXiv 2302.00378",
        examples=("full-attention", "full-feedforward", "bottom3top4-attention", "bottom6-norms", "top4-biases"),
        parse=parse,
    ),
)
