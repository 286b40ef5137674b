"""What a device's errors mean: torch tells a full memory and a lost device by several kinds of error and phrase."""

from __future__ import annotations

from alue_bench.training.device.host_memory import give_back_freed

PHRASES = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
)
"""Of the CPU's allocator, of pinned memory and lazily loaded kernels, and of the products' library, which cannot begin
either where it finds no memory."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether less memory in use would have helped."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(phrase in str(error) for phrase in PHRASES)


def release(device: str) -> None:
    """Give back what no tensor holds any more. Call it outside the handler, whose traceback holds tensors."""
    import gc

    gc.collect()
    give_back(device)


def give_back(device: str) -> None:
    """To the system and to the GPU, for others, what is kept of their memory for later."""
    give_back_freed()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()


def device_is_lost(device: str) -> bool:
    """Whether this process can never use the device again.

    After a failed assertion or a wrong address within a kernel, CUDA answers every later call with the same error, as
    long as the process lives.
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
