"""Dropout masks by the hundred thousand: random numbers drawn in bulk from a sequence of the run's own.

A mask of its own for every tensor is the costliest elementwise work of a small step on a CPU: 0.49 ms for 416 x 256
values, against 0.1 ms for a GELU's backward pass over four times as many. Drawn in bulk, four 16-bit lanes from each
64-bit number, it is a sixth of that. See docs/notes/performance-diary.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHUNK = 1 << 18
"""Mask values drawn at a time: enough to amortise the calls, little enough to stay in a core's cache."""
LANES, LEVELS = 4, 1 << 16


class DropoutMasks:
    """Inverted-dropout factors: 0 with probability p, else 1 / (1 - p), so that the mean is one.

    p is rounded to a 65,536th, and the factor to fit, so that the mean stays exact.
    """

    def __init__(self, seed: int, device: str, *, in_bulk: bool = True) -> None:
        """in_bulk: otherwise each mask is drawn by itself, so that a recorded step can draw it (see cuda_graphs.py)."""
        self._in_bulk = in_bulk
        self._device = device
        self._numbers: _RandomStream = _OnHost() if device == "cpu" else _OnDevice(device)
        self._left: dict[float, Tensor] = {}
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Begin anew, with the same generator: a recorded step goes on drawing from it."""
        self._numbers.seed(seed)
        self._left.clear()

    def generators(self) -> list[torch.Generator]:
        """Those of torch's that it draws from."""
        return self._numbers.generators()

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
        return {"generator": self._numbers.state()} | {f"left/{p!r}": left for p, left in self._left.items()}

    def go_to(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        self._numbers.go_to(state["generator"])
        self._left = {
            float(name.removeprefix("left/")): left.to(self._device)
            for name, left in state.items()
            if name.startswith("left/")
        }

    def _fresh(self, count: int, p: float) -> Tensor:
        import torch

        dropped = round(p * LEVELS)
        if dropped >= LEVELS:
            return torch.zeros(count, device=self._device)
        # To fp32 first, and compared in place: half of the time that a comparison of integers into fp32 takes.
        kept = self._numbers.draw(-(-count // LANES)).to(torch.float32)
        return kept.ge_(dropped - LEVELS // 2).mul_(LEVELS / (LEVELS - dropped))


class _RandomStream(Protocol):
    """A sequence of random numbers."""

    def seed(self, seed: int) -> None: ...

    def draw(self, count: int) -> Tensor:
        """LANES * count numbers, int16, evenly distributed over all its values."""
        ...

    def generators(self) -> list[torch.Generator]: ...

    def state(self) -> Tensor: ...

    def go_to(self, state: Tensor) -> None: ...


class _OnHost:
    """NumPy's SFC64, which takes less than half of the time of torch's generator."""

    def seed(self, seed: int) -> None:
        import numpy as np

        self._generator = np.random.SFC64(seed)

    def draw(self, count: int) -> Tensor:
        import numpy as np
        import torch

        return torch.from_numpy(self._generator.random_raw(count).view(np.int16))

    def generators(self) -> list[torch.Generator]:
        return []

    def state(self) -> Tensor:
        import numpy as np
        import torch

        return torch.from_numpy(self._generator.state["state"]["state"].view(np.int64))

    def go_to(self, state: Tensor) -> None:
        import numpy as np

        whole: Any = self._generator.state
        self._generator.state = whole | {"state": {"state": state.cpu().numpy().view(np.uint64)}}


class _OnDevice:
    """Torch's generator of the device."""

    def __init__(self, device: str) -> None:
        import torch

        self._generator = torch.Generator(device)

    def seed(self, seed: int) -> None:
        self._generator.manual_seed(seed)

    def draw(self, count: int) -> Tensor:
        import torch

        numbers = torch.empty(count, dtype=torch.int64, device=self._generator.device)
        numbers.random_(-(1 << 63), (1 << 63) - 1, generator=self._generator)
        return numbers.view(torch.int16)

    def generators(self) -> list[torch.Generator]:
        return [self._generator]

    def state(self) -> Tensor:
        return self._generator.get_state()

    def go_to(self, state: Tensor) -> None:
        self._generator.set_state(state)
