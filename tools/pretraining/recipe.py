"""What a run is told: its stages and hyper-parameters, all in tokens, none in wall-clock.

So a run that is niced, stopped or moved to another machine ends with the same weights.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one depth, over sequences of mixed lengths."""

    layers: int
    tokens: float
    """How many tokens this stage lasts."""
    lengths: dict[int, float] = field(default_factory=lambda: {64: 1.0})
    """Sequence length to the share of steps that use it. Every step has the same number of tokens."""


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the weights, given the prepared text."""

    stages: tuple[Stage, ...]
    hidden: int = 192
    batch_tokens: int = 4096
    mask_rate: float = 0.2
    pair_rate: float = 0.6
    relations: tuple[float, ...] = (0.35, 0.3, 0.35)
    """How often the segments of a pair are in each `tools.pretraining.relations.Relation`."""
    relation_loss: float = 1.0
    """Weight of telling the relation of two segments beside the masked-word loss."""
    bag_loss: float = 1.0
    """Weight of predicting from the pooled state which words are in the text."""
    peak_lr: float = 8e-4
    warmup_tokens: float = 0.3e6
    """At the start and after each change of depth."""
    decay_tokens: float = 0.0
    """The last tokens of the run, over which the learning rate falls to zero. Before them it is constant: a
    run can be annealed from any checkpoint (the trapezoidal schedule; Hu et al. 2024, "MiniCPM")."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    average: float = 0.998
    """Decay per step of the exponential moving average of the weights, which is what is exported."""
    seed: int = 0

    @property
    def tokens(self) -> float:
        """The length of the whole run."""
        return sum(stage.tokens for stage in self.stages)

    def stage_at(self, tokens: float) -> tuple[int, float]:
        """The stage in force after `tokens`, and how many tokens into it."""
        for number, stage in enumerate(self.stages):
            if tokens < stage.tokens or number == len(self.stages) - 1:
                return number, tokens
            tokens -= stage.tokens
        raise ValueError("a recipe needs at least one stage")

    def lr(self, tokens: float, since_change: float) -> float:
        """The learning rate after `tokens`, `since_change` of them since the last change of depth."""
        warm = min(1.0, since_change / self.warmup_tokens) if self.warmup_tokens else 1.0
        left = max(0.0, self.tokens - tokens)
        fall = min(1.0, left / self.decay_tokens) if self.decay_tokens else 1.0
        return self.peak_lr * warm * (1 - math.sqrt(1 - fall))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Recipe:
        """The inverse of `as_dict`."""
        stages = tuple(
            Stage(stage["layers"], stage["tokens"], {int(k): v for k, v in stage["lengths"].items()})
            for stage in values["stages"]
        )
        return Recipe(
            **{**values, "stages": stages, "betas": tuple(values["betas"]), "relations": tuple(values["relations"])}
        )


MIXED = {32: 0.3, 64: 0.5, 128: 0.15, 256: 0.05}
"""Mostly short sequences, fastest and most like posts; enough long ones to train all positions."""

WARM = Recipe(stages=(Stage(12, 1e12, MIXED),))
"""From a 12-layer checkpoint, for as long as one likes; then `anneal`."""

FRESH = Recipe(stages=(Stage(3, 17e6), Stage(6, 10e6), Stage(12, 10e6), Stage(12, 1e12, MIXED)))
"""From nothing: progressive stacking (Gong et al. 2019)."""


def ending(recipe: Recipe, tokens: float) -> Recipe:
    """`recipe` with its last stage shortened, so that the run lasts `tokens`."""
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
    """`recipe` cut off after `done`, with a last stage of `tokens` in which its learning rate falls all the way."""
    before = ending(recipe, done).stages
    return replace(recipe, stages=(*before, Stage(before[-1].layers, tokens, MIXED)), decay_tokens=tokens)
