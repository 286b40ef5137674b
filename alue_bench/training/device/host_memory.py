"""The C library's memory: kept from step to step, given back between runs.

As it comes, glibc gives memory back as soon as a step has freed it, and gets it again, page by page and filled with
zeros, in the next one: thousands of page faults a step of training. docs/notes/performance-diary.md says what that
costs. Other C libraries are left as they are.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of `mallopt` (malloc.h)."""
NEVER, LARGEST = 2**31 - 1, 32 << 20
"""Bytes at the end of the heap above which they are given back; and the most that `mallopt` takes for the size from
which a block is a mapping of its own, gone when freed."""


def keep_freed() -> None:
    """From now on, in this process. Whoever has chosen settings of the allocator keeps them."""
    libc = _glibc()
    if libc is not None and not _chosen():
        libc.mallopt(TRIM_THRESHOLD, NEVER)
        libc.mallopt(MMAP_THRESHOLD, LARGEST)


def give_back_freed() -> None:
    """To the system, so that what one run freed does not count as another one's."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)


def _chosen() -> bool:
    return "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(
        name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    )
