"""The state of torch's global random generators, from which dropout in transformers' modules draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from alue_bench.training.device.hardware import ACCELERATORS, Hardware

if TYPE_CHECKING:
    from torch import Tensor


def torch_random_state(device: str) -> dict[str, Tensor]:
    """Return the states of torch's global random generators for the CPU and for the device.

    The keys are "cpu" and the name of the device. If the device is the CPU, there is a single entry.
    """
    return {name: Hardware(name).random_state() for name in dict.fromkeys(("cpu", device))}


def set_torch_random_state(state: Mapping[str, Tensor]) -> None:
    """Restore the state that `torch_random_state` returned. `state` may have further entries, which are ignored."""
    for name in ("cpu", *(name for name in ACCELERATORS if name in state)):
        Hardware(name).set_random_state(state[name])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global CPU random generator inside the context and restore its state afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
