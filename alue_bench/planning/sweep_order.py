"""The order in which a sweep does its runs: cells that share a frozen prefix near each other, and no corner of the grid
early or late as a whole.

A machine drifts: it warms up, its disk fills, others begin to use it. If a grid were done row by row, that would look
like an effect of the rows. So each depth's runs are dealt out over several rounds, and within a round the depths come
in random order. Of many such orders the one is taken in which the position says least about the settings (Morgan &
Rubin 2012, Rerandomization to improve covariate balance in experiments). It depends on the runs and the seed alone: the
same sweep, begun again, goes on where it stopped.

Rounds are few, so that a store too small for all depths computes each of them a few times at most.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alue_bench.contract.cells import cell_of
from alue_bench.planning.build import PlannedRun

if TYPE_CHECKING:
    import numpy as np

ROUNDS = 4
DRAWS = 1000
DRIFTS = 3
"""Steady, curved, and turning twice."""
TAG = "sweep.position"
"""Of a run: its place in the order of its sweep, such as 17/91."""


@dataclass(frozen=True)
class Order:
    """Runs in the order in which they are to be done, each tagged with its place."""

    runs: list[PlannedRun]
    seed: int
    bias: float
    """The largest correlation, without its sign, of a smooth drift over the order of a grid with the number of frozen
    bottom or top layers, the expected cost, the learning rate or the seed."""

    def describe(self) -> str:
        """For people and for the parent run."""
        return (
            f"{ROUNDS} rounds over the depths of frozen prefixes, shuffled (seed {self.seed}); largest correlation of "
            f"a drift with a setting {self.bias:.2f}"
        )


def spread_out(runs: Sequence[PlannedRun], seed: int = 0) -> Order:
    """Order a sweep's runs; those of one task and model, which are compared, stay together.

    A run that can use the model that another one trains comes right behind it.
    """
    grids: dict[tuple[str, str], dict[str, list[PlannedRun]]] = {}
    for run in runs:
        spec = run.spec
        grids.setdefault((spec.train_task, spec.model), {}).setdefault(spec.training_key, []).append(run)
    ordered: list[PlannedRun] = []
    biases = [0.0]
    for trainings in grids.values():
        units = list(trainings.values())
        best, bias = _least_biased([unit[0] for unit in units], seed)
        ordered += [run for place in best for run in units[place]]
        biases.append(bias)
    tagged = [
        replace(run, tags={**run.tags, TAG: f"{place}/{len(ordered)}"}) for place, run in enumerate(ordered, start=1)
    ]
    return Order(tagged, seed, max(biases))


def _least_biased(runs: Sequence[PlannedRun], seed: int) -> tuple[list[int], float]:
    """Places of the runs in the best of many orders, and its bias."""
    import numpy as np

    blocks: dict[int, list[int]] = {}
    for place, run in enumerate(runs):
        blocks.setdefault(run.spec.freeze_plan.prefix_layers or 0, []).append(place)
    settings = np.array([_settings(run) for run in runs])
    varying = settings[:, np.ptp(settings, axis=0) > 0]
    standard = (varying - varying.mean(axis=0)) / varying.std(axis=0)
    drifts = _drifts(len(runs))
    draw = random.Random(seed)
    best: tuple[float, list[int]] | None = None
    for _ in range(DRAWS):
        order = _dealt([blocks[depth] for depth in sorted(blocks)], draw)
        bias = float(np.abs(drifts @ standard[order]).max(initial=0.0))
        if best is None or bias < best[0]:
            best = (bias, order)
    assert best is not None
    return best[1], best[0]


def _drifts(runs: int) -> np.ndarray[Any, Any]:
    """Ways in which a machine may change over so many runs, [drifts, runs]: steadily, once and back, twice. Their
    products with standardised settings are correlations."""
    import numpy as np

    if runs <= DRIFTS:
        return np.zeros((0, runs))
    powers = np.vander(np.linspace(-1, 1, runs), DRIFTS + 1, increasing=True)
    orthonormal = np.linalg.qr(powers)[0][:, 1:]
    return np.asarray(orthonormal.T / np.sqrt(runs))


def _settings(run: PlannedRun) -> tuple[float, ...]:
    """What must not go with the position."""
    spec = run.spec
    bottom, top = cell_of(spec.strategy) or (spec.freeze_plan.bottom, spec.freeze_plan.top)
    return float(bottom), float(top), run.cost, float(spec.seed), spec.hyper.lr


def _dealt(blocks: Sequence[Sequence[int]], draw: random.Random) -> list[int]:
    """Each block's members over the rounds, as evenly as may be; in a round, block by block in random order.

    Blocks are given from shallow to deep. The first round begins with its shallowest one: workers who share the sweep
    would else begin with computing the same prefixes. The last one ends with its deepest: these runs are the shortest,
    so that the workers come to the end together.
    """
    rounds: list[list[list[int]]] = [[] for _ in range(ROUNDS)]
    for block in blocks:
        members, first = draw.sample(block, len(block)), draw.randrange(ROUNDS)
        for number, content in enumerate(rounds):
            part = members[(number - first) % ROUNDS :: ROUNDS]
            if part:
                content.append(part)
    rounds = [content for content in rounds if content]
    shallowest, deepest = rounds[0][0], rounds[-1][-1]
    shuffled = [draw.sample(content, len(content)) for content in rounds]
    shuffled[0].sort(key=lambda part: part is not shallowest)
    shuffled[-1].sort(key=lambda part: part is deepest)
    return [place for content in shuffled for part in content for place in part]
