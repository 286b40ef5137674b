"""The peak memory of `with` blocks, on the host (this process) and on the accelerator."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from alue_bench.measure.best_effort import best_effort
from alue_bench.training.device.hardware import Hardware

MIB = 2**20


class PeakMemory:
    """A context manager that measures the peak memory inside the `with` block.

    Afterwards `process_mib` holds the peak of this process in MiB, and `device_mib` that of the accelerator. A peak
    that could not be measured is None, and `problems` says why; `device_mib` is also None on a device that does not
    record its peak. The object can be entered several times; the peaks are then the highest of all blocks.

    The operating system's own peak of a process never decreases, so the peak of a run is found by sampling the resident
    memory about fifty times a second, with one system call each. Shorter spikes can be missed.
    """

    INTERVAL_S = 0.02
    """The seconds between two samples of the process's memory."""

    def __init__(self, device: str, other_bytes: int = 0) -> None:
        """Prepare a measurement of peak memory; it begins with the `with` block.

        Args:
            device: The name of the device, such as "cuda".
            other_bytes: The bytes of host memory that the process holds for other purposes. They are subtracted from
                the peak of the process.
        """
        self._hardware = Hardware(device)
        self._other_mib = other_bytes / MIB
        self.process_mib: float | None = None
        self.device_mib: float | None = None
        self.problems: list[str] = []
        self._highest_bytes, self._complete = 0, False
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._device_counted = False

    def __enter__(self) -> PeakMemory:
        """Start sampling the process's memory, and reset the accelerator's statistics of peak memory."""
        self._thread, self._complete, self._stop = None, False, threading.Event()
        best_effort("no memory/process_peak_mib", self._start_sampling, self.problems.append)
        self._device_counted = self._hardware.has_peak_statistics and self._reset_device()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop sampling, and compute `process_mib` and `device_mib`."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            if self._complete:
                self.process_mib = self._highest_bytes / MIB - self._other_mib
        if self._device_counted:
            peak = best_effort("no memory/device_peak_mib", self._hardware.peak_bytes, self.problems.append)
            if peak is not None:
                self.device_mib = max(self.device_mib or 0.0, peak / MIB)

    def _start_sampling(self) -> None:
        import psutil

        process = psutil.Process()
        thread = threading.Thread(
            target=lambda: best_effort(
                "no memory/process_peak_mib", lambda: self._sample(process), self.problems.append
            ),
            daemon=True,
        )
        thread.start()
        self._thread = thread

    def _sample(self, process: Any) -> None:
        while not self._complete:
            stopped = self._stop.is_set()
            self._highest_bytes = max(self._highest_bytes, process.memory_info().rss)
            self._complete = stopped  # true only after one more sample since the stop
            self._stop.wait(self.INTERVAL_S)

    def _reset_device(self) -> bool:
        def reset() -> bool:
            self._hardware.reset_peak()
            return True

        return best_effort("no memory/device_peak_mib", reset, self.problems.append) is not None
