"""The selector `rgn-K`: the K layers whose gradients are largest relative to their weights train.

Source: Lee et al. 2023, "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts", ICLR 2023, arXiv 2210.11466,
and the authors' code (anniesch/surgical-finetuning, `main.py`, `get_lr_weights`). The relative gradient norm (RGN) is
the norm of the gradient of a batch's loss divided by the norm of the weights, averaged over batches.

Choices made here: The authors' method Auto-RGN trains all layers. In every epoch it multiplies the learning rate of
each parameter tensor by the RGN of this tensor, divided by the largest RGN. This strategy uses the same score
differently, so that it is comparable with the other selectors: it freezes all but the K layers with the highest RGN.
Its name is therefore `rgn-K` and not `auto-rgn`. The norms are computed over all parameters of a layer together,
including biases and layer norms; the authors' code computes the ratio for each tensor, except for those of batch
normalisation. The authors' code averages over 5 batches; here the average is over the batches of the probe, which are
train examples (`--probe-rows`).

Cost: a forward and a backward pass for each batch of the probe.

When it does not help: the gradients are computed with a new head that has random weights, and may depend more on this
head than on the task. See `selector` for what applies to all selectors.
"""

from __future__ import annotations

import math
from typing import Any

from alue_bench import EncoderShape, Probe, ProbeCost
from alue_bench_strategies.selector import RankingSelector, selector_family


class RelativeGradient(RankingSelector):
    """A selector that scores each layer by the norm of its gradient, divided by the norm of its weights."""

    prefix = "rgn"

    def probe_cost(self, shape: EncoderShape) -> ProbeCost:
        """Return the cost of one forward and backward pass over the probe's examples."""
        return ProbeCost(gradient_passes=1)

    def scores(self, probe: Probe) -> list[float]:
        """Return the relative gradient norm of each layer, averaged over the probe's batches."""
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
