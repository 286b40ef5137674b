"""Simulated tasks (worlds) for searches: what each freezing setting scores, and the noise of seeds and dev examples.

A world is drawn from a generator. `WORLDS` names the generators. In the *plateau* worlds every setting loses slightly
more than tolerance + margin, so that every answer other than full fine-tuning is an error: they are the worst case for
the error of a search. The other worlds show its power.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from alue_bench.searching.candidates import Amount, Candidate
from alue_bench.searching.observations import GROUPS, Evaluation
from alue_bench.searching.policy import Decision, Question, Step, decide

TOLERANCE, MARGIN = Amount(0.01, relative=True), Amount(0.02, relative=True)
"""The tolerance and the margin of the simulated searches: the defaults of `alue-bench search`."""
LIMIT = TOLERANCE.value + MARGIN.value
"""The loss that a search must not exceed, as a share of full fine-tuning's score."""
JUST_BEYOND = 1.02
"""The loss of every setting on a plateau, as a multiple of tolerance + margin."""
EXAMPLE_SD = 0.45
"""The standard deviation of one example's contribution to a score."""
WALK = 0.5
"""The standard deviation of an example's difference between no and all layers frozen, in units of `EXAMPLE_SD`."""


@cache
def candidates(layers: int = 12, epochs: int = 3, short_epochs: int = 1) -> tuple[Candidate, ...]:
    """Return all pairs of numbers of frozen layers, full fine-tuning first; of those without a trained layer, one.

    Costs are those of the layers alone.
    """

    def passes(bottom: int, top: int, epochs: int) -> float:
        if bottom + top == layers and bottom:
            bottom, top = layers, 0
        trained = layers - bottom - top
        return bottom + epochs * (3 * trained + 2 * top)

    cells = []
    for bottom in range(layers + 1):
        for top in range(layers - bottom + 1):
            if bottom and bottom + top == layers and top:
                continue
            cost, short = (passes(bottom, top, n) / passes(0, 0, epochs) for n in (epochs, short_epochs))
            name = "full" if not bottom + top else f"bottom{bottom}top{top}"
            cells.append(Candidate(name, bottom, top, cost, short))
    return tuple(cells)


@dataclass(frozen=True)
class World:
    """A simulated task. All fields are in units of the score."""

    options: tuple[Candidate, ...]
    score: Mapping[str, float]
    """The mean score of each setting over all seeds and examples."""
    seed_sd: float
    """The standard deviation of a run's score over seeds."""
    examples: Mapping[str, Any]
    """The effect of the dev examples on the score of each setting, for each group of the jackknife, [groups]."""
    short_factor: float
    """The loss of a low-fidelity run as a multiple of the loss of a run with all epochs."""
    draw: int
    """The number from which the seeds' effects are drawn."""
    frozen_seeds: float = 1.0
    """The factor by which the standard deviation over seeds is larger if layers are frozen."""

    @property
    def full(self) -> float:
        """The mean score of full fine-tuning, at its best learning rate if there are several."""
        return self.score["full"]

    def loss(self, name: str) -> float:
        """Return the true loss of a setting against full fine-tuning."""
        return self.full - self.score[name]

    def evaluation(self, step: Step) -> Evaluation:
        """Return the dev score of a run."""
        name = step.candidate.name
        place = next(i for i, candidate in enumerate(self.options) if candidate.name == name)
        rng = np.random.default_rng([self.draw, place, step.replicate, step.short])
        mean = 0.7 * self.full - self.short_factor * self.loss(name) if step.short else self.score[name]
        sd = self.seed_sd * (self.frozen_seeds if step.candidate.bottom + step.candidate.top else 1.0)
        groups = mean + rng.normal(0, sd) + self.examples[name]
        left_out = (groups.sum() - groups) / (len(groups) - 1)
        return Evaluation(name, step.replicate, float(groups.mean()), tuple(left_out), step.short)


def _examples(rng: np.random.Generator, options: tuple[Candidate, ...], layers: int, sd: float) -> dict[str, Any]:
    """Draw the effects of dev examples: neighbouring settings have similar ones, [groups] for each setting.

    Args:
        rng: The random generator.
        options: The freezing settings, and strategies that have no neighbours.
        layers: The number of layers.
        sd: The standard deviation of a group's score.
    """
    common = rng.normal(0, sd, GROUPS)
    walks = [np.cumsum(rng.normal(0, sd * WALK / np.sqrt(layers), (layers + 1, GROUPS)), axis=0) for _ in "bt"]
    examples = {c.name: common + walks[0][c.bottom] + walks[1][c.top] for c in options if c.has_cell}
    examples |= {c.name: common + rng.normal(0, sd * WALK, GROUPS) for c in options if not c.has_cell}
    at_rates = [c for c in options if c.rate is not None]
    return examples | {c.name: examples[c.name] + rng.normal(0, sd * WALK / 2, GROUPS) for c in at_rates}


def world(draw: int, *, noise: float = 1.0, layers: int = 12, options: tuple[Candidate, ...] | None = None) -> World:
    """Draw a varied task: from tasks where freezing costs nothing to tasks where only little freezing is bearable.

    Args:
        draw: The number of the world.
        noise: 1 for seeds that differ by 1 to 2 points of F1 and dev splits of 500 to 1,000 examples; 0 for no noise.
        layers: The number of layers.
        options: The freezing settings; None for all.
    """
    rng = np.random.default_rng(draw)
    options = options or candidates(layers)
    full = float(rng.choice([0.08, 0.4, 0.6, 0.8]))
    deepest, above = full * rng.uniform(0.05, 0.5), full * rng.uniform(0.0, 0.15)
    powers = rng.uniform(0.7, 4, 2)
    cliff, steepness = rng.uniform(2, 13), rng.uniform(0.3, 2)
    cliffs = rng.random() < 0.4
    helps = full * rng.uniform(0, 0.01) if rng.random() < 0.3 else 0.0
    score = {}
    for c in options:
        b, t = c.bottom / layers, c.top / layers
        below = 1 / (1 + np.exp(-(c.bottom - cliff) / steepness)) - 1 / (1 + np.exp(cliff / steepness))
        loss = deepest * (below if cliffs else b ** powers[0]) + above * t ** powers[1] + 0.3 * deepest * b * t
        # A little freezing sometimes helps small tasks.
        loss -= helps * np.sin(min(b, 0.5) * 2 * np.pi) if b else 0.0
        score[c.name] = full - float(loss)
    scale = min(1.0, full / 0.5)
    size = rng.uniform(500, 1000)
    examples = _examples(rng, options, layers, noise * scale * EXAMPLE_SD * np.sqrt(GROUPS / size))
    return World(options, score, noise * scale * rng.uniform(0.01, 0.02), examples, rng.uniform(0.5, 2), draw)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A kind of task: the loss of each setting as a share of full fine-tuning's score, and the noise."""

    loss: Callable[[float, float], float]
    """The loss of a setting, given the shares of the layers that are frozen at the bottom and at the top."""
    seed_sd: float = 0.015
    frozen_seeds: float = 1.0
    rows: int = 750
    """The number of dev examples."""
    full: float = 0.8
    """The score of full fine-tuning."""
    strategies: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """The strategies that are candidates beside the freezing settings: for each name, the cost and the loss, as shares
    of full fine-tuning's cost and score."""
    rates: Mapping[float, Callable[[float, float], float]] = field(default_factory=dict)
    """The learning rates, if there are several: for each one, the further loss of a setting, given as in `loss`. Full
    fine-tuning has the loss at (0, 0)."""

    def world(self, draw: int) -> World:
        """Draw a world of this kind: losses are fixed, the noise of seeds and examples is drawn."""
        options, layers = candidates(), 12
        rng = np.random.default_rng([draw, 1])
        score = {c.name: self.full * (1 - self.loss(c.bottom / layers, c.top / layers)) for c in options}
        for name, (cost, loss) in self.strategies.items():
            options += (Candidate(name, 0, 0, cost, cost / 3, has_cell=False),)
            score[name] = self.full * (1 - loss)
        score["full"] = self.full
        if self.rates:
            options, score = self._at_rates(options, score)
        examples = _examples(rng, options, layers, EXAMPLE_SD * np.sqrt(GROUPS / self.rows))
        return World(options, score, self.seed_sd, examples, rng.uniform(0.5, 2), draw, self.frozen_seeds)

    def _at_rates(
        self, options: tuple[Candidate, ...], score: dict[str, float]
    ) -> tuple[tuple[Candidate, ...], dict[str, float]]:
        """Return the settings at all learning rates, and their scores; "full" has the score at its best rate."""
        at_rates, scores = [], {}
        for c, (rate, further) in product(options, self.rates.items()):
            one = replace(c, name=f"{c.name} lr={rate:g}", rate=rate)
            at_rates.append(one)
            scores[one.name] = score[c.name] - self.full * further(c.bottom / 12, c.top / 12)
        best = max(scores[c.name] for c in at_rates if not c.bottom + c.top)
        return tuple(at_rates), scores | {"full": best}


def plateau(bottom: float, top: float) -> float:
    """Return a loss just beyond tolerance + margin, whatever is frozen."""
    return JUST_BEYOND * LIMIT


def cliff_at_head_only(bottom: float, top: float) -> float:
    """Return no loss, except where no layer is trained."""
    return 0.28 if bottom + top > 0.999 else 0.0


def top_friendly(bottom: float, top: float) -> float:
    """Return a loss that grows fast with the frozen bottom layers and not at all with the frozen top layers."""
    return 0.28 if bottom + top > 0.999 else 0.3 * bottom**0.7


def steep(bottom: float, top: float) -> float:
    """Return a loss far beyond the limit, wherever layers are frozen."""
    return 0.1 + 0.3 * bottom + 0.3 * top


def ridge(bottom: float, top: float) -> float:
    """Return no loss for a quarter to a third of the bottom layers, and a loss just beyond the limit elsewhere."""
    return 0.0 if 0.24 < bottom < 0.34 and top < 0.26 else JUST_BEYOND * LIMIT


def strategies(*losses: float) -> dict[str, tuple[float, float]]:
    """Return strategies with these losses, each cheaper than the one before, from 70 % of full fine-tuning's cost."""
    return {f"strategy{place}": (0.7 - 0.08 * place, loss) for place, loss in enumerate(losses)}


def none(bottom: float, top: float) -> float:
    """Return no loss."""
    return 0.0


def small_rate(bottom: float, top: float) -> float:
    """Return a loss that grows with the frozen layers, as if they needed a larger rate; none without frozen layers."""
    return 0.2 * (bottom + top)


def large_rate(bottom: float, top: float) -> float:
    """Return a loss of 0.05 for full fine-tuning, and none for settings with frozen layers."""
    return 0.0 if bottom + top else 0.05


WORLDS: dict[str, Callable[[int], World]] = {
    "plateau just beyond the limit": Shape(loss=plateau).world,
    "plateau, frozen seeds 3 × as variable": Shape(loss=plateau, frozen_seeds=3.0).world,
    "plateau, seed SD 3 points": Shape(loss=plateau, seed_sd=0.03).world,
    "plateau, 138 dev rows": Shape(loss=plateau, rows=138).world,
    "plateau with 6 strategies": Shape(loss=plateau, strategies=strategies(*[JUST_BEYOND * LIMIT] * 6)).world,
    "plateau, 3 learning rates": Shape(loss=plateau, rates=dict.fromkeys((1e-5, 3e-5, 1e-4), none)).world,
    "ridge": Shape(loss=ridge).world,
    "cliff at head-only": Shape(loss=cliff_at_head_only).world,
    "top-friendly": Shape(loss=top_friendly).world,
    "only 2 of 3 strategies keep the score": Shape(loss=steep, strategies=strategies(0.0, 0.0, 0.3)).world,
    "frozen layers need a larger rate": Shape(
        loss=cliff_at_head_only, rates={1e-5: small_rate, 3e-5: large_rate}
    ).world,
    "varied tasks": world,
}
"""The generators of worlds by their names: functions that take the number of the draw."""


def question(of: World, **changes: Any) -> Question:
    """Return the specification of a search in a world, with the default options of `alue-bench search`.

    Args:
        of: The world.
        changes: Fields of `Question` that differ.
    """
    grid = sum(c.cost for c in of.options)
    given = {"tolerance": TOLERANCE, "margin": MARGIN, "budget": 0.25 * grid} | changes
    return Question(of.options, max(c.bottom for c in of.options), **given)


def search(of: World, asked: Question) -> tuple[Decision, list[Evaluation]]:
    """Run a search to its end; return its last decision and the scores of its runs."""
    evaluations: list[Evaluation] = []
    while (decision := decide(asked, evaluations)).step is not None:
        evaluations.append(of.evaluation(decision.step))
    return decision, evaluations


# Dev scores of `mini` on oold: 2,000 rows, 3 epochs, one seed, bf16, 2026-11-26. A row is a number of frozen bottom
# layers, a column a number of frozen top layers.
MEASURED = (
    (0.819, 0.817, 0.802, 0.801, 0.778, 0.805, 0.799, 0.804, 0.792, 0.796, 0.793, 0.783, 0.707),
    (0.801, 0.800, 0.792, 0.799, 0.793, 0.803, 0.792, 0.782, 0.787, 0.777, 0.764, 0.582),
    (0.816, 0.813, 0.802, 0.796, 0.801, 0.805, 0.801, 0.793, 0.796, 0.787, 0.582),
    (0.803, 0.808, 0.794, 0.792, 0.790, 0.795, 0.783, 0.759, 0.760, 0.582),
    (0.813, 0.805, 0.774, 0.776, 0.768, 0.771, 0.774, 0.752, 0.582),
    (0.814, 0.813, 0.785, 0.788, 0.792, 0.777, 0.773, 0.582),
    (0.781, 0.773, 0.692, 0.719, 0.641, 0.616, 0.582),
    (0.778, 0.771, 0.643, 0.706, 0.629, 0.582),
    (0.776, 0.781, 0.706, 0.661, 0.582),
    (0.771, 0.773, 0.628, 0.582),
    (0.769, 0.769, 0.582),
    (0.753, 0.582),
    (0.582,),
)
MEASURED_SHORT = {
    "full": 0.745, "bottom3top0": 0.568, "bottom6top0": 0.458, "bottom9top0": 0.484, "bottom3top4": 0.451,
}  # fmt: skip
"""Dev scores of runs with one of the three epochs. The other low-fidelity runs of the search were not measured; their
score is taken as `UNLEARNT`."""
UNLEARNT = 0.45
"""A score close to that of a baseline that ignores the text, on oold."""


class MeasuredWorld(World):
    """A real task whose low-fidelity runs say little: with many frozen layers, learning has hardly begun."""

    def evaluation(self, step: Step) -> Evaluation:
        """Return the dev score of a run."""
        name = step.candidate.name
        if not step.short:
            return super().evaluation(step)
        of_short = replace(self, score={**self.score, name: MEASURED_SHORT.get(name, UNLEARNT)})
        return replace(World.evaluation(of_short, replace(step, short=False)), short=True)


def measured_world(draw: int) -> MeasuredWorld:
    """Draw a world from the measured scores, which are smoothed; the noise of seeds and examples is drawn."""
    options = candidates()
    cells = {(bottom, top): score for bottom, row in enumerate(MEASURED) for top, score in enumerate(row)}

    def smoothed(bottom: int, top: int) -> float:
        around = [
            score
            for (b, t), score in cells.items()
            if max(abs(b - bottom), abs(t - top)) == 1 and (b > 0) == (bottom > 0) and b + t < len(MEASURED) - 1
        ]
        return (cells[bottom, top] + float(np.mean(around))) / 2 if around else cells[bottom, top]

    score = {c.name: smoothed(c.bottom, c.top) for c in options}
    return MeasuredWorld(options, score, 0.01, world(draw, options=options).examples, 1.0, draw)
