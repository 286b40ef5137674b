"""Recognition of device errors: torch reports exhausted memory and a lost GPU by several exception types and texts."""

from __future__ import annotations

from alue_bench.training.device.host_memory import give_back_freed

PHRASES = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
)
"""Texts in error messages that mean exhausted memory. The first comes from the CPU allocator, the second from pinned
memory or lazily loaded kernels, the last two from cuBLAS, which fails to initialise if it gets no memory."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means that memory is exhausted, so that a smaller batch may work."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(phrase in str(error) for phrase in PHRASES)


def release(device: str) -> None:
    """Collect garbage and return cached memory to the system.

    Call this outside the `except` block of an error: the error's traceback keeps tensors alive.

    Args:
        device: "cpu" or "cuda".
    """
    import gc

    gc.collect()
    give_back(device)


def give_back(device: str) -> None:
    """Return cached host memory and, if `device` is "cuda", cached GPU memory to the system."""
    give_back_freed()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()


def device_is_lost(device: str) -> bool:
    """Return whether this process can no longer use the device.

    After a failed assertion or an invalid address inside a kernel, CUDA answers every later call with the same error
    for the rest of the process.

    Args:
        device: "cpu" or "cuda"; the CPU is never lost.
    """
    if device != "cuda":
        return False
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
