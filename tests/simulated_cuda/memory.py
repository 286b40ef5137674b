"""Memory: allocations of the device, and pinned allocations of the host."""

from __future__ import annotations

from weakref import WeakValueDictionary

import torch
from torch.multiprocessing.reductions import StorageWeakRef

GRAIN = 512
"""Allocations of the device are multiples of so many bytes."""


class Block:
    """An allocation of the device. It is freed when nothing refers to it any more."""

    __slots__ = ("__weakref__", "_memory", "size")

    def __init__(self, memory: DeviceMemory, size: int) -> None:
        self._memory = memory
        self.size = size
        memory.allocated += size

    def __del__(self) -> None:
        self._memory.allocated -= self.size


class DeviceMemory:
    """The memory of one device: allocated bytes, their peak, and a limit."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.limit = total
        """An allocation beyond so many bytes fails, as where the memory is exhausted. A test may set it."""
        self.allocated = self.peak = self.reserved = 0
        self._blocks: WeakValueDictionary[int, Block] = WeakValueDictionary()

    def block_of(self, values: torch.Tensor) -> Block | None:
        """Return the allocation that a tensor lies in, which is made if it is new; None for an empty tensor.

        Raises:
            torch.OutOfMemoryError: The allocation exceeds the limit.
        """
        storage = values.untyped_storage()
        place = storage.data_ptr()
        if not place:
            return None
        block = self._blocks.get(place)
        if block is None:
            block = self._blocks[place] = self.allocate(storage.nbytes())
        return block

    def allocate(self, size: int) -> Block:
        """Return a new allocation of at least `size` bytes.

        Raises:
            torch.OutOfMemoryError: The allocation exceeds the limit.
        """
        size = -(-size // GRAIN) * GRAIN
        if self.allocated + size > self.limit:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size} bytes. GPU 0 has a total capacity of {self.limit} bytes "
                f"of which {self.limit - self.allocated} bytes is free."
            )
        block = Block(self, size)
        self.peak = max(self.peak, self.allocated)
        self.reserved = max(self.reserved, self.allocated)
        return block


class PinnedMemory:
    """The pinned (page-locked) allocations of the host."""

    def __init__(self) -> None:
        # A weak reference keeps the address of the storage from being given to another one.
        self._pinned: dict[int, StorageWeakRef] = {}

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        self._pinned[storage._cdata] = StorageWeakRef(storage)
        if len(self._pinned) > 1024:
            self._pinned = {address: ref for address, ref in self._pinned.items() if not ref.expired()}

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage()._cdata in self._pinned
