"""What a result was measured on: hardware, libraries, code. Runtimes compare only where the hardware is the same."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alue_bench.contract.spec import digest_of

LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "mlflow",
    "scikit-learn",
    "scipy",
    "numpy",
    "pluggy",
)
RUNS_PER_GPU = "ALUE_BENCH_RUNS_PER_GPU"
"""Environment variable by which an executor tells its workers how many runs share a GPU, where more than one does."""


def hardware(device: str) -> dict[str, Any]:
    """Processor, threads, memory and accelerator that a run on this device uses."""
    import psutil
    import torch

    found: dict[str, Any] = {
        "machine": platform.machine(),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "accelerator": properties.name,
            "accelerator_memory_gib": round(properties.total_memory / 2**30),
            "cuda": torch.version.cuda,
        }
        if runs := os.environ.get(RUNS_PER_GPU):
            found["runs_per_gpu"] = runs
    return found


def hardware_fingerprint(device: str) -> str:
    """Short and readable, equal on machines whose runtimes may be compared."""
    found = hardware(device)
    name = str(found.get("accelerator") or found["processor"])
    if runs := found.get("runs_per_gpu"):
        name += f" shared by {runs} runs"
    return f"{name} · {found['threads']} threads · {digest_of(found)[:8]}"


def environment(device: str) -> dict[str, Any]:
    """Everything about the circumstances of a run; goes into its environment artifact."""
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            libraries[name] = "not installed"
    return {
        "hardware": hardware(device),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": libraries,
        "git": git_state(Path.cwd()),
        "cpu_affinity": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def git_state(folder: Path) -> dict[str, str] | None:
    """The commit of the user's working folder, and whether it has changes; None outside a repository."""

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=5, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "dirty": "yes" if ask("status", "--porcelain", "-uno") else "no"}


def processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
