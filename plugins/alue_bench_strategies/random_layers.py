"""The control of the selectors, `random-K`: K random layers train.

A selector that is not better than it has chosen by chance.
"""

from __future__ import annotations

from alue_bench import EncoderShape, Probe, ProbeCost
from alue_bench_strategies.selector import RankingSelector, selector_family


class Random(RankingSelector):
    """A selector by random scores: the control of the others."""

    prefix = "random"

    def probe_cost(self, shape: EncoderShape) -> ProbeCost:
        """Return no cost: nothing is computed."""
        return ProbeCost()

    def scores(self, probe: Probe) -> list[float]:
        """Return a random number for each layer, drawn by the run's data seed."""
        return [float(score) for score in probe.generator.random(probe.shape.layers)]


FAMILIES = (
    selector_family(
        Random, "K random layers train: the control of strategies that choose", "a control; no publication"
    ),
)
