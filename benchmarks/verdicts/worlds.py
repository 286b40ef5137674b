"""Simulated tasks (worlds) for searches: the true score of each freezing setting, and the noise of seeds and examples.

`WORLDS` lists generators, each of which draws worlds of one kind. The loss of a setting is its score subtracted from
that of full fine-tuning. In the *plateau* worlds, the loss of every setting with frozen layers is slightly more than
tolerance + margin, so that every answer except full fine-tuning is an error. This is the worst case for the error rate
of a search. The other worlds show how often a search finds a good setting (its power).
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
"""The largest loss of a search's answer that is not an error, as a share of full fine-tuning's score."""
JUST_BEYOND = 1.02
"""The loss of every setting with frozen layers on a plateau, as a multiple of tolerance + margin."""
EXAMPLE_SD = 0.45
"""The standard deviation, over examples, of one example's contribution to a score."""
WALK = 0.5
"""The standard deviation, in units of `EXAMPLE_SD`, of the change of an example's contribution if all layers are frozen
instead of none."""


@cache
def candidates(layers: int = 12, epochs: int = 3, short_epochs: int = 1) -> tuple[Candidate, ...]:
    """Return all freezing settings as candidates of a search, full fine-tuning first.

    A setting is a pair of numbers of frozen bottom and top layers. The settings that freeze all layers, at least one of
    them as a bottom layer, are equivalent, so that only one of these settings is included. Costs count the layers only,
    not embeddings and head.

    Args:
        layers: The number of layers of the model.
        epochs: The number of epochs of a run.
        short_epochs: The number of epochs of a low-fidelity run.
    """

    def passes(bottom: int, top: int, epochs: int) -> float:
        # The cost in forward passes through one layer. Frozen bottom layers are computed once. In each epoch, a trained
        # layer costs 3 and a frozen layer above it 2 (forward pass, and gradient with respect to its input).
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
    """A simulated task. Scores are between 0 and 1; losses and standard deviations are on the same scale."""

    options: tuple[Candidate, ...]
    """The freezing settings, and other strategies, among which a search chooses."""
    score: Mapping[str, float]
    """The true score of each setting, that is, the mean over all seeds and examples, by the setting's name."""
    seed_sd: float
    """The standard deviation of a run's score over seeds."""
    examples: Mapping[str, Any]
    """For each setting, by its name: the effect of the dev examples on the score in each jackknife group, [groups]."""
    short_factor: float
    """The loss of a setting in low-fidelity runs, as a multiple of its loss in runs with all epochs."""
    draw: int
    """The seed of the random generator that draws the effects of fine-tuning seeds."""
    frozen_seeds: float = 1.0
    """The factor by which `seed_sd` is multiplied if layers are frozen."""

    @property
    def full(self) -> float:
        """The mean score of full fine-tuning, at its best learning rate if there are several."""
        return self.score["full"]

    def loss(self, name: str) -> float:
        """Return the true loss of a setting: the score of full fine-tuning minus the score of the setting."""
        return self.full - self.score[name]

    def evaluation(self, step: Step) -> Evaluation:
        """Return the simulated dev score, with its jackknife values, of the run that a search asks for."""
        name = step.candidate.name
        index = next(i for i, candidate in enumerate(self.options) if candidate.name == name)
        rng = np.random.default_rng([self.draw, index, step.replicate, step.short])
        mean = 0.7 * self.full - self.short_factor * self.loss(name) if step.short else self.score[name]
        sd = self.seed_sd * (self.frozen_seeds if step.candidate.bottom + step.candidate.top else 1.0)
        groups = mean + rng.normal(0, sd) + self.examples[name]
        left_out = (groups.sum() - groups) / (len(groups) - 1)
        return Evaluation(name, step.replicate, float(groups.mean()), tuple(left_out), step.short)


def _examples(rng: np.random.Generator, options: tuple[Candidate, ...], layers: int, sd: float) -> dict[str, Any]:
    """Draw the effects of dev examples on scores; neighbouring freezing settings have similar effects.

    Args:
        rng: The random generator.
        options: The freezing settings, and other strategies, which have no neighbours.
        layers: The number of layers.
        sd: The standard deviation of the score of a jackknife group.

    Returns:
        The effects by the name of the setting, each [groups].
    """
    common = rng.normal(0, sd, GROUPS)
    walks = [np.cumsum(rng.normal(0, sd * WALK / np.sqrt(layers), (layers + 1, GROUPS)), axis=0) for _ in "bt"]
    examples = {c.name: common + walks[0][c.bottom] + walks[1][c.top] for c in options if c.has_cell}
    examples |= {c.name: common + rng.normal(0, sd * WALK, GROUPS) for c in options if not c.has_cell}
    at_rates = [c for c in options if c.rate is not None]
    return examples | {c.name: examples[c.name] + rng.normal(0, sd * WALK / 2, GROUPS) for c in at_rates}


def world(draw: int, *, noise: float = 1.0, layers: int = 12, options: tuple[Candidate, ...] | None = None) -> World:
    """Draw a task in which both the losses and the noise are random.

    In some tasks, freezing costs little score; in others, freezing a few layers already costs much.

    Args:
        draw: The seed of the random generator.
        noise: The factor of the noise. 1 means a standard deviation over seeds of 1 to 2 points of F1 (less if full
            fine-tuning scores below 0.5), and dev splits of 500 to 1,000 examples; 0 means no noise.
        layers: The number of layers.
        options: The freezing settings; None means all.
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
    """A kind of simulated task: the true losses, as shares of full fine-tuning's score, and the noise."""

    loss: Callable[[float, float], float]
    """A function that returns the loss of a setting, given the shares (0 to 1) of the layers that are frozen at the
    bottom and at the top."""
    seed_sd: float = 0.015
    """The standard deviation of a run's score over seeds."""
    frozen_seeds: float = 1.0
    """The factor by which `seed_sd` is multiplied if layers are frozen."""
    rows: int = 750
    """The number of dev examples."""
    full: float = 0.8
    """The score of full fine-tuning."""
    strategies: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """The candidates that are not freezing settings, by name: the cost and the loss of each strategy, as shares of full
    fine-tuning's cost and score."""
    rates: Mapping[float, Callable[[float, float], float]] = field(default_factory=dict)
    """The learning rates among which a search chooses; empty if it does not choose one. The function of each rate takes
    the same arguments as `loss`, and returns the additional loss of a setting at this rate. For the arguments 0 and 0,
    it returns the additional loss of full fine-tuning."""

    def world(self, draw: int) -> World:
        """Draw a world of this kind.

        The true losses are fixed. The noise of seeds and examples and the losses of low-fidelity runs are random.
        """
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
        """Return all combinations of setting and learning rate, and their scores by name.

        In addition, the name "full" has the score of full fine-tuning at its best rate.
        """
        at_rates, scores = [], {}
        for c, (rate, further) in product(options, self.rates.items()):
            at_rate = replace(c, name=f"{c.name} lr={rate:g}", rate=rate)
            at_rates.append(at_rate)
            scores[at_rate.name] = score[c.name] - self.full * further(c.bottom / 12, c.top / 12)
        best = max(scores[c.name] for c in at_rates if not c.bottom + c.top)
        return tuple(at_rates), scores | {"full": best}


def plateau(bottom: float, top: float) -> float:
    """Return a loss just beyond tolerance + margin, whatever is frozen."""
    return JUST_BEYOND * LIMIT


def cliff_at_head_only(bottom: float, top: float) -> float:
    """Return no loss, or a large loss if no layer is trained."""
    return 0.28 if bottom + top > 0.999 else 0.0


def top_friendly(bottom: float, top: float) -> float:
    """Return a loss that grows fast with the share of frozen bottom layers, but not with that of frozen top layers.

    It is large if no layer is trained.
    """
    return 0.28 if bottom + top > 0.999 else 0.3 * bottom**0.7


def steep(bottom: float, top: float) -> float:
    """Return a loss far beyond tolerance + margin, which grows with the share of frozen layers."""
    return 0.1 + 0.3 * bottom + 0.3 * top


def ridge(bottom: float, top: float) -> float:
    """Return no loss on a narrow range of settings, and a loss just beyond tolerance + margin elsewhere.

    The range: a quarter to a third of the layers are frozen at the bottom, and at most a quarter at the top.
    """
    return 0.0 if 0.24 < bottom < 0.34 and top < 0.26 else JUST_BEYOND * LIMIT


def strategies(*losses: float) -> dict[str, tuple[float, float]]:
    """Return the cost and the loss of strategies with these losses, by name.

    The first strategy costs 70 % of full fine-tuning; each further one costs 8 percentage points less than the one
    before it.
    """
    return {f"strategy{index}": (0.7 - 0.08 * index, loss) for index, loss in enumerate(losses)}


def none(bottom: float, top: float) -> float:
    """Return no loss, for every setting."""
    return 0.0


def small_rate(bottom: float, top: float) -> float:
    """Return the additional loss at a learning rate that is too small for settings with frozen layers.

    The loss grows with the share of frozen layers.
    """
    return 0.2 * (bottom + top)


def large_rate(bottom: float, top: float) -> float:
    """Return the additional loss at a learning rate that is too large for full fine-tuning only."""
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
"""The kinds of worlds, by name: functions that draw a world of the kind, given the seed of the random generator."""


def question(of: World, **changes: Any) -> Question:
    """Return the specification of a search in the world `of`, with the default options of `alue-bench search`.

    Args:
        of: The world.
        changes: Fields of `Question` that differ from the defaults.
    """
    grid = sum(c.cost for c in of.options)
    given: dict[str, Any] = {"tolerance": TOLERANCE, "margin": MARGIN, "budget": 0.25 * grid} | changes
    return Question(of.options, max(c.bottom for c in of.options), **given)


def search(of: World, asked: Question) -> tuple[Decision, list[Evaluation]]:
    """Simulate the search `asked` in the world `of`; return its last decision and the scores of its runs."""
    evaluations: list[Evaluation] = []
    while (decision := decide(asked, evaluations)).step is not None:
        evaluations.append(of.evaluation(decision.step))
    return decision, evaluations


# Dev scores of `mini` on oold: 2,000 rows, 3 epochs, one seed, bf16, 2026-11-26. The row index is the number of frozen
# bottom layers, the column index the number of frozen top layers.
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
"""Dev scores of low-fidelity runs, which have one epoch instead of three. For settings without a measured low-fidelity
run, the score `UNLEARNT` is assumed."""
UNLEARNT = 0.45
"""A score close to that of a baseline that ignores the text, on oold."""


class MeasuredWorld(World):
    """A world with measured scores, in which low-fidelity runs are a poor guide.

    With many frozen layers, the model has learnt hardly anything after one epoch.
    """

    def evaluation(self, step: Step) -> Evaluation:
        """Return the simulated dev score, with its jackknife values, of the run that a search asks for."""
        name = step.candidate.name
        if not step.short:
            return super().evaluation(step)
        world_of_short_runs = replace(self, score={**self.score, name: MEASURED_SHORT.get(name, UNLEARNT)})
        return replace(World.evaluation(world_of_short_runs, replace(step, short=False)), short=True)


def measured_world(draw: int) -> MeasuredWorld:
    """Draw a world with the measured scores, smoothed over neighbouring settings; only the noise is random."""
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
