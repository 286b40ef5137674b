"""The load of the host at the start of training, and the CPU time that this process spends on training.

Both show whether a time was measured on an otherwise idle machine. The load average is the number of threads that
computed or waited for a processor, as a mean over the last minute. The CPU time divided by the elapsed time is the
number of cores that the process used; it is lower if other programs are busy.
"""

from __future__ import annotations

import os
import time
from types import TracebackType

from alue_bench.measure.best_effort import best_effort


class HostLoad:
    """A context manager that records the load average before the `with` block and the CPU time within it.

    Afterwards `average` holds the load average over one minute, and `cpu_s` the CPU seconds, user and system, of all
    threads of this process; `cores` holds the CPU seconds divided by the elapsed seconds. A value that the system does
    not provide is None; if reading it raised an error, `problems` says why. The object can be entered several times:
    the load average is then the one before the first block, and times are sums over all blocks.
    """

    def __init__(self) -> None:
        """Prepare a measurement of the host's load; it begins with the `with` block."""
        self.average: float | None = None
        self.cpu_s: float | None = None
        self.cores: float | None = None
        self.problems: list[str] = []
        self._started: float | None = None
        self._began = self._elapsed = 0.0
        self._entered = False

    def __enter__(self) -> HostLoad:
        """Read the load average and start counting CPU time."""
        if hasattr(os, "getloadavg") and not self._entered:  # not on Windows
            self.average = best_effort("no runtime/load_average", lambda: os.getloadavg()[0], self.problems.append)
        self._entered = True
        self._began = time.perf_counter()
        self._started = best_effort("no runtime/cpu_s", time.process_time, self.problems.append)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Compute `cpu_s` (CPU seconds) and `cores` (CPU seconds per elapsed second)."""
        if self._started is not None:
            self.cpu_s = (self.cpu_s or 0.0) + time.process_time() - self._started
            self._elapsed += time.perf_counter() - self._began
            self.cores = self.cpu_s / self._elapsed
