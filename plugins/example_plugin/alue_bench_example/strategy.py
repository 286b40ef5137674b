"""A family of strategies: every K-th layer is frozen.

Cost: if the forward pass of a layer costs F, a frozen layer costs 2 F per step instead of 3 F, because the gradient
still passes through it to the layers and the embeddings below. `example-every2` therefore saves about a sixth of the
layers' compute.

When it does not help: freezing the same number of bottom layers, with the embeddings, saves at least twice as much.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alue_bench import DoesNotFit, EncoderShape, FreezePlan, Strategy, StrategyFamily, UsageError

_NAME = re.compile(r"example-every(0|[1-9]\d{0,2})")


@dataclass(frozen=True)
class EveryKth(Strategy):
    """A strategy that freezes every K-th layer and trains everything else.

    The layers are counted from 1, which is the layer next to the embeddings.
    """

    step: int
    """The number K, at least 1."""

    @property
    def name(self) -> str:
        """The canonical name, such as "example-every2"."""
        return f"example-every{self.step}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a plan that freezes every K-th layer of a model of this size.

        Raises:
            DoesNotFit: The model has fewer than K layers.
        """
        if self.step > shape.layers:
            raise DoesNotFit(f"{self.name} freezes layer {self.step} first, but the model has only {shape.layers}")
        return FreezePlan(shape, frozenset(range(self.step - 1, shape.layers, self.step)))


def parse(name: str) -> EveryKth | None:
    """Return the strategy for a name such as `example-every2`, or None for a name of another form.

    Raises:
        UsageError: K is 0.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    step = int(match.group(1))
    if step == 0:
        raise UsageError(f"strategy {name!r}: K must be at least 1; to freeze nothing, use full")
    return EveryKth(step)


FAMILY = StrategyFamily(
    grammar="example-every<K>",
    title="Every K-th layer stays frozen",
    source="written for this plugin; no publication",
    examples=("example-every2", "example-every3"),
    parse=parse,
)
