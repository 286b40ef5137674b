"""Whole-word masking: all pieces of a word are masked together.

If single pieces are masked, a model can guess them from the other pieces of the word. If all pieces are masked, it has
to use the context. Sources: the whole-word variant released with Devlin et al. 2019, "BERT"; Cui et al. 2021,
"Pre-Training with Whole Word Masking for Chinese BERT". 80 % of the chosen pieces become ``[MASK]``, 10 % become a
random piece, and 10 % stay unchanged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tools.pretraining.tokenization import MASK, SPECIAL

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


def mask_words(ids: Ids, continues: Flags, rate: float, rng: np.random.Generator) -> tuple[Ids, Flags]:
    """Choose a random share of the words in a batch, and mask all word pieces of each chosen word.

    Args:
        ids: The word pieces, int64 `[batch, tokens]`.
        continues: True for each piece of the vocabulary that continues a word, bool `[vocabulary]`.
        rate: The expected share of masked words.
        rng: The random generator.

    Returns:
        The word pieces after masking, int64 `[batch, tokens]`, and True for each position to predict, bool
        `[batch, tokens]`.
    """
    rows, length = ids.shape
    word = np.cumsum(~continues[ids], axis=1)
    drawn = rng.random((rows, length + 1)) < rate
    chosen = drawn[np.arange(rows)[:, None], word] & (ids >= len(SPECIAL))
    draw = rng.random((rows, length))
    corrupted = np.where(chosen & (draw < 0.8), MASK, ids)
    other = rng.integers(len(SPECIAL), len(continues), (rows, length))
    return np.where(chosen & (draw >= 0.9), other, corrupted), chosen
