"""The choice where an accelerator's training keeps the output of a frozen prefix: measured rates against sizes.

The output is kept in the accelerator's memory where it fits, because a batch is then gathered there at no cost worth
counting. Otherwise it is kept in pinned host memory and copied to the accelerator at every step, or computed at every
step, whichever takes less time. A stored file is read only if that takes less time than computing the output again: a
fast accelerator computes a few layers several times faster than a disk delivers their output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alue_bench.contract.byte_sizes import readable

DEVICE_SHARE = 0.5
"""The share of the accelerator's free memory, after gradients and optimiser state, that the output of a prefix may
take. The rest is for activations."""
HOST_SHARE = 0.25
"""The share of the available host memory that the output of a prefix may take. Pinned memory cannot be swapped out, and
torch rounds its size up to a power of two."""

Place = Literal["resident", "pinned", "recomputed"]


@dataclass(frozen=True)
class Sizes:
    """The amounts on which the choice depends."""

    tokens: int
    """The number of tokens of the split."""
    bytes: int
    """The size of the output of the prefix."""
    passes: int
    """The number of times that the training reads the whole split."""
    device_free: int
    """The free bytes of the accelerator, without what gradients and optimiser state will take."""
    host_free: int
    """The available bytes of host memory; 0 if the accelerator does not copy from pinned memory."""
    stored: bool
    """True if the store has the output on disk."""


@dataclass(frozen=True)
class Rates:
    """The measured rates on which the choice depends."""

    compute: float
    """Tokens per second through the prefix."""
    to_device: float
    """Bytes per second from pinned host memory to the accelerator."""
    to_host: float
    """Bytes per second from the accelerator to pinned host memory."""
    gather: float
    """Bytes per second that the CPU gathers row by row into pinned memory."""
    read: float
    """Bytes per second from the store's file into host memory, checksum included; 0 if unknown."""


@dataclass(frozen=True)
class Placement:
    """The place for the output of a prefix, and the reason."""

    place: Place
    read: bool
    """True to read the output from the store instead of computing it."""
    because: str
    rates: Rates

    def __str__(self) -> str:
        """Return the place and the reason as a sentence."""
        return f"{self.place}, because {self.because}"


def place_states(sizes: Sizes, rates: Rates) -> Placement:
    """Choose the place that makes a training fastest.

    Args:
        sizes: The amounts.
        rates: The measured rates.
    """
    compute_s = sizes.tokens / rates.compute
    read_s = reading_s(sizes.bytes, rates) if sizes.stored else float("inf")
    source = f"{'reading' if read_s < compute_s else 'computing'} it takes {_seconds(min(compute_s, read_s))}"
    size, read = readable(sizes.bytes), read_s < compute_s
    if sizes.bytes <= DEVICE_SHARE * sizes.device_free:
        because = f"{size} are at most half of the {readable(sizes.device_free)} free on the device, and {source}"
        return Placement("resident", read, because, rates)
    too_large = f"{size} are more than half of the {readable(max(sizes.device_free, 0))} free on the device"
    again_s = sizes.passes * compute_s
    if sizes.bytes > HOST_SHARE * sizes.host_free:
        because = f"{too_large} and more than a quarter of the {readable(sizes.host_free)} of available host memory"
        return Placement("recomputed", False, because, rates)
    pass_s = sizes.bytes / rates.gather + sizes.bytes / rates.to_device
    # A file is read into pinned memory itself; what the accelerator computes is copied to it.
    fill_s = min(read_s - sizes.bytes / rates.to_device, compute_s + sizes.bytes / rates.to_host)
    read = fill_s < compute_s
    pinned_s = fill_s + sizes.passes * pass_s
    times = f"{sizes.passes} passes take {_seconds(pinned_s)} from pinned memory and {_seconds(again_s)} computed again"
    if pinned_s < again_s:
        return Placement("pinned", read, f"{too_large}, and {times}", rates)
    return Placement("recomputed", False, f"{too_large}, and {times}", rates)


def worth_storing(sizes: Sizes, rates: Rates) -> bool:
    """Return whether another run would read the output from the disk faster than it computes it."""
    return reading_s(sizes.bytes, rates) < sizes.tokens / rates.compute


def reading_s(size: int, rates: Rates) -> float:
    """Return the seconds that reading a stored output and copying it to the accelerator takes."""
    return size / rates.read + size / rates.to_device if rates.read else float("inf")


def _seconds(value: float) -> str:
    return f"{value:.2g} s"
