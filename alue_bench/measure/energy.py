"""The energy used in a `with` block, read from hardware counters. Without a counter, the energy is not estimated.

There are two kinds of counters. A counter counts up, so the difference of two readings is the energy used between them:

- the GPU's counter (NVML, Volta and later) for the device that torch uses, read through the package `nvidia-ml-py`;
- the processor packages' counters (RAPL), which Linux shows below /sys/class/powercap to users with permission. They
  count the whole processor, including other processes.

If a counter fails, its value is missing and the reason is reported. The measured work and its errors are unaffected.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from alue_bench.measure.best_effort import best_effort
from alue_bench.measure.environment import RUNS_PER_GPU
from alue_bench.training.device.hardware import Hardware

POWERCAP = Path("/sys/class/powercap")
"""The folder in which Linux shows the RAPL energy counters."""
MILLI, MICRO = 1e-3, 1e-6


class Energy:
    """A context manager that measures the energy used inside the `with` block.

    It can be entered several times; the energy is then the sum over all blocks. Afterwards `joules` holds the
    energy in joules from each readable counter, "gpu" and "cpu".
    """

    def __init__(self, device: str, powercap: Path = POWERCAP) -> None:
        """Find the energy counters of this machine that can be read.

        Args:
            device: The name of the device that computes, such as "cuda". The GPU's counter is read only if this device
                is an NVIDIA GPU.
            powercap: The folder of Linux's RAPL counters.
        """
        self.joules: dict[str, float] = {}
        self.problems: list[str] = []
        """Sentences about energy counters that failed."""
        self._counters: dict[str, Counter] = {}
        if Hardware(device).counts_energy:
            gpu = best_effort("no energy of the GPU", _nvml_counter, self.problems.append)
            if gpu is not None:
                self._counters["gpu"] = _counter_of_values(gpu)
        packages = best_effort("no energy of the processor", lambda: _readable_packages(powercap), self.problems.append)
        if packages:
            self._counters["cpu"] = lambda: _counter_of_packages(packages)
        self._running: dict[str, Callable[[], float]] = {}

    def __enter__(self) -> Energy:
        """Read each energy counter for the first time."""
        for name, start in self._counters.items():
            advance = best_effort(f"no energy/{name}_j", start, self.problems.append)
            if advance is not None:
                self._running[name] = advance
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Read the energy counters again and compute `joules`."""
        for name, advance in self._running.items():
            joules = best_effort(f"no energy/{name}_j", advance, self.problems.append)
            if joules is not None:
                self.joules[name] = self.joules.get(name, 0.0) + joules


Counter = Callable[[], Callable[[], float]]
"""A function that reads an energy counter and returns a second function. The second function returns the joules used
since this reading."""


def _counter_of_values(read: Callable[[], float]) -> Counter:
    """Make a `Counter` from a function that reads the current value of a hardware energy counter, in joules."""

    def start() -> Callable[[], float]:
        before = read()

        def advance() -> float:
            joules = read() - before
            if joules < 0:
                raise RuntimeError("the counter restarted during the run, as after a reset of the driver")
            return joules

        return advance

    return start


def _counter_of_packages(packages: list[Path]) -> Callable[[], float]:
    """Read the energy counters of processor packages; return a function that gives the joules used since this reading.

    Args:
        packages: The folders of the packages in Linux's powercap folder.
    """
    before = [_number(package / "energy_uj") for package in packages]

    def advance() -> float:
        spent = 0
        for package, start in zip(packages, before, strict=True):
            end = _number(package / "energy_uj")
            # The counter restarts at zero when it is full, every few minutes to hours.
            spent += end - start + (_number(package / "max_energy_range_uj") if end < start else 0)
        return spent * MICRO

    return advance


def _nvml_counter() -> Callable[[], float] | None:
    """Return a function that reads the energy counter, in joules, of the GPU that torch uses.

    Returns:
        The function; None if the package, the driver or the device's counter is missing. Also None if other runs, or
        other MIG slices, share the GPU, because the counter would include their energy.
    """
    if os.environ.get(RUNS_PER_GPU):
        return None
    try:
        import pynvml
    except ImportError:
        return None
    import torch

    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        # The device is found by UUID, not by number: CUDA_VISIBLE_DEVICES renumbers the devices that torch sees.
        identity = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(identity)
        if _is_divided(handle):
            return None
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * MILLI
    return None


def _is_divided(handle: Any) -> bool:
    """Return whether MIG divides a GPU into slices, in which case the GPU's energy counter includes all slices."""
    import pynvml

    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:  # GPUs without MIG
        return False
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)


def _readable_packages(powercap: Path) -> list[Path]:
    """Return the folders (in Linux's powercap folder) of the processor packages whose energy counters are readable.

    Folders for parts of a package are skipped, since the counter of the package includes their energy.
    """
    readable = []
    for folder in sorted(powercap.glob("intel-rapl:*")) if powercap.is_dir() else ():
        if folder.name.count(":") == 1:
            with suppress(OSError, ValueError):
                _number(folder / "energy_uj")
                readable.append(folder)
    return readable


def _number(file: Path) -> int:
    return int(file.read_text())
