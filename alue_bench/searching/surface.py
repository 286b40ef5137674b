"""A Gaussian process that predicts the loss of score of every freezing setting from the scores of a few runs.

A freezing setting is a pair of numbers: the number of frozen bottom layers and the number of frozen top layers. Its
score is modelled as a smooth function of these two numbers, and of the logarithm of the learning rate if the search
chooses among several, plus noise that depends on the seed. The score of a low-fidelity run, which has fewer epochs, is
modelled as the same function plus a constant and a smooth bias (Kennedy & O'Hagan 2000). Several hyper-parameters are
unknown: the function's standard deviation, its length scale over layers (and over learning rates, if there are
several), and the size of the low-fidelity runs' bias. The model averages over a few values of each, weighted by the
likelihood of the scores (Rasmussen & Williams 2006, chapters 2 and 5). With the most likely values alone, the model
would trust low-fidelity runs before it has any full-length run of the same setting to compare them with. But an encoder
with many frozen layers may not have begun to learn after few epochs.

Besides smoothness, the model assumes that freezing further layers does not improve the score. A setting is therefore
never more likely to stay within a tolerance than a setting that freezes only a part of the same layers. If the Gaussian
process gives a larger probability, it is reduced to that of the other setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from alue_bench.searching.candidates import Candidate
from alue_bench.searching.observations import Evaluation

SIGNAL_SDS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""The considered standard deviations of the modelled function, as shares of full fine-tuning's score."""
RATE_LENGTH_SCALES = (0.25, 0.5, 1.0)
"""The considered length scales of the modelled function over the decimal logarithm of the learning rate."""
LENGTH_SCALES = (0.2, 0.4, 0.8)
"""The considered length scales of the modelled function over layers, as shares of the model's number of layers."""
EMBEDDINGS_DISTANCE = 0.5
"""The number of layers that the embeddings count for in the distance between two settings. The embeddings are frozen
together with the first bottom layer."""
HEAD_ONLY_DISTANCE = 4.0
"""The distance, in layers, between settings that train no encoder layer and all other settings, along an additional
dimension (see `_coordinates`). The score often drops if no layer is trained. Without this distance, a smooth function
could only fit the drop by a slope over the other settings."""
SHORT_RUN_BIASES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""The considered standard deviations of the low-fidelity runs' bias, as multiples of the modelled function's standard
deviation."""
NEGLIGIBLE_WEIGHT = 1e-4
"""The weight, relative to the largest weight, below which a combination of hyper-parameters is left out."""
MEAN_PRIOR_SD = 2.0
"""The prior standard deviation of the mean score, as a multiple of full fine-tuning's score. It is so large that the
prior has little influence."""


@dataclass(frozen=True)
class Surface:
    """The predicted distribution of each setting's loss of score against full fine-tuning, which is the first setting.

    The distribution is a mixture over k combinations of values of the Gaussian process's hyper-parameters.
    """

    weights: np.ndarray[Any, Any]
    """The weights `[k]` of the combinations of hyper-parameters; their sum is 1."""
    means: np.ndarray[Any, Any]
    """The means `[k, n]` of the n settings' losses."""
    sds: np.ndarray[Any, Any]
    """The standard deviations `[k, n]` of the losses."""

    @property
    def mean(self) -> np.ndarray[Any, Any]:
        """The means `[n]` of the losses over the whole mixture."""
        return np.asarray(self.weights @ self.means)

    @property
    def sd(self) -> np.ndarray[Any, Any]:
        """The standard deviations `[n]` of the losses over the whole mixture."""
        squares = self.weights @ (np.square(self.sds) + np.square(self.means))
        return np.asarray(np.sqrt(np.maximum(squares - np.square(self.mean), 0.0)))

    def likely_within(
        self, candidates: Sequence[Candidate], tolerance: float, error: float = 0.0
    ) -> np.ndarray[Any, Any]:
        """Return, for each freezing setting, the probability that its measured loss is no more than the tolerance.

        Args:
            candidates: The n settings, in the order in which `fit` received them.
            tolerance: The acceptable loss, as an absolute difference of scores.
            error: The standard error of the measured loss; 0 for the probability that the true loss is acceptable.

        Returns:
            The probabilities `[n]`. A setting never has a larger probability than a setting that freezes only a part of
            the same layers and has the same learning rate.
        """
        from scipy.special import ndtr  # scipy.stats takes long to import

        sds = np.sqrt(np.square(self.sds) + error**2)
        own = self.weights @ ndtr((tolerance - self.means) / np.maximum(sds, 1e-12))
        bottoms, tops = (np.array([getattr(c, part) for c in candidates]) for part in ("bottom", "top"))
        freezes_less = (bottoms[None, :] <= bottoms[:, None]) & (tops[None, :] <= tops[:, None])  # [n, n]
        freezes_less &= np.array([[one.rate == other.rate for other in candidates] for one in candidates])
        return np.asarray(np.where(freezes_less, own[None, :], 1.0).min(axis=1))


def fit(
    candidates: Sequence[Candidate],
    layers: int,
    evaluations: Sequence[Evaluation],
    *,
    scale: float,
    noise_variance: float,
) -> Surface:
    """Fit the Gaussian process to the scores of runs, and return the distribution of every setting's loss of score.

    Args:
        candidates: The n freezing settings that have a place on the surface, full fine-tuning first.
        layers: The encoder's number of layers.
        evaluations: The scores of the runs of these settings so far, including low-fidelity runs.
        scale: The score of full fine-tuning, or an estimate of this score.
        noise_variance: The variance of one run's score over seeds.
    """
    points = np.array([_coordinates(c, layers) for c in candidates]) / layers  # [n, 3]
    index = {c.name: i for i, c in enumerate(candidates)}
    where = np.array([index[e.candidate] for e in evaluations])
    short = np.array([e.short for e in evaluations])
    scores = np.array([e.score for e in evaluations])
    scores = scores - np.where(short, _mean_or_zero(scores[short]), _mean_or_zero(scores[~short]))
    distances = np.square(points[:, None, :] - points[None, :, :]).sum(-1)  # [n, n]
    rates = np.log10([c.rate or 1.0 for c in candidates])
    apart = np.square(rates[:, None] - rates[None, :])  # [n, n]
    scales = np.array(
        [*product(LENGTH_SCALES, RATE_LENGTH_SCALES if apart.any() else RATE_LENGTH_SCALES[:1])]
    )  # [scales, 2]

    def prior_correlations(rows: Any) -> Any:
        """Return the prior correlations of some settings' scores with the scores of all n settings.

        Args:
            rows: The indices of the settings.

        Returns:
            The correlations `[scales, rows, n]`, for each combination of length scales.
        """
        over_layers, over_rates = (2 * np.square(scale)[:, None, None] for scale in scales.T)
        return np.exp(-distances[rows] / over_layers - apart[rows] / over_rates)

    both_short = short[:, None] & short[None, :]
    # Full-length and low-fidelity runs have separate means.
    means_apart = (short[:, None] == short[None, :]) * (MEAN_PRIOR_SD * scale) ** 2
    noise = (noise_variance + (1e-4 * scale) ** 2) * np.eye(len(scores))
    spread, place, of_short = (
        axis.ravel()[:, None, None]  # [k, 1, 1]
        for axis in np.meshgrid(
            SIGNAL_SDS, np.arange(len(scales)), SHORT_RUN_BIASES if short.any() else SHORT_RUN_BIASES[:1], indexing="ij"
        )
    )
    variance = (spread * scale) ** 2
    by_scale, place = prior_correlations(where), place.ravel()  # [scales, seen, n], [k]
    seen = variance * by_scale[:, :, where][place]  # [k, seen, seen]
    factor = np.linalg.cholesky(seen + both_short * of_short**2 * seen + means_apart + noise)
    inverse = np.linalg.inv(factor)
    weights = inverse @ scores  # [k, seen]
    log_determinants = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(-1)
    likelihoods = -0.5 * np.square(weights).sum(1) - log_determinants
    likely = np.exp(likelihoods - likelihoods.max())
    kept = np.flatnonzero(likely > NEGLIGIBLE_WEIGHT)
    # The loss is a difference of two values of the function, in which a constant mean cancels.
    losses = (by_scale[:, :, :1] - by_scale)[place[kept]]
    difference = variance[kept] * (inverse[kept] @ losses)  # [kept, seen, n]
    unseen = 2 * variance[kept, 0] * (1 - prior_correlations([0])[place[kept], 0])  # [kept, n]
    return Surface(
        likely[kept] / likely[kept].sum(),
        (weights[kept, :, None] * difference).sum(1),
        np.sqrt(np.maximum(unseen - np.square(difference).sum(1), 0.0)),
    )


def _coordinates(candidate: Candidate, layers: int) -> tuple[float, float, float]:
    """Return a setting's three coordinates, in units of layers, from which distances between settings are computed.

    They are the number of frozen bottom layers (plus `EMBEDDINGS_DISTANCE` if there are any), the number of frozen top
    layers, and `HEAD_ONLY_DISTANCE` if no layer is trained (0 otherwise).
    """
    bottom, top = candidate.bottom, candidate.top
    return bottom + EMBEDDINGS_DISTANCE * (bottom > 0), top, HEAD_ONLY_DISTANCE * (bottom + top >= layers)


def _mean_or_zero(values: Any) -> float:
    return float(values.mean()) if len(values) else 0.0
