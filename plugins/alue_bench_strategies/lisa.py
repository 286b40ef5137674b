"""LISA: K randomly drawn layers train at a time, and are drawn again during training.

Source: Pan et al. 2024, "LISA: Layerwise Importance Sampling for Memory-Efficient Large Language Model Fine-Tuning",
arXiv 2403.17919, and the authors' published code (LMFlow). All layers are frozen except K of them, drawn uniformly
without replacement; after some steps, K layers are drawn again. The embeddings and the head train throughout, and so
does the pooler here.

Choices made here, where the source leaves it open or gives numbers for language models only:

- Layers are drawn at the start and ten times in each epoch, at equal distances. The authors' example script draws them
  every 20 steps, which would be once or never in the small train splits of classification tasks.
- A draw depends on the run's data seed and on the step, and on nothing else.
- A layer that is not drawn loses its optimiser state, as in the source, whose aim is to keep no such state. A layer
  that is drawn twice in succession keeps its state; the authors' code starts it anew.

Cost: if the forward pass of a layer costs F, a step costs 2 F for each layer and K F more, because the embeddings train
and the gradient passes through all layers: 26 F for `lisa-2` with twelve layers, instead of 36 F. There is no frozen
prefix. The optimiser state is that of K layers, the embeddings and the head. On a GPU, each draw costs the time for
capturing CUDA graphs again.

When it does not help: LISA saves memory, not time. An encoder that fits into memory anyway is trained faster by
freezing the same number of layers at the bottom. In short trainings, each layer is drawn only a few times, for a few
steps each, with an optimiser that starts anew.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from alue_bench import (
    DoesNotFit,
    EncoderShape,
    FreezePlan,
    Revisions,
    Strategy,
    StrategyFamily,
    TrainingProgress,
    UsageError,
)

DRAWS = 10
"""The number of draws in an epoch."""


@dataclass(frozen=True)
class Lisa(Strategy):
    """A strategy that trains the embeddings and randomly drawn layers, which are drawn again during training."""

    count: int
    """The number of layers that train at a time."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "lisa-2"."""
        return f"lisa-{self.count}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a plan that trains as many layers as each draw, for estimates: the lowest ones.

        Raises:
            DoesNotFit: The model has no more layers than are to train.
        """
        if self.count >= shape.layers:
            raise DoesNotFit(
                f"{self.name} trains {self.count} layers at a time, but the model has only {shape.layers}; use full"
            )
        return FreezePlan(shape, frozenset(range(self.count, shape.layers)))

    def revisions(self) -> Revisions:
        """Return the points at which layers are drawn: the start of training, and ten in each epoch."""
        return Revisions(per_epoch=DRAWS, at_start=True)

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        """Return a plan that trains newly drawn layers."""
        layers = range(plan.shape.layers)
        # A text as seed, because seeds that are combined by arithmetic could give the same draws for different runs.
        drawn = random.Random(f"lisa {progress.data_seed} {progress.step}").sample(layers, self.count)
        return FreezePlan(plan.shape, frozenset(layers) - frozenset(drawn))


def parse(name: str) -> Lisa | None:
    """Return the strategy that a name `lisa-<K>` stands for, or None for any other name."""
    match = re.fullmatch(r"lisa-(\d{1,4})", name, re.ASCII)
    if match is None:
        return None
    strategy = Lisa(int(match[1]))
    if strategy.count == 0:
        raise UsageError(f"strategy {name!r} trains no layer; use head-only-trainemb")
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} must be written {strategy.name!r}")
    return strategy


FAMILIES = (
    StrategyFamily(
        grammar="lisa-<K>",
        title="K random layers train at a time, with embeddings, pooler and head; drawn again ten times an epoch",
        source="Pan et al. 2024, LISA: Layerwise Importance Sampling, arXiv 2403.17919",
        examples=("lisa-1", "lisa-2"),
        parse=parse,
    ),
)
