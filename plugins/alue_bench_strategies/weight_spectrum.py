"""The selector `spectrum-K`: the K layers whose weights have the highest signal-to-noise ratios train.

Source: Hartford et al. 2024, "Spectrum: Targeted Training on Signal to Noise Ratio", arXiv 2406.06623, sections 3.3 and
4 of the authors' manuscript. Each weight matrix gets a signal-to-noise ratio, computed from its singular values s. Let
beta <= 1 be the ratio of the matrix's shorter side to its longer side, and let sigma be estimated as IQR(s) / 1.349. By
the Marchenko-Pastur law, singular values up to sigma (1 + sqrt(beta)) are noise, and larger ones are signal. The ratio
is the sum of the signal values, divided by the sum of the noise values and by the largest singular value.

Section 4.2 compares a matrix only with the corresponding matrices of other layers, such as all query projections, and
trains the quarter of them with the highest ratios.

Choices made here: A strategy of this family trains whole layers. Each matrix has a relative rank: the share of the
other layers whose corresponding matrix has a lower ratio (an equal ratio counts one half). The score of a layer is the
mean rank of its matrices. A matrix without counterparts in other layers has the rank 0.5.

Cost: the singular values of all matrices. The recorded metric `runtime/probe_s` includes the time for computing them,
but `flops/probe` does not include their FLOPs. The score needs no examples.

When it does not help: the score depends on the pretrained weights only, so that all tasks get the same layers. See
`selector` for what applies to all selectors.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from alue_bench import EncoderShape, Probe, ProbeCost
from alue_bench_strategies.selector import RankingSelector, selector_family

IQR_OF_NORMAL = 1.349
"""The interquartile range of a normal distribution with standard deviation 1."""


class Spectrum(RankingSelector):
    """A selector that scores each layer by the signal-to-noise ratios of its weight matrices."""

    prefix = "spectrum"

    def probe_cost(self, shape: EncoderShape) -> ProbeCost:
        """Return a cost of zero: the model is not evaluated, and matrix decompositions are not counted."""
        return ProbeCost()

    def scores(self, probe: Probe) -> list[float]:
        """Return the score of each layer: the mean relative rank of its weight matrices.

        A matrix is ranked among the matrices of the same name in the other layers.
        """
        of_kind: defaultdict[str, dict[int, float]] = defaultdict(dict)
        for layer, module in enumerate(probe.layers):
            for name, parameter in module.named_parameters():
                if parameter.ndim == 2:
                    of_kind[name][layer] = signal_to_noise(parameter.detach())
        ranks = [relative_ranks(ratios) for ratios in of_kind.values()]
        of_layer = [[by_layer[layer] for by_layer in ranks if layer in by_layer] for layer in range(len(probe.layers))]
        return [sum(values) / len(values) for values in of_layer]


def signal_to_noise(weight: Any) -> float:
    """Return the signal-to-noise ratio of a weight matrix, as defined in the docstring of this module.

    Args:
        weight: The matrix, a tensor [rows, columns].
    """
    import torch

    values = torch.linalg.svdvals(weight.double().cpu())
    quartiles = torch.quantile(values, torch.tensor([0.25, 0.75], dtype=values.dtype))
    sigma = float(quartiles[1] - quartiles[0]) / IQR_OF_NORMAL
    edge = sigma * (1 + (min(weight.shape) / max(weight.shape)) ** 0.5)
    signal, noise = float(values[values > edge].sum()), float(values[values <= edge].sum())
    # If no value is below the edge, the smallest value is used as the noise, so that the ratio stays finite.
    noise = noise or float(values[-1]) or float(torch.finfo(values.dtype).tiny)
    return signal / noise / (float(values[0]) or 1.0)


def relative_ranks(ratios: dict[int, float]) -> dict[int, float]:
    """Return the relative rank of each layer: the share of the other layers that have a lower ratio, from 0 to 1.

    Another layer with an equal ratio counts one half. If there is only one layer, its rank is 0.5.

    Args:
        ratios: The signal-to-noise ratio of one kind of matrix, by the index of the layer.
    """
    others = len(ratios) - 1
    if others == 0:
        return dict.fromkeys(ratios, 0.5)
    values = list(ratios.values())
    return {
        layer: (sum(other < ratio for other in values) + (values.count(ratio) - 1) / 2) / others
        for layer, ratio in ratios.items()
    }


FAMILIES = (
    selector_family(
        Spectrum,
        "The K layers whose weights have the highest signal-to-noise ratios train",
        "Hartford et al. 2024, Spectrum: Targeted Training on Signal to Noise Ratio, arXiv 2406.06623",
    ),
)
