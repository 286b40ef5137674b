"""The hardware that timings depend on, and the peak memory of this process."""

from __future__ import annotations

import re
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alue_bench.measure.environment import processor_name
from alue_bench.training.device.hardware import Hardware


def hardware(device: str) -> dict[str, Any]:
    """Return the properties of the hardware that timings must have in common to be comparable.

    Args:
        device: The name of the device, such as "cpu" or "cuda".

    Returns:
        The keys "processor", "threads" (of torch on the CPU) and "device"; on a GPU also "accelerator", its name.
    """
    import torch

    properties: dict[str, Any] = {"processor": processor_name(), "threads": torch.get_num_threads(), "device": device}
    if Hardware(device).accelerated:
        properties["accelerator"] = Hardware(device).model_name
    return properties


def described(hardware: Mapping[str, Any]) -> str:
    """Return a short description of the hardware: GPU or processor, and threads.

    Args:
        hardware: The result of the function `hardware`.
    """
    return f"{hardware.get('accelerator') or hardware.get('processor')}, {hardware.get('threads')} threads"


def peaks(device: str) -> dict[str, float | None]:
    """Return the peak memory of this process and of the device, in MiB.

    Args:
        device: The name of the device.

    Returns:
        The keys "peak_rss_mib", the peak resident memory of this process since its start, and "peak_device_mib", the
        peak GPU memory since torch's statistics of it were last reset; None on a CPU.
    """
    peak = Hardware(device).peak_bytes()
    return {"peak_rss_mib": _peak_rss_kib() / 1024, "peak_device_mib": None if peak is None else peak / 2**20}


def _peak_rss_kib() -> float:
    # /proc is preferred, because on Linux getrusage reports the peak of the parent process if that was higher.
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return float(re.findall(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)[0])
