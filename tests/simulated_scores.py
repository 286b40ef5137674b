"""Score surfaces to search in, made up: what a candidate scores on average, and the noise of seeds and examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alue_bench.searching.candidates import Amount, Candidate
from alue_bench.searching.observations import GROUPS, Evaluation
from alue_bench.searching.policy import Decision, Question, Step, decide


def candidates(layers: int = 12, epochs: int = 3, short_epochs: int = 1) -> tuple[Candidate, ...]:
    """Every pair, the full one first, with the cost of layers alone; one of those that train nothing but the head."""

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
    """A simulated task from which scores are drawn. All fields are in units of the score."""

    options: tuple[Candidate, ...]
    score: dict[str, float]
    """Over all seeds and examples."""
    seed_sd: float
    examples: dict[str, Any]
    """The deviations that the dev split's examples add [groups]; their mean is the effect of the choice of split."""
    short_factor: float
    """The factor by which freezing costs more, or less, in short runs."""
    draw: int

    @property
    def full(self) -> float:
        return self.score["full"]

    def loss(self, name: str) -> float:
        return self.full - self.score[name]

    def evaluation(self, step: Step) -> Evaluation:
        name = step.candidate.name
        place = self.options.index(step.candidate)
        rng = np.random.default_rng([self.draw, place, step.replicate, step.short])
        mean = 0.7 * self.full - self.short_factor * self.loss(name) if step.short else self.score[name]
        groups = mean + rng.normal(0, self.seed_sd) + self.examples[name]
        left_out = (groups.sum() - groups) / (len(groups) - 1)
        return Evaluation(name, step.replicate, float(groups.mean()), tuple(left_out), step.short)


def world(draw: int, *, noise: float = 1.0, layers: int = 12, options: tuple[Candidate, ...] | None = None) -> World:
    """Drawn at random: from tasks where freezing costs nothing to such where only the lightest is bearable.

    noise: 1 for seeds of 1 to 2 points of F1 and dev splits of 500 to 1,000 examples; 0 for none.
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
    example_sd = noise * scale * 0.45 * np.sqrt(GROUPS / size)  # of a group's score
    common = rng.normal(0, example_sd, GROUPS)
    walks = [np.cumsum(rng.normal(0, example_sd * 0.5 / np.sqrt(layers), (layers + 1, GROUPS)), axis=0) for _ in "bt"]
    examples = {c.name: common + walks[0][c.bottom] + walks[1][c.top] for c in options}
    return World(options, score, noise * scale * rng.uniform(0.01, 0.02), examples, rng.uniform(0.5, 2), draw)


def question(of: World, **changes: Any) -> Question:
    grid = sum(c.cost for c in of.options)
    given = {"tolerance": Amount(0.01, True), "margin": Amount(0.02, True), "budget": 0.25 * grid} | changes
    return Question(of.options, max(c.bottom for c in of.options), **given)


def search(of: World, asked: Question) -> tuple[Decision, list[Evaluation]]:
    """Run a search to its end."""
    evaluations: list[Evaluation] = []
    while (decision := decide(asked, evaluations)).step is not None:
        evaluations.append(of.evaluation(decision.step))
    return decision, evaluations


# Dev scores of `mini` on oold: 2,000 rows, 3 epochs, one seed, bf16, 2026-11-26; a row for each number of frozen bottom
# layers, in it one for each number of frozen top layers. Then runs of one epoch.
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
    "full": 0.745, "bottom3top0": 0.568, "bottom6top0": 0.458, "bottom9top0": 0.484, "bottom12top0": 0.451,
    "bottom3top4": 0.451, "bottom6top4": 0.444,
}  # fmt: skip


class MeasuredWorld(World):
    """A real task whose short runs say little about whole ones: with much frozen, learning has hardly begun."""

    def evaluation(self, step: Step) -> Evaluation:
        name = step.candidate.name
        if not step.short:
            return super().evaluation(step)
        of_short = replace(self, score=self.score | {name: MEASURED_SHORT[name]})
        return replace(World.evaluation(of_short, replace(step, short=False)), short=True)


def measured_world(draw: int) -> MeasuredWorld:
    """The measured scores, smoothed, since one seed tells only so much, with noise of seeds and examples drawn anew."""
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
