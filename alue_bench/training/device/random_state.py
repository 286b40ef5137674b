"""The state of torch's global random generators, which dropout in transformers' modules draws from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def torch_random_state(device: str) -> dict[str, Tensor]:
    """Return the states of torch's global generators, by "cpu" and, if `device` is "cuda", also by "cuda"."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state()} if device == "cuda" else states


def set_torch_random_state(state: Mapping[str, Tensor]) -> None:
    """Restore the state that `torch_random_state` returned."""
    import torch

    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global CPU random generator inside the context and restore its state afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
