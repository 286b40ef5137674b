"""The selector `spectrum-K`: the K layers whose weights have the highest signal-to-noise ratios train.

Source: Hartford et al. 2024, "Spectrum: Targeted Training on Signal to Noise Ratio", arXiv 2406.06623, sections 3.3 and
4 of the authors' manuscript. The singular values s of a weight matrix whose sides have the ratio beta <= 1 are divided
into signal and noise at sigma (1 + sqrt(beta)), the edge of the Marchenko-Pastur law, with sigma estimated as
IQR(s) / 1.349. The signal-to-noise ratio of the matrix is the sum of the s above the edge, divided by the sum of the
others and by the largest s.

Section 4.2 compares matrices only with those of the same kind in other layers, such as all query projections, and
trains the highest quarter of each kind. Choices made here: A strategy of this family trains whole layers. The score of
a layer is the mean over its matrices of the matrix's relative rank among those of its kind: the share of the other
layers whose matrix has a lower ratio, where an equal ratio counts one half. A matrix without counterparts in other
layers counts one half.

Cost: the singular values of all matrices, which `flops/probe` does not count (`runtime/probe_s` does). The score
needs no examples.

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
    """A selector by the signal-to-noise ratio of the singular values of the weights."""

    prefix = "spectrum"

    def probe_cost(self, shape: EncoderShape) -> ProbeCost:
        """Return no cost: no example is computed, and matrix decompositions are not counted."""
        return ProbeCost()

    def scores(self, probe: Probe) -> list[float]:
        """Return the mean relative rank of each layer's matrices among those of the same kind."""
        of_kind: defaultdict[str, dict[int, float]] = defaultdict(dict)
        for layer, module in enumerate(probe.layers):
            for name, parameter in module.named_parameters():
                if parameter.ndim == 2:
                    of_kind[name][layer] = signal_to_noise(parameter.detach())
        ranks = [relative_ranks(ratios) for ratios in of_kind.values()]
        of_layer = [[by_layer[layer] for by_layer in ranks if layer in by_layer] for layer in range(len(probe.layers))]
        return [sum(values) / len(values) for values in of_layer]


def signal_to_noise(weight: Any) -> float:
    """Return the signal-to-noise ratio of a weight matrix, a tensor [rows, columns]; see the module's description."""
    import torch

    values = torch.linalg.svdvals(weight.double().cpu())
    quartiles = torch.quantile(values, torch.tensor([0.25, 0.75], dtype=values.dtype))
    sigma = float(quartiles[1] - quartiles[0]) / IQR_OF_NORMAL
    edge = sigma * (1 + (min(weight.shape) / max(weight.shape)) ** 0.5)
    signal, noise = float(values[values > edge].sum()), float(values[values <= edge].sum())
    # Without any value below the edge, the smallest one stands for the noise, so that the ratio stays finite.
    noise = noise or float(values[-1]) or float(torch.finfo(values.dtype).tiny)
    return signal / noise / (float(values[0]) or 1.0)


def relative_ranks(ratios: dict[int, float]) -> dict[int, float]:
    """Return, by layer, the share of the other layers with a lower ratio; equal ratios count one half."""
    others = len(ratios) - 1
    if others == 0:
        return dict.fromkeys(ratios, 0.5)
    listed = list(ratios.values())
    return {
        layer: (sum(other < ratio for other in listed) + (listed.count(ratio) - 1) / 2) / others
        for layer, ratio in ratios.items()
    }


FAMILIES = (
    selector_family(
        Spectrum,
        "The K layers whose weights have the highest signal-to-noise ratios train",
        "Hartford et al. 2024, Spectrum: Targeted Training on Signal to Noise Ratio, arXiv 2406.06623",
    ),
)
