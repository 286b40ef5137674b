"""Dropout masks, drawn in bulk from a separately seeded sequence of random numbers.

Drawing a separate mask for each tensor with torch is the most expensive elementwise operation of a small training step
on a CPU: 0.49 ms for 416 x 256 values, compared with 0.1 ms for the backward pass of a GELU over four times as many
values. Drawing masks in bulk, with four 16-bit random values from each 64-bit number, takes a sixth of the 0.49 ms. See
docs/notes/performance-diary.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHUNK = 1 << 18
"""The number of mask values drawn at a time: enough to amortise the cost of a call, and few enough for a CPU cache."""
LANES, LEVELS = 4, 1 << 16
"""The number of random values taken from each 64-bit random number, and the number of values that each can take."""


class DropoutMasks:
    """A generator of dropout factors on the CPU: 0 with probability p, else 1 / (1 - p), so that their mean is one.

    p is rounded to a multiple of 1/65,536, and the factor is computed from the rounded p, so that the mean is exact.
    """

    def __init__(self, seed: int) -> None:
        """Start a reproducible sequence of dropout masks from a seed."""
        self._numbers = _RandomNumbers()
        self._unused: dict[float, Tensor] = {}
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Restart the sequence of dropout masks from this seed."""
        self._numbers.seed(seed)
        self._unused.clear()

    def generators(self) -> list[torch.Generator]:
        """Return an empty list: masks are drawn from NumPy's generator, and from none of torch's."""
        return []

    def draw(self, shape: tuple[int, ...], p: float) -> Tensor:
        """Return the next dropout factors of the sequence.

        The values depend only on the seed and on the earlier calls.

        Args:
            shape: The shape of the result.
            p: The probability of a zero.

        Returns:
            The factors, float32, in the given shape.
        """
        count = math.prod(shape)
        drawn = self._unused.get(p)
        if drawn is None or len(drawn) < count:
            drawn = self._draw_new(max(count, CHUNK), p)
        self._unused[p] = drawn[count:]
        return drawn[:count].view(shape)

    def state(self) -> dict[str, Tensor]:
        """Return the position in the sequence of masks: the generator's state and the values drawn but not yet used."""
        return {"generator": self._numbers.state()} | {f"left/{p!r}": left for p, left in self._unused.items()}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue the sequence of masks from a position that `state` returned."""
        self._numbers.set_state(state["generator"])
        self._unused = {
            float(name.removeprefix("left/")): left for name, left in state.items() if name.startswith("left/")
        }

    def _draw_new(self, count: int, p: float) -> Tensor:
        """Draw at least `count` new dropout factors for the dropout probability `p`: float32 `[values]`."""
        import torch

        dropped = round(p * LEVELS)
        if dropped >= LEVELS:
            return torch.zeros(count)
        # Conversion to fp32 and comparison in place take half the time of a comparison of integers with an fp32 result.
        factors = self._numbers.draw(-(-count // LANES)).to(torch.float32)
        return factors.ge_(dropped - LEVELS // 2).mul_(LEVELS / (LEVELS - dropped))


class StepDropout:
    """A generator of dropout masks on an accelerator, which draws all masks of a training step by one kernel.

    No random numbers are kept from one step for the next, so that a step captured as a CUDA graph draws as many as any
    other step.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        """Start a reproducible sequence of dropout masks from a seed, on a device."""
        import torch

        self._device = device
        self._generator = torch.Generator(device)
        self._drawn: dict[float, Tensor] = {}
        self.zero = torch.zeros((), device=device)
        """A scalar zero on the device, a placeholder for kernels that need a tensor to add to."""
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Restart the sequence of masks from this seed.

        The generator object stays the same, because captured CUDA graphs draw from it.
        """
        self._generator.manual_seed(seed)

    def generators(self) -> list[torch.Generator]:
        """Return the torch generators that masks are drawn from."""
        return [self._generator]

    def draw(self, counts: Mapping[float, int]) -> None:
        """Draw the dropout masks of a whole training step at once; `take` returns them part by part.

        Args:
            counts: The number of mask values to draw for each dropout probability.
        """
        import torch

        self._drawn = {
            p: torch.empty(count, dtype=torch.bool, device=self._device).bernoulli_(1 - p, generator=self._generator)
            for p, count in counts.items()
        }

    def take(self, shape: tuple[int, ...], p: float) -> Tensor:
        """Return the next of this step's masks: bool, True for a value that dropout keeps.

        Multiply the kept values by `factor(p)`.

        Args:
            shape: The shape of the mask.
            p: The dropout probability.
        """
        drawn, count = self._drawn.pop(p), math.prod(shape)
        if len(drawn) > count:  # else keep no reference to the memory, which may belong to a CUDA graph
            self._drawn[p] = drawn[count:]
        return drawn[:count].view(shape)

    @staticmethod
    def factor(p: float) -> float:
        """Return the factor 1 / (1 - p) by which kept values are multiplied, so that their mean does not change."""
        return 1 / (1 - p) if p < 1 else 0.0

    def state(self) -> dict[str, Tensor]:
        """Return the position in the sequence of masks: the state of the random generator."""
        return {"generator": self._generator.get_state()}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue the sequence of masks from a position that `state` returned."""
        self._generator.set_state(state["generator"])


class _RandomNumbers:
    """A sequence of random numbers from NumPy's SFC64 generator, over twice as fast as torch's CPU generator."""

    def seed(self, seed: int) -> None:
        """Restart the sequence of random numbers from a seed."""
        import numpy as np

        self._generator = np.random.SFC64(seed)

    def draw(self, count: int) -> Tensor:
        """Return the next `LANES * count` random numbers, uniformly distributed over all values of int16."""
        import numpy as np
        import torch

        return torch.from_numpy(self._generator.random_raw(count).view(np.int16))

    def state(self) -> Tensor:
        """Return the position in the sequence of random numbers."""
        import numpy as np
        import torch

        return torch.from_numpy(self._generator.state["state"]["state"].view(np.int64))

    def set_state(self, state: Tensor) -> None:
        """Continue the sequence of random numbers from a position that `state` returned."""
        import numpy as np

        whole: Any = self._generator.state
        self._generator.state = whole | {"state": {"state": state.cpu().numpy().view(np.uint64)}}
