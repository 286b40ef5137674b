"""Whole-word masking: the pieces of a word are masked together.

If single pieces are masked, a model can complete a word from its other pieces; if all pieces of a word are masked, it
has to use the context (the whole-word variant released with Devlin et al. 2019, "BERT"; Cui et al. 2021, "Pre-Training
with Whole Word Masking for Chinese BERT"). 80 % of the chosen pieces become ``[MASK]``, 10 % a random piece, and 10 %
stay unchanged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tools.pretraining.tokenization import MASK, SPECIAL

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


def mask_words(ids: Ids, continues: Flags, rate: float, rng: np.random.Generator) -> tuple[Ids, Flags]:
    """Mask a share of the words in a batch, with all word pieces of each masked word.

    Args:
        ids: The word pieces, int64 `[batch, tokens]`.
        continues: True for each piece of the vocabulary that continues a word, bool `[vocabulary]`.
        rate: The expected share of masked words.
        rng: The random generator.

    Returns:
        The corrupted pieces, int64 `[batch, tokens]`, and a mask of the positions to predict, bool `[batch, tokens]`.
    """
    rows, length = ids.shape
    word = np.cumsum(~continues[ids], axis=1)
    drawn = rng.random((rows, length + 1)) < rate
    chosen = drawn[np.arange(rows)[:, None], word] & (ids >= len(SPECIAL))
    lot = rng.random((rows, length))
    corrupted = np.where(chosen & (lot < 0.8), MASK, ids)
    other = rng.integers(len(SPECIAL), len(continues), (rows, length))
    return np.where(chosen & (lot >= 0.9), other, corrupted), chosen
