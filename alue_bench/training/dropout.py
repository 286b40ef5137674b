"""Dropout masks by the million: random numbers drawn in bulk from a generator of the run's own.

A mask of its own for every tensor is the costliest elementwise work of a small step on a CPU: 0.49 ms for 416 x 256
values, against 0.1 ms for a GELU's backward pass over four times as many. Drawn in bulk, four 16-bit lanes from each
64-bit number, it is a fifth of that. See docs/performance.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 1 << 20
"""Mask values drawn at a time: enough to amortise the calls, little enough to stay near the processor."""
LANES, LEVELS = 4, 1 << 16


class DropoutMasks:
    """Inverted-dropout factors: 0 with probability p, else 1 / (1 - p), so that the mean is one.

    p is rounded to a 65,536th, and the factor to fit, so that the mean stays exact.
    """

    def __init__(self, seed: int, device: str, *, in_bulk: bool = True) -> None:
        """in_bulk: otherwise each mask is drawn by itself, so that a recorded step can draw it (see cuda_graphs.py)."""
        import torch

        self._in_bulk = in_bulk
        self.generator = torch.Generator(device).manual_seed(seed)
        self._left: dict[float, Tensor] = {}

    def seed(self, seed: int) -> None:
        """Begin anew, with the same generator: a recorded step goes on drawing from it."""
        self.generator.manual_seed(seed)
        self._left.clear()

    def draw(self, shape: tuple[int, ...], p: float) -> Tensor:
        """Factors, float32, of the given shape. The sequence depends on the seed and on the calls made, only."""
        count = math.prod(shape)
        if not self._in_bulk:
            return self._fresh(count, p)[:count].view(shape)
        left = self._left.get(p)
        if left is None or len(left) < count:
            left = self._fresh(max(count, CHUNK), p)
        self._left[p] = left[count:]
        return left[:count].view(shape)

    def state(self) -> dict[str, Tensor]:
        """Where the sequence is: the generator's state, and what was drawn and not yet used."""
        return {"generator": self.generator.get_state()} | {f"left/{p!r}": left for p, left in self._left.items()}

    def go_to(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        self.generator.set_state(state["generator"])
        self._left = {
            float(name.removeprefix("left/")): left.to(self.generator.device)
            for name, left in state.items()
            if name.startswith("left/")
        }

    def _fresh(self, count: int, p: float) -> Tensor:
        import torch

        dropped = round(p * LEVELS)
        if dropped >= LEVELS:
            return torch.zeros(count, device=self.generator.device)
        numbers = torch.empty(-(-count // LANES), dtype=torch.int64, device=self.generator.device)
        numbers.random_(-(1 << 63), (1 << 63) - 1, generator=self.generator)
        lanes = numbers.view(torch.int16)
        kept = torch.empty(len(lanes), device=lanes.device)
        # Straight into fp32: a fifth of the time that it takes by way of bool.
        torch.ge(lanes, dropped - LEVELS // 2, out=kept)
        return kept.mul_(LEVELS / (LEVELS - dropped))
