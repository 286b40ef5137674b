"""Settings of glibc's memory allocator: freed memory is kept between training steps and returned between runs.

By default glibc returns memory to the system as soon as a training step has freed it and requests it again in the next
step, page by page and filled with zeros. This causes thousands of page faults per step; docs/notes/performance-diary.md
gives their cost. With a C library other than glibc, nothing is changed.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""The numbers of the parameters M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's function `mallopt` (malloc.h)."""
NEVER, LARGEST = 2**31 - 1, 32 << 20
"""The values, in bytes, to set for M_TRIM_THRESHOLD (the largest possible one) and for M_MMAP_THRESHOLD (32 MiB, the
largest that `mallopt` accepts). glibc returns free memory at the end of the heap to the system if it exceeds the first
value. Blocks larger than the second value get separate mappings, which are returned to the system when they are
freed."""


def retain_freed_memory() -> None:
    """Make glibc keep freed memory for reuse from now on, unless the user has configured its allocator."""
    libc = _glibc()
    if libc is not None and not _is_configured_by_user():
        libc.mallopt(TRIM_THRESHOLD, NEVER)
        libc.mallopt(MMAP_THRESHOLD, LARGEST)


def release_freed_memory() -> None:
    """Give freed memory back to the system, so that memory freed by one run does not count as used by the next run."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)


def _is_configured_by_user() -> bool:
    """Return whether the user has set M_TRIM_THRESHOLD or M_MMAP_THRESHOLD by an environment variable."""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return any(
        f"MALLOC_{name.upper()}_" in os.environ or f"glibc.malloc.{name}" in tunables
        for name in ("trim_threshold", "mmap_threshold")
    )
