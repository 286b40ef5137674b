"""The properties of a simulated GPU."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU, and how many of them there are."""

    name: str
    capability: tuple[int, int]
    memory: int
    """The memory of each, in bytes."""
    count: int = 1


H200 = Gpu("NVIDIA H200", (9, 0), 141 * GIB)
T4 = Gpu("Tesla T4", (7, 5), 15 * GIB)
"""A GPU with fast fp16, but without bf16."""
