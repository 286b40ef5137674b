"""The selector `subtuning-K`: K layers train that were found one after another by short trainings.

Source: Kaplun et al. 2023, "Less is More: Selective Layer Finetuning with SubTuning", arXiv 2302.06354, section 2 (the
finetuning profile and greedy selection), and the authors' code (talswisa/SubTuning, `src/greedy_subset_selection.py`).
In each round, every layer that is not yet chosen is tried together with those that are: the model is trained from its
pretrained weights with these layers and the head, and scored. The layer with the best score is added.

Choices made here: The source stops when the score no longer improves by a threshold, and may also start from all layers
and remove some; here rounds end at K layers, so that the cost equals that of the other selectors. The source trains on
all train examples and scores on validation examples, or by 5-fold cross-validation; this is a short form, which trains
on four fifths of the probe (`--probe-rows`) and scores the rest. With few held-out examples, scores are coarse: equal
scores are decided by the lower held-out loss, then for the upper layer. The recorded score of a layer is that of the
first round, in which it trains alone (the finetuning profile). With K > 1, the chosen layers need not be those with the
highest recorded scores.

Cost: K L - K (K - 1) / 2 trainings for L layers, which are charged to the run: 3 of 12 layers cost 33 trainings, each
on 205 examples if the probe has 256. This is the expensive reference of the selectors.

When it does not help: if the probe is too small for the model to learn anything, all candidates have nearly the same
score, and the choice is decided by noise. See `selector` for what applies to all selectors.
"""

from __future__ import annotations

from alue_bench import Choice, EncoderShape, Probe, ProbeCost
from alue_bench_strategies.selector import Selector, selector_family, training_only


class SubTuning(Selector):
    """A selector by greedy forward selection."""

    prefix = "subtuning"

    def probe_cost(self, shape: EncoderShape) -> ProbeCost:
        """Return the cost of all trainings if the lowest layers are chosen, so that gradients pass through all."""
        plans = [
            training_only(shape, [*range(chosen), layer])
            for chosen in range(self.count)
            for layer in range(chosen, shape.layers)
        ]
        return ProbeCost(trainings=tuple(plans))

    def choose(self, probe: Probe) -> Choice:
        """Return the choice of the layers that are found in K rounds of short trainings."""
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
