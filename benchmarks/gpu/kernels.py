"""The count of the kernels that a training step launches, and of the calls that launch them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.arms import Arm
from benchmarks.gpu.catalogue import PROFILED_EPOCH
from benchmarks.gpu.sizes import Scale
from benchmarks.gpu.training import device_of, starting_point, train

PROFILED_STEPS = 6
COPIES = ("Memcpy", "Memset")
"""The prefixes of the profiler's names for memory copies and fills, which do not count as kernels."""
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "hipLaunchKernel", "hipGraphLaunch")
"""The prefixes of the names of driver functions that launch kernels or graphs."""


@dataclass(frozen=True)
class Counted:
    """The mean number of kernels, copies and launches per training step, and the time of the kernels."""

    arm: str
    kernels: float
    """The number of kernels; on a CPU, the number of torch operations, including operations inside others."""
    copies: float
    """The number of copies and fills of memory."""
    launches: float
    """The number of calls that launch a kernel or a whole graph."""
    busy_s: float
    """The sum of the kernels' seconds per step; kernels that run at the same time each count in full."""


def counted(arm: Arm, scale: Scale, device_name: str) -> Counted:
    """Train for a few steps, and count the kernels that the last `PROFILED_STEPS` steps launch.

    Args:
        arm: The way of training.
        scale: The size of the model.
        device_name: The name of the device.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    device = device_of(arm, device_name)
    batch_size = scale.batch_size or arm.batch_size
    in_epoch = min(PROFILED_EPOCH, scale.steps_of(arm.way))
    last = 2 * in_epoch
    profiled = min(PROFILED_STEPS, in_epoch)
    start = starting_point(arm, scale, device_name, rows=in_epoch * batch_size, epochs=2)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.accelerated else [])]
    watch: Any = profiler(activities=activities)

    def on_step(done: int, total: int = 0) -> None:
        if done == last - profiled:
            device.synchronise()
            watch.start()
        if done == last:
            device.synchronise()
            watch.stop()

    train(start, arm, device, 1, on_step)
    return counts(arm.name, watch.events(), profiled, accelerated=device.accelerated)


def counts(arm: str, events: Iterable[Any], steps: int, *, accelerated: bool) -> Counted:
    """Count kernels, copies and launches per training step in the profiler's events.

    Args:
        arm: The name of the arm (way of training), which is stored in the result.
        events: The profiler's events.
        steps: The number of profiled steps.
        accelerated: Whether the device is an accelerator.
    """
    seen = list(events)
    # The profiler also lists user annotations, such as `Optimizer.step`, among the device events. They are no kernels.
    on_device = [
        event for event in seen if event.device_type.name != "CPU" and not getattr(event, "is_user_annotation", False)
    ]
    copies = [event for event in on_device if event.name.startswith(COPIES)]
    kernels = [event for event in on_device if not event.name.startswith(COPIES)]
    if not accelerated:
        kernels = [event for event in seen if event.name.startswith("aten::")]
    launches = sum(event.name.startswith(LAUNCHES) for event in seen)
    busy_us = sum(event.time_range.elapsed_us() for event in kernels) if accelerated else 0.0
    return Counted(arm, len(kernels) / steps, len(copies) / steps, launches / steps, busy_us / 1e6 / steps)
