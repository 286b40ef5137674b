"""Where torch's global generators are, to go on from there: dropout by the library's modules draws from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def torch_random_state(device: str) -> dict[str, Tensor]:
    """Of the global generators: the CPU's, and the GPU's where the model is there."""
    import torch

    found = {"cpu": torch.get_rng_state()}
    return found | {"cuda": torch.cuda.get_rng_state()} if device == "cuda" else found


def set_torch_random_state(state: Mapping[str, Tensor]) -> None:
    import torch

    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
