"""The device (CPU or GPU) and the number format of a run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alue_bench.contract.errors import UsageError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]
Graphs = Literal["auto", "on", "off"]
"""Whether training steps are replayed as CUDA graphs; "auto" uses them if a replayed step is measured to be faster."""


def resolve_device(wanted: str) -> str:
    """Return the device to use, "cpu" or "cuda".

    Args:
        wanted: "auto", "cpu" or "cuda"; "auto" takes the GPU if there is one.

    Raises:
        UsageError: The device is unknown or not available.
    """
    import torch

    if wanted not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {wanted!r} is not one of auto, cpu, cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device; run alue-bench doctor to see what it finds")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def has_fast_bf16(device: str) -> bool:
    """Return whether bf16 matrix products are faster than fp32 ones on this hardware, not merely possible."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.get_device_capability() >= (8, 0))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "amx_tile", "bf16"))


def resolve_precision(wanted: str, device: str) -> Precision:
    """Return the number format to use.

    Args:
        wanted: "auto", "fp32", "bf16" or "fp16"; "auto" takes bf16 if the hardware computes it faster than fp32, else
            fp32.
        device: "cpu" or "cuda".

    Raises:
        UsageError: The format is unknown, or the device does not support it.
    """
    if wanted == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    if wanted not in ("fp32", "bf16", "fp16"):
        raise UsageError(f"--precision {wanted!r} is not one of auto, fp32, bf16, fp16")
    if wanted == "fp16" and device == "cpu":
        raise UsageError("--precision fp16 needs a CUDA device; on the CPU use bf16 or fp32")
    return wanted  # type: ignore[return-value]


def resolve_graphs(wanted: Graphs, device: str) -> Graphs:
    """Return whether to use CUDA graphs on a device: `wanted`, but "off" on a device that cannot record.

    Raises:
        UsageError: CUDA graphs are wanted ("on"), but the device cannot record them.
    """
    if Device(device, "fp32").can_record:
        return wanted
    if wanted == "on":
        where = "on the CPU" if device == "cpu" else f"on {device}"
        raise UsageError(f"--cuda-graphs on needs a CUDA device; leave it out {where}")
    return "off"


@dataclass(frozen=True)
class Device:
    """The device and the number format of a computation."""

    name: str
    """The device: "cpu" or "cuda"."""
    precision: Precision
    graphs: Graphs = "off"
    """Whether training steps are captured as CUDA graphs, if the forward pass allows it."""

    @property
    def compute(self) -> torch.dtype:
        """The number format of matrix products. Parameters, residual sums, layer norms and losses stay in fp32."""
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    @property
    def accelerated(self) -> bool:
        """True if the device is an accelerator, which works asynchronously and has memory of its own."""
        return self.name != "cpu"

    @property
    def can_record(self) -> bool:
        """True if the device can capture work as a graph and replay it."""
        return self.name == "cuda"

    @property
    def records(self) -> bool:
        """True if training steps are to be captured as graphs, if the forward pass allows it."""
        return self.can_record and self.graphs in ("auto", "on")

    @property
    def pins_memory(self) -> bool:
        """True if copies to the device run asynchronously only from pinned (page-locked) host memory."""
        return self.name == "cuda"

    def free_bytes(self) -> int:
        """Return the accelerator's free memory in bytes, without what torch's allocator keeps for reuse; 0 on a CPU."""
        if not self.accelerated:
            return 0
        import torch

        return int(torch.cuda.mem_get_info()[0])

    @property
    def few_lengths(self) -> bool:
        """True if padding batches to few different lengths saves time.

        On a CPU, the library that computes low-precision (bf16) matrix products prepares each new shape separately:
        1 to 2 ms and about a megabyte per shape, a dozen shapes per length, kept until a thousand newer shapes have
        been used. A hundred lengths would cost seconds and gigabytes; a few per cent of padding costs less.
        """
        return self.name == "cpu" and self.precision != "fp32"

    @property
    def tokens_at_once(self) -> int:
        """The number of tokens, with padding, in an inference batch: it keeps the device busy and fits into its memory.

        On a CPU in fp32, a layer's output for about a thousand tokens fits the processor's caches: inference takes 0.6
        times as long as with eight thousand tokens (docs/notes/performance-diary.md). Low-precision formats on a CPU
        need few different shapes instead, see `few_lengths`. An accelerator is given so many tokens that computing
        them takes longer than launching the kernels; if they do not fit into its memory, the batches are halved.
        """
        if self.accelerated:
            return 32_768
        return 1024 if self.precision == "fp32" else 8192

    @property
    def make(self) -> str:
        """The GPU's name or the CPU's instruction set, on which the last bits of a result can depend."""
        import torch

        return torch.cuda.get_device_name() if self.name == "cuda" else torch.backends.cpu.get_cpu_capability()

    def forget_peak(self) -> None:
        """Reset the GPU's statistics of peak memory; do nothing on a CPU."""
        if self.name == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats()

    def synchronise(self) -> None:
        """Wait until the GPU has finished its queued work, so that elapsed time includes it; do nothing on a CPU."""
        if self.name == "cuda":
            import torch

            torch.cuda.synchronize()


def autocast(device: Device) -> AbstractContextManager[Any]:
    """Return a context manager for mixed-precision forward passes, which does nothing in fp32."""
    import torch

    return nullcontext() if device.precision == "fp32" else torch.autocast(device.name, device.compute)
