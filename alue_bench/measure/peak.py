"""The FLOPs per second that the hardware attains in matrix products, the reference value for utilisation."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

from alue_bench.training.device.errors import give_back
from alue_bench.training.device.precision import Device

if TYPE_CHECKING:
    import torch

SIZE = {"cpu": 1024}
"""The number of rows and columns of the measured matrices, by kind of device."""
LARGEST = 8192
"""This number on an accelerator, whose speed smaller matrices do not reach."""
MEMORY_SHARE = 0.25
"""The share of an accelerator's free memory that the measurement may take; in less memory, matrices are smaller."""
REPETITIONS = 5


@lru_cache
def attainable_flops_per_s(device: str, dtype: torch.dtype) -> float:
    """Measure the FLOPs per second of a large product of square random matrices.

    The best of a few measurements is taken, once per process. The manufacturer's figure is not used, because no real
    product attains it. The result is lower on a machine that is busy with other work. Call this before a model takes
    the memory of an accelerator.

    Args:
        device: The name of the device.
        dtype: The number format of the matrices.
    """
    place = Device(device, "fp32")
    size = _size(place, dtype)
    try:
        return 2 * size**3 / _seconds(place, dtype, size)
    finally:
        if place.accelerated:
            give_back(device)


def _seconds(device: Device, dtype: torch.dtype, size: int) -> float:
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


def _size(device: Device, dtype: torch.dtype) -> int:
    """Return the largest suitable number of rows whose product fits into the share of the free memory."""
    if not device.accelerated:
        return SIZE[device.name]
    size = LARGEST
    # In fp32 first, as the random numbers are drawn; then two matrices in `dtype`.
    while size > 1024 and size**2 * (4 + 2 * dtype.itemsize) > MEMORY_SHARE * device.free_bytes():
        size //= 2
    return size
