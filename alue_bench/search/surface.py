"""What the scores of some candidates say of all: a Gaussian process over (bottom, top).

The score of a setting is a smooth function of how many layers are frozen at either end, plus noise of seeds. Short runs
tell of the same function, shifted by a constant and by a smooth difference (Kennedy & O'Hagan 2000). The scale of the
function, how far its values reach, and how much of what short runs show is the difference, are unknown: each of a few
possibilities counts as much as it makes the scores likely (Rasmussen & Williams 2006, chapters 2 and 5). To take the
likeliest alone would be to trust short runs before a whole one has been compared with them: with few epochs, models
that freeze much may not have begun to learn. Then one thing is added that smoothness does not know: whoever freezes
more does not score better, so that a candidate is no likelier to be good enough than the least likely of those that
freeze less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from alue_bench.search.candidates import Candidate
from alue_bench.search.observations import Evaluation

SPREADS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Standard deviations of the function over the grid, as parts of full fine-tuning's score."""
REACHES = (0.2, 0.4, 0.8)
"""How far values tell of each other, as parts of the number of layers."""
EMBEDDINGS = 0.5
"""Freezing the embeddings, which the first frozen layer brings along, counts as so many layers."""
OF_SHORT = (0.25, 0.5, 1.0, 2.0, 4.0)
"""The spread of the difference between short and whole runs, as a part of the function's spread."""
CONSTANT = 2.0
"""The spread of the mean, as a part of the score: large, so that the mean is free."""


@dataclass(frozen=True)
class Surface:
    """Of each candidate, in the order given: the loss against the first one, under each of k possibilities."""

    weights: np.ndarray[Any, Any]
    """How likely each possibility is: [k], together 1."""
    means: np.ndarray[Any, Any]
    sds: np.ndarray[Any, Any]
    """[k, n] each."""

    @property
    def mean(self) -> np.ndarray[Any, Any]:
        """[n], over all possibilities."""
        return np.asarray(self.weights @ self.means)

    @property
    def sd(self) -> np.ndarray[Any, Any]:
        """[n], over all possibilities."""
        squares = self.weights @ (np.square(self.sds) + np.square(self.means))
        return np.asarray(np.sqrt(np.maximum(squares - np.square(self.mean), 0.0)))

    def likely_within(self, candidates: Sequence[Candidate], tolerance: float) -> np.ndarray[Any, Any]:
        """The probability [n] that a candidate loses no more than `tolerance`."""
        from scipy.stats import norm

        own = self.weights @ norm.cdf((tolerance - self.means) / np.maximum(self.sds, 1e-12))
        bottoms, tops = (np.array([getattr(c, part) for c in candidates]) for part in ("bottom", "top"))
        freezes_less = (bottoms[None, :] <= bottoms[:, None]) & (tops[None, :] <= tops[:, None])  # [n, n]
        return np.asarray(np.where(freezes_less, own[None, :], 1.0).min(axis=1))


def fit(
    candidates: Sequence[Candidate],
    layers: int,
    evaluations: Sequence[Evaluation],
    *,
    scale: float,
    noise_variance: float,
) -> Surface:
    """`scale` is full fine-tuning's score, or a guess of it; `noise_variance` that of one run's score over seeds."""
    points = np.array([_place(c) for c in candidates]) / layers  # [n, 2]
    index = {c.name: i for i, c in enumerate(candidates)}
    where = np.array([index[e.candidate] for e in evaluations])
    short = np.array([e.short for e in evaluations])
    scores = np.array([e.score for e in evaluations])
    scores = scores - np.where(short, _middle(scores[short]), _middle(scores[~short]))
    distances = np.square(points[:, None, :] - points[None, :, :]).sum(-1)  # [n, n]
    both_short = short[:, None] & short[None, :]
    # each length of runs has a mean of its own
    means_apart = (short[:, None] == short[None, :]) * (CONSTANT * scale) ** 2
    noise = (noise_variance + (1e-4 * scale) ** 2) * np.eye(len(scores))
    likelihoods, means, sds = [], [], []
    for spread, reach in product(SPREADS, REACHES):
        kernel = (spread * scale) ** 2 * np.exp(-distances / (2 * reach**2))
        seen = kernel[np.ix_(where, where)]
        # The loss is a difference of two values of the function: a constant mean falls out of it.
        with_losses = kernel[where][:, [0]] - kernel[where]  # [seen, n]
        unseen = kernel[0, 0] + np.diag(kernel) - 2 * kernel[0]
        for of_short in OF_SHORT if short.any() else OF_SHORT[:1]:
            factor = np.linalg.cholesky(seen + both_short * of_short**2 * seen + means_apart + noise)
            weights = np.linalg.solve(factor, scores)
            likelihoods.append(-0.5 * weights @ weights - np.log(np.diag(factor)).sum())
            difference = np.linalg.solve(factor, with_losses)
            means.append(difference.T @ weights)
            sds.append(np.sqrt(np.maximum(unseen - np.square(difference).sum(0), 0.0)))
    likely = np.exp(np.array(likelihoods) - max(likelihoods))
    return Surface(likely / likely.sum(), np.array(means), np.array(sds))


def _place(candidate: Candidate) -> tuple[float, float]:
    return candidate.bottom + EMBEDDINGS * (candidate.bottom > 0), candidate.top


def _middle(values: Any) -> float:
    return float(values.mean()) if len(values) else 0.0
