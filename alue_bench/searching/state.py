"""The state of a search: its finished runs, the next runs, and its conclusion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.learning import REMEDY
from alue_bench.planning.build import PlannedRun
from alue_bench.searching.candidates import Candidate
from alue_bench.searching.observations import Evaluation, or_zero
from alue_bench.searching.policy import (
    Decision,
    Question,
    Standing,
    Step,
    certain_decisions,
    decide,
    mean_of_full,
    with_best_reference,
)
from alue_bench.searching.runs import SearchGrid

if TYPE_CHECKING:
    from alue_bench.reporting.confirmation import Confirmation

ADVICE_FOR_CLEARER_RESULTS = "more --epochs, another --lr or more rows"
"""The advice to users if low-fidelity runs, or full-length runs of single settings, did not learn anything."""


@dataclass(frozen=True)
class FinishedSearchRun:
    """A finished run that the search asked for."""

    step: Step
    run_id: str
    reused: bool
    """True if the run had already finished before this search began."""
    reason: str
    """The reason why the search asked for the run."""
    dev: Evaluation
    """The score on the dev split, with its uncertainty."""
    test_score: float
    """The score on the test split; nan if it is undefined. Only the confirmation uses test scores."""
    fingerprint: str
    """The fingerprint of the run's specification."""
    flops: float
    """The recorded training FLOPs."""
    train_s: float
    """The training time in seconds."""


@dataclass
class SearchState:
    """The search for one task and model, with its progress so far."""

    task: str
    model: str
    metric: str
    grid: SearchGrid
    given_question: Question
    """The specification of the search as the user gave it, before the reference is chosen among several learning
    rates."""
    done: list[FinishedSearchRun] = field(default_factory=list)
    failed: dict[Step, str] = field(default_factory=dict)
    """The cause of failure for each failed run."""
    confirmation: Confirmation | None = None
    """The loss of the answer on the test split, from runs with seeds that took no part in the search; None if the user
    requested no confirmation, if its runs are not finished, or if the answer is full fine-tuning."""

    @property
    def question(self) -> Question:
        """The specification of the search, with the reference that `with_best_reference` chooses from the runs."""
        return with_best_reference(self.given_question, [done.dev for done in self.done])

    def decision(self) -> Decision:
        """Return the next run, or the end of the search, with the reason and the state of all freezing settings."""
        return decide(self.question, [done.dev for done in self.done], tuple(self.failed))

    def next_runs(self, *, all_certain: bool) -> list[RequestedRun]:
        """Return the runs to execute next; empty at the end of the search.

        Args:
            all_certain: Whether to return also the later runs that do not depend on the outcome of the next run.
        """
        decisions = certain_decisions(self.question, [done.dev for done in self.done], tuple(self.failed))
        return [
            RequestedRun(self, decision, decision.step, self.grid.run_of(decision.step))
            for decision in (decisions if all_certain else decisions[:1])
            if decision.step is not None
        ]

    @property
    def broken(self) -> str | None:
        """The cause of failure if full fine-tuning failed before it had any score; otherwise None.

        If full fine-tuning fails only with a later seed, the search ends, but its results so far remain valid.
        """
        if self.full_score is not None:
            return None
        return next((why for step, why in self.failed.items() if step.candidate == self.question.full), None)

    @property
    def full_score(self) -> float | None:
        """The mean dev score of full fine-tuning, without the seeds of the confirmation; None before its first run."""
        return mean_of_full(self.question, [done.dev for done in self.done])

    def confirming(self, candidate: Candidate) -> list[FinishedSearchRun]:
        """Return the finished runs of a freezing setting in the confirmation."""
        seeds = self.question.confirming
        return [d for d in self.done if d.step.candidate == candidate and d.step.replicate in seeds]

    @property
    def confirming_seeds(self) -> tuple[int, ...]:
        """The seeds of the runs of the confirmation."""
        first = self.grid.runs[self.question.full.name].spec.seed
        return tuple(first + replicate for replicate in self.question.confirming)

    @property
    def confirmed_margin(self) -> float:
        """The margin of non-inferiority in the confirmation, as a difference of test scores.

        It is the sum of the search's tolerance and margin. If one of them is a share, it is a share of full
        fine-tuning's mean test score.
        """
        scores = [or_zero(done.test_score) for done in self.confirming(self.question.full)]
        return self.question.limit(sum(scores) / len(scores) if scores else 0.0)

    def selecting(self, candidate: Candidate) -> list[FinishedSearchRun]:
        """Return a freezing setting's full-length runs with the seeds that were used to choose and to test it.

        The runs of the confirmation are left out.
        """
        return [
            d
            for d in self.done
            if d.step.candidate == candidate and not d.step.short and d.step.replicate not in self.question.confirming
        ]

    def seconds(self, candidate: Candidate) -> float | None:
        """Return a freezing setting's mean training time in seconds.

        The mean is over runs with the full number of epochs; None if there are no such runs.
        """
        times = [d.train_s for d in self.done if d.step.candidate == candidate and not d.step.short]
        return sum(times) / len(times) if times else None

    @property
    def confirmation_cost(self) -> float:
        """The largest possible cost of the confirmation, in units of the cost of one full fine-tuning."""
        full, others = self.question.full, self.question.candidates[1:]
        return self.question.confirm * (full.cost + max(candidate.cost for candidate in others))

    def share(self, spent: float) -> float:
        """Return a cost as a share of the cost of running every freezing setting of the search once.

        Args:
            spent: The cost, in units of the cost of one full fine-tuning.
        """
        return spent / self.grid.cost

    def conclusion(self, decision: Decision) -> list[str]:
        """Return sentences that state the result of the search.

        Args:
            decision: The last decision of the search.
        """
        best, full = decision.best.candidate, self.question.full
        if self.broken is not None:
            return [f"No answer: {full.name} failed ({self.broken}), so there is no reference for other settings."]
        if decision.unlearnt is not None:
            return [
                f"No answer: {decision.unlearnt.sentence(full.name, 'dev')}, so a cheaper setting has no score to "
                f"keep; {REMEDY}."
            ]
        sentences = []
        if decision.best.loss is None:
            sentences.append(
                f"Answer: {full.name}. "
                + (
                    f"The budget ended before a cheaper setting was supported: {decision.reason}. The most "
                    f"promising one was {decision.most_promising.name}."
                    if decision.most_promising
                    else f"No cheaper setting was supported: {decision.reason}."
                )
            )
        else:
            sentences.append(self._answer(decision.best))
            if decision.most_promising:
                sentences.append(
                    f"The budget ended before the search did: {decision.reason}, which is cheaper and may do as well."
                )
            sentences.append(self._confirmed(best))
        if len(self.question.fulls) > 1:
            sentences.append(
                f"Reference: {full.name}, the best of {len(self.question.fulls)} learning rates of full fine-tuning on "
                "dev with the first seed."
            )
        return [*sentences, *self._not_learnt(decision)]

    def _answer(self, best: Standing) -> str:
        assert best.loss is not None
        assert best.full_score is not None
        question, loss, score = self.question, best.loss, best.full_score
        which = "first" if len(question.fulls) == 1 else "mean"  # over the test's seeds
        part = f"{loss.mean / score:.1%} of " if score else ""
        return (
            f"Answer: {best.candidate.name}, at {best.candidate.cost:.0%} of full fine-tuning's FLOPs. It passed the "
            f"test on dev: over {loss.pairs} seeds and the three quarters of the examples that did not choose it, its "
            f"mean loss is {loss.mean:.4f} ({part}full's {which} score {score:.4f}; tolerance {question.tolerance}), "
            f"and the test's upper bound of the loss at the level {question.level:g}, "
            f"{loss.upper(question.level):.4f}, is at most tolerance + margin, {question.limit(score):.4f}."
        )

    def _confirmed(self, best: Candidate) -> str:
        if self.confirmation is None:
            unknown = "Not confirmed, so its loss on test is not known without bias"
            if not self.question.confirm:
                return f"{unknown}; add --confirm 3."
            return f"{unknown}; run the same command again."
        seconds, of_full = self.seconds(best), self.seconds(self.question.full)
        time = f" Training took {seconds:.1f} s against {of_full:.1f} s." if seconds and of_full else ""
        return f"{self.confirmation.sentence()}.{time}"

    def _not_learnt(self, decision: Decision) -> list[str]:
        """Return sentences about the runs that have learnt nothing, with advice to the user."""
        sentences = []
        if decision.ignored:
            runs = "1 low-fidelity run" if decision.ignored == 1 else f"{decision.ignored} low-fidelity runs"
            sentences.append(
                f"{runs} learnt nothing and took no part in the choice; {ADVICE_FOR_CLEARER_RESULTS} may make them "
                "useful."
            )
        names = [s.candidate.name for s in decision.standings if s.state == "nothing learnt"]
        if names:
            sentences.append(
                f"{', '.join(names)}: nothing learnt, and so no answer; {ADVICE_FOR_CLEARER_RESULTS} may change that."
            )
        return sentences

    def as_dict(self, decision: Decision) -> dict[str, Any]:
        """Return the state and the result of the search as a dict for JSON.

        The dict is part of the output of `--json`, and is stored in the MLflow parent run of the command.

        Losses and scores are in units of the metric. The value of "answer" is None before the first run has ended, and
        if full fine-tuning has learnt nothing.
        """
        question, best, begun = self.question, decision.best, bool(self.done or self.failed)
        full_flops, confirmation = self.grid.full_flops, self.confirmation
        return {
            "task": self.task,
            "model": self.model,
            "metric": self.metric,
            "tolerance": str(question.tolerance),
            "margin": str(question.margin),
            "level": question.level,
            "answer": best.candidate.name if begun and decision.unlearnt is None else None,
            "supported": best.loss is not None if begun else None,
            "nothing_learnt": decision.unlearnt.as_dict() if decision.unlearnt else None,
            "reference": question.full.name,
            "budget_ended": decision.exhausted,
            "why": decision.reason,
            "said": self.conclusion(decision) if begun else [],
            "cost_of_full": best.candidate.cost if begun and decision.unlearnt is None else None,
            "dev": _loss(best, question.level),
            "low_fidelity_runs_ignored": decision.ignored,
            "dev_score_of_full": self.full_score,
            "test": confirmation.as_dict() if confirmation else None,
            "test_score": confirmation.test_score if confirmation else None,
            "test_score_of_full": confirmation.reference_score if confirmation else None,
            "train_s": self.seconds(best.candidate),
            "train_s_of_full": self.seconds(question.full),
            "compute": {
                "grid_flops": self.grid.cost * full_flops,
                "budget_flops": question.budget * full_flops,
                "spent_flops": decision.spent * full_flops,
                "spent_share": self.share(decision.spent),
                "confirmation_flops": decision.confirming * full_flops,
                "confirmation_flops_at_most": self.confirmation_cost * full_flops,
                "recorded_flops": sum(done.flops for done in self.done),
                "train_s": sum(done.train_s for done in self.done),
                "reused_train_s": sum(done.train_s for done in self.done if done.reused),
                "runs": len(self.done),
                "reused_runs": sum(done.reused for done in self.done),
            },
            "candidates": [
                {
                    "setting": s.candidate.name,
                    "cost_of_full": s.candidate.cost,
                    "state": s.state,
                    "dev": _loss(s, question.level),
                }
                for s in decision.standings
            ],
            "steps": [
                {
                    "setting": done.step.candidate.name,
                    "replicate": done.step.replicate,
                    "short": done.step.short,
                    "dev_score": done.dev.score,
                    "run_id": done.run_id,
                    "reused": done.reused,
                    "why": done.reason,
                }
                for done in self.done
            ],
            "failed": [{"setting": step.candidate.name, "why": why} for step, why in self.failed.items()],
        }


@dataclass(frozen=True)
class RequestedRun:
    """A run that a search asks for: the step of the search, and the planned run that carries it out."""

    search: SearchState
    decision: Decision
    """The decision of the search that asks for the run, with the reason."""
    step: Step
    planned: PlannedRun


def _loss(standing: Standing, level: float) -> dict[str, float | None] | None:
    """Return a candidate's loss of score as a dict for JSON; None if the loss is not known.

    The confidence bounds "low" and "high" are None unless the candidate was tested with at least two pairs.
    """
    loss = standing.loss
    if loss is None:
        return None
    bounded = standing.tested and loss.pairs > 1
    return {
        "loss": loss.mean,
        "standard_error": loss.standard_error if loss.pairs > 1 else None,
        "low": loss.lower(level) if bounded else None,
        "high": loss.upper(level) if bounded else None,
        "seeds": loss.pairs,
    }
