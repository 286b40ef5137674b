"""The number of runs that share one GPU, if `--jobs` asks for more concurrent runs than there are GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alue_bench.cost.memory import largest_training
from alue_bench.executors.processes import gpu_environments
from alue_bench.planning.build import PlannedRun
from alue_bench.training.device.hardware import Hardware

GIB = 2**30


@dataclass(frozen=True)
class GpuSharing:
    """The distribution of concurrent runs over the GPUs of this machine."""

    jobs: int
    """The number of concurrent runs that the user allows (`--jobs`)."""
    gpus: int
    """The number of GPUs that runs may use."""
    need_bytes: int
    """The estimated accelerator memory, in bytes, of the run that needs most."""
    available_bytes: int
    """The memory, in bytes, that runs may use on one GPU: the free memory if there is one GPU, the total memory of the
    smallest if there are several."""

    @property
    def max_runs_per_gpu(self) -> int:
        """The number of runs that share one GPU: as many as fit into its memory, at least 1.

        It is never more than the number of runs on each GPU if `jobs` runs are spread evenly over all GPUs.
        """
        return max(1, min(self.available_bytes // self.need_bytes, -(-self.jobs // self.gpus)))

    @property
    def concurrent_runs(self) -> int:
        """The number of concurrent runs; it is less than `jobs` if so many do not fit into the GPUs' memory."""
        return min(self.jobs, self.gpus * self.max_runs_per_gpu)

    def describe(self) -> str:
        """Return a sentence about how many runs share a GPU, to be shown with the plan."""
        need, available = (f"{size / GIB:.1f} GiB" for size in (self.need_bytes, self.available_bytes))
        gpus = "1 GPU" if self.gpus == 1 else f"{self.gpus} GPUs"
        waiting = "; the others wait" if self.concurrent_runs < self.jobs else ""
        return (
            f"--jobs {self.jobs} on {gpus}: up to {self.max_runs_per_gpu} at once on each, since the largest run needs "
            f"about {need} of {available}{waiting}"
        )


def gpu_sharing(runs: Sequence[PlannedRun], jobs: int, only: int | None = None) -> GpuSharing | None:
    """Return how many runs share a GPU.

    The result is None if there is a GPU for each concurrent run, if the runs use no GPU, or if there are no runs.

    Args:
        runs: The runs of a plan.
        jobs: The number of concurrent runs that the user allows.
        only: The number of the GPU to which the runs are restricted, as in --device cuda:1; None for all GPUs.
    """
    if not runs:
        return None
    hardware = Hardware(runs[0].spec.device)
    if not hardware.accelerated:
        return None
    gpus = len(gpu_environments(hardware, only))
    if jobs <= gpus:
        return None
    # The free memory of GPUs other than the current one is unknown: a query would create a context on each.
    available = hardware.free_bytes() if gpus == 1 else hardware.smallest_bytes()
    return GpuSharing(jobs, gpus, largest_training(runs), available)
