"""The selector `random-K`: K randomly drawn layers train. It is the control for the other selectors.

A selector whose runs do not score higher than those of `random-K` chooses no better than chance. (`random-K-seedS` in
`partial_training` is a different strategy: it freezes K random layers.)
"""

from __future__ import annotations

from alue_bench import EncoderShape, Probe, ProbeCost
from alue_bench_strategies.selector import RankingSelector, selector_family


class Random(RankingSelector):
    """A selector that gives each layer a random score."""

    prefix = "random"

    def probe_cost(self, shape: EncoderShape) -> ProbeCost:
        """Return a cost of zero, because the model is not evaluated."""
        return ProbeCost()

    def scores(self, probe: Probe) -> list[float]:
        """Return a random number for each layer, drawn from the probe's generator, which the data seed determines."""
        return [float(score) for score in probe.generator.random(probe.shape.layers)]


FAMILIES = (
    selector_family(
        Random, "K random layers train: the control of strategies that choose", "a control; no publication"
    ),
)
