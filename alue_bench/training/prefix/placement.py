"""The choice of the memory in which a run on an accelerator keeps the output of the frozen lowest layers.

These layers, with the embeddings, are the frozen prefix. The choice follows from sizes and measured rates. The output
is kept in the accelerator's memory if it fits, because gathering a batch there costs almost nothing. Otherwise it is
kept in pinned host memory and copied to the accelerator at every step, or computed at every step, whichever takes less
time. A stored file is read only if that takes less time than computing the output again: a fast accelerator computes a
few layers several times faster than a disk can read their output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alue_bench.contract.byte_sizes import readable

DEVICE_SHARE = 0.5
"""The largest share of the accelerator's free memory that the output of a frozen prefix may take. Memory that gradients
and optimiser state will need does not count as free. The remaining share is for activations."""
HOST_SHARE = 0.25
"""The largest share of the available host memory that the output of a frozen prefix may take. Pinned memory cannot be
swapped out, and torch rounds its size up to a power of two."""

PrefixLocation = Literal["resident", "pinned", "recomputed"]
"""The place of the output of a frozen prefix: the accelerator's memory ("resident") or pinned host memory ("pinned").
"recomputed" means that the output is not kept, but computed at every step."""


@dataclass(frozen=True)
class Sizes:
    """The sizes that determine where the output of a frozen prefix is kept."""

    tokens: int
    """The number of tokens of the split."""
    bytes: int
    """The size, in bytes, of the output of the frozen prefix for the split."""
    passes: int
    """The number of times that the training reads the whole split."""
    device_free: int
    """The accelerator's free memory in bytes, minus the memory that gradients and optimiser state will take."""
    host_free: int
    """The available host memory in bytes; 0 if the accelerator does not copy from pinned memory."""
    stored: bool
    """True if the on-disk store already holds the output of the frozen prefix."""


@dataclass(frozen=True)
class Rates:
    """The measured rates that determine where the output of a frozen prefix is kept."""

    compute: float
    """The number of tokens per second for which the accelerator computes the output of the frozen prefix."""
    to_device: float
    """The number of bytes per second of a copy from pinned host memory to the accelerator."""
    to_host: float
    """The number of bytes per second of a copy from the accelerator to pinned host memory."""
    gather: float
    """The number of bytes per second at which the CPU gathers single rows into pinned memory."""
    read: float
    """The number of bytes per second at which the store's file is read into host memory and its checksum is computed; 0
    if unknown."""


@dataclass(frozen=True)
class PrefixPlacement:
    """The place where the output of a frozen prefix is kept, and the reason."""

    location: PrefixLocation
    read: bool
    """True to read the output from the store instead of computing it."""
    reason: str
    """The reason for the choice, as a clause that continues "because"."""
    rates: Rates
    """The measured rates that the choice is based on."""

    def __str__(self) -> str:
        """Return the place and the reason as a sentence, which is recorded in the run's `environment.json`."""
        return f"{self.location}, because {self.reason}"


def choose_placement(sizes: Sizes, rates: Rates) -> PrefixPlacement:
    """Choose where to keep the output of a frozen prefix, such that the training is fastest.

    Args:
        sizes: The sizes of the split, of the output and of the free memory.
        rates: The measured rates of computing, copying and reading.
    """
    compute_s = sizes.tokens / rates.compute
    read_s = reading_s(sizes.bytes, rates) if sizes.stored else float("inf")
    source = f"{'reading' if read_s < compute_s else 'computing'} it takes {_seconds(min(compute_s, read_s))}"
    size, read = readable(sizes.bytes), read_s < compute_s
    if sizes.bytes <= DEVICE_SHARE * sizes.device_free:
        reason = f"{size} are at most half of the {readable(sizes.device_free)} free on the device, and {source}"
        return PrefixPlacement("resident", read, reason, rates)
    too_large = f"{size} are more than half of the {readable(max(sizes.device_free, 0))} free on the device"
    again_s = sizes.passes * compute_s
    if sizes.bytes > HOST_SHARE * sizes.host_free:
        reason = f"{too_large} and more than a quarter of the {readable(sizes.host_free)} of available host memory"
        return PrefixPlacement("recomputed", False, reason, rates)
    pass_s = sizes.bytes / rates.gather + sizes.bytes / rates.to_device
    # A stored file is read into pinned memory directly, so the copy to the accelerator in `read_s` does not apply.
    # Output that the accelerator computes must be copied to pinned memory.
    fill_s = min(read_s - sizes.bytes / rates.to_device, compute_s + sizes.bytes / rates.to_host)
    read = fill_s < compute_s
    pinned_s = fill_s + sizes.passes * pass_s
    times = f"{sizes.passes} passes take {_seconds(pinned_s)} from pinned memory and {_seconds(again_s)} computed again"
    if pinned_s < again_s:
        return PrefixPlacement("pinned", read, f"{too_large}, and {times}", rates)
    return PrefixPlacement("recomputed", False, f"{too_large}, and {times}", rates)


def worth_storing(sizes: Sizes, rates: Rates) -> bool:
    """Return whether a later run would read the output from the disk faster than it would compute it."""
    return reading_s(sizes.bytes, rates) < sizes.tokens / rates.compute


def reading_s(size: int, rates: Rates) -> float:
    """Return the seconds that it takes to read a stored output of `size` bytes and copy it to the accelerator."""
    return size / rates.read + size / rates.to_device if rates.read else float("inf")


def _seconds(value: float) -> str:
    return f"{value:.2g} s"
