"""How the two segments of a pair stand to each other, and how they are made.

Next-sentence pairs (Devlin et al. 2019) taught a model of this size nothing: it stayed at chance. Questions and
inference ask whether two texts say the same. So one segment is made of words of the other (`SAME`), of words of another
text of the source (`OTHER`), or of both (`ALTERED`). All three go through the same: some words left out, two parts
exchanged, lengths drawn alike, no ends of lines. Only comparing the segments tells them apart. Besides, a masked word
can be looked up in the other segment, which trains attention between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tools.pretraining.masking import Flags

Pieces = NDArray[np.uint16]
TextSource = Callable[[int, np.random.Generator], Pieces]
"""Some text of so many pieces."""


class Relation(IntEnum):
    """What the shorter segment is made of, against the longer one."""

    SAME = 0
    """Its words."""
    ALTERED = 1
    """Its words, but for a third to two thirds, which are those of another text."""
    OTHER = 2
    """Words of another text."""


def related(
    text: Pieces, size: int, relation: Relation, elsewhere: TextSource, continues: Flags, rng: np.random.Generator
) -> Pieces:
    """A segment of exactly `size` pieces, at most as many as `text` has, in the given relation to it."""
    span = min(len(text), round(1.2 * size))
    start = int(rng.integers(len(text) - span + 1))
    told = retold(split_words(text[start : start + span], continues), size, rng)
    if relation is not Relation.SAME:
        others = retold(split_words(elsewhere(span, rng), continues), size, rng)
        if relation is Relation.OTHER:
            told = others
        else:
            exchanged = rng.choice(len(told), round(len(told) * rng.uniform(1 / 3, 2 / 3)), replace=False)
            for place in exchanged:
                told[place] = others[place % len(others)]
    pieces = np.concatenate(told)
    if len(pieces) < size:
        pieces = np.concatenate([pieces, elsewhere(size - len(pieces), rng)])
    return pieces[:size]


def retold(words: Sequence[Pieces], size: int, rng: np.random.Generator) -> list[Pieces]:
    """`words` without some of them, so that at most `size` pieces are left, and in half of the cases with two parts
    exchanged.
    """
    kept = list(words)
    while len(kept) > 1 and sum(map(len, kept)) > size:
        del kept[int(rng.integers(len(kept)))]
    if len(kept) > 2 and rng.random() < 0.5:
        first, second, third = sorted(rng.choice(len(kept) + 1, 3, replace=False))
        kept = kept[:first] + kept[second:third] + kept[first:second] + kept[third:]
    return kept


def split_words(pieces: Pieces, continues: Flags) -> list[Pieces]:
    """`pieces` as words; the first one may have begun before."""
    return np.split(pieces, np.flatnonzero(~continues[pieces[1:]]) + 1)
