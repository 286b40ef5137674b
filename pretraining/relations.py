"""How the two segments of a pair stand to each other, and how one is made from the other.

Next-sentence pairs (Devlin et al. 2019) teach a model of this size little that questions or inference need: whether
two texts say the same. So in most pairs the second segment is the first one told again. Words are left out, parts
change places, a few words come in; what is left of the meaning is to be recognised (`REWRITTEN`), and told from a
text that went through the same but had a part of its words exchanged (`ALTERED`), so that shared words alone
do not decide. Besides, a masked word can be looked up in the other segment, which trains attention between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from pretraining.masking import Flags

Pieces = NDArray[np.uint16]
WordSource = Callable[[int, np.random.Generator], list[Pieces]]


class Relation(IntEnum):
    """Of the second segment to the first; the two that are told again are symmetric."""

    FOLLOWS = 0
    UNRELATED = 1
    REWRITTEN = 2
    ALTERED = 3


def rewritten(words: Sequence[Pieces], size: int, others: WordSource, rng: np.random.Generator) -> Pieces:
    """`words` told again in exactly `size` pieces: up to a third left out, two parts exchanged in half of the cases,
    and a few from elsewhere where room is left.
    """
    stays = rng.random(len(words)) >= rng.uniform(0, 0.33)
    kept = [word for word, stay in zip(words, stays, strict=True) if stay]
    if len(kept) > 3 and rng.random() < 0.5:
        first, second, third = sorted(rng.choice(len(kept) + 1, 3, replace=False))
        kept = kept[:first] + kept[second:third] + kept[first:second] + kept[third:]
    while len(kept) > 1 and sum(map(len, kept)) > size:
        del kept[int(rng.integers(len(kept)))]
    while (lacking := size - sum(map(len, kept))) > 0:
        for word in others(1 + lacking // 3, rng):
            kept.insert(int(rng.integers(len(kept) + 1)), word)
    return np.concatenate(kept)[:size]


def altered(pieces: Pieces, continues: Flags, others: WordSource, rng: np.random.Generator) -> Pieces:
    """`pieces` with a fifth to a half of its words exchanged for others, in the same number of pieces."""
    words = np.split(pieces, np.flatnonzero(~continues[pieces[1:]]) + 1)
    count = max(1, round(len(words) * rng.uniform(0.2, 0.5)))
    for place, word in zip(rng.choice(len(words), count, replace=False), others(count, rng), strict=False):
        words[place] = word
    while (lacking := len(pieces) - sum(map(len, words))) > 0:
        words += others(1 + lacking // 3, rng)
    return np.concatenate(words)[: len(pieces)]
