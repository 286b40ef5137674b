"""The FLOPs per second that the hardware attains in matrix products; utilisation is computed relative to it."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TYPE_CHECKING

from alue_bench.training.device.errors import release_caches
from alue_bench.training.device.hardware import Hardware

if TYPE_CHECKING:
    import torch

SIZE = {"cpu": 1024, "cuda": 8192}
"""The number of rows and columns of the square matrices that are multiplied, by kind of device; other accelerators use
the number for "cuda"."""
MIN_SIZE = 1024
"""The smallest number of rows and columns, which is used if an accelerator has little free memory."""
MEMORY_SHARE = 0.25
"""The share of an accelerator's free memory that the measurement may use; matrices are made smaller if needed."""
REPETITIONS = 5
"""The number of products that are timed; the fastest counts."""


def attainable_flops_per_s(device: str, dtype: torch.dtype, *, tf32: bool = False) -> float:
    """Measure the FLOPs per second that a device attains in products of large square matrices.

    The fastest of a few products counts. The measurement is made once per process for each device and number format;
    later calls return its result. The manufacturer's figure is not used, because no real matrix product attains it. The
    result is lower on a machine that is busy with other work. Call this before a model takes the memory of an
    accelerator.

    Args:
        device: The name of the device.
        dtype: The number format of the matrices.
        tf32: True if the caller has set torch to compute fp32 products in TF32. This function does not change the
            setting; the argument only keeps the stored results with and without TF32 apart.
    """
    return _measured(Hardware(device), Hardware(device).number, dtype, tf32)


@lru_cache
def _measured(device: Hardware, number: int, dtype: torch.dtype, tf32: bool) -> float:
    """Measure the FLOPs per second of the current device in products of large matrices, once for equal arguments.

    Args:
        device: The device.
        number: The number of the device, which distinguishes it from others of its kind in the stored results.
        dtype: The number format of the matrices.
        tf32: See `attainable_flops_per_s`.
    """
    size = _size(device, dtype)
    try:
        return 2 * size**3 / _seconds(device, dtype, size)
    finally:
        if device.accelerated:
            release_caches(device.name)


def _seconds(device: Hardware, dtype: torch.dtype, size: int) -> float:
    """Return the shortest time, in seconds, of several products of two matrices with `size` rows and columns."""
    import torch

    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(size, size, generator=generator).to(device.name, dtype)
    best = float("inf")
    for _ in range(REPETITIONS):
        device.synchronise()
        started = time.perf_counter()
        matrix @ matrix
        device.synchronise()
        best = min(best, time.perf_counter() - started)
    return best


def _size(device: Hardware, dtype: torch.dtype) -> int:
    """Return the number of rows and columns of the matrices to multiply.

    On an accelerator, the number in `SIZE` is halved until the product fits into the permitted share of the free memory
    or `MIN_SIZE` is reached.
    """
    if not device.accelerated:
        return SIZE["cpu"]
    size = SIZE.get(device.name, SIZE["cuda"])
    # The factor and the product in `dtype`, with a margin of one matrix in fp32 for cuBLAS's workspace.
    while size > MIN_SIZE and size**2 * (4 + 2 * dtype.itemsize) > MEMORY_SHARE * device.free_bytes():
        size //= 2
    return size
