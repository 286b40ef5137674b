"""The evaluation of a model on held-out text of each source: loss, perplexity and accuracy for masked word pieces.

The held-out text of each source is cut into sequences and masked with a fixed seed, so that all checkpoints predict the
same positions. Losses of models with different vocabularies cannot be compared, because they are means per word piece.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import BertForPreTraining

from tools.pretraining.masking import Flags, mask_words
from tools.pretraining.model import LeanModel
from tools.pretraining.sampling import windows


@dataclass(frozen=True)
class HeldOut:
    """The results of masked-token prediction on the held-out text of one source."""

    loss: float
    """The mean cross-entropy in nats per masked word piece."""
    accuracy: float
    """The share of masked word pieces that are predicted correctly."""
    predicted: int
    """The number of masked word pieces."""

    @property
    def perplexity(self) -> float:
        """The exponential of the loss, often called the pseudo-perplexity of a masked language model."""
        return math.exp(self.loss)


@torch.no_grad()
def evaluate(
    model: BertForPreTraining,
    streams: dict[str, NDArray[np.uint16]],
    continues: Flags,
    *,
    rate: float = 0.15,
    length: int = 64,
    rows: int = 64,
) -> dict[str, HeldOut]:
    """Evaluate a model: mask some words of each source's held-out text, and predict them.

    Args:
        model: The model, in eval mode.
        streams: The held-out word pieces of each source, `[pieces]`.
        continues: True for each piece of the vocabulary that continues a word, `[vocabulary]`.
        rate: The expected share of masked words.
        length: The number of pieces per sequence.
        rows: The number of sequences per batch.

    Returns:
        The results by source.
    """
    device = next(model.parameters()).device
    lean = LeanModel(model, torch.float32)
    results = {}
    for name, stream in streams.items():
        originals = windows(stream, length)
        corrupted, chosen = mask_words(originals, continues, rate, np.random.default_rng(1))
        loss, right, count = 0.0, 0, 0
        for start in range(0, len(originals), rows):
            part = slice(start, start + rows)
            ids = torch.from_numpy(corrupted[part]).to(device)
            wanted = torch.from_numpy(np.flatnonzero(chosen[part])).to(device)
            targets = torch.from_numpy(originals[part]).to(device).flatten()[wanted]
            logits, _ = lean.forward(ids, torch.zeros_like(ids), wanted)
            loss += float(functional.cross_entropy(logits.float(), targets, reduction="sum"))
            right += int((logits.argmax(-1) == targets).sum())
            count += len(targets)
        results[name] = HeldOut(loss / count, right / count, count)
    return results
