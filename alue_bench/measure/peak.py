"""The FLOPs per second that the hardware attains in matrix products, the reference value for utilisation."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

from alue_bench.training.device.hardware import Hardware

if TYPE_CHECKING:
    import torch

SIZE = {"cpu": 1024, "cuda": 8192}
"""The number of rows and columns of the measured matrices."""
REPETITIONS = 5


@lru_cache
def attainable_flops_per_s(device: str, dtype: torch.dtype, *, tf32: bool = False) -> float:
    """Measure the FLOPs per second of a large product of square random matrices.

    The best of a few measurements is taken, once per process. The manufacturer's figure is not used, because no real
    product attains it. The result is lower on a machine that is busy with other work.

    Args:
        device: "cpu" or "cuda".
        dtype: The number format of the matrices.
        tf32: Whether the caller has set torch to compute fp32 products in TF32. The speeds of both are kept apart.
    """
    import torch

    size, hardware = SIZE.get(device, SIZE["cuda"]), Hardware(device)
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(size, size, generator=generator).to(device, dtype)
    best = float("inf")
    for _ in range(REPETITIONS):
        hardware.synchronise()
        started = time.perf_counter()
        left @ left
        hardware.synchronise()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
