"""Telling a full memory from other errors: torch has a class of its own for it, but raises others too."""

from __future__ import annotations

PHRASES = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Of the CPU's allocator, of pinned memory and lazily loaded kernels, and of the products' library."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether less memory in use would have helped."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(phrase in str(error) for phrase in PHRASES)


def release(device: str) -> None:
    """Give back what no tensor holds any more. Call it outside the handler, whose traceback holds tensors."""
    import gc

    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
