"""The policy of a search: the next run, or the end of the search with its reason.

The search looks for the cheapest candidate that loses no more than the tolerance. Costs are known beforehand; losses
are not, and the noise of seeds is larger than the tolerance. Runs are spent in three stages:

1. *opening*: full fine-tuning, then low-fidelity runs, which have fewer epochs: full fine-tuning again and a few
   candidates;
2. *whole*: one run after the other with all epochs. The next candidate is the one with the largest expected saving over
   the best supported one: its saving times its probability, from the surface, to lose no more than the tolerance. This
   is expected improvement under a constraint (Gardner et al. 2014, Bayesian optimization with inequality constraints);
3. *seeds*: the candidate with the largest expected saving is repeated with further seeds, paired with full
   fine-tuning's, until it is supported or given up, or another candidate has a larger expected saving.

A candidate is **supported** when, over at least `min_pairs` seeds, its mean loss is within the tolerance and the upper
bound of its loss is at most tolerance + margin. The error to avoid is to return a setting that loses more than
tolerance + margin; `level` bounds its probability. A margin of zero cannot work: to show that a loss of 1 % is not
exceeded would take dozens of seeds. A candidate is **given up** when the lower bound of its loss is above the
tolerance, or when its mean loss over at least `min_pairs` seeds is. To give up a good candidate by mistake costs
savings and no score. Whether a candidate is supported depends on its own runs alone; the surface only decides which
candidate to run.

A test of whether full fine-tuning has learnt anything precedes all that (`alue_bench.evaluation.learning`). Where its
score is not significantly above that of a baseline that ignores the text, the search ends without an answer.

The search also ends when no candidate that is cheaper than the supported one has an expected saving worth a run, when
the budget does not pay for the next run, or when seeds differ so much that no candidate could be supported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from alue_bench.evaluation.learning import Learning
from alue_bench.searching.candidates import Amount, Candidate
from alue_bench.searching.observations import (
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
from alue_bench.searching.surface import fit

State = Literal["open", "supported", "given up", "undecided", "failed"]
"""The state of a candidate; "undecided" is one that had `max_pairs` seeds and is neither supported nor given up."""

SHORT_CELLS = ((1 / 4, 0), (1 / 2, 0), (3 / 4, 0), (1, 0), (1 / 4, 1 / 3), (1 / 2, 1 / 3))
"""The settings of the low-fidelity runs: the shares of layers that are frozen at the bottom and at the top."""


HOPELESS_AFTER = 4
"""The degrees of freedom from runs with several seeds that are needed before the search ends because of the noise."""


@dataclass(frozen=True)
class Question:
    """The specification of a search: the candidates, the acceptable loss and the budget."""

    candidates: tuple[Candidate, ...]
    """The candidates; the first one is full fine-tuning, the reference for the others."""
    layers: int
    """The model's number of layers."""
    tolerance: Amount
    """The mean loss that is acceptable."""
    margin: Amount
    """The amount by which the upper bound of the loss may exceed the tolerance."""
    budget: float
    """The cost that may be spent, in units of one full fine-tuning."""
    level: float = 0.1
    """The probability of error of the bounds of a loss."""
    min_pairs: int = 3
    """The fewest seeds with which a candidate can be supported."""
    max_pairs: int = 6
    """The most seeds with which a candidate is run."""
    short_runs: bool = True
    """True if the search opens with low-fidelity runs."""
    smallest_saving: float = 0.02
    """The smallest expected saving that is worth another run, as a share of full fine-tuning's cost. While no candidate
    is supported, half of it suffices, since the surface then rests mostly on low-fidelity runs."""

    @property
    def full(self) -> Candidate:
        """Full fine-tuning."""
        return self.candidates[0]


@dataclass(frozen=True)
class Step:
    """A run that the search asks for."""

    candidate: Candidate
    replicate: int
    """The number of the seed, counted from 0."""
    short: bool = False
    """True if it is a low-fidelity run, with fewer epochs."""

    @property
    def cost(self) -> float:
        """The cost of the run, in units of one full fine-tuning."""
        return self.candidate.short_cost if self.short else self.candidate.cost


@dataclass(frozen=True)
class Standing:
    """A candidate's state and loss so far."""

    candidate: Candidate
    state: State
    loss: Loss | None = None
    """The loss measured with its own whole runs; None if it has none with a seed of full fine-tuning."""


@dataclass(frozen=True)
class Decision:
    """The next run or the end of the search, with the state of all candidates."""

    step: Step | None
    """The next run; None if the search is over."""
    why: str
    """The reason for the run, or for the end."""
    spent: float
    """The cost so far, in units of one full fine-tuning."""
    best: Standing
    """The cheapest supported candidate; full fine-tuning while there is none."""
    standings: tuple[Standing, ...]
    """The standing of every candidate that ran, in the order of the candidates."""
    hoped_for: Candidate | None = None
    """The cheaper candidate with the largest expected saving when the budget ended; None if the budget sufficed."""
    unlearnt: Learning | None = None
    """Full fine-tuning's scores against the trivial score, where it learnt nothing and there is no answer."""

    @property
    def exhausted(self) -> bool:
        """True if the budget ended before the search did."""
        return self.hoped_for is not None


@dataclass(frozen=True)
class _Prospect:
    """A candidate that may become the answer."""

    candidate: Candidate
    saving: float
    """The expected saving over the best supported candidate."""
    steps: tuple[Step, ...]
    """The runs until it has enough pairs to be supported; the first of them is the next."""

    @property
    def cost(self) -> float:
        """The cost of the runs in `steps`, in units of one full fine-tuning."""
        return sum(step.cost for step in self.steps)


def decide(question: Question, evaluations: Sequence[Evaluation], broken: Sequence[Step] = ()) -> Decision:
    """Decide about the next run, or the end of the search.

    Args:
        question: The specification of the search.
        evaluations: The scores of the finished runs.
        broken: The runs that failed. Their cost counts as spent, and their candidates are excluded.
    """
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
    """Return the next decision, and those after it that do not depend on its outcome; empty at the end of the search.

    There are several during the opening, which follows from costs alone. Every later run depends on the scores before
    it. The search can end during the opening only where full fine-tuning fails or has learnt nothing.

    Args:
        question: The specification of the search.
        evaluations: The scores of the finished runs.
        broken: The runs that failed.
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
    """Return the remaining runs of the opening, as far as the budget pays for them.

    These are full fine-tuning and then the low-fidelity runs, none of which depends on a score.
    """
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
    prospects = []
    for candidate, chance in zip(question.candidates, chances, strict=True):
        standing = standings.get(candidate.name)
        if candidate.cost >= best.cost or candidate.name in failed:
            continue
        if standing is not None and standing.state in ("supported", "given up", "undecided"):
            continue
        saving = (best.cost - candidate.cost) * float(chance)
        if saving >= worth_it:
            own = by_replicate(evaluations, candidate.name)
            prospects.append(_Prospect(candidate, saving, tuple(_steps_to_support(question, candidate, base, own))))
    return prospects


def _is_hopeless(question: Question, evaluations: Sequence[Evaluation]) -> bool:
    """Return whether not even a setting without any loss would be supported after `max_pairs` seeds."""
    noise = seed_noise(evaluations, question.full.name)
    if noise.degrees < PRIOR_WEIGHT + HOPELESS_AFTER:
        return False
    score = mean_score(by_replicate(evaluations, question.full.name))
    best_case = Loss(0.0, math.sqrt(noise.variance / question.max_pairs), noise.degrees, question.max_pairs)
    return best_case.upper(question.level) > question.tolerance.of(score) + question.margin.of(score)


def _steps_to_support(
    question: Question, candidate: Candidate, base: Mapping[int, Evaluation], own: Mapping[int, Evaluation]
) -> Iterator[Step]:
    """Yield the runs that a candidate needs to be supported, seed by seed, full fine-tuning first.

    They include at least one further seed of the candidate.
    """
    pairs = len(base.keys() & own.keys())
    for replicate in range(max(question.min_pairs, pairs + 1)):
        if replicate not in base:
            yield Step(question.full, replicate)
        if replicate not in own:
            yield Step(candidate, replicate)


def _standings(question: Question, evaluations: Sequence[Evaluation], failed: frozenset[str]) -> dict[str, Standing]:
    base = by_replicate(evaluations, question.full.name)
    noise = seed_noise(evaluations, question.full.name)
    standings: dict[str, Standing] = {}
    for candidate in question.candidates[1:]:
        own = by_replicate(evaluations, candidate.name)
        loss = paired_loss(base, own, noise) if own else None
        if candidate.name in failed:
            standings[candidate.name] = Standing(candidate, "failed", loss)
        elif loss is not None:
            standings[candidate.name] = Standing(candidate, _state(question, loss, mean_score(base)), loss)
        elif any(e.candidate == candidate.name for e in evaluations):
            standings[candidate.name] = Standing(candidate, "open")
    return standings


def _state(question: Question, loss: Loss, full_score: float) -> State:
    tolerance, margin = question.tolerance.of(full_score), question.margin.of(full_score)
    enough = loss.pairs >= question.min_pairs
    if enough and loss.mean <= tolerance and loss.upper(question.level) <= tolerance + margin:
        return "supported"
    if loss.lower(question.level) > tolerance or (enough and loss.mean > tolerance):
        return "given up"
    return "undecided" if loss.pairs >= question.max_pairs else "open"


def _short_steps(question: Question, evaluations: Sequence[Evaluation]) -> list[Step]:
    """Return the remaining low-fidelity runs: full fine-tuning, and the candidate nearest to each of `SHORT_CELLS`."""
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
