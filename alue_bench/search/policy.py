"""The next run, or the end of the search and why.

The question is which of the candidates that lose no more than the tolerance is the cheapest. Costs are known
beforehand; losses are not, and the noise of seeds is larger than the tolerance. So runs are spent in three rungs:

1. *opening*: full fine-tuning, then a few candidates, and full fine-tuning again, with fewer epochs (*short* runs);
2. *whole*: one run after the other as in the question. The next candidate is the one with the largest expected saving
   over the best found so far, its chance of losing no more than the tolerance taken from the surface: expected
   improvement under a constraint (Gardner et al. 2014, Bayesian optimization with inequality constraints);
3. *seeds*: the candidate that still promises most is repeated with further seeds, paired with full fine-tuning's, until
   it is supported, or given up, or another one promises more.

A candidate is **supported** when, over at least `min_pairs` seeds, its mean loss is within the tolerance and the upper
bound of its loss is below tolerance + margin. The error guarded against is to return a setting that loses more than
tolerance + margin; `level` bounds how often that happens. It cannot be guarded against with a margin of nothing: to
show that a loss of 1 % is not exceeded would take dozens of seeds. A candidate is **given up** when the lower bound
of its loss is above the tolerance; the other error, to give up a good one, costs savings and no score. Supported
decides by the candidate's own runs alone; the surface only says where to look.

Whether full fine-tuning has learnt anything comes before all that (`alue_bench.evaluation.learning`): where its score
is not above what ignoring the text scores, by more than chance, there is no answer and the search ends.

It also ends when nothing cheaper than what is supported promises a saving worth having, when the budget does not pay
for the next run, or when seeds differ so much that nothing could be supported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from alue_bench.evaluation.learning import Learning
from alue_bench.search.candidates import Amount, Candidate
from alue_bench.search.observations import (
    PRIOR_WEIGHT,
    SMALLEST_SCORE,
    Evaluation,
    Loss,
    by_replicate,
    learning_of,
    mean_score,
    paired_loss,
    seed_noise,
)
from alue_bench.search.surface import fit

State = Literal["open", "supported", "given up", "undecided", "failed"]

SHORT_CELLS = ((1 / 4, 0), (1 / 2, 0), (3 / 4, 0), (1, 0), (1 / 4, 1 / 3), (1 / 2, 1 / 3))
"""What the short runs look at: how many layers are frozen at the bottom and at the top, as parts of all."""


HOPELESS_AFTER = 4
"""Degrees of freedom, from runs with several seeds, before the noise is believed to be too large for an answer."""


@dataclass(frozen=True)
class Question:
    """What is looked for, among which candidates, and what it may cost."""

    candidates: tuple[Candidate, ...]
    """The first one is full fine-tuning, which the others are held against."""
    layers: int
    tolerance: Amount
    margin: Amount
    budget: float
    """In full fine-tunings."""
    level: float = 0.1
    min_pairs: int = 3
    max_pairs: int = 6
    short_runs: bool = True
    smallest_saving: float = 0.02
    """Expected savings below this, as a part of full fine-tuning's cost, are not worth another run. While nothing is
    supported, half of it is: the surface then rests on short runs, for the most part."""

    @property
    def full(self) -> Candidate:
        return self.candidates[0]


@dataclass(frozen=True)
class Step:
    """A run to do."""

    candidate: Candidate
    replicate: int
    short: bool = False

    @property
    def cost(self) -> float:
        return self.candidate.short_cost if self.short else self.candidate.cost


@dataclass(frozen=True)
class Standing:
    """What is known of a candidate."""

    candidate: Candidate
    state: State
    loss: Loss | None = None
    """From its own runs."""


@dataclass(frozen=True)
class Decision:
    """What to do now, and how things stand."""

    step: Step | None
    """None where the search is over."""
    why: str
    """Of this step, or of the end."""
    spent: float
    """In full fine-tunings."""
    best: Standing
    """The cheapest supported candidate; full fine-tuning while there is none."""
    standings: tuple[Standing, ...]
    """Of every candidate that ran, in the order of the candidates."""
    hoped_for: Candidate | None = None
    """Of an exhausted search: the cheaper candidate of which most was hoped when the budget ended."""
    unlearnt: Learning | None = None
    """Scores of full fine-tuning against the trivial one, where it learnt nothing and there is no answer."""

    @property
    def exhausted(self) -> bool:
        """Whether the budget ended before the question was answered."""
        return self.hoped_for is not None


@dataclass(frozen=True)
class _Prospect:
    """A candidate that may become the answer."""

    candidate: Candidate
    saving: float
    """Expected, over the best found so far."""
    steps: tuple[Step, ...]
    """The runs until it has enough pairs to be supported; the first of them is the next."""

    @property
    def cost(self) -> float:
        return sum(step.cost for step in self.steps)


def decide(question: Question, evaluations: Sequence[Evaluation], broken: Sequence[Step] = ()) -> Decision:
    """The next run, or the end. `broken` are runs that failed: they count as spent, and their candidates are out."""
    spent = sum(_step_of(question, e).cost for e in evaluations) + sum(step.cost for step in broken)
    failed = frozenset(step.candidate.name for step in broken)
    left = question.budget - spent + 1e-9
    full = question.full
    base = by_replicate(evaluations, full.name)
    standings = _standings(question, evaluations, failed)
    supported = [s for s in standings.values() if s.state == "supported"]
    best = min(supported, key=lambda s: s.candidate.cost, default=Standing(full, "supported"))

    def decision(
        step: Step | None, why: str, hoped_for: Candidate | None = None, unlearnt: Learning | None = None
    ) -> Decision:
        known = tuple(standings[c.name] for c in question.candidates if c.name in standings)
        return Decision(step, why, spent, best, known, hoped_for, unlearnt)

    if full.name in failed:
        return decision(None, f"{full.name} failed" + (" with a further seed" if base else ""))
    learnt = learning_of(base)
    if learnt is not None and not learnt.shown:
        return decision(None, learnt.sentence(full.name, "dev"), unlearnt=learnt)
    opening = _opening(question, evaluations, failed, left)
    if opening:
        return decision(opening[0], _why_opened_with(opening[0]))
    if not base:
        return decision(None, "the budget does not pay for full fine-tuning", full)

    if best.loss is None and _is_hopeless(question, evaluations):
        return decision(None, "seeds differ so much that no setting could be supported")
    prospects = _prospects(question, evaluations, standings, best.candidate, failed)
    if not prospects:
        return decision(None, f"nothing cheaper than {best.candidate.name} is likely to stay within the tolerance")
    payable = [prospect for prospect in prospects if prospect.cost <= left]
    if not payable:
        hoped_for = max(prospects, key=lambda prospect: prospect.saving).candidate
        return decision(None, f"the budget does not pay for enough runs of {hoped_for.name}", hoped_for)
    chosen = max(payable, key=lambda prospect: prospect.saving)
    return decision(chosen.steps[0], f"{chosen.candidate.name} has the largest expected saving")


def ahead(question: Question, evaluations: Sequence[Evaluation], broken: Sequence[Step] = ()) -> tuple[Decision, ...]:
    """The next decision, and those behind it that are certain whatever the runs before them give; none at the end.

    Several while the opening lasts, which follows from costs alone. Every later run depends on the score of the one
    before. The search ends among them only where full fine-tuning fails, or has learnt nothing.
    """
    decision = decide(question, evaluations, broken)
    if decision.step is None:
        return ()
    failed = frozenset(step.candidate.name for step in broken)
    opening = _opening(question, evaluations, failed, question.budget - decision.spent + 1e-9)
    return (decision, *(replace(decision, step=step, why=_why_opened_with(step)) for step in opening[1:]))


def _opening(
    question: Question, evaluations: Sequence[Evaluation], failed: frozenset[str], left: float
) -> tuple[Step, ...]:
    """The runs before any that depends on a score, as far as they are still to do and the budget pays for them: full
    fine-tuning, then the first look, as far as it is affordable behind that."""
    steps = []
    if not by_replicate(evaluations, question.full.name):
        if question.full.cost > left:
            return ()
        steps.append(Step(question.full, 0))
    spent = sum(step.cost for step in steps)
    for step in _short_steps(question, evaluations):
        if step.candidate.name in failed:
            continue
        if spent + step.cost > left:
            break
        steps.append(step)
        spent += step.cost
    return tuple(steps)


def _why_opened_with(step: Step) -> str:
    return "a low-fidelity run with fewer epochs" if step.short else "the reference for all other settings"


def _prospects(
    question: Question,
    evaluations: Sequence[Evaluation],
    standings: Mapping[str, Standing],
    best: Candidate,
    failed: frozenset[str],
) -> list[_Prospect]:
    base = by_replicate(evaluations, question.full.name)
    scale = max(abs(mean_score(base)), SMALLEST_SCORE)
    noise = seed_noise(evaluations, question.full.name).of_one_run
    surface = fit(question.candidates, question.layers, evaluations, scale=scale, noise_variance=noise)
    chances = surface.likely_within(question.candidates, question.tolerance.of(scale))
    worth_it = question.smallest_saving * (0.5 if best == question.full else 1.0)
    found = []
    for candidate, chance in zip(question.candidates, chances, strict=True):
        standing = standings.get(candidate.name)
        if candidate.cost >= best.cost or candidate.name in failed:
            continue
        if standing is not None and standing.state in ("supported", "given up", "undecided"):
            continue
        saving = (best.cost - candidate.cost) * float(chance)
        if saving >= worth_it:
            own = by_replicate(evaluations, candidate.name)
            found.append(_Prospect(candidate, saving, tuple(_steps_to_support(question, candidate, base, own))))
    return found


def _is_hopeless(question: Question, evaluations: Sequence[Evaluation]) -> bool:
    """Whether not even a setting that loses nothing would be supported after the most seeds it may have."""
    noise = seed_noise(evaluations, question.full.name)
    if noise.degrees < PRIOR_WEIGHT + HOPELESS_AFTER:
        return False
    score = mean_score(by_replicate(evaluations, question.full.name))
    best_case = Loss(0.0, math.sqrt(noise.variance / question.max_pairs), noise.degrees, question.max_pairs)
    return best_case.upper(question.level) > question.tolerance.of(score) + question.margin.of(score)


def _steps_to_support(
    question: Question, candidate: Candidate, base: Mapping[int, Evaluation], own: Mapping[int, Evaluation]
) -> Iterator[Step]:
    """Seed by seed, full fine-tuning first; at least the next seed."""
    pairs = len(base.keys() & own.keys())
    for replicate in range(max(question.min_pairs, pairs + 1)):
        if replicate not in base:
            yield Step(question.full, replicate)
        if replicate not in own:
            yield Step(candidate, replicate)


def _standings(question: Question, evaluations: Sequence[Evaluation], failed: frozenset[str]) -> dict[str, Standing]:
    base = by_replicate(evaluations, question.full.name)
    noise = seed_noise(evaluations, question.full.name)
    found: dict[str, Standing] = {}
    for candidate in question.candidates[1:]:
        own = by_replicate(evaluations, candidate.name)
        loss = paired_loss(base, own, noise) if own else None
        if candidate.name in failed:
            found[candidate.name] = Standing(candidate, "failed", loss)
        elif loss is not None:
            found[candidate.name] = Standing(candidate, _state(question, loss, mean_score(base)), loss)
        elif any(e.candidate == candidate.name for e in evaluations):
            found[candidate.name] = Standing(candidate, "open")
    return found


def _state(question: Question, loss: Loss, full_score: float) -> State:
    tolerance, margin = question.tolerance.of(full_score), question.margin.of(full_score)
    enough = loss.pairs >= question.min_pairs
    if enough and loss.mean <= tolerance and loss.upper(question.level) <= tolerance + margin:
        return "supported"
    if loss.lower(question.level) > tolerance or (enough and loss.mean > tolerance):
        return "given up"
    return "undecided" if loss.pairs >= question.max_pairs else "open"


def _short_steps(question: Question, evaluations: Sequence[Evaluation]) -> list[Step]:
    """Those of the first look that are still to do: full fine-tuning, and the candidate nearest to each place."""
    if not question.short_runs:
        return []
    wanted = [question.full]
    for bottom, top in SHORT_CELLS:
        place = (bottom * question.layers, top * question.layers)
        wanted.append(min(question.candidates, key=lambda c: abs(c.bottom - place[0]) + abs(c.top - place[1])))
    done = {e.candidate for e in evaluations if e.short}
    return [Step(c, 0, short=True) for c in dict.fromkeys(wanted) if c.name not in done]


def _step_of(question: Question, evaluation: Evaluation) -> Step:
    candidate = next(c for c in question.candidates if c.name == evaluation.candidate)
    return Step(candidate, evaluation.replicate, evaluation.short)
