"""Energy of a block of work, where the hardware counts it; absent where it does not, never estimated.

Two counters, both of energy since some start, so that two readings bracket the work:

- the GPU's own (NVML, of the device torch uses; Volta and later), through the package `nvidia-ml-py`;
- the processor's packages (RAPL), which Linux shows below /sys/class/powercap to those who may read it. It counts the
  whole processor, whoever uses it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from alue_bench.measure.environment import RUNS_PER_GPU

POWERCAP = Path("/sys/class/powercap")
MILLI, MICRO = 1e-3, 1e-6


class Energy:
    """Context manager; afterwards `joules` holds what each readable counter advanced: "gpu", "cpu"."""

    def __init__(self, device: str, powercap: Path = POWERCAP) -> None:
        self.joules: dict[str, float] = {}
        self._counters: dict[str, Callable[[], float]] = {}
        if device == "cuda" and (gpu := _nvml_counter()) is not None:
            self._counters["gpu"] = gpu
        self._packages = _readable_packages(powercap)

    def __enter__(self) -> Energy:
        self._before = {name: read() for name, read in self._counters.items()}
        self._packages_before = [_number(package / "energy_uj") for package in self._packages]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.joules = {name: read() - self._before[name] for name, read in self._counters.items()}
        if self._packages:
            spent = 0
            for package, before in zip(self._packages, self._packages_before, strict=True):
                after = _number(package / "energy_uj")
                # The counter starts again at zero when it is full: once in minutes to hours.
                spent += after - before + (_number(package / "max_energy_range_uj") if after < before else 0)
            self.joules["cpu"] = spent * MICRO


def _nvml_counter() -> Callable[[], float] | None:
    """Joules of the GPU that torch uses, or None without the package, the driver, or a counter in the device, and where
    several runs share it, since it counts them together."""
    if os.environ.get(RUNS_PER_GPU):
        return None
    try:
        import pynvml
    except ImportError:
        return None
    import torch

    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        # By identity, not by number: CUDA_VISIBLE_DEVICES renumbers what torch sees.
        identity = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(identity)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * MILLI
    return None


def _readable_packages(powercap: Path) -> list[Path]:
    """Folders of whole processor packages (not their parts, which would count twice) whose counter may be read."""
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")) if powercap.is_dir() else ():
        if folder.name.count(":") == 1:
            with suppress(OSError, ValueError):
                _number(folder / "energy_uj")
                found.append(folder)
    return found


def _number(file: Path) -> int:
    return int(file.read_text())
