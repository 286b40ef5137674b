"""The selector `rgn-K`: the K layers whose gradients are largest relative to their weights train.

Source: Lee et al. 2022, "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts", arXiv 2210.11466. The score
of a layer is the norm of the gradient of the mean loss, divided by the norm of the weights. In the source, this ratio
(RGN) scales the learning rate of each layer (Auto-RGN). Training only the K layers with the highest ratio is a choice
made here.

Cost: a forward and a backward pass for each batch of the probe (`--probe-rows`).

When it does not help: the gradients are those of a new head with random weights, and may say more about this head than
about the task. See `selector` for what applies to all selectors.
"""

from __future__ import annotations

import math
from typing import Any

from alue_bench import Probe
from alue_bench_strategies.selector import Selector, selector_family


class RelativeGradient(Selector):
    """A selector by the norm of the gradient, divided by the norm of the weights."""

    prefix = "rgn"

    def scores(self, probe: Probe) -> list[float]:
        """Return the relative norm of the gradient of each layer; the gradient is of the mean loss of all examples."""
        sums: list[list[Any]] = []
        examples = sum(len(batch.input_ids) for batch in probe.batches)
        for batch in probe.batches:
            share = len(batch.input_ids) / examples
            parts = [[gradient * share for gradient in layer] for layer in probe.gradients(batch)]
            sums = (
                [list(map(sum, zip(*pair, strict=True))) for pair in zip(sums, parts, strict=True)] if sums else parts
            )
        weights = [[p.detach() for p in layer.parameters() if p.requires_grad] for layer in probe.layers]
        return [_norm(gradients) / _norm(of_layer) for gradients, of_layer in zip(sums, weights, strict=True)]


def _norm(tensors: list[Any]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


FAMILIES = (
    selector_family(
        RelativeGradient,
        "The K layers whose gradients are largest relative to their weights train",
        "Lee et al. 2022, Surgical Fine-Tuning Improves Adaptation to Distribution Shifts, arXiv 2210.11466",
    ),
)
