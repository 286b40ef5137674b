"""What the scores of some candidates say of all: a Gaussian process over (bottom, top).

The score of a setting is a smooth function of how many layers are frozen at either end, plus noise of seeds. Short runs
tell of the same function, shifted by a constant and by a smooth difference (Kennedy & O'Hagan 2000). The scale of the
function and how far its values reach are those, out of a few, that make the scores most likely (Rasmussen & Williams
2006, chapters 2 and 5). Then one thing is added that smoothness does not know: whoever freezes more does not score
better, so that a candidate is no likelier to be good enough than the least likely of those that freeze less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from alue_bench.search.candidates import Candidate
from alue_bench.search.evidence import Evaluation

if TYPE_CHECKING:
    import numpy as np

SPREADS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Standard deviations of the function over the grid, as parts of full fine-tuning's score."""
REACHES = (0.2, 0.4, 0.8)
"""How far values tell of each other, as parts of the number of layers."""
EMBEDDINGS = 0.5
"""Freezing the embeddings, which the first frozen layer brings along, counts as so many layers."""
OF_SHORT = 0.5
"""The spread of the difference between short and whole runs, as a part of the function's spread."""
CONSTANT = 2.0
"""The spread of the mean, as a part of the score: large, so that the mean is free."""


@dataclass(frozen=True)
class Surface:
    """Of each candidate, in the order given: the loss against the first one."""

    mean: np.ndarray[Any, Any]
    sd: np.ndarray[Any, Any]

    def likely_within(self, candidates: Sequence[Candidate], tolerance: float) -> np.ndarray[Any, Any]:
        """The probability [n] that a candidate loses no more than `tolerance`."""
        import numpy as np
        from scipy.stats import norm

        own = norm.cdf((tolerance - self.mean) / np.maximum(self.sd, 1e-12))
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
    import numpy as np

    points = np.array([_place(c) for c in candidates]) / layers  # [n, 2]
    index = {c.name: i for i, c in enumerate(candidates)}
    where = np.array([index[e.candidate] for e in evaluations])
    short = np.array([e.short for e in evaluations])
    scores = np.array([e.score for e in evaluations])
    scores = scores - np.where(short, _middle(scores[short]), _middle(scores[~short]))
    distances = np.square(points[:, None, :] - points[None, :, :]).sum(-1)  # [n, n]
    both_short = short[:, None] & short[None, :]
    same_length = short[:, None] == short[None, :]
    noise = (noise_variance + (1e-4 * scale) ** 2) * np.eye(len(scores))
    best: tuple[float, Any] | None = None
    for spread, reach in product(SPREADS, REACHES):
        kernel = (spread * scale) ** 2 * np.exp(-distances / (2 * reach**2))
        seen = kernel[np.ix_(where, where)]
        # each length of runs has a mean of its own
        covariance = seen + both_short * OF_SHORT**2 * seen + same_length * (CONSTANT * scale) ** 2 + noise
        factor = np.linalg.cholesky(covariance)
        weights = np.linalg.solve(factor, scores)
        likelihood = -0.5 * weights @ weights - np.log(np.diag(factor)).sum()
        if best is None or likelihood > best[0] + 1e-9:
            best = (float(likelihood), (kernel, factor, weights))
    assert best is not None
    kernel, factor, weights = best[1]
    # The loss is a difference of two values of the function: a constant mean falls out of it.
    difference = np.linalg.solve(factor, (kernel[where][:, [0]] - kernel[where]))  # [seen, n]
    variance = kernel[0, 0] + np.diag(kernel) - 2 * kernel[0] - np.square(difference).sum(0)
    return Surface(difference.T @ weights, np.sqrt(np.maximum(variance, 0.0)))


def _place(candidate: Candidate) -> tuple[float, float]:
    return candidate.bottom + EMBEDDINGS * (candidate.bottom > 0), candidate.top


def _middle(values: Any) -> float:
    return float(values.mean()) if len(values) else 0.0
