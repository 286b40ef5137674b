"""What timings may be compared on, and how much memory this process has taken."""

from __future__ import annotations

import re
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alue_bench.measure.environment import processor_name


def hardware(device: str) -> dict[str, Any]:
    """Timings compare only where this is equal."""
    import torch

    found: dict[str, Any] = {"processor": processor_name(), "threads": torch.get_num_threads(), "device": device}
    if device == "cuda":
        found["accelerator"] = torch.cuda.get_device_name()
    return found


def described(hardware: Mapping[str, Any]) -> str:
    return f"{hardware.get('accelerator') or hardware.get('processor')}, {hardware.get('threads')} threads"


def peaks(device: str) -> dict[str, float | None]:
    """Peak memory until now, in MiB: of this process, and on a GPU since it was reset."""
    found: dict[str, float | None] = {"peak_rss_mib": _peak_rss_kib() / 1024, "peak_device_mib": None}
    if device == "cuda":
        import torch

        found["peak_device_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def _peak_rss_kib() -> float:
    # On Linux getrusage reports the peak of the process that started this one where that was higher.
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return float(re.findall(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)[0])
