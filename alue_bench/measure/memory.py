"""Peak memory of a block of work: of this process on the host, and on the device."""

from __future__ import annotations

import threading
from types import TracebackType

MIB = 2**20


class PeakMemory:
    """Context manager; afterwards `process_mib` and, on CUDA, `device_mib` hold the peaks.

    The operating system's own peak never falls again, so a run's peak is sampled: about fifty times a second, at the
    cost of a system call. A spike shorter than that can be missed.
    """

    INTERVAL_S = 0.02

    def __init__(self, device: str, beside_bytes: int = 0) -> None:
        """beside_bytes: what the process holds all the while for other work, and is not counted."""
        self.device = device
        self._beside_mib = beside_bytes / MIB
        self.process_mib = 0.0
        self.device_mib: float | None = None

    def __enter__(self) -> PeakMemory:
        import psutil

        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        if self.device == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.process_mib -= self._beside_mib
        if self.device == "cuda":
            import torch

            self.device_mib = torch.cuda.max_memory_allocated() / MIB

    def _sample(self) -> None:
        while True:
            self.process_mib = max(self.process_mib, self._process.memory_info().rss / MIB)
            if self._stop.wait(self.INTERVAL_S):
                self.process_mib = max(self.process_mib, self._process.memory_info().rss / MIB)
                return
