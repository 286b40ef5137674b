"""The selector `surgical-K`: the K layers with the highest Fisher information train.

Source: Lodha et al. 2023, "On Surgical Fine-tuning for Language Encoders", arXiv 2310.17041. The score of a layer is
the diagonal of the empirical Fisher information: the mean over examples of the squared gradient of the example's loss,
summed over the layer's parameters. The loss is that of the gold labels, with the new head. The sum (and not the mean)
over parameters, and the loss of tasks other than classification, are choices made here: the text of the paper beyond
its abstract was not available.

Cost: a forward and a backward pass for each example of the probe (`--probe-rows`), one at a time.

When it does not help: the gradients are those of a new head with random weights, and may say more about this head than
about the task. See `selector` for what applies to all selectors.
"""

from __future__ import annotations

from alue_bench import Probe
from alue_bench_strategies.selector import Selector, selector_family


class Surgical(Selector):
    """A selector by the diagonal of the empirical Fisher information."""

    prefix = "surgical"

    def scores(self, probe: Probe) -> list[float]:
        """Return the mean over examples of each layer's sum of squared gradients."""
        total, examples = [0.0] * probe.shape.layers, 0
        for example in probe.examples():
            examples += 1
            for layer, gradients in enumerate(probe.gradients(example)):
                total[layer] += sum(float(gradient.double().square().sum()) for gradient in gradients)
        return [value / examples for value in total]


FAMILIES = (
    selector_family(
        Surgical,
        "The K layers with the highest Fisher information train, chosen by a look at the loaded model",
        "Lodha et al. 2023, On Surgical Fine-tuning for Language Encoders, arXiv 2310.17041",
    ),
)
