"""The selector `rgn-K`: the K layers whose gradients are largest relative to their weights train.

Source: Lee et al. 2023, "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts", ICLR 2023, arXiv 2210.11466,
and the authors' code (anniesch/surgical-finetuning, `main.py`, `get_lr_weights`). The relative gradient norm (RGN) is
the norm of the gradient of a batch's loss divided by the norm of the weights, as a mean over batches.

Choices made here: The source's method Auto-RGN trains all layers, and multiplies the learning rate of each parameter
tensor by its RGN divided by the largest RGN, anew in every epoch. Freezing all but the K layers with the highest RGN is
another use of the same score, which makes it comparable with the other selectors; hence the name `rgn-K` and not
`auto-rgn`. The norms are those of all parameters of a layer together, biases and norms included; the authors' code
computes the ratio for each tensor, without those of batch normalisation. It averages over 5 batches; here the batches
are those of the probe (`--probe-rows`).

Cost: a forward and a backward pass for each batch of the probe.

When it does not help: the gradients are those of a new head with random weights, and may say more about this head than
about the task. See `selector` for what applies to all selectors.
"""

from __future__ import annotations

import math
from typing import Any

from alue_bench import EncoderShape, Probe, ProbeCost
from alue_bench_strategies.selector import RankingSelector, selector_family


class RelativeGradient(RankingSelector):
    """A selector by the norm of the gradient, divided by the norm of the weights."""

    prefix = "rgn"

    def probe_cost(self, shape: EncoderShape) -> ProbeCost:
        """Return the cost of a gradient for each batch."""
        return ProbeCost(gradient_passes=1)

    def scores(self, probe: Probe) -> list[float]:
        """Return the relative gradient norm of each layer, as a mean over the probe's batches."""
        norms = [[_norm(of_layer) for of_layer in probe.gradients(batch)] for batch in probe.batches]
        weights = [_norm([p.detach() for p in layer.parameters() if p.requires_grad]) for layer in probe.layers]
        return [math.fsum(of_layer) / len(norms) / weight for *of_layer, weight in zip(*norms, weights, strict=True)]


def _norm(tensors: list[Any]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


FAMILIES = (
    selector_family(
        RelativeGradient,
        "The K layers whose gradients are largest relative to their weights train",
        "Lee et al. 2023, Surgical Fine-Tuning Improves Adaptation to Distribution Shifts, arXiv 2210.11466",
    ),
)
