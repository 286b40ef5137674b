"""LISA: only K layers train at a time. They are drawn at random, and drawn anew several times during training.

Source: Pan et al. 2024, "LISA: Layerwise Importance Sampling for Memory-Efficient Large Language Model Fine-Tuning",
arXiv 2403.17919, and the authors' published code (LMFlow). K layers are drawn uniformly without replacement, and all
other layers are frozen. After some steps, K layers are drawn anew. The embeddings and the head train all the time; here
the pooler does too.

Choices made here, where the source leaves something open or gives values for language models only:

- Layers are drawn at the start and ten times in each epoch, at equal distances. The authors' example script draws them
  every 20 steps; with the small train splits of classification tasks, this would be once or never.
- The drawn layers depend only on the run's data seed and on the step.
- A layer that is not drawn again loses its optimiser state, as in the source, which saves memory in this way. A layer
  that is drawn twice in succession keeps its state; in the authors' code it starts with a new one.

Cost: the embeddings train. The gradient therefore passes through all layers, and there is no frozen prefix (frozen
bottom layers whose output can be computed once). If the forward pass of a layer costs F, each of the K drawn layers
costs 3 F per step, and each frozen layer 2 F: 26 F for `lisa-2` with twelve layers, instead of 36 F. The optimiser has
a state only for K layers, the embeddings, the pooler and the head. On a GPU, CUDA graphs have to be captured again
after each draw.

When it does not help: LISA is meant to save memory more than time. If the model fits into memory, freezing the same
number of layers at the bottom trains faster. In short fine-tuning runs, each layer is drawn only a few times, for a few
steps each, with a new optimiser state each time.
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
    """A strategy that trains the embeddings and K random layers, and draws these layers anew during training."""

    count: int
    """The number of layers that train at a time."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "lisa-2"."""
        return f"lisa-{self.count}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a plan that trains the lowest K layers, from which the cost of a run is estimated.

        Before the first training step, `revise` replaces it by a plan with drawn layers.

        Raises:
            DoesNotFit: The model has K layers or fewer.
        """
        if self.count >= shape.layers:
            raise DoesNotFit(
                f"{self.name} trains {self.count} layers at a time, but the model has only {shape.layers}; use full"
            )
        return FreezePlan(shape, frozenset(range(self.count, shape.layers)))

    def revisions(self) -> Revisions:
        """Return the points at which layers are drawn: the start of training, and ten points in each epoch."""
        return Revisions(per_epoch=DRAWS, at_start=True)

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        """Return a plan that trains K newly drawn layers, and freezes the other layers."""
        layers = range(plan.shape.layers)
        # The seed is a string: sums or products of seed and step could be equal for different runs.
        drawn = random.Random(f"lisa {progress.data_seed} {progress.step}").sample(layers, self.count)
        return FreezePlan(plan.shape, frozenset(layers) - frozenset(drawn))


def parse(name: str) -> Lisa | None:
    """Return the strategy for a name such as `lisa-2`, or None for a name of another form.

    Raises:
        UsageError: The number of layers is 0 or has leading zeros.
    """
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
