"""A check whether losses are finite that does not wait for an accelerator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from alue_bench.training.device.precision import Device

if TYPE_CHECKING:
    from torch import Tensor

EVERY = 20
"""The number of steps after which the losses of a CUDA device are copied to the host. They are read when the copy has
arrived, which is noticed at later steps."""


class FiniteCheck:
    """A check of the losses of an epoch, step by step.

    On a CPU each loss is read at once. A CUDA device computes many steps after the host has launched them: there the
    losses of `EVERY` steps are copied to pinned memory, and read once an event says that the copy is complete. Other
    accelerators are not checked within an epoch.
    """

    def __init__(self, device: Device) -> None:
        """Start with no losses."""
        self._device = device
        self._losses: list[Tensor] = []
        self._copies: list[tuple[Any, Tensor]] = []

    def holds(self, loss: Tensor) -> bool:
        """Add the loss of a step, and return False if any loss that has arrived on the host is not finite.

        Args:
            loss: The loss, a scalar on the device.
        """
        if not self._device.accelerated:
            return math.isfinite(loss)
        if not self._device.pins_memory:
            return True
        self._losses.append(loss)
        if len(self._losses) == EVERY:
            self._start_copy()
        while self._copies and self._copies[0][0].query():
            _, losses = self._copies.pop(0)
            if not all(math.isfinite(value) for value in losses.tolist()):
                return False
        return True

    def _start_copy(self) -> None:
        """Copy the collected losses to the host, and mark the end of the copy by an event."""
        import torch

        losses = torch.empty(EVERY, pin_memory=True)
        losses.copy_(torch.stack(self._losses), non_blocking=True)
        self._losses.clear()
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._copies.append((event, losses))
