"""The environment of a run: hardware, libraries and code. Runtimes are comparable only on equal hardware."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alue_bench.contract.spec import digest_of
from alue_bench.training.device.hardware import Hardware
from alue_bench.training.device.precision import computes_tf32

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
"""The environment variable with the number of runs that share a GPU, set for worker processes if it is above 1."""


def hardware(device: str) -> dict[str, Any]:
    """Return a description of the hardware of a run: processor, threads, memory in GiB, and accelerator.

    Args:
        device: The kind of device that the run computes on, such as "cuda".
    """
    import psutil
    import torch

    description: dict[str, Any] = {
        "machine": platform.machine(),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
    }
    accelerator = Hardware(device)
    if accelerator.accelerated:
        description |= {
            "accelerator": accelerator.model_name,
            "accelerator_memory_gib": round(accelerator.total_bytes() / 2**30),
            **accelerator.driver_versions,
        }
        if runs := os.environ.get(RUNS_PER_GPU):
            description["runs_per_gpu"] = runs
    return description


def hardware_fingerprint(device: str) -> str:
    """Return a short readable name of the hardware, which is the same on machines whose runtimes are comparable.

    The number of CPU threads is included only if the run computes on the CPU. On an accelerator, it hardly affects the
    runtime, and it changes with --jobs.
    """
    description = hardware(device)
    name = str(description.get("accelerator") or description["processor"])
    if runs := description.get("runs_per_gpu"):
        name += f" shared by {runs} runs"
    if Hardware(device).accelerated:
        del description["threads"]
        return f"{name} · {digest_of(description)[:8]}"
    return f"{name} · {description['threads']} threads · {digest_of(description)[:8]}"


def environment(device: str) -> dict[str, Any]:
    """Return hardware, system, library versions, Git state and number of usable CPUs, for `environment.json`."""
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            libraries[name] = "not installed"
    products = {"tf32_matrix_products": computes_tf32()} if Hardware(device).has_tf32 else {}
    return {
        "hardware": hardware(device),
        **products,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": libraries,
        "git": git_state(Path.cwd()),
        "cpu_affinity": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def git_state(folder: Path) -> dict[str, str] | None:
    """Return the Git commit of a folder, and "yes" or "no" for uncommitted changes; None outside a repository.

    The keys are "commit" and "dirty". Only changes to tracked files count. The result is also None without git.
    """

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
    """Return the processor's model name from /proc/cpuinfo, else what Python's `platform` reports."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
