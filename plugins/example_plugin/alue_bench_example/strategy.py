"""A family of strategies: every K-th layer stays frozen.

Cost: with F for one layer forward, a frozen layer costs 2 F a step instead of 3 F, since the gradient still passes
through it to the layers and the embeddings below. So `example-every2` saves about a sixth of the layers' compute.

When it does not help: freezing the same number of layers from the bottom up, with the embeddings, saves twice as much.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alue_bench import DoesNotFit, EncoderShape, FreezePlan, Strategy, StrategyFamily, UsageError

_NAME = re.compile(r"example-every(0|[1-9]\d{0,2})")


@dataclass(frozen=True)
class EveryKth(Strategy):
    """Layers K, 2K, 3K, … (counted from 1, next to the embeddings) stay as pre-trained; all else trains."""

    step: int

    @property
    def name(self) -> str:
        return f"example-every{self.step}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        if self.step > shape.layers:
            raise DoesNotFit(f"{self.name} freezes layer {self.step} first, but the model has only {shape.layers}")
        return FreezePlan(shape, frozenset(range(self.step - 1, shape.layers, self.step)))


def parse(name: str) -> EveryKth | None:
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    step = int(match.group(1))
    if step == 0:
        raise UsageError(f"strategy {name!r}: K must be at least 1; to freeze nothing, say full")
    return EveryKth(step)


FAMILY = StrategyFamily(
    grammar="example-every<K>",
    title="Every K-th layer stays frozen",
    source="written for this plugin; no publication",
    examples=("example-every2", "example-every3"),
    parse=parse,
)
