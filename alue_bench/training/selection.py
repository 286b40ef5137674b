"""The evaluations of a training: their times, the selection of the final weights, and early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn


def evaluation_points(steps: int, every: float) -> list[int]:
    """Return the steps of an epoch, from 1, after which the dev split is evaluated; the last one is the epoch's end.

    Args:
        steps: The number of steps of an epoch.
        every: The part of an epoch between two evaluations, above 0 and at most 1. Where it does not divide the epoch,
            the last part is shorter; where it is less than a step, each step is evaluated.
    """
    part = Fraction(repr(every))  # of the decimal that was said: three times the float 0.1 is more than 0.3
    if part * steps <= 1:
        return list(range(1, steps + 1))
    within = (math.ceil(number * part * steps) for number in range(1, math.ceil(1 / part)))
    return sorted({*within, steps})


class Selection:
    """The evaluation selected so far, with a copy of its weights where later steps may change them."""

    def __init__(self, select: Literal["best", "last"], patience: int, *, copy_all: bool) -> None:
        """Begin with no evaluation.

        Args:
            select: Whether the evaluation with the best dev score is selected, the earliest of equal ones, or the last
                one.
            patience: The number of evaluations in a row without a better score after which the training stops; 0 for
                none.
            copy_all: Whether all weights are copied, since those that are frozen now may train later; else only the
                weights that train.
        """
        self._select, self._patience, self._copy_all = select, patience, copy_all
        self.offered = 0
        """The number of evaluations so far."""
        self.selected = 0
        """The selected evaluation, from 1; 0 before the first one."""
        self._best, self._best_at = -math.inf, 0
        self._weights: dict[str, Tensor] = {}

    @property
    def stops(self) -> bool:
        """True if the training is to stop, since its last evaluations were no better than an earlier one."""
        return 0 < self._patience <= self.offered - self._best_at

    def offer(self, score: float, model: nn.Module, *, is_last: bool) -> None:
        """Select the weights that have just been evaluated, if they are the best yet, and copy them.

        Args:
            score: Their dev score. A score that is not a number (a constant prediction has no correlation) is never
                better than one that is.
            model: The model with these weights.
            is_last: Whether this is the end of the last epoch, after which the weights stay as they are.
        """
        self.offered += 1
        comparable = score if math.isfinite(score) else -math.inf
        better = self.offered == 1 or comparable > self._best
        if better:
            self._best, self._best_at = comparable, self.offered
        if self._select == "best" and not better:
            return
        self.selected, self._weights = self.offered, {}
        if self._select == "best" and not is_last:
            self._weights = {
                name: parameter.detach().clone()
                for name, parameter in model.named_parameters()
                if self._copy_all or parameter.requires_grad
            }

    def restore(self, model: nn.Module) -> bool:
        """Copy the selected weights into the model; return whether any weights had to be copied."""
        import torch

        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self._weights:
                    parameter.copy_(self._weights[name])
        return bool(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the evaluations' number, the selected and the best one, and the selected weights."""
        counted = {"offered": self.offered, "selected": self.selected, "best": self._best, "best_at": self._best_at}
        return {**counted, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any], device: str) -> None:
        """Continue from what `state_dict` returned, with the weights on this device."""
        self.offered, self.selected = state["offered"], state["selected"]
        self._best, self._best_at = state["best"], state["best_at"]
        self._weights = {name: value.to(device) for name, value in state["weights"].items()}
