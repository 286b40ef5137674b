"""Whole-word masking.

Masking single pieces lets the model complete a word from its other pieces; masking all pieces of a word asks
for context (the whole-word variant released with Devlin et al. 2019, "BERT"; Cui et al. 2021, "Pre-Training
with Whole Word Masking for Chinese BERT"). Of the chosen pieces 80 % become ``[MASK]``, 10 % another piece,
10 % stay.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tools.pretraining.tokeniser import MASK, SPECIAL

Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]


def mask_words(ids: Ids, continues: Flags, rate: float, rng: np.random.Generator) -> tuple[Ids, Flags]:
    """Mask about `rate` of the words of `ids` [b, s].

    `continues` [v] says which pieces continue a word. Returns the corrupted ids and the positions to
    predict, [b, s].
    """
    rows, length = ids.shape
    word = np.cumsum(~continues[ids], axis=1)
    drawn = rng.random((rows, length + 1)) < rate
    chosen = drawn[np.arange(rows)[:, None], word] & (ids >= len(SPECIAL))
    lot = rng.random((rows, length))
    corrupted = np.where(chosen & (lot < 0.8), MASK, ids)
    other = rng.integers(len(SPECIAL), len(continues), (rows, length))
    return np.where(chosen & (lot >= 0.9), other, corrupted), chosen
