"""The capabilities of the hardware: a CPU, or an accelerator of CUDA, ROCm, MPS (Apple) or XPU (Intel).

Other modules ask for a capability, such as `has_tf32`, and never compare device names. torch's ROCm builds call AMD
GPUs "cuda" too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""The number formats of matrix products. In TF32, numbers are stored as fp32 but rounded to 10 bits of mantissa before
they are multiplied."""

ACCELERATORS = ("cuda", "mps", "xpu")
"""The kinds of accelerators, by torch's names. `--device gpu` selects the first kind that is available."""
EXPERIMENTAL = ("mps", "xpu")
"""The kinds of accelerators on which alue-bench has never been run."""
FIRST_TENSOR_CORES, FIRST_BF16 = (7, 0), (8, 0)
"""The lowest of NVIDIA's compute capabilities at which GPUs have tensor cores for fp16 (Volta), and the lowest at which
they have them for bf16 and TF32 (Ampere)."""
AMD_WITH_BF16 = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
"""The beginnings of the names of AMD's architectures that multiply bf16 matrices in matrix cores."""


@dataclass(frozen=True)
class Hardware:
    """The hardware that a device name stands for: the CPU, or the current accelerator of the named kind.

    If a process sees several accelerators of a kind, the current one is that on which torch computes by default.
    """

    name: str
    """The kind of device, by torch's name: "cpu", "cuda", "mps" or "xpu"."""

    @property
    def accelerated(self) -> bool:
        """True if the device is an accelerator, which computes asynchronously and has its own memory."""
        return self.name != "cpu"

    @property
    def available(self) -> bool:
        """True if torch can compute on this kind of device on this machine."""
        import torch

        if self.name == "mps":
            return torch.backends.mps.is_available()
        return not self.accelerated or bool(self._runtime.is_available())

    @property
    def count(self) -> int:
        """The number of devices of this kind that this process sees; 1 for a CPU."""
        return int(self._runtime.device_count()) if self.accelerated else 1

    @property
    def number(self) -> int:
        """The number of the current device of this kind, among those that this process sees; 0 if there is only one."""
        return int(self._runtime.current_device()) if self.name in ("cuda", "xpu") else 0

    @property
    def experimental(self) -> bool:
        """True if alue-bench has never been run on this kind of device."""
        return self.name in EXPERIMENTAL

    @property
    def is_rocm(self) -> bool:
        """True if the device is an AMD GPU."""
        import torch

        return self.name == "cuda" and torch.version.hip is not None

    @property
    def is_nvidia(self) -> bool:
        """True if the device is an NVIDIA GPU."""
        return self.name == "cuda" and not self.is_rocm

    @property
    def supports_graphs(self) -> bool:
        """True if the device can capture work as a graph (CUDA graph) and replay it."""
        return self.name == "cuda"

    @property
    def pins_memory(self) -> bool:
        """True if copies from pinned (page-locked) host memory to the device run asynchronously, unlike other copies.

        False on a CPU, and on devices to which alue-bench always copies synchronously (MPS, XPU).
        """
        return self.name == "cuda"

    @property
    def counts_energy(self) -> bool:
        """True if the driver may provide an energy counter for the device (NVML, for NVIDIA GPUs)."""
        return self.is_nvidia

    @property
    def has_peak_statistics(self) -> bool:
        """True if torch's allocator for the device keeps statistics of peak memory."""
        return self.name in ("cuda", "xpu")

    @property
    def has_fast_bf16(self) -> bool:
        """True if bf16 matrix products are faster than fp32 ones on this hardware; mere support is not enough.

        False for experimental devices, on which this was never measured.
        """
        import torch

        if self.experimental:
            return False
        if self.is_rocm:
            return str(torch.cuda.get_device_properties(self.number).gcnArchName).startswith(AMD_WITH_BF16)
        if self.accelerated:
            return bool(torch.cuda.get_device_capability() >= FIRST_BF16)
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "amx_tile", "bf16"))

    @property
    def has_fast_fp16(self) -> bool:
        """True if the GPU has tensor cores for fp16. V100 and T4 have them for fp16, but not for bf16."""
        import torch

        return self.is_nvidia and bool(torch.cuda.get_device_capability() >= FIRST_TENSOR_CORES)

    @property
    def has_tf32(self) -> bool:
        """True if the GPU can compute fp32 matrix products in TF32."""
        import torch

        return self.is_nvidia and bool(torch.cuda.get_device_capability() >= FIRST_BF16)

    def is_fast_in(self, precision: Precision) -> bool:
        """Return whether matrix products in this number format are at least as fast as those in fp32."""
        fast = {"tf32": self.has_tf32, "bf16": self.has_fast_bf16, "fp16": self.scales_losses}
        return precision == "fp32" or fast[precision]

    @property
    def scales_losses(self) -> bool:
        """True if torch's `GradScaler` works on this device. Without it, gradients in fp16 underflow."""
        return self.name in ("cuda", "xpu")

    @property
    def model_name(self) -> str:
        """The GPU's name or the CPU's instruction set; results on different hardware can differ in the last bits."""
        import torch

        if not self.accelerated:
            return torch.backends.cpu.get_cpu_capability()
        return "Apple GPU" if self.name == "mps" else str(self._runtime.get_device_name())

    @property
    def driver_versions(self) -> dict[str, str]:
        """The version of the toolkit that torch was built with, by the toolkit's name: cuda, rocm or xpu."""
        import torch

        toolkit = "rocm" if self.is_rocm else self.name
        version = getattr(torch.version, "hip" if self.is_rocm else self.name, None)
        return {toolkit: str(version)} if self.accelerated and version is not None else {}

    def total_bytes(self) -> int:
        """Return the size of the accelerator's memory in bytes; for a MIG slice, the size of the slice; 0 on a CPU."""
        if not self.accelerated:
            return 0
        if self.name == "mps":  # an Apple GPU uses the machine's memory
            return int(self._runtime.recommended_max_memory())
        return int(self._runtime.get_device_properties(self.number).total_memory)

    def smallest_bytes(self) -> int:
        """Return the memory of the smallest accelerator of this kind that this process sees, in bytes; 0 on a CPU."""
        if self.name not in ("cuda", "xpu"):
            return self.total_bytes()
        return min(int(self._runtime.get_device_properties(number).total_memory) for number in range(self.count))

    def free_bytes(self) -> int:
        """Return the accelerator's free memory in bytes, not counting memory that torch caches; 0 on a CPU."""
        if not self.accelerated:
            return 0
        if self.name == "mps":
            return max(0, self.total_bytes() - int(self._runtime.driver_allocated_memory()))
        try:
            return int(self._runtime.mem_get_info()[0])
        except RuntimeError:
            if self.name != "xpu":
                raise
        # Integrated Intel GPUs do not report their free memory.
        return max(0, self.total_bytes() - int(self._runtime.memory_reserved()))

    def peak_bytes(self) -> int | None:
        """Return the peak, in bytes, of the memory that torch allocated since `reset_peak` was called.

        The result is None if the device does not count it.
        """
        return int(self._runtime.max_memory_allocated()) if self.has_peak_statistics else None

    def reset_peak(self) -> None:
        """Reset the accelerator's statistics of peak memory; do nothing without such statistics."""
        if self.has_peak_statistics:
            self._runtime.reset_peak_memory_stats()

    def copied_from_host(self, tensor: Tensor) -> Tensor:
        """Return a copy of a host tensor on the accelerator, made without waiting for the accelerator if possible.

        If the accelerator copies asynchronously from pinned memory, the tensor is first copied to such memory.
        Otherwise the copy must block: MPS would read the tensor after its memory was freed.
        """
        pinned = tensor.pin_memory() if self.pins_memory else tensor
        return pinned.to(self.name, non_blocking=self.pins_memory)

    def synchronise(self) -> None:
        """Wait until the accelerator has finished its queued work, so that elapsed time includes it."""
        if self.accelerated:
            self._runtime.synchronize()

    def release_cached(self) -> None:
        """Give the memory that torch's allocator caches back to the accelerator's driver; do nothing on a CPU."""
        if self.accelerated:
            self._runtime.empty_cache()

    def is_lost(self) -> bool:
        """Return whether this process can no longer use the device; the CPU is never lost.

        After a failed assertion or an invalid address inside a kernel, CUDA answers every later call with the same
        error for the rest of the process.
        """
        is_initialised = getattr(self._runtime, "is_initialized", None) if self.accelerated else None
        if is_initialised is None or not is_initialised():
            return False
        try:
            self.synchronise()
        except RuntimeError:
            return True
        return False

    def random_state(self) -> Tensor:
        """Return the state of the device's default random generator: uint8."""
        import torch

        state: Tensor = self._runtime.get_rng_state() if self.accelerated else torch.get_rng_state()
        return state

    def set_random_state(self, state: Tensor) -> None:
        """Restore a state that `random_state` returned."""
        import torch

        if self.accelerated:
            self._runtime.set_rng_state(state)
        else:
            torch.set_rng_state(state)

    @property
    def _runtime(self) -> Any:
        """The torch module of this kind of accelerator: `torch.cuda`, `torch.mps` or `torch.xpu`."""
        import torch

        return getattr(torch, self.name)
