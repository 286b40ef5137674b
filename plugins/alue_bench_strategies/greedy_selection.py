"""The selector `subtuning-K`: it chooses K layers one after another, each by trying out short fine-tuning runs.

Source: Kaplun et al. 2023, "Less is More: Selective Layer Finetuning with SubTuning", arXiv 2302.06354, section 2 (the
finetuning profile and greedy selection), and the authors' code (talswisa/SubTuning, `src/greedy_subset_selection.py`).
In each round, every layer that is not yet chosen is a candidate. For each candidate, the model is trained from its
pretrained weights, with only the chosen layers, the candidate, the pooler and the head trainable, and scored. The
candidate with the best score is chosen.

Choices made here: The source stops when a further layer improves the score by less than a threshold. It may also start
from all layers and remove some. Here there are K rounds, so that as many layers train as with the other selectors. The
source trains on all train examples, and scores on validation examples or by 5-fold cross-validation. Here training uses
only four fifths of the probe, which consists of some train examples (`--probe-rows`), and the rest of the probe is
scored. With few held-out examples, candidates often have equal scores. In this case the lower held-out loss decides,
and if it is equal too, the upper layer is chosen. The recorded score of a layer is that of the first round, in which it
trains alone (the finetuning profile). With K > 1, the chosen layers need not be those with the highest recorded scores.

Cost: K L - K (K - 1) / 2 short fine-tuning runs for a model with L layers, whose time counts as time of the run.
Choosing 3 of 12 layers takes 33 of them, each on 205 examples if the probe has 256. This selector is by far the most
expensive, and serves as a reference for the others.

When it does not help: if the probe is too small for the model to learn anything, all candidates have nearly the same
score, and the choice depends on noise. See `selector` for what applies to all selectors.
"""

from __future__ import annotations

from alue_bench import Choice, EncoderShape, Probe, ProbeCost
from alue_bench_strategies.selector import Selector, selector_family, training_only


class SubTuning(Selector):
    """A selector that chooses one layer after another, each time the one with the best score (greedy selection)."""

    prefix = "subtuning"

    def probe_cost(self, shape: EncoderShape) -> ProbeCost:
        """Return the cost of all short fine-tuning runs in the most expensive case.

        In this case the lowest layers are chosen, so that gradients pass through all layers.
        """
        plans = [
            training_only(shape, [*range(chosen), layer])
            for chosen in range(self.count)
            for layer in range(chosen, shape.layers)
        ]
        return ProbeCost(trainings=tuple(plans))

    def choose(self, probe: Probe) -> Choice:
        """Return a plan that trains the layers chosen in K rounds, with the scores of all layers in the first round."""
        chosen: list[int] = []
        profile: tuple[float, ...] = ()
        for _ in range(self.count):
            tried = {
                layer: probe.train_and_score(training_only(probe.shape, [*chosen, layer]))
                for layer in range(probe.shape.layers)
                if layer not in chosen
            }
            profile = profile or tuple(held_out.score for held_out in tried.values())
            chosen.append(max(tried, key=lambda layer: (tried[layer].score, -tried[layer].loss, layer)))
        return Choice(training_only(probe.shape, chosen), profile)


FAMILIES = (
    selector_family(
        SubTuning,
        "K layers train that were found one after another by short trainings on the probe",
        "Kaplun et al. 2023, Less is More: Selective Layer Finetuning with SubTuning, arXiv 2302.06354",
    ),
)
