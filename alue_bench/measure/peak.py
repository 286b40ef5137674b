"""The FLOPs per second that the hardware attains in matrix products, the reference value for utilisation."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

from alue_bench.training.device.errors import give_back
from alue_bench.training.device.hardware import Hardware

if TYPE_CHECKING:
    import torch

SIZE = {"cpu": 1024, "cuda": 8192}
"""The number of rows and columns of the measured matrices, by kind of device; other accelerators take that of CUDA."""
SMALLEST = 1024
"""The least number where an accelerator has little memory."""
MEMORY_SHARE = 0.25
"""The share of an accelerator's free memory that the measurement may take; in less memory, matrices are smaller."""
REPETITIONS = 5


def attainable_flops_per_s(device: str, dtype: torch.dtype, *, tf32: bool = False) -> float:
    """Measure the FLOPs per second of a large product of square random matrices.

    The best of a few measurements is taken, once per process for each device. The manufacturer's figure is not used,
    because no real product attains it. The result is lower on a machine that is busy with other work. Call this before
    a model takes the memory of an accelerator.

    Args:
        device: The name of the device.
        dtype: The number format of the matrices.
        tf32: Whether the caller has set torch to compute fp32 products in TF32. The speeds of both are kept apart.
    """
    return _measured(Hardware(device), Hardware(device).number, dtype, tf32)


@lru_cache
def _measured(device: Hardware, number: int, dtype: torch.dtype, tf32: bool) -> float:
    """Measure the FLOPs per second of the device of this number, which is the current one."""
    size = _size(device, dtype)
    try:
        return 2 * size**3 / _seconds(device, dtype, size)
    finally:
        if device.accelerated:
            give_back(device.name)


def _seconds(device: Hardware, dtype: torch.dtype, size: int) -> float:
    """Return the least seconds that a product of two matrices of `size` rows and columns took."""
    import torch

    generator = torch.Generator().manual_seed(0)
    left = torch.randn(size, size, generator=generator).to(device.name, dtype)
    best = float("inf")
    for _ in range(REPETITIONS):
        device.synchronise()
        started = time.perf_counter()
        left @ left
        device.synchronise()
        best = min(best, time.perf_counter() - started)
    return best


def _size(device: Hardware, dtype: torch.dtype) -> int:
    """Return the largest suitable number of rows whose product fits into the share of the free memory."""
    if not device.accelerated:
        return SIZE["cpu"]
    size = SIZE.get(device.name, SIZE["cuda"])
    # The factor and the product in `dtype`, with a margin of one matrix in fp32 for cuBLAS's workspace.
    while size > SMALLEST and size**2 * (4 + 2 * dtype.itemsize) > MEMORY_SHARE * device.free_bytes():
        size //= 2
    return size
