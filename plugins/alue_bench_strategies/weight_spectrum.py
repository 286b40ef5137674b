"""The selector `spectrum-K`: the K layers whose weights have the highest signal-to-noise ratio train.

Source: Hartford et al. 2024, "Spectrum: Targeted Training on Signal to Noise Ratio", arXiv 2406.06623. For each weight
matrix with singular values s, the noise is estimated as sigma = IQR(s) / 1.349, the edge of the Marchenko-Pastur law as
sigma (1 + sqrt(beta)) with beta the ratio of the shorter to the longer side, and the score is the sum of the s above
the edge, divided by the sum of the others and by the largest s. The source ranks matrices of each kind separately; the
mean over a layer's matrices is a choice made here. It needs no examples.

Cost: the singular values of all matrices, which `flops/probe` does not count (`runtime/probe_s` does).
"""

from __future__ import annotations

from typing import Any

from alue_bench import Probe
from alue_bench_strategies.selector import Selector, selector_family

IQR_OF_NORMAL = 1.349
"""The interquartile range of a normal distribution with standard deviation 1."""


class Spectrum(Selector):
    """A selector by the signal-to-noise ratio of the singular values of the weights."""

    prefix = "spectrum"

    def scores(self, probe: Probe) -> list[float]:
        """Return the mean signal-to-noise ratio of each layer's weight matrices."""
        ratios = [[signal_to_noise(p.detach()) for p in layer.parameters() if p.ndim == 2] for layer in probe.layers]
        return [sum(of_layer) / len(of_layer) for of_layer in ratios]


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


FAMILIES = (
    selector_family(
        Spectrum,
        "The K layers whose weights have the highest signal-to-noise ratio train",
        "Hartford et al. 2024, Spectrum: Targeted Training on Signal to Noise Ratio, arXiv 2406.06623",
    ),
)
