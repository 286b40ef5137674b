"""The effect of freezing each encoder layer, measured by a grid of settings, and its correlation with layer scores.

A grid has a score for each freezing setting (bottom, top), the numbers of frozen bottom and top layers. Two settings
are neighbours if one of the two numbers is the same in both and no setting of the grid with this number lies between
them. The layers in which neighbours differ are trained in one setting and frozen in the other. The change of the score
between neighbours is divided equally among these layers. The effect of freezing a layer is the mean of the layer's
shares over all pairs of neighbours that differ in this layer.

A grid in steps of two cannot distinguish the two layers of a step. Adjacent layers that always change together form a
block. For the rank correlation, a block has the mean score of its layers. The embeddings are frozen together with the
lowest layers, so that the effect of the lowest block includes that of the embeddings.

The effect is an average over settings in which different other layers are frozen. It is not valid for sets of layers
that are not in the grid, such as every second layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import fmean

from alue_bench.contract.cells import Cell


@dataclass(frozen=True)
class FreezingEffect:
    """The effect of freezing the layers of a block."""

    layers: tuple[int, ...]
    """The adjacent layers of the block, counted from 0."""
    change: float
    """The mean change of the score per layer of the block if the block is frozen instead of trained; negative if
    freezing lowers the score."""
    pairs: int
    """The number of pairs of neighbouring settings over which `change` is a mean."""


def freezing_effects(scores: Mapping[Cell, float], layers: int) -> list[FreezingEffect]:
    """Return the effect of freezing each block of layers, from the lowest block upwards.

    Args:
        scores: The mean score of each freezing setting (bottom, top) of the grid.
        layers: The number of the encoder's layers.

    Returns:
        The effects; empty if no two settings are neighbours. Layers in which no neighbours differ belong to no block.
    """
    pairs = list(_neighbours(scores, layers))
    members = {
        layer: tuple(place for place, (changed, _) in enumerate(pairs) if layer in changed) for layer in range(layers)
    }
    return [
        FreezingEffect(tuple(block), fmean(pairs[place][1] / len(pairs[place][0]) for place in places), len(places))
        for places, block in groupby(range(layers), key=members.__getitem__)
        if places
    ]


def _neighbours(scores: Mapping[Cell, float], layers: int) -> list[tuple[range, float]]:
    """Return, for each pair of neighbouring settings, the layers in which they differ and the change of the score."""
    changes = []
    for top in sorted({top for _, top in scores}):
        bottoms = sorted(bottom for bottom, other in scores if other == top)
        changes += [(range(fewer, more), scores[more, top] - scores[fewer, top]) for fewer, more in pairwise(bottoms)]
    for bottom in sorted({bottom for bottom, _ in scores}):
        tops = sorted(top for other, top in scores if other == bottom)
        changes += [
            (range(layers - more, layers - fewer), scores[bottom, more] - scores[bottom, fewer])
            for fewer, more in pairwise(tops)
        ]
    return changes


def rank_correlation(effects: Sequence[FreezingEffect], layer_scores: Sequence[float]) -> float:
    """Return Spearman's rank correlation between scores of layers and the loss of score that freezing a layer causes.

    It is 1 if the blocks of layers have the same order by their scores as by this loss.

    Args:
        effects: The effects of freezing, from `freezing_effects`.
        layer_scores: The score of each layer, from layer 0 upwards. A block has the mean score of its layers.

    Returns:
        The correlation over blocks of layers; nan if there are fewer than two blocks, or if all blocks have the same
        score or the same effect.
    """
    from scipy.stats import rankdata

    losses = rankdata([-effect.change for effect in effects])
    scores = rankdata([fmean(layer_scores[layer] for layer in effect.layers) for effect in effects])
    if len(effects) < 2 or len(set(losses)) == 1 or len(set(scores)) == 1:
        return math.nan
    losses, scores = losses - losses.mean(), scores - scores.mean()
    return float((losses @ scores) / math.sqrt((losses @ losses) * (scores @ scores)))
