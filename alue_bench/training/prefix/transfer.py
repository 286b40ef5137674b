"""Functions that copy hidden states between a file, pinned host memory and an accelerator, and measure copying rates.

Memory is pinned (page-locked) through torch, whose allocator keeps freed blocks for reuse, so that pinning a buffer in
every step costs no system call. A block is reused only after the copies from it have ended. Copies from memory that is
not pinned must block, because MPS reads the source of an asynchronous copy even after its memory was freed.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from alue_bench.training.device.precision import Device

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHUNK_BYTES = 32 << 20
"""The size, in bytes, of the pinned buffers through which files are read and written."""
SAMPLE_BYTES = 8 << 20
"""The size, in bytes, of the copies whose rates are measured: each takes a few milliseconds on the slowest bus."""
SAMPLE_ROW = 3072
"""The size, in bytes, of a row when the gathering of rows is measured: the hidden state of one token in BERT-base, in
fp32."""
REPETITIONS = 3
"""The number of times that each copy is timed; the fastest counts."""


@dataclass(frozen=True)
class Bandwidths:
    """The measured rates, in bytes per second, of copies in host memory and between host and accelerator.

    The fields have the same meaning as those of `placement.Rates`.
    """

    to_device: float
    to_host: float
    gather: float


def pinned_empty(rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return an uninitialised tensor `[rows, width]` in pinned host memory."""
    import torch

    return torch.empty(rows, width, dtype=dtype, pin_memory=True)


def read_states(stored: Tensor, into: Tensor, device: Device) -> None:
    """Copy hidden states from a memory-mapped file to the accelerator or into pinned host memory.

    Args:
        stored: The memory-mapped states, `[rows, hidden]`.
        into: The tensor to fill, of the same shape.
        device: The accelerator. If it copies from pinned memory, the file is read chunk by chunk into pinned memory, so
            that the copy of a chunk and the reading of the next one overlap.
    """
    for begin, end in _chunks(stored):
        chunk = stored[begin:end]
        if into.device.type != "cpu" and device.pins_memory:
            chunk = chunk.pin_memory()
        into[begin:end].copy_(chunk, non_blocking=device.pins_memory)


def write_states(states: Tensor, rows: Tensor, into: Tensor, device: Device) -> None:
    """Copy hidden states from the accelerator, or from pinned host memory, to a memory-mapped file.

    Copying a chunk from the accelerator does not overlap with writing the previous one to the file, because copying
    takes less than a tenth of the time of writing.

    Args:
        states: The states, `[rows, hidden]`.
        rows: The row of `states` for each row of the file: int64 `[rows]`, on the CPU.
        into: The memory-mapped tensor to fill, of the same shape as `states`.
        device: The accelerator.
    """
    for begin, end in _chunks(into):
        chosen = rows[begin:end]
        if states.device.type == "cpu":
            into[begin:end] = states.index_select(0, chosen)
            continue
        chunk = states.index_select(0, device.copied_from_host(chosen))
        if device.pins_memory:
            buffer = pinned_empty(end - begin, into.shape[1], into.dtype)
            buffer.copy_(chunk)
            chunk = buffer
        into[begin:end].copy_(chunk)


def bandwidths(device: Device) -> Bandwidths:
    """Measure the rates of copies between host and accelerator, in a few milliseconds.

    The rates are measured once per process for each accelerator.

    Args:
        device: The accelerator.

    Returns:
        The best rate of a few copies of each kind. Host memory is pinned if the accelerator copies from pinned memory.
    """
    return _bandwidths(device, device.number)


@cache
def _bandwidths(device: Device, number: int) -> Bandwidths:
    """Measure the rates of copies between the host and the current accelerator, whose number is `number`."""
    import torch

    rows, width = SAMPLE_BYTES // SAMPLE_ROW, SAMPLE_ROW // 4
    host, gathered = (torch.empty(rows, width, pin_memory=device.pins_memory).zero_() for _ in range(2))
    on_device = torch.empty(rows, width, device=device.name)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    seconds = [
        _best(work, device)
        for work in (
            lambda: on_device.copy_(host, non_blocking=device.pins_memory),
            lambda: host.copy_(on_device, non_blocking=device.pins_memory),
            lambda: torch.index_select(host, 0, order, out=gathered),
        )
    ]
    return Bandwidths(*(host.nbytes / best_s for best_s in seconds))


def reading_rate(path: Path) -> float:
    """Measure the rate, in bytes per second, of reading the beginning of a file and computing a checksum of it.

    Returns:
        The rate; 0 if the file cannot be read.
    """
    import xxhash

    buffer = bytearray(SAMPLE_BYTES)
    try:
        with path.open("rb", buffering=0) as file:
            started = time.perf_counter()
            count = file.readinto(buffer)
    except OSError:
        return 0.0
    xxhash.xxh3_128(buffer).digest()
    return (count or 0) / (time.perf_counter() - started)


def storing_rate(folder: Path) -> float:
    """Measure the rate, in bytes per second, of reading a file that has just been written to a folder.

    The file is still in the system's page cache, so that this is the highest rate at which a later run could read. The
    result is 0 if the file cannot be written.
    """
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".rate-", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(bytes(SAMPLE_BYTES))
            return reading_rate(Path(name))
        finally:
            os.unlink(name)
    return 0.0


def available_host_bytes(limits: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the host memory, in bytes, that this process can use without swapping, within the limit of its container.

    Args:
        limits: The folder in which Linux shows the memory limit and usage of the container's control group (cgroup
            version 2).
    """
    import psutil

    available = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # no such files, or the limit "max"
        limit, used = (int((limits / name).read_text()) for name in ("memory.max", "memory.current"))
        return max(0, min(available, limit - used + _inactive_file_bytes(limits / "memory.stat")))
    return available


def _inactive_file_bytes(statistics: Path) -> int:
    """Return the bytes of page cache that count as a container's memory but are freed on demand; 0 if unknown.

    Args:
        statistics: The file `memory.stat` in which Linux shows the memory statistics of the container's control group.
    """
    with suppress(OSError, ValueError):
        values = dict(line.split() for line in statistics.read_text().splitlines())
        return int(values.get("inactive_file", 0))
    return 0


def _best(work: Callable[[], object], device: Device) -> float:
    """Return the seconds of the fastest of a few executions of `work`, each measured until the device has finished."""
    best = float("inf")
    for _ in range(REPETITIONS):
        device.synchronise()
        started = time.perf_counter()
        work()
        device.synchronise()
        best = min(best, time.perf_counter() - started)
    return best


def _chunks(states: Tensor) -> list[tuple[int, int]]:
    """Divide the rows of a tensor into chunks of at most `CHUNK_BYTES`.

    Returns:
        For each chunk, its first row and the row after its last.
    """
    step = max(1, CHUNK_BYTES // max(1, states.shape[1] * states.element_size()))
    return [(begin, min(begin + step, len(states))) for begin in range(0, len(states), step)]
