"""The policy of a search: the next run, or the end of the search with its reason.

The search looks for the cheapest candidate (a freezing setting) that loses little score against full fine-tuning. The
loss of a candidate is full fine-tuning's score minus the candidate's score. Training costs are known beforehand. Losses
are not known, and they vary between seeds by more than the loss that would matter. The first seed is used to choose
candidates, and further seeds to test them:

1. *opening*: with the first seed, full fine-tuning, low-fidelity runs (with fewer epochs) of full fine-tuning and a few
   candidates, and full-length runs of a few candidates. Scores do not influence which runs these are, except that they
   determine the learning rate if the search chooses among several;
2. *exploring*: with the first seed, a full-length run of the most promising candidate. This is repeated until the most
   promising candidate is one that has already been run, but at most `MAX_EXPLORED` times, and only as long as the
   budget covers a test of the candidate after its run. The most promising candidate has the largest expected saving:
   the cost that it saves against full fine-tuning, times the probability, from the model in `surface`, of passing the
   test below (Gardner et al. 2014, Bayesian optimization with inequality constraints). Strategies other than freezing
   bottom and top layers have no place on the surface; the loss of each such strategy is modelled separately, with a
   wide prior. If the search chooses among several learning rates, the reference is full fine-tuning at the rate that is
   best with the first seed (`with_best_reference`), and the surface extends over rates;
3. *test*: the most promising candidate with a full-length run is run with further seeds, which took no part in choosing
   it, in pairs with full fine-tuning. The number of pairs depends only on the budget, and is fixed before the first
   pair. After the last pair, there is one statistical test;
4. *confirmation*: an answer other than full fine-tuning is run with yet other seeds, in pairs with full fine-tuning.
   These runs have no influence on the answer, and show its loss without bias.

A candidate is **supported**, that is, it passes its test, if its mean loss is within the tolerance and the upper
confidence bound of its loss is at most tolerance + margin. A candidate is **given up** before its last pair if its mean
loss is above tolerance + margin; this cannot make the search err more often.

A failed test ends the search. After a passed test, a cheaper candidate, which may be one without a run so far, is
tested if the budget covers the test. The search errs if it returns a setting that loses more than tolerance + margin.
The probability of this error is at most `level`, the level of each test (a fixed sequence of tests; Maurer, Hothorn &
Lehmacher 1995): if the first candidate loses too much, passing the first test is the error; if it does not, only the
second test can err. This holds for any losses, and also if frozen settings vary more over seeds than full fine-tuning,
because no seed and no example is used both to choose and to test, and a test uses only the variance of its own runs. We
also tried a search that tests another candidate after a failed test: the level must then be divided between both tests,
and the search saved less (`docs/decisions.md`).

The search first tests whether full fine-tuning has learnt anything (`alue_bench.evaluation.learning`). If full
fine-tuning's score is not significantly above that of a baseline without a model, the search ends without an
answer. Candidates whose full-length run has learnt nothing are never an answer, and low-fidelity runs that have learnt
nothing are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

from alue_bench.evaluation.learning import Learning
from alue_bench.searching.candidates import Amount, Candidate
from alue_bench.searching.observations import (
    MIN_SCORE_SCALE,
    PRIOR_SD,
    Evaluation,
    Loss,
    by_replicate,
    has_learnt,
    learning_of,
    mean_score,
    paired_loss,
    restrict_examples,
)
from alue_bench.searching.surface import fit

if TYPE_CHECKING:
    import numpy as np

State = Literal["open", "supported", "given up", "undecided", "failed", "nothing learnt"]
"""The state of a candidate (freezing setting): "open" if it was not tested or its test has not ended; "supported" if it
passed its test; "given up" if its test ended early, since its mean loss was above tolerance + margin; "undecided" if it
did not pass its test; "failed" if one of its runs failed; "nothing learnt" if its full-length runs did not score above
a baseline without a model."""

SHORT_CELLS = ((1 / 4, 0), (1 / 2, 0), (3 / 4, 0), (1 / 4, 1 / 3), (0, 1 / 3), (0, 2 / 3))
"""The freezing settings of the low-fidelity runs, which have fewer epochs. Each setting is a pair of shares of the
encoder's layers: the share that is frozen at the bottom, and the share that is frozen at the top."""
FULL_LENGTH_CELLS = ((1, 0), (1 / 4, 1 / 3), (0, 2 / 3))
"""The freezing settings of the opening's full-length runs, in the form of `SHORT_CELLS`."""
MAX_EXPLORED = 4
"""The largest number of candidates that are run, one after the other, between the opening and the first test."""
MAX_TESTS = 2
"""The largest number of tests."""
LOSS_ALONE, LOSS_ALONE_SD = 0.05, 0.1
"""The prior mean and standard deviation of the loss of score of a strategy that has no place on the surface, as shares
of full fine-tuning's score. The prior is so wide that a first run of the strategy outweighs it."""
SMALLEST_FUTILE = 2
"""The smallest number of pairs after which a candidate may be given up."""


@dataclass(frozen=True)
class Question:
    """The specification of a search: the candidates (freezing settings), the acceptable loss of score, the budget."""

    candidates: tuple[Candidate, ...]
    """The freezing settings to choose from. The first is full fine-tuning, the reference with which all other settings
    are compared. If the search chooses among several learning rates, `with_best_reference` puts the reference first."""
    layers: int
    """The model's number of layers."""
    tolerance: Amount
    """The greatest acceptable mean loss of score against full fine-tuning."""
    margin: Amount
    """The largest permitted difference between the upper confidence bound of the loss and the tolerance."""
    budget: float
    """The greatest total cost of all runs except the runs of the confirmation, in units of the cost of one full
    fine-tuning."""
    level: float = 0.1
    """The greatest acceptable probability of returning a setting that loses more than tolerance + margin."""
    min_pairs: int = 3
    """The smallest number of seeds, not counting the first seed, with which a freezing setting is tested."""
    max_pairs: int = 8
    """The largest number of seeds, not counting the first seed, with which a freezing setting is tested."""
    short_runs: bool = True
    """True if the search begins with low-fidelity runs, which have fewer epochs."""
    smallest_saving: float = 0.01
    """The smallest expected saving for which a test is worthwhile, as a share of full fine-tuning's cost."""
    confirm: int = 0
    """The number of seeds of the confirmation; 0 for no confirmation."""

    @property
    def full(self) -> Candidate:
        """Full fine-tuning, the first candidate and the reference."""
        return self.candidates[0]

    @cached_property
    def fulls(self) -> tuple[Candidate, ...]:
        """Full fine-tuning at each learning rate; only `full` if the search does not choose among several rates."""
        return tuple(c for c in self.candidates if c.has_cell and not c.bottom and not c.top)

    @cached_property
    def by_name(self) -> dict[str, Candidate]:
        """The candidates by their names."""
        return {candidate.name: candidate for candidate in self.candidates}

    @property
    def confirming(self) -> range:
        """The indices of the confirmation's seeds, which no test uses."""
        return range(1 + self.max_pairs, 1 + self.max_pairs + self.confirm)

    def limit(self, score: float) -> float:
        """Return tolerance + margin as an absolute difference of scores. `score` is the score of full fine-tuning."""
        return self.tolerance.of(score) + self.margin.of(score)


@dataclass(frozen=True)
class Step:
    """A run that the search asks for: a candidate (freezing setting), a seed and the kind of run."""

    candidate: Candidate
    replicate: int
    """The index of the run's seed: 0 for the first seed, which is used to choose candidates, 1 for the second, and so
    on."""
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
    """The loss of score against full fine-tuning, over the seeds of the test or, if the candidate was not tested, with
    the first seed; None if there is no such seed with which both had a full-length run."""
    tested: bool = False
    """True if the candidate was tested; its loss is then computed over the seeds of the test."""
    full_score: float | None = None
    """Full fine-tuning's dev score from which the test's limits were computed; None if the candidate was not tested."""


@dataclass(frozen=True)
class Decision:
    """A decision of a search: the next run, or the end of the search, with the state of all freezing settings."""

    step: Step | None
    """The next run; None if the search is over."""
    reason: str
    """The reason for the next run, or for the end of the search."""
    spent: float
    """The cost of the runs so far, without the confirmation, in units of the cost of one full fine-tuning."""
    best: Standing
    """The cheapest freezing setting that passed its test; full fine-tuning as long as no other setting has passed."""
    standings: tuple[Standing, ...]
    """The state and the loss of score of every freezing setting that was run, except the reference, in the order of
    `Question.candidates`."""
    most_promising: Candidate | None = None
    """The freezing setting with the largest expected saving among the settings whose runs would exceed the budget; None
    if the budget sufficed."""
    unlearnt: Learning | None = None
    """The comparison of full fine-tuning with a baseline without a model, if full fine-tuning has learnt nothing,
    so that the search has no answer; otherwise None."""
    confirming: float = 0.0
    """The cost of the confirmation so far, in units of the cost of one full fine-tuning."""
    ignored: int = 0
    """The number of low-fidelity runs that learnt nothing and are ignored."""

    @property
    def exhausted(self) -> bool:
        """True if the search ended because the budget did not cover the runs of a promising freezing setting."""
        return self.most_promising is not None


@dataclass(frozen=True)
class _Test:
    """The test of one candidate with further seeds."""

    standing: Standing
    pairs: int
    """The planned number of pairs."""
    done: int
    """The number of pairs that count as spent: the finished pairs, and the pair in which a run of the candidate failed,
    if there is one."""


@dataclass(frozen=True)
class _Progress:
    """The progress of the tests: the next run or the reason why there is none, and the tests so far."""

    step: Step | None
    reason: str
    """The reason for the next run, or for the end of the tests."""
    tries: tuple[_Test, ...] = ()
    most_promising: Candidate | None = None
    """See `Decision.most_promising`."""


@dataclass(frozen=True)
class _Records:
    """The finished and failed runs of a search, with methods that select the runs with certain seeds."""

    question: Question
    evaluations: tuple[Evaluation, ...]
    broken: tuple[Step, ...]
    """The failed runs."""

    @cached_property
    def choosing(self) -> tuple[Evaluation, ...]:
        """The runs with the first seed, on the examples for choosing, without low-fidelity runs that learnt nothing."""
        runs = (e for e in self.evaluations if e.replicate == 0 and (not e.short or has_learnt(e)))
        return tuple(restrict_examples(e, choosing=True) for e in runs)

    @cached_property
    def pending(self) -> tuple[Candidate, ...]:
        """Full fine-tuning at each learning rate at which it was not run yet with the first seed.

        It is empty if the search does not choose among several learning rates.
        """
        ran = {e.candidate for e in self.evaluations if e.replicate == 0 and not e.short} | self.failed(range(1))
        fulls = self.question.fulls
        return tuple(c for c in fulls if c.name not in ran) if len(fulls) > 1 else ()

    @property
    def ignored(self) -> int:
        """The number of low-fidelity runs that have learnt nothing."""
        return sum(e.short and not has_learnt(e) for e in self.evaluations)

    @property
    def full_score(self) -> float:
        """Full fine-tuning's score with the first seed."""
        return by_replicate(self.evaluations, self.question.full.name)[0].score

    def full_length(self, candidate: Candidate, replicates: range) -> dict[int, Evaluation]:
        """Return a candidate's full-length runs with the seeds `replicates`, keyed by the index of the seed."""
        own = by_replicate(self.evaluations, candidate.name)
        return {replicate: own[replicate] for replicate in replicates if replicate in own}

    def cost(self, replicates: range) -> float:
        """Return the cost of the finished and failed runs with the seeds `replicates`."""
        steps = [_step_of(self.question, e) for e in self.evaluations]
        return sum(step.cost for step in (*steps, *self.broken) if step.replicate in replicates)

    def failed(self, replicates: range) -> frozenset[str]:
        """Return the names of the candidates of which a run with one of the seeds `replicates` failed."""
        return frozenset(step.candidate.name for step in self.broken if step.replicate in replicates)


def with_best_reference(question: Question, evaluations: Sequence[Evaluation]) -> Question:
    """Return the specification with full fine-tuning at its best learning rate as the first candidate, the reference.

    The best rate has the largest score with the first seed, on the examples for choosing. No test uses this seed or
    these examples.

    Args:
        question: The specification of the search.
        evaluations: The dev scores of the finished runs.
    """
    if len(question.fulls) < 2:
        return question
    scores = {
        e.candidate: restrict_examples(e, choosing=True).score for e in evaluations if not (e.replicate or e.short)
    }
    scored = [c for c in question.fulls if c.name in scores]
    if not scored:
        return question
    best = max(scored, key=lambda c: scores[c.name])
    return replace(question, candidates=(best, *(c for c in question.candidates if c != best)))


def decide(question: Question, evaluations: Sequence[Evaluation], broken: Sequence[Step] = ()) -> Decision:
    """Return the next run, or the end of the search with its reason.

    Args:
        question: The specification of the search.
        evaluations: The dev scores of the finished runs.
        broken: The runs that failed. Their cost counts as spent, and their freezing settings are excluded.
    """
    question = with_best_reference(question, evaluations)
    records = _Records(question, tuple(evaluations), tuple(broken))
    full, deciding = question.full, range(question.max_pairs + 1)
    base = records.full_length(full, deciding)
    spent = records.cost(deciding)

    def decision(why: str, step: Step | None = None, progress: _Progress | None = None, **rest: Any) -> Decision:
        tries = progress.tries if progress is not None else ()
        passed = [test.standing for test in tries if test.standing.state == "supported"]
        best = min(passed, key=lambda standing: standing.candidate.cost, default=Standing(full, "supported"))
        return Decision(
            step,
            why,
            spent,
            best,
            _standings(records, tries),
            confirming=records.cost(question.confirming),
            ignored=records.ignored,
            **rest,
        )

    learnt = learning_of(base)
    if learnt is not None and not learnt.has_learnt and not records.pending:
        return decision(learnt.sentence(full.name, "dev"), unlearnt=learnt)
    if full.name in records.failed(range(1)) and not records.pending:
        return decision(f"{full.name} failed")
    opening = _opening(records)
    if opening:
        return decision(_why_opened_with(question, opening[0]), opening[0])
    if not base:
        return decision("the budget does not cover full fine-tuning", most_promising=full)
    explored = _next_explored(records)
    if explored is not None:
        return decision(f"{explored.name} has the largest expected saving", Step(explored, 0))
    progress = _tests(records)
    if progress.step is not None:
        return decision(progress.reason, progress.step, progress)
    ended = decision(progress.reason, None, progress, most_promising=progress.most_promising)
    confirming = next(_confirming_steps(records, ended.best.candidate), None)
    return ended if confirming is None else replace(ended, step=confirming, reason=_why_confirmed(ended.best.candidate))


def certain_decisions(
    question: Question, evaluations: Sequence[Evaluation], broken: Sequence[Step] = ()
) -> tuple[Decision, ...]:
    """Return the search's next decisions that are certain before any further run has ended.

    The result is empty at the end of the search. It has several decisions during the opening, during a test as long as
    the candidate cannot be given up yet, and during the confirmation. All of these runs will be needed unless one of
    them fails or full fine-tuning turns out to have learnt nothing.

    Args:
        question: The specification of the search.
        evaluations: The dev scores of the finished runs.
        broken: The runs that failed.
    """
    decision = decide(question, evaluations, broken)
    if decision.step is None:
        return ()
    question = with_best_reference(question, evaluations)
    records = _Records(question, tuple(evaluations), tuple(broken))
    step = decision.step
    if step.replicate == 0:
        opening = _opening(records)
        whys = ((later, _why_opened_with(question, later)) for later in opening[1:])
        return (decision, *(replace(decision, step=later, reason=why) for later, why in whys))
    if step.replicate in question.confirming:
        later_steps = [*_confirming_steps(records, decision.best.candidate)]
    else:
        later_steps = _certain_pairs(records, step)
    return (decision, *(replace(decision, step=later) for later in later_steps[1:]))


# The opening and exploring -----------------------------------------------------------------------------------------


def _opening(records: _Records) -> tuple[Step, ...]:
    """Return the remaining runs of the search's opening (the first runs) that the budget covers.

    A full-length run of a candidate is left out if the budget would not cover a test of the candidate after it. If
    there are several learning rates, full fine-tuning is run at all of them first; the other runs have the best rate.
    """
    question, left = records.question, records.question.budget - records.cost(range(1)) + 1e-9
    failed = records.failed(range(1))
    done = {(e.candidate, e.short) for e in records.evaluations if e.replicate == 0}
    steps: list[Step] = []
    for step in _opening_steps(question):
        if records.pending and (step.short or step.candidate not in question.fulls):
            continue
        if (step.candidate.name, step.short) in done or step.candidate.name in failed:
            continue
        reserved = 0.0 if step.short or step.candidate in question.fulls else _cost_of_pairs(question, step.candidate)
        cost = sum(chosen_step.cost for chosen_step in steps) + step.cost
        if cost + reserved <= left:
            steps.append(step)
        elif step.candidate in question.fulls and not step.short:
            return ()
    return tuple(steps)


@lru_cache(maxsize=8)
def _opening_steps(question: Question) -> tuple[Step, ...]:
    """Return all runs of the opening: full fine-tuning, the low-fidelity runs, and the full-length runs."""
    steps = [Step(candidate, 0) for candidate in question.fulls]
    if question.short_runs:
        compared = dict.fromkeys((question.full, *_nearest(question, SHORT_CELLS)))
        # If full fine-tuning alone has a place on the surface, its low-fidelity run gives no information.
        steps += [Step(c, 0, short=True) for c in compared if len(compared) > 1]
    steps += [Step(c, 0) for c in dict.fromkeys(_nearest(question, FULL_LENGTH_CELLS)) if c != question.full]
    return tuple(steps)


def _nearest(question: Question, cells: Sequence[tuple[float, float]]) -> list[Candidate]:
    """Return, for each pair of shares of frozen layers, the candidate on the surface that is nearest to it.

    Candidates whose learning rate differs from that of the reference are left out.
    """
    placed = [c for c in question.candidates if c.has_cell and c.rate == question.full.rate]

    def nearest(bottom: float, top: float) -> Candidate:
        place = (bottom * question.layers, top * question.layers)
        return min(placed, key=lambda c: abs(c.bottom - place[0]) + abs(c.top - place[1]))

    return [nearest(*cell) for cell in cells]


def _why_opened_with(question: Question, step: Step) -> str:
    if step.short:
        return "a low-fidelity run with fewer epochs"
    if step.candidate not in question.fulls:
        return "a full-length run for comparison"
    return "the reference" if len(question.fulls) == 1 else "the reference has the best learning rate"


def _why_confirmed(candidate: Candidate) -> str:
    return f"confirmation of {candidate.name} with a seed that took no part in choosing it"


def _cost_of_pairs(question: Question, candidate: Candidate) -> float:
    """Return the cost of the smallest number of pairs with which a candidate is tested (`min_pairs`)."""
    return question.min_pairs * (question.full.cost + candidate.cost)


def _next_explored(records: _Records) -> Candidate | None:
    """Return the candidate to run next with the first seed; None if exploring is over and the tests begin."""
    question = records.question
    if not _may_explore(records):
        return None
    seen = {e.candidate for e in records.choosing if not e.short}
    savings = _expected_savings(records, question.full)
    if not savings:
        return None
    favourite = max(savings, key=lambda candidate: savings[candidate])
    left = question.budget - records.cost(range(1)) + 1e-9
    if favourite.name in seen or favourite.cost + _cost_of_pairs(question, favourite) > left:
        return None
    return favourite


def _may_explore(records: _Records) -> bool:
    """Return whether fewer than `MAX_EXPLORED` candidates were run with the first seed after the opening."""
    opened = {step.candidate.name for step in _opening_steps(records.question)}
    seen = {e.candidate for e in records.choosing if not e.short}
    return len((seen | records.failed(range(1))) - opened) < MAX_EXPLORED


def _expected_savings(records: _Records, against: Candidate) -> dict[Candidate, float]:
    """Return the expected savings of the candidates whose test is worthwhile.

    Args:
        records: The runs so far.
        against: The candidate whose cost would be saved; only cheaper candidates are considered.
    """
    question, broken = records.question, records.failed(range(1))
    unlearnt = {e.candidate for e in records.evaluations if e.replicate == 0 and not e.short and not has_learnt(e)}
    chances = _chances(question, records.choosing)
    savings = {
        candidate: (against.cost - candidate.cost) * float(chance)
        for candidate, chance in zip(question.candidates, chances, strict=True)
        if candidate.cost < against.cost and candidate.name not in broken | unlearnt
    }
    return {candidate: saving for candidate, saving in savings.items() if saving >= question.smallest_saving}


@lru_cache(maxsize=32)
def _chances(question: Question, choosing: tuple[Evaluation, ...]) -> np.ndarray[Any, Any]:
    """Return the probability that each candidate passes a test, [candidates].

    Args:
        question: The specification of the search.
        choosing: The runs with the first seed, on the examples for choosing.
    """
    import numpy as np
    from scipy.special import ndtr, stdtrit

    score = by_replicate(choosing, question.full.name)[0].score
    scale = max(abs(score), MIN_SCORE_SCALE)
    limit = question.limit(score)
    placed = [c for c in question.candidates if c.has_cell]
    of_placed = [e for e in choosing if question.by_name[e.candidate].has_cell]
    surface = fit(placed, question.layers, of_placed, scale=scale, noise_variance=(PRIOR_SD * scale) ** 2)
    error = math.sqrt(2 / question.min_pairs) * PRIOR_SD * scale
    passed_below = min(
        question.tolerance.of(score), limit - float(stdtrit(question.min_pairs, 1 - question.level)) * error
    )
    chances = dict(zip(placed, surface.likely_within(placed, passed_below, error), strict=True))
    mean, variance = LOSS_ALONE * scale, (LOSS_ALONE_SD * scale) ** 2
    for candidate in question.candidates:
        if not candidate.has_cell:
            own = by_replicate(choosing, candidate.name)
            of_run = 2 * (PRIOR_SD * scale) ** 2  # the variance of the difference between two runs
            weight = variance / (variance + of_run) if own else 0.0
            expected = mean + weight * (score - own[0].score - mean) if own else mean
            spread = math.sqrt((1 - weight) * variance + error**2)
            chances[candidate] = ndtr((passed_below - expected) / spread)
    return np.array([chances[candidate] for candidate in question.candidates])


# The tests ---------------------------------------------------------------------------------------------------------


def _tests(records: _Records) -> _Progress:
    """Return the progress of the tests: the next run or the reason why there is none, and the tests so far."""
    question, full = records.question, records.question.full
    testing = range(1, 1 + question.max_pairs)
    left, pairs_of_full = question.budget - records.cost(range(1)) + 1e-9, 0
    tries: list[_Test] = []
    while len(tries) < MAX_TESTS:
        against = tries[-1].standing.candidate if tries else full
        savings = _expected_savings(records, against)
        seen = {e.candidate for e in records.choosing if not e.short}
        hopes = {c: saving for c, saving in savings.items() if c.name in seen or tries}
        if not hopes and savings and _may_explore(records):  # only the budget prevents exploring them
            hopes = savings
        if not hopes:
            return _Progress(None, f"nothing cheaper than {against.name} is likely to keep the score", tuple(tries))
        pairs = {c: _affordable_pairs(question, c, left, pairs_of_full) for c in hopes}
        affordable = {c: saving for c, saving in hopes.items() if pairs[c] and (c.name in seen or tries)}
        if not affordable:
            hoped_for = max(hopes, key=lambda c: hopes[c])
            why = f"the budget does not cover a test of {hoped_for.name}"
            return _Progress(None, why, tuple(tries), hoped_for)
        candidate = max(affordable, key=lambda c: affordable[c])
        test = _test_of(records, candidate, pairs[candidate])
        step = _next_step_of(records, test)
        if step is not None:
            why = f"test of {candidate.name} with {test.pairs} fresh seeds"
            return _Progress(step, why, (*tries, test))
        tries.append(test)
        if full.name in records.failed(testing):
            return _Progress(None, f"{full.name} failed with a further seed", tuple(tries))
        if test.standing.state != "supported":
            why = "failed in" if test.standing.state == "failed" else "did not pass"
            return _Progress(None, f"{candidate.name} {why} its test", tuple(tries))
        left -= test.done * candidate.cost + max(0, test.done - pairs_of_full) * full.cost
        pairs_of_full = max(pairs_of_full, test.done)
    return _Progress(None, f"{MAX_TESTS} tests are done", tuple(tries))


def _affordable_pairs(question: Question, candidate: Candidate, remaining_budget: float, pairs_of_full: int) -> int:
    """Return the number of pairs that the remaining budget covers; 0 if it covers fewer than `min_pairs`.

    Args:
        question: The specification of the search.
        candidate: The candidate to test.
        remaining_budget: The remaining budget, in units of the cost of one full fine-tuning.
        pairs_of_full: The number of pairs whose run of full fine-tuning an earlier test has already paid for.
    """
    for pairs in range(question.max_pairs, question.min_pairs - 1, -1):
        if pairs * candidate.cost + max(0, pairs - pairs_of_full) * question.full.cost <= remaining_budget:
            return pairs
    return 0


def _test_of(records: _Records, candidate: Candidate, pairs: int) -> _Test:
    """Return the test of a candidate with the planned number of `pairs`, from the runs so far."""
    question, planned = records.question, range(1, 1 + pairs)
    base, own = records.full_length(question.full, planned), records.full_length(candidate, planned)
    on_test_part = ({r: restrict_examples(e, choosing=False) for r, e in runs.items()} for runs in (base, own))
    # If the first seed chose the reference among several learning rates, its score is too high on average.
    score = mean_score(base) if base and len(question.fulls) > 1 else records.full_score
    loss, limit = paired_loss(*on_test_part), question.limit(score)
    done = len(base.keys() & own.keys())
    state: State = "open"
    learnt = learning_of(own)
    if candidate.name in records.failed(planned):
        state, done = "failed", done + 1
    elif question.full.name in records.failed(planned):
        state = "undecided"
    elif done == pairs and loss is not None:
        kept = loss.mean <= question.tolerance.of(score) and loss.upper(question.level) <= limit
        state = "supported" if kept else "undecided"
        if learnt is not None and not learnt.has_learnt:
            state = "nothing learnt"
    elif done >= SMALLEST_FUTILE and loss is not None and loss.mean > limit:  # in a second test, base has more runs
        state = "given up"
    return _Test(Standing(candidate, state, loss, tested=True, full_score=score), pairs, done)


def _next_step_of(records: _Records, test: _Test) -> Step | None:
    """Return the next run of a test, or None if the test is over."""
    return next(_remaining_steps_of(records, test), None) if test.standing.state == "open" else None


def _remaining_steps_of(records: _Records, test: _Test) -> Iterator[Step]:
    """Yield the remaining runs of a test: for each seed, first full fine-tuning, then the candidate."""
    full, candidate, planned = records.question.full, test.standing.candidate, range(1, 1 + test.pairs)
    for replicate in planned:
        for each in (full, candidate):
            if replicate not in records.full_length(each, planned):
                yield Step(each, replicate)


def _certain_pairs(records: _Records, step: Step) -> list[Step]:
    """Return the remaining runs of the current test up to the next pair after which the candidate may be given up.

    Args:
        records: The runs so far.
        step: The next run of the test.
    """
    test = _tests(records).tries[-1]
    sure = max(SMALLEST_FUTILE, step.replicate)
    return [later for later in _remaining_steps_of(records, test) if later.replicate <= sure]


def _confirming_steps(records: _Records, answer: Candidate) -> Iterator[Step]:
    """Yield the remaining runs of the confirmation. A pair is left out if one of its runs failed."""
    question = records.question
    if answer == question.full:
        return
    for replicate in question.confirming:
        if any(step.replicate == replicate for step in records.broken):
            continue
        for each in (question.full, answer):
            if replicate not in records.full_length(each, question.confirming):
                yield Step(each, replicate)


def _standings(records: _Records, tries: Sequence[_Test]) -> tuple[Standing, ...]:
    """Return the states of the candidates that were run, except the reference, in the order of `Question.candidates`.

    Args:
        records: The runs so far.
        tries: The tests so far.
    """
    question = records.question
    tested = {test.standing.candidate: test.standing for test in tries}
    ran = {e.candidate for e in records.evaluations} | records.failed(range(1))
    base = records.full_length(question.full, range(1))

    def standing(candidate: Candidate) -> Standing:
        if candidate in tested:
            return tested[candidate]
        own = records.full_length(candidate, range(1))
        loss = paired_loss(base, own)
        if candidate.name in records.failed(range(1)):
            return Standing(candidate, "failed", loss)
        learnt = all(has_learnt(e) for e in own.values())
        return Standing(candidate, "open" if learnt else "nothing learnt", loss)

    return tuple(standing(c) for c in question.candidates[1:] if c.name in ran)


def mean_of_full(question: Question, evaluations: Sequence[Evaluation]) -> float | None:
    """Return full fine-tuning's mean dev score, without the runs of the confirmation; None before its first run."""
    base = by_replicate(evaluations, with_best_reference(question, evaluations).full.name)
    deciding = {replicate: e for replicate, e in base.items() if replicate not in question.confirming}
    return mean_score(deciding) if deciding else None


def _step_of(question: Question, evaluation: Evaluation) -> Step:
    return Step(question.by_name[evaluation.candidate], evaluation.replicate, evaluation.short)
