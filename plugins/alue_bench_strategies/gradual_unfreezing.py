"""Gradual unfreezing: layers begin to train one after the other, from the top layer down to the embeddings.

Source: Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.3. In the first
epoch only the last layer is trained (here the top layer, with pooler and head). In each further epoch the next lower
layer is trained too, and finally the embeddings. For training with few epochs, `gradual-unfreeze-K` adds K layers in
each epoch. With too few epochs, the lowest layers and the embeddings stay frozen to the end. With the default of ten
epochs and a model of twelve layers, these are two layers and the embeddings.

Cost: each epoch costs as much as static freezing of the bottom layers that are frozen in this epoch. If the forward
pass of a layer costs F, twelve layers cost on average 23 F per step over ten epochs, instead of 36 F. The outputs of
the frozen layers are not cached: since different layers are frozen in each epoch, cached outputs would be read only
once. A layer that begins to train starts with a new optimiser state.

When it does not help: the method was proposed for LSTMs, together with a learning rate for each layer (compare
`--llrd`). If the learning rate decays over the whole training, layers that begin to train late have a low learning rate
and few steps left.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alue_bench import EncoderShape, FreezePlan, Revisions, Strategy, StrategyFamily, TrainingProgress, UsageError


@dataclass(frozen=True)
class GradualUnfreezing(Strategy):
    """A strategy that trains only the top layers at first, more layers in each epoch, and the embeddings last.

    In epoch e, counted from 1, the top `layers_per_epoch` · e layers train.
    """

    layers_per_epoch: int = 1
    """The number of layers that begin to train in each epoch."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "gradual-unfreeze" or "gradual-unfreeze-3"."""
        return "gradual-unfreeze" + (f"-{self.layers_per_epoch}" if self.layers_per_epoch > 1 else "")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return the freeze plan of the first epoch, in which only the top layers train."""
        return self._plan(shape, epoch=1)

    def revisions(self) -> Revisions:
        """Return the points of training at which `revise` is called: the end of each epoch."""
        return Revisions(per_epoch=1)

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        """Return the freeze plan of the next epoch, in which more layers train."""
        return self._plan(plan.shape, progress.epoch + 1)

    def _plan(self, shape: EncoderShape, epoch: int) -> FreezePlan:
        trained = self.layers_per_epoch * epoch
        frozen = range(max(0, shape.layers - trained))
        # The embeddings are one more block: they train as if they were the layer below layer 0.
        return FreezePlan(shape, frozenset(frozen), embeddings=trained <= shape.layers)


def parse(name: str) -> GradualUnfreezing | None:
    """Return the strategy for a name such as `gradual-unfreeze-3`, or None for a name of another form.

    Raises:
        UsageError: The number of layers is 0, is 1 (written `gradual-unfreeze`) or has leading zeros.
    """
    match = re.fullmatch(r"gradual-unfreeze(?:-(\d{1,4}))?", name)
    if match is None:
        return None
    strategy = GradualUnfreezing(int(match[1] or 1))
    if strategy.layers_per_epoch == 0:
        raise UsageError(f"strategy {name!r} unfreezes nothing; use head-only")
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} must be written {strategy.name!r}")
    return strategy


FAMILIES = (
    StrategyFamily(
        grammar="gradual-unfreeze, gradual-unfreeze-<K>",
        title="The top layer trains first; each epoch adds the next lower layer (or K layers), the embeddings last",
        source="Howard & Ruder 2018, Universal Language Model Fine-tuning for Text Classification, section 3.3",
        examples=("gradual-unfreeze", "gradual-unfreeze-3"),
        parse=parse,
    ),
)
