"""The order in which a sweep executes its runs.

The speed of a machine drifts during a sweep: it warms up, its disk fills, other users start programs. If a sweep
executed a grid row by row, this drift would look like an effect of the rows. The order therefore spreads the values of
each setting over time. It nevertheless keeps runs with the same frozen prefix (the embeddings and lowest layers, if
they are frozen) close to each other, because the outputs of the prefix are cached:

- The runs of each prefix depth (the number of layers in the prefix) are distributed over several rounds.
  Within a round, the depths come in random order.
- We draw 1,000 such orders and use the one in which the position is least correlated with the settings (Morgan & Rubin
  2012, Rerandomization to improve covariate balance in experiments).

The order depends on the runs and the seed alone, so that an interrupted sweep continues where it stopped. There are few
rounds, so that each depth is computed only a few times even if the cache is too small for all depths.
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
"""The number of random orders that are drawn; the least biased one is used (see `Order.bias`)."""
DRIFTS = 3
"""The number of curves that model a drift of the machine's speed: polynomials of time of degree 1, 2 and 3."""
POSITION_TAG = "sweep.position"
"""The name of the MLflow tag that holds a run's position in its sweep, such as 17/91."""


@dataclass(frozen=True)
class Order:
    """The runs of a sweep in the order of execution, each tagged with its position."""

    runs: list[PlannedRun]
    seed: int
    """The random seed of the order."""
    bias: float
    """The largest absolute correlation between any setting and any curve that models a drift of the machine's speed.
    The settings are the numbers of frozen bottom and top layers, the expected cost, the learning rate and the seed."""

    def describe(self) -> str:
        """Return a sentence that describes the order, for the terminal and for the parent run in MLflow."""
        return (
            f"{ROUNDS} rounds over the depths of frozen prefixes, shuffled (seed {self.seed}); largest correlation of "
            f"a drift with a setting {self.bias:.2f}"
        )


def order_runs(runs: Sequence[PlannedRun], seed: int = 0) -> Order:
    """Return the runs of a sweep in the order in which they are to be executed.

    Runs with the same training task and model are compared with each other, and therefore form one contiguous group.
    Runs that test the same trained model are neighbours.

    Args:
        runs: The runs in any order.
        seed: The seed of the random draws.
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
        ordered += [run for position in best for run in units[position]]
        biases.append(bias)
    tagged = [
        replace(run, tags={**run.tags, POSITION_TAG: f"{position}/{len(ordered)}"})
        for position, run in enumerate(ordered, start=1)
    ]
    return Order(tagged, seed, max(biases))


def _least_biased(runs: Sequence[PlannedRun], seed: int) -> tuple[list[int], float]:
    """Return the least biased of many random orders, as indices into `runs`, and its bias (see `Order.bias`)."""
    import numpy as np

    blocks: dict[int, list[int]] = {}
    for position, run in enumerate(runs):
        blocks.setdefault(run.spec.freeze_plan.prefix_layers or 0, []).append(position)
    settings = np.array([_settings(run) for run in runs])
    varying = settings[:, np.ptp(settings, axis=0) > 0]
    standard = (varying - varying.mean(axis=0)) / varying.std(axis=0)
    drifts = _drifts(len(runs))
    draw = random.Random(seed)
    best: tuple[float, list[int]] | None = None
    for _ in range(DRAWS):
        order = _random_order([blocks[depth] for depth in sorted(blocks)], draw)
        bias = float(np.abs(drifts @ standard[order]).max(initial=0.0))
        if best is None or bias < best[0]:
            best = (bias, order)
    assert best is not None
    return best[1], best[0]


def _drifts(runs: int) -> np.ndarray[Any, Any]:
    """Return curves of how a machine's speed may drift over the runs of a sweep, [drifts, runs].

    The rows are orthonormal polynomials of degree 1 to DRIFTS over the positions of the runs, scaled so that their
    products with standardised settings are correlations. With too few runs for these degrees, there are no rows.
    """
    import numpy as np

    if runs <= DRIFTS:
        return np.zeros((0, runs))
    powers = np.vander(np.linspace(-1, 1, runs), DRIFTS + 1, increasing=True)
    orthonormal = np.linalg.qr(powers)[0][:, 1:]
    return np.asarray(orthonormal.T / np.sqrt(runs))


def _settings(run: PlannedRun) -> tuple[float, ...]:
    """Return the settings of a run that should correlate little with its position; `Order.bias` lists them."""
    spec = run.spec
    bottom, top = cell_of(spec.strategy) or (spec.freeze_plan.bottom, spec.freeze_plan.top)
    return float(bottom), float(top), run.cost, float(spec.seed), spec.hyper.lr


def _random_order(blocks: Sequence[Sequence[int]], draw: random.Random) -> list[int]:
    """Return a random order of the runs in which the runs of each prefix depth are spread evenly over several rounds.

    The runs of one prefix depth (number of layers in the frozen prefix) form a block. Within a round, the blocks come
    in random order, with two exceptions. The first round starts with its shallowest block: worker processes that share
    the sweep start at the same moment, and may all compute the prefix of the first block, so this prefix should be
    short. The last round ends with its deepest block, whose runs are the shortest, so that the workers finish at about
    the same time.

    Args:
        blocks: For each prefix depth, from the shallowest to the deepest, the indices of its runs.
        draw: The random generator.
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
    return [position for content in shuffled for part in content for position in part]
