"""Recognition of device errors: torch reports exhausted memory and a lost GPU by several exceptions and texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from alue_bench.training.device.hardware import Hardware
from alue_bench.training.device.host_memory import release_freed_memory

Result = TypeVar("Result")

PHRASES = (
    "can't allocate memory",
    "out of memory",
    "_STATUS_ALLOC_FAILED",
    "BLAS_STATUS_NOT_INITIALIZED",
    "DEVICE_ALLOCATION_FAILED",
    "HOST_ALLOCATION_FAILED",
    "rocblas_status_memory_error",
    "miopenStatusAllocFailed",
    "Invalid buffer size",
    "ERROR_OUT_OF_DEVICE_MEMORY",
    "ERROR_OUT_OF_HOST_MEMORY",
    "ERROR_OUT_OF_RESOURCES",
)
"""Texts in error messages that mean exhausted memory, by their origin:

- the CPU allocator;
- the runtimes and drivers of CUDA, HIP, MPS and XPU, for example for pinned memory or lazily loaded kernels;
- cuBLAS, hipBLAS and cuDNN; the two BLAS libraries fail to initialise if they get no memory;
- cuDNN 9, whose CUDNN_STATUS_INTERNAL_ERROR has a suffix that tells a failed allocation from other errors;
- rocBLAS and MIOpen;
- Metal, for a buffer larger than the device allows;
- Level Zero, below XPU."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means that memory is exhausted, so that a smaller batch may work."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(phrase in str(error) for phrase in PHRASES)


def collect_and_release(device: str) -> None:
    """Collect garbage, and return torch's cached memory on the host and the device to the system.

    Call this outside the `except` block of an error: the error's traceback keeps tensors alive.

    Args:
        device: The name of the device, such as "cuda".
    """
    import gc

    gc.collect()
    release_caches(device)


def none_if_out_of_memory(work: Callable[[], Result], device: str, on_exhausted: Callable[[], None]) -> Result | None:
    """Call `work` and return its result, or return None if the call exhausts the memory.

    Args:
        work: The function to call. Nothing outside it may keep references to tensors that it allocated before failing.
        device: The name of the device, such as "cuda".
        on_exhausted: A function that is called if memory is exhausted.

    Returns:
        The result of `work`; None if memory was exhausted. In that case cached memory has been returned to the system.
    """
    try:
        return work()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        on_exhausted()
    collect_and_release(device)
    return None


def release_caches(device: str) -> None:
    """Give cached memory of the host, and of the device if it is an accelerator, back to the system."""
    release_freed_memory()
    Hardware(device).release_cached()


def device_is_lost(device: str) -> bool:
    """Return whether this process can no longer use the device, as after a failed assertion in a CUDA kernel."""
    return Hardware(device).is_lost()
