"""The policy of a search: the next run, or the end of the search with its reason.

The search looks for the cheapest candidate, that is, freezing setting, that loses little score against full
fine-tuning. The greatest acceptable loss is called the tolerance. Training costs are known beforehand. Losses are not,
and they vary over seeds by more than the tolerance. There are three stages of runs:

1. *opening*: full fine-tuning, and then low-fidelity runs, which have fewer epochs, of full fine-tuning and a few other
   candidates;
2. *whole*: runs with all epochs, one after the other. The next candidate is the one with the largest expected saving
   against the cheapest supported candidate (see below): the saving times the probability, from the model in `surface`,
   that the candidate loses no more than the tolerance. This is expected improvement under a constraint (Gardner et al.
   2014, Bayesian optimization with inequality constraints);
3. *seeds*: the candidate with the largest expected saving is run with further seeds, as is full fine-tuning with the
   same seeds, until the candidate is supported or given up, or another candidate has a larger expected saving.

A candidate is **supported** when, over at least `min_pairs` seeds, its mean loss is within the tolerance and the upper
bound of its loss is at most tolerance + margin. The search must not return a setting that loses more than tolerance +
margin; the probability of this error is at most `level`. The margin must be above zero, since dozens of seeds would be
needed to show that the loss is not above a tolerance of 1 %. A candidate is **given up** when the lower bound of its
loss is above the tolerance, or when its mean loss over at least `min_pairs` seeds is above the tolerance. Giving up a
good candidate by mistake costs savings but no score. Only the runs of a candidate and of full fine-tuning decide if it
is supported; the model in `surface` only chooses the next candidate to run.

The search first tests whether full fine-tuning has learnt anything (`alue_bench.evaluation.learning`). If full
fine-tuning's score is not significantly above that of a baseline that ignores the text, the search ends without an
answer.

The search also ends when no candidate that is cheaper than the supported one has an expected saving worth a run, when
the budget does not pay for the runs that a promising candidate needs, or when scores differ so much between seeds that
no candidate could be supported.
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
"""The state of a candidate (freezing setting): "open" if nothing is decided yet; "supported" if its runs show that it
keeps the score; "given up" if its runs show that it does not; "undecided" if neither is shown after runs with
`max_pairs` seeds; "failed" if a run failed."""

SHORT_CELLS = ((1 / 4, 0), (1 / 2, 0), (3 / 4, 0), (1, 0), (1 / 4, 1 / 3), (1 / 2, 1 / 3))
"""The freezing settings of the low-fidelity runs, which have fewer epochs. Each is a pair: the share of the layers that
is frozen at the bottom, and the share that is frozen at the top."""


HOPELESS_AFTER = 4
"""The degrees of freedom that the estimated variance between seeds must have, not counting the prior, before the search
may end because scores differ too much between seeds."""


@dataclass(frozen=True)
class Question:
    """The specification of a search: the candidates (freezing settings), the acceptable score loss and the budget."""

    candidates: tuple[Candidate, ...]
    """The freezing settings to choose from. The first is full fine-tuning, with which the others are compared."""
    layers: int
    """The model's number of layers."""
    tolerance: Amount
    """The greatest acceptable mean loss of score against full fine-tuning."""
    margin: Amount
    """The amount by which the upper confidence bound of the loss may exceed the tolerance."""
    budget: float
    """The greatest total cost of the runs, in units of the cost of one full fine-tuning."""
    level: float = 0.1
    """The probability of error of the confidence bounds of a loss."""
    min_pairs: int = 3
    """The fewest seeds after which a freezing setting can be accepted as keeping the score."""
    max_pairs: int = 6
    """The most seeds with which a freezing setting is run."""
    short_runs: bool = True
    """True if the search begins with low-fidelity runs, which have fewer epochs."""
    smallest_saving: float = 0.02
    """The smallest expected saving for which another run is worthwhile, as a share of full fine-tuning's cost. Half as
    much suffices until a first freezing setting is known to keep the score, since expected savings are then mostly
    based on low-fidelity runs, which have fewer epochs."""

    @property
    def full(self) -> Candidate:
        """Full fine-tuning, as one of the settings to choose from."""
        return self.candidates[0]


@dataclass(frozen=True)
class Step:
    """A run that the search asks for: a candidate (freezing setting), a seed and the kind of run."""

    candidate: Candidate
    replicate: int
    """The index of the run's seed: 0 for the first seed of the search, 1 for the second, and so on."""
    short: bool = False
    """True if the run is a low-fidelity run, which has fewer epochs."""

    @property
    def cost(self) -> float:
        """The cost of the run, in units of the cost of one full fine-tuning."""
        return self.candidate.short_cost if self.short else self.candidate.cost


@dataclass(frozen=True)
class Standing:
    """The state of a candidate (freezing setting) in the search, and its loss of score so far."""

    candidate: Candidate
    state: State
    loss: Loss | None = None
    """The loss against full fine-tuning, measured with the same seeds and the full number of epochs; None if there are
    no such runs."""


@dataclass(frozen=True)
class Decision:
    """A decision of a search: the next run, or the end of the search, with the state of all freezing settings."""

    step: Step | None
    """The next run; None if the search is over."""
    why: str
    """The reason for the next run, or for the end of the search."""
    spent: float
    """The cost of the search so far, in units of the cost of one full fine-tuning."""
    best: Standing
    """The cheapest freezing setting that is known to keep the score; full fine-tuning as long as there is no other."""
    standings: tuple[Standing, ...]
    """The state and score loss of every freezing setting that was run, except full fine-tuning, in the order of
    `Question.candidates`."""
    hoped_for: Candidate | None = None
    """The freezing setting with the largest expected saving among those whose runs would exceed the budget; None if the
    budget sufficed."""
    unlearnt: Learning | None = None
    """The comparison of full fine-tuning with a baseline that ignores the text, if full fine-tuning has learnt nothing,
    so that the search has no answer; otherwise None."""

    @property
    def exhausted(self) -> bool:
        """True if the search ended because the budget did not pay for the runs of a promising freezing setting."""
        return self.hoped_for is not None


@dataclass(frozen=True)
class _Prospect:
    """A freezing setting that may become the result of the search, with the runs that are needed to decide this."""

    candidate: Candidate
    saving: float
    """The expected saving against the cheapest setting that is known to keep the score, in units of the cost of one
    full fine-tuning."""
    steps: tuple[Step, ...]
    """The runs after which the setting has enough seeds to be accepted as keeping the score, in order of execution."""

    @property
    def cost(self) -> float:
        """The cost of the runs in `steps`, in units of the cost of one full fine-tuning."""
        return sum(step.cost for step in self.steps)


def decide(question: Question, evaluations: Sequence[Evaluation], broken: Sequence[Step] = ()) -> Decision:
    """Return the next run, or the end of the search with its reason.

    Args:
        question: The specification of the search.
        evaluations: The dev scores of the finished runs.
        broken: The runs that failed. Their cost counts as spent, and their freezing settings are excluded.
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
    """Return the search's next decisions, as far as they are certain before any further run has ended.

    The result is empty at the end of the search. It has several decisions only during the opening, that is, the first
    runs, which are chosen by their costs alone; every later run depends on the scores before it. The search can end
    during the opening only if full fine-tuning fails or has learnt nothing.

    Args:
        question: The specification of the search.
        evaluations: The dev scores of the finished runs.
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
    """Return the remaining runs of the search's opening (the first runs), as far as the budget pays for them.

    The opening consists of full fine-tuning and then the low-fidelity runs, which have fewer epochs. None of these runs
    depends on a score.

    Args:
        question: The specification of the search.
        evaluations: The dev scores of the finished runs.
        failed: The names of freezing settings with failed runs.
        left: The part of the budget that is left, in units of the cost of one full fine-tuning.
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
    """Return whether scores differ so much between seeds that no setting can be shown to keep the score.

    This is the case if even a setting without any loss would have too high a confidence bound after `max_pairs` seeds.
    """
    noise = seed_noise(evaluations, question.full.name)
    if noise.degrees < PRIOR_WEIGHT + HOPELESS_AFTER:
        return False
    score = mean_score(by_replicate(evaluations, question.full.name))
    best_case = Loss(0.0, math.sqrt(noise.variance / question.max_pairs), noise.degrees, question.max_pairs)
    return best_case.upper(question.level) > question.tolerance.of(score) + question.margin.of(score)


def _steps_to_support(
    question: Question, candidate: Candidate, base: Mapping[int, Evaluation], own: Mapping[int, Evaluation]
) -> Iterator[Step]:
    """Yield the runs that are needed before a freezing setting can be accepted as keeping the score.

    For each seed, a missing run of full fine-tuning comes before the setting's run. At least one new seed is always
    included.

    Args:
        question: The specification of the search.
        candidate: The freezing setting.
        base: Full fine-tuning's evaluations, keyed by the index of the seed.
        own: The setting's evaluations, keyed by the index of the seed.
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
    """Return the low-fidelity runs (with fewer epochs) that are not finished.

    They are runs of full fine-tuning and, for each setting in `SHORT_CELLS`, of the available setting nearest to it.
    """
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
