"""The C library keeps what a step frees, and gives it back between runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from alue_bench.training.device import host_memory

GLIBC = pytest.mark.skipif(host_memory._glibc() is None, reason="another C library, which is left as it is")
FAULTS = """
import resource
import torch
from alue_bench.training.device.host_memory import release_freed_memory, retain_freed_memory

def step():
    return [torch.ones(1 << 20) for _ in range(20)]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() >> 20

step()
retain_freed_memory()
step()
kept, held = faults(), resident()
release_freed_memory()
print(kept, held - resident())
"""


def measured(**environment: str) -> tuple[int, int]:
    """Page faults of five steps of 80 MB each, and MiB given back after them."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    faults, given_back = done.stdout.split()
    return int(faults), int(given_back)


@GLIBC
def test_steps_take_the_memory_of_the_step_before_until_it_is_given_back() -> None:
    faults, given_back = measured()
    assert faults < 5_000  # without it each step has some 20,000, or with large pages hundreds
    assert given_back > 40


@GLIBC
def test_whoever_chose_settings_keeps_them() -> None:
    faults, _ = measured(GLIBC_TUNABLES="glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=131072")
    assert faults > 5 * 15_000
