"""The choice of the epoch whose weights a training ends with, by the dev score."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn


class EpochSelection:
    """The epoch selected so far, with a copy of its weights where later epochs may change them."""

    def __init__(self, select: Literal["best", "last"], epochs: int, *, copy_all: bool) -> None:
        """Begin with no epoch.

        Args:
            select: Whether the epoch with the best dev score is selected, the earliest of equal ones, or the last one.
            epochs: The number of epochs of the training.
            copy_all: Whether all weights are copied, since those that are frozen now may train later; else only the
                weights that train.
        """
        self._select, self._epochs, self._copy_all = select, epochs, copy_all
        self.epoch = 0
        """The selected epoch, from 1; 0 before the first one has been scored."""
        self._score = -math.inf
        self._weights: dict[str, Tensor] = {}

    def offer(self, epoch: int, score: float, model: nn.Module) -> None:
        """Select the epoch that has just been scored, if it is the best yet, and copy its weights.

        Args:
            epoch: The number of the epoch, from 1.
            score: Its dev score. A score that is not a number (a constant prediction has no correlation) is never
                better than one that is.
            model: The model with the weights of this epoch.
        """
        comparable = score if math.isfinite(score) else -math.inf
        if self._select == "best" and self.epoch and not comparable > self._score:
            return
        self.epoch, self._score, self._weights = epoch, comparable, {}
        if self._select == "best" and epoch < self._epochs:
            self._weights = {
                name: parameter.detach().clone()
                for name, parameter in model.named_parameters()
                if self._copy_all or parameter.requires_grad
            }

    def restore(self, model: nn.Module) -> bool:
        """Give the model the weights of the selected epoch; return whether they were other than its own."""
        import torch

        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self._weights:
                    parameter.copy_(self._weights[name])
        return bool(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the selected epoch, its score and its weights."""
        return {"epoch": self.epoch, "score": self._score, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any], device: str) -> None:
        """Continue from what `state_dict` returned, with the weights on this device."""
        self.epoch, self._score = state["epoch"], state["score"]
        self._weights = {name: value.to(device) for name, value in state["weights"].items()}
