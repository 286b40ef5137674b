"""Energy of a block of work, where the hardware counts it; absent where it does not, never estimated.

Two counters, both of energy since some start, so that two readings bracket the work:

- the GPU's own (NVML, of the device torch uses; Volta and later), through the package `nvidia-ml-py`;
- the processor's packages (RAPL), which Linux shows below /sys/class/powercap to those who may read it. It counts the
  whole processor, whoever uses it.

A counter that fails is left out, and why is told: neither the work nor its own error is lost for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from alue_bench.measure.best_effort import best_effort
from alue_bench.measure.environment import RUNS_PER_GPU

POWERCAP = Path("/sys/class/powercap")
MILLI, MICRO = 1e-3, 1e-6


class Energy:
    """Context manager; afterwards `joules` holds what each readable counter advanced: "gpu", "cpu"."""

    def __init__(self, device: str, powercap: Path = POWERCAP) -> None:
        self.joules: dict[str, float] = {}
        self.problems: list[str] = []
        """Sentences on counters that failed."""
        self._counters: dict[str, Counter] = {}
        if device == "cuda":
            gpu = best_effort("no energy of the GPU", _nvml_counter, self.problems.append)
            if gpu is not None:
                self._counters["gpu"] = _advance_of(gpu)
        packages = best_effort("no energy of the processor", lambda: _readable_packages(powercap), self.problems.append)
        if packages:
            self._counters["cpu"] = lambda: _advance_of_packages(packages)
        self._running: dict[str, Callable[[], float]] = {}

    def __enter__(self) -> Energy:
        for name, start in self._counters.items():
            advance = best_effort(f"no energy/{name}_j", start, self.problems.append)
            if advance is not None:
                self._running[name] = advance
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, advance in self._running.items():
            joules = best_effort(f"no energy/{name}_j", advance, self.problems.append)
            if joules is not None:
                self.joules[name] = joules


Counter = Callable[[], Callable[[], float]]
"""Reads a counter, and returns a function that says by how many joules it has advanced since."""


def _advance_of(read: Callable[[], float]) -> Counter:
    def start() -> Callable[[], float]:
        before = read()

        def advance() -> float:
            joules = read() - before
            if joules < 0:
                raise RuntimeError("the counter began again, as after a reset of the driver")
            return joules

        return advance

    return start


def _advance_of_packages(packages: list[Path]) -> Callable[[], float]:
    before = [_number(package / "energy_uj") for package in packages]

    def advance() -> float:
        spent = 0
        for package, start in zip(packages, before, strict=True):
            end = _number(package / "energy_uj")
            # The counter starts again at zero when it is full: once in minutes to hours.
            spent += end - start + (_number(package / "max_energy_range_uj") if end < start else 0)
        return spent * MICRO

    return advance


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
