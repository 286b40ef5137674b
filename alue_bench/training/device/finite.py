"""A check for infinite or NaN losses that does not make the host wait for an accelerator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from alue_bench.training.device.precision import Device

if TYPE_CHECKING:
    from torch import Tensor

STEPS_PER_CHECK = 20
"""The number of steps after which the losses of a CUDA device are copied to the host. The copy is asynchronous: a later
step checks whether it has arrived."""


class FiniteCheck:
    """A check that the losses of an epoch are finite, which is updated after each training step.

    On a CPU each loss is read at once. A CUDA device lags many steps behind the host. Therefore the losses of
    `STEPS_PER_CHECK` steps are copied asynchronously to pinned memory and read when a CUDA event shows that the copy is
    complete. Other accelerators are not checked within an epoch.
    """

    def __init__(self, device: Device) -> None:
        """Start the check of an epoch on a device, without any losses yet."""
        self._device = device
        self._losses: list[Tensor] = []
        self._copies: list[tuple[Any, Tensor]] = []

    def add_and_check(self, loss: Tensor) -> bool:
        """Add the loss of a step; return False if any loss known to the host so far is infinite or NaN.

        Args:
            loss: The loss, a scalar on the device.
        """
        if not self._device.accelerated:
            return math.isfinite(loss)
        if not self._device.pins_memory:
            return True
        self._losses.append(loss)
        if len(self._losses) == STEPS_PER_CHECK:
            self._start_copy()
        while self._copies and self._copies[0][0].query():
            _, losses = self._copies.pop(0)
            if not all(math.isfinite(value) for value in losses.tolist()):
                return False
        return True

    def _start_copy(self) -> None:
        """Start copying the collected losses to the host, and record a CUDA event that marks the end of the copy."""
        import torch

        losses = torch.empty(STEPS_PER_CHECK, pin_memory=True)
        losses.copy_(torch.stack(self._losses), non_blocking=True)
        self._losses.clear()
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._copies.append((event, losses))
