"""How many operations a second the hardware attains at matrix products, which is what utilisation is held against."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SIZE = {"cpu": 1024, "cuda": 8192}
REPETITIONS = 5


@lru_cache
def attainable_flops_per_s(device: str, dtype: torch.dtype) -> float:
    """FLOPs per second of a large square product of random numbers: the best of a few, measured once in a process.

    Not the maker's figure, which no product reaches. A machine that is busy otherwise attains less.
    """
    import torch

    size = SIZE[device]
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(size, size, generator=generator).to(device, dtype)
    best = float("inf")
    for _ in range(REPETITIONS):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        left @ left
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
