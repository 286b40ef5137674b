"""The recipe of a pre-training run: its stages and hyper-parameters.

Durations are given in tokens and never in seconds, so that a run ends with the same weights if it is slowed down,
stopped and resumed, or moved to another machine.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Stage:
    """A stage of pre-training, with a constant number of layers and constant shares of sequence lengths."""

    layers: int
    tokens: float
    """The duration of the stage, in tokens of training text."""
    lengths: dict[int, float] = field(default_factory=lambda: {64: 1.0})
    """The share of training steps for each sequence length; every step has the same number of tokens."""


@dataclass(frozen=True)
class Recipe:
    """The settings of a pre-training run.

    The recipe, the initial weights and the prepared text determine the final weights.
    """

    stages: tuple[Stage, ...]
    hidden: int = 192
    batch_tokens: int = 4096
    mask_rate: float = 0.2
    """The expected share of words that are masked."""
    pair_rate: float = 0.6
    """The share of sequences with two segments."""
    relations: tuple[float, ...] = (0.35, 0.3, 0.35)
    """The share of two-segment sequences with each `tools.pretraining.relations.Relation`."""
    relation_loss: float = 1.0
    """The weight of the loss for predicting the relation of two segments; that of the masked-word loss is 1."""
    bag_loss: float = 1.0
    """The weight of the loss for predicting the words of the text from the pooled state (a bag of words)."""
    peak_lr: float = 8e-4
    warmup_tokens: float = 0.3e6
    """The number of tokens of the learning-rate warm-up at the start and after each change of the number of layers."""
    decay_tokens: float = 0.0
    """The number of tokens at the end of the run over which the learning rate falls to zero. Before that it is
    constant, so that a run can be annealed from any checkpoint (trapezoidal schedule; Hu et al. 2024, "MiniCPM")."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    """The largest norm of the gradient; larger gradients are scaled down."""
    average: float = 0.998
    """The decay per step of the exponential moving average of the weights; the average is exported."""
    seed: int = 0

    @property
    def tokens(self) -> float:
        """The total duration of the run in tokens."""
        return sum(stage.tokens for stage in self.stages)

    def stage_at(self, tokens: float) -> tuple[int, float]:
        """Return the index of the stage at a point of the run, and the number of tokens since this stage began.

        Args:
            tokens: The number of tokens since the start of the run.

        Raises:
            ValueError: The recipe has no stage.
        """
        for number, stage in enumerate(self.stages):
            if tokens < stage.tokens or number == len(self.stages) - 1:
                return number, tokens
            tokens -= stage.tokens
        raise ValueError("a recipe needs at least one stage")

    def lr(self, tokens: float, since_change: float) -> float:
        """Return the learning rate at a point of the run.

        Args:
            tokens: The number of tokens since the start of the run.
            since_change: The number of tokens since the number of layers last changed.
        """
        warm = min(1.0, since_change / self.warmup_tokens) if self.warmup_tokens else 1.0
        left = max(0.0, self.tokens - tokens)
        fall = min(1.0, left / self.decay_tokens) if self.decay_tokens else 1.0
        return self.peak_lr * warm * (1 - math.sqrt(1 - fall))

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as a dictionary of plain values, for a checkpoint."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Recipe:
        """Return the recipe from a dictionary that `as_dict` returned."""
        stages = tuple(
            Stage(stage["layers"], stage["tokens"], {int(k): v for k, v in stage["lengths"].items()})
            for stage in values["stages"]
        )
        return Recipe(
            **{**values, "stages": stages, "betas": tuple(values["betas"]), "relations": tuple(values["relations"])}
        )


MIXED = {32: 0.3, 64: 0.5, 128: 0.15, 256: 0.05}
"""The shares of sequence lengths. Most sequences are short, because short ones are fastest and most similar to posts;
there are enough long ones to train all positions."""

WARM = Recipe(stages=(Stage(12, 1e12, MIXED),))
"""The recipe that starts from an existing 12-layer model and trains until it is stopped; the step `anneal` finishes
such a run."""

FRESH = Recipe(stages=(Stage(3, 17e6), Stage(6, 10e6), Stage(12, 10e6), Stage(12, 1e12, MIXED)))
"""The recipe that trains from scratch by progressive stacking of layers (Gong et al. 2019)."""


def ending(recipe: Recipe, tokens: float) -> Recipe:
    """Return the recipe changed to a total duration of `tokens` tokens.

    If the recipe is too long, its last stages are shortened or dropped; if it is too short, the last one is lengthened.
    """
    before = sum(stage.tokens for stage in recipe.stages[:-1])
    if tokens <= before:
        stages: tuple[Stage, ...] = ()
        for stage in recipe.stages:
            left = tokens - sum(earlier.tokens for earlier in stages)
            if left > 0:
                stages += (replace(stage, tokens=min(stage.tokens, left)),)
    else:
        stages = (*recipe.stages[:-1], replace(recipe.stages[-1], tokens=tokens - before))
    return replace(recipe, stages=stages)


def annealing(recipe: Recipe, done: float, tokens: float) -> Recipe:
    """Return the recipe for ending a run: after `done` tokens, a last stage in which the learning rate falls to zero.

    Args:
        recipe: The recipe of the run so far.
        done: The number of tokens of the run so far.
        tokens: The duration of the last stage in tokens.
    """
    before = ending(recipe, done).stages
    return replace(recipe, stages=(*before, Stage(before[-1].layers, tokens, MIXED)), decay_tokens=tokens)
