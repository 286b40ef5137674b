"""From the head down, one block after the other begins to train.

Source: Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.3: in the first
epoch the last layer trains (here: the top layer, with pooler and head), then with each epoch the next lower one too,
until everything does; the embeddings are the last block. `gradual-unfreeze-K` unfreezes K layers with each epoch, for
trainings of few epochs. With fewer epochs than blocks the lowest blocks stay frozen to the end: with the default of ten
epochs and twelve layers, two layers and the embeddings.

Cost: in each epoch that of freezing the bottom layers which are still frozen; for twelve layers and ten epochs 23 F of
36 F. What is frozen changes with each epoch, so that stored outputs of the prefix would be read only once:
they are not stored. The optimiser knows nothing yet of a block that begins to train.

When it does not help: it was proposed for LSTMs, along with rates that differ by layer (`--llrd`); and with a rate that
only decays, the blocks that begin late learn slowly and have few steps left.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alue_bench import EncoderShape, FreezePlan, Revisions, Strategy, StrategyFamily, TrainingProgress, UsageError


@dataclass(frozen=True)
class GradualUnfreezing(Strategy):
    """In epoch e the top `layers_per_epoch` · e layers train; the embeddings, once all layers do for an epoch."""

    layers_per_epoch: int = 1

    @property
    def name(self) -> str:
        return "gradual-unfreeze" + (f"-{self.layers_per_epoch}" if self.layers_per_epoch > 1 else "")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return self._plan(shape, epoch=1)

    def revisions(self) -> Revisions:
        return Revisions(per_epoch=1)

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        return self._plan(plan.shape, progress.epoch + 1)

    def _plan(self, shape: EncoderShape, epoch: int) -> FreezePlan:
        trained = self.layers_per_epoch * epoch
        frozen = range(max(0, shape.layers - trained))
        # The embeddings are one more block: they train with what would be the layer below layer 0.
        return FreezePlan(shape, frozenset(frozen), embeddings=trained <= shape.layers)


def parse(name: str) -> GradualUnfreezing | None:
    match = re.fullmatch(r"gradual-unfreeze(?:-(\d{1,4}))?", name)
    if match is None:
        return None
    strategy = GradualUnfreezing(int(match[1] or 1))
    if strategy.layers_per_epoch == 0:
        raise UsageError(f"strategy {name!r} unfreezes nothing; say head-only")
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} is written {strategy.name!r}")
    return strategy


FAMILIES = (
    StrategyFamily(
        grammar="gradual-unfreeze, gradual-unfreeze-<K>",
        title="The top layer trains first; with each epoch the next lower one (or K) too, the embeddings last",
        source="Howard & Ruder 2018, Universal Language Model Fine-tuning for Text Classification, section 3.3",
        examples=("gradual-unfreeze", "gradual-unfreeze-3"),
        parse=parse,
    ),
)
