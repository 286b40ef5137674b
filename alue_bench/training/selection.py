"""Evaluation on the dev split during training: when to evaluate, selection of the final weights, early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn


def evaluation_points(steps: int, every: float) -> list[int]:
    """Return the steps of an epoch, counted from 1, after which the dev split is evaluated.

    The last step of the epoch is always among them.

    Args:
        steps: The number of steps of an epoch.
        every: The fraction of an epoch between two evaluations, above 0 and at most 1. If the epoch is not a multiple
            of it, the last interval is shorter. If this fraction is at most one step, the dev split is evaluated after
            each step.
    """
    part = Fraction(repr(every))  # the exact decimal that the user wrote: three times the float 0.1 is more than 0.3
    if part * steps <= 1:
        return list(range(1, steps + 1))
    within = (math.ceil(number * part * steps) for number in range(1, math.ceil(1 / part)))
    return sorted({*within, steps})


class Selection:
    """The selection of the final weights of a fine-tuning run among the weights at each evaluation on the dev split.

    It stores the number of the evaluation chosen so far. If the best evaluation is to be chosen, it also stores a copy
    of the weights at the evaluation chosen so far, unless no later step can change them. It also decides when training
    stops early.
    """

    def __init__(self, select: Literal["best", "last"], patience: int, *, copy_all: bool) -> None:
        """Set the rule for the choice, before the first evaluation.

        Args:
            select: The evaluation whose weights are chosen: "best" for the highest dev score (the earliest if several
                are equal), "last" for the last evaluation.
            patience: The number of evaluations in a row without a better score after which the training stops; 0 for
                no early stopping.
            copy_all: Whether to copy all weights, because weights that are frozen now may train later. False copies
                only trainable weights.
        """
        self._select, self._patience, self._copy_all = select, patience, copy_all
        self.offered = 0
        """The number of evaluations so far."""
        self.selected = 0
        """The number, counted from 1, of the evaluation whose weights are chosen; 0 before the first evaluation."""
        self._best, self._best_at = -math.inf, 0
        self._weights: dict[str, Tensor] = {}

    @property
    def stops(self) -> bool:
        """True if the training is to stop now: the last `patience` evaluations did not improve the best score."""
        return 0 < self._patience <= self.offered - self._best_at

    def offer(self, score: float, model: nn.Module, *, is_last: bool) -> None:
        """Record an evaluation. Choose its weights if its score is the best so far, or always if `select` is "last".

        Args:
            score: The dev score. A NaN (for example, the correlation of constant predictions) is never better than
                a finite score.
            model: The model that was evaluated. Its weights are copied if `select` is "best" and they are chosen,
                unless `is_last` is True.
            is_last: Whether this is the end of the last epoch, so that the weights will not change any more.
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
        """Load the chosen weights into the model, and return True; return False if the model already has them."""
        import torch

        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self._weights:
                    parameter.copy_(self._weights[name])
        return bool(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint: the chosen evaluation, the best evaluation, and the chosen weights."""
        counted = {"offered": self.offered, "selected": self.selected, "best": self._best, "best_at": self._best_at}
        return {**counted, "weights": self._weights}

    def load_state_dict(self, state: Mapping[str, Any], device: str) -> None:
        """Restore the state that `state_dict` returned, and move the chosen weights to this device."""
        self.offered, self.selected = state["offered"], state["selected"]
        self._best, self._best_at = state["best"], state["best_at"]
        self._weights = {name: value.to(device) for name, value in state["weights"].items()}
