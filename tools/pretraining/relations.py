"""The relation between the two segments of a training sequence, and the construction of such pairs of segments.

A model of this size learnt nothing from next-sentence prediction (Devlin et al. 2019): its accuracy stayed at chance.
Tasks such as question similarity and inference require a comparison of two texts. For this reason the shorter segment
is made of words of the longer one (`SAME`), of words of another text from the same source (`OTHER`), or of both
(`ALTERED`), and the model learns to predict which of these is the case. All three kinds are edited in the same way:
some words are dropped, two parts may be swapped, and line ends are removed. Their lengths have the same distribution.
The relation can therefore be found only by comparing the segments. In addition, a masked word may occur in the other
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
"""A function that draws a random text with the given number of word pieces."""


class Relation(IntEnum):
    """The relation between the two segments of a pair, given by the origin of the shorter segment's words."""

    SAME = 0
    """All words of the shorter segment are from the longer one."""
    ALTERED = 1
    """A third to two thirds of the shorter segment's words are from another text, the rest from the longer one."""
    OTHER = 2
    """All words of the shorter segment are from another text."""


def related(
    text: Pieces, size: int, relation: Relation, elsewhere: TextSource, continues: Flags, rng: np.random.Generator
) -> Pieces:
    """Make a segment that has a given relation to a text.

    Args:
        text: The pieces of the text, `[pieces]`.
        size: The number of pieces of the result, at most that of the text.
        relation: The relation of the result to the text.
        elsewhere: A function that draws another text, for words that are not from this text.
        continues: True for each piece of the vocabulary that continues a word, bool `[vocabulary]`.
        rng: The random generator.

    Returns:
        The segment, `[size]`. If its words have too few pieces, pieces of another text are added at the end.
    """
    span = min(len(text), round(1.2 * size))
    start = int(rng.integers(len(text) - span + 1))
    words = retold(split_words(text[start : start + span], continues), size, rng)
    if relation is not Relation.SAME:
        other_words = retold(split_words(elsewhere(span, rng), continues), size, rng)
        if relation is Relation.OTHER:
            words = other_words
        else:
            exchanged = rng.choice(len(words), round(len(words) * rng.uniform(1 / 3, 2 / 3)), replace=False)
            for index in exchanged:
                words[index] = other_words[index % len(other_words)]
    pieces = np.concatenate(words)
    if len(pieces) < size:
        pieces = np.concatenate([pieces, elsewhere(size - len(pieces), rng)])
    return pieces[:size]


def retold(words: Sequence[Pieces], size: int, rng: np.random.Generator) -> list[Pieces]:
    """Return a text shortened by dropping random words, and in half of the cases with two parts swapped.

    Args:
        words: The words of the text, each as an array of its word pieces.
        size: The largest number of word pieces of the result, unless the last remaining word has more.
        rng: The random generator.
    """
    kept = list(words)
    while len(kept) > 1 and sum(map(len, kept)) > size:
        del kept[int(rng.integers(len(kept)))]
    if len(kept) > 2 and rng.random() < 0.5:
        first, second, third = sorted(rng.choice(len(kept) + 1, 3, replace=False))
        kept = kept[:first] + kept[second:third] + kept[first:second] + kept[third:]
    return kept


def split_words(pieces: Pieces, continues: Flags) -> list[Pieces]:
    """Return the words of a text, each as an array of its word pieces; the first word may be without its beginning.

    Args:
        pieces: The word pieces, `[pieces]`.
        continues: True for each piece of the vocabulary that continues a word, bool `[vocabulary]`.
    """
    return np.split(pieces, np.flatnonzero(~continues[pieces[1:]]) + 1)
