"""The relation between the two segments of a pair, and the construction of such pairs.

A model of this size learnt nothing from next-sentence pairs (Devlin et al. 2019): it stayed at chance. Question
similarity and inference ask whether two texts say the same. So the second segment is made of words of the first
(`SAME`), of words of another text from the same source (`OTHER`), or of both (`ALTERED`). All three are edited in the
same way: some words are dropped, two parts may be swapped, lengths have the same distribution, line ends are removed.
So the relation can only be found by comparing the segments. In addition, a masked word can be looked up in the other
segment, which trains attention between segments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from tools.pretraining.masking import Flags

Pieces = NDArray[np.uint16]
TextSource = Callable[[int, np.random.Generator], Pieces]
"""A function that draws a text of the given number of pieces."""


class Relation(IntEnum):
    """The origin of the words of the shorter segment of a pair."""

    SAME = 0
    """All words are from the longer segment."""
    ALTERED = 1
    """A third to two thirds of the words are from another text, the others from the longer segment."""
    OTHER = 2
    """All words are from another text."""


def related(
    text: Pieces, size: int, relation: Relation, elsewhere: TextSource, continues: Flags, rng: np.random.Generator
) -> Pieces:
    """Make a segment in a given relation to a text.

    Args:
        text: The pieces of the text, `[pieces]`.
        size: The number of pieces of the result, at most that of the text.
        relation: The relation of the result to the text.
        elsewhere: A function that draws another text.
        continues: True for each piece of the vocabulary that continues a word, bool `[vocabulary]`.
        rng: The random generator.

    Returns:
        The segment, `[size]`.
    """
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
    """Drop random words until at most `size` pieces are left, and in half of the cases swap two parts."""
    kept = list(words)
    while len(kept) > 1 and sum(map(len, kept)) > size:
        del kept[int(rng.integers(len(kept)))]
    if len(kept) > 2 and rng.random() < 0.5:
        first, second, third = sorted(rng.choice(len(kept) + 1, 3, replace=False))
        kept = kept[:first] + kept[second:third] + kept[first:second] + kept[third:]
    return kept


def split_words(pieces: Pieces, continues: Flags) -> list[Pieces]:
    """Split pieces into words; the first word may be incomplete."""
    return np.split(pieces, np.flatnonzero(~continues[pieces[1:]]) + 1)
