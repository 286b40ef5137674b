"""On which device and in which number format a run computes: chosen once, before the plan, and recorded."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alue_bench.contract.errors import UsageError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]


def resolve_device(wanted: str) -> str:
    """ "auto" takes the GPU where there is one.

    Raises UsageError where the wanted device is not there.
    """
    import torch

    if wanted not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {wanted!r} is not one of auto, cpu, cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no CUDA device; run alue-bench doctor to see what it finds")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def has_fast_bf16(device: str) -> bool:
    """Whether bf16 matrix products are faster than fp32 ones on this hardware, not merely possible."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.get_device_capability() >= (8, 0))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "amx_tile", "bf16"))


def resolve_precision(wanted: str, device: str) -> Precision:
    """ "auto" takes bf16 where the hardware is fast at it, fp32 otherwise.

    Raises UsageError where the format is unknown or the device lacks it.
    """
    if wanted == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    if wanted not in ("fp32", "bf16", "fp16"):
        raise UsageError(f"--precision {wanted!r} is not one of auto, fp32, bf16, fp16")
    if wanted == "fp16" and device == "cpu":
        raise UsageError("--precision fp16 needs a CUDA device; on the CPU use bf16 or fp32")
    return wanted  # type: ignore[return-value]


def resolve_graphs(wanted: bool, device: str) -> bool:
    """Raises UsageError where they are wanted and the device has none."""
    if wanted and device != "cuda":
        raise UsageError("--cuda-graphs needs a CUDA device; leave it out on the CPU")
    return wanted


@dataclass(frozen=True)
class Device:
    """Where and in which number format to compute."""

    name: str
    """"cpu" or "cuda"."""
    precision: Precision
    graphs: bool = False
    """Whether training steps are recorded as CUDA graphs, where the way through the model allows it."""

    @property
    def compute(self) -> torch.dtype:
        """The format of matrix products. Parameters, sums between layers, norms and losses stay fp32."""
        import torch

        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    @property
    def few_lengths(self) -> bool:
        """Whether it pays to pad batches to few different lengths.

        On a CPU, the library prepares narrow products anew for every shape: 1 to 2 ms and about a megabyte each, a
        dozen for each length, kept until a thousand newer ones have come. With a hundred lengths that is seconds and
        gigabytes; a few per cent of padding is cheaper.
        """
        return self.name == "cpu" and self.precision != "fp32"

    @property
    def tokens_at_once(self) -> int:
        """Padded tokens in a batch where nothing trains: enough to keep the device busy, little enough for its memory.

        On a CPU in fp32 what a layer puts out for a thousand tokens stays in the caches: scoring takes 0.6 of the time
        that it takes with eight thousand (docs/notes/performance-diary.md). Narrow formats there want few different
        shapes.
        """
        return 1024 if self.name == "cpu" and self.precision == "fp32" else 8192

    @property
    def make(self) -> str:
        """What of the hardware decides on the last bits of a result."""
        import torch

        return torch.cuda.get_device_name() if self.name == "cuda" else torch.backends.cpu.get_cpu_capability()

    def forget_peak(self) -> None:
        """Begin anew to watch how much of the device's memory is in use at most."""
        if self.name == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats()

    def synchronise(self) -> None:
        """Wait for the device, so that a clock read next tells the truth."""
        if self.name == "cuda":
            import torch

            torch.cuda.synchronize()


def autocast(device: Device) -> AbstractContextManager[Any]:
    """Mixed precision around forward passes."""
    import torch

    return nullcontext() if device.precision == "fp32" else torch.autocast(device.name, device.compute)
