"""The selector `surgical-K`: the K layers with the highest Fisher information train.

Source: Lodha et al. 2023, "On Surgical Fine-tuning for Language Encoders", Findings of EMNLP 2023, arXiv 2310.17041,
and the authors' code (ymtao5219/surgical_fine_tuning, `code/fim_calculator.py`). Of the paper itself only the abstract
was available, so that no sections are cited. For each parameter tensor, the squared gradient is averaged over examples.
This is the diagonal of the empirical Fisher information. The score of a layer is the sum, over its parameter tensors,
of the Frobenius norms of these diagonals. As in the authors' code, the model is in eval mode, has a new head, and gets
one example at a time.

Choices made here: The loss is differentiated. For classification it is the negative log-likelihood of the gold label,
as in the definition of the empirical Fisher information. The authors' code differentiates the logit of the gold label
instead, which has no counterpart in regression. The authors' code uses 100 examples; here the examples of the probe are
used, that is, train examples whose number `--probe-rows` sets.

Cost: a forward and a backward pass for each example of the probe, one at a time, and memory for one more copy of the
layers' gradients.

When it does not help: the gradients are computed with a new head that has random weights, and may depend more on this
head than on the task. See `selector` for what applies to all selectors.
"""

from __future__ import annotations

from typing import Any

from alue_bench import EncoderShape, Probe, ProbeCost
from alue_bench_strategies.selector import RankingSelector, selector_family


class Surgical(RankingSelector):
    """A selector that scores each layer by the diagonal of its empirical Fisher information."""

    prefix = "surgical"

    def probe_cost(self, shape: EncoderShape) -> ProbeCost:
        """Return the cost of one forward and backward pass over the probe's examples."""
        return ProbeCost(gradient_passes=1)

    def scores(self, probe: Probe) -> list[float]:
        """Return the Fisher score of each layer.

        It is the sum, over the layer's parameter tensors, of the Frobenius norm of the mean squared gradient.
        """
        squares: list[list[Any]] = []
        examples = 0
        for example in probe.examples():
            examples += 1
            new = [[gradient.float().square() for gradient in of_layer] for of_layer in probe.gradients(example)]
            squares = _sum_of(squares, new) if squares else new
        return [sum(float(total.double().norm()) for total in of_layer) / examples for of_layer in squares]


def _sum_of(totals: list[list[Any]], new: list[list[Any]]) -> list[list[Any]]:
    return [[a.add_(b) for a, b in zip(*of_layer, strict=True)] for of_layer in zip(totals, new, strict=True)]


FAMILIES = (
    selector_family(
        Surgical,
        "The K layers with the highest Fisher information train, chosen by inspecting the loaded model",
        "Lodha et al. 2023, On Surgical Fine-tuning for Language Encoders, arXiv 2310.17041",
    ),
)
