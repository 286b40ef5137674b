"""The state of a search: its finished runs, the next runs, and its conclusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from alue_bench.evaluation.learning import REMEDY
from alue_bench.evaluation.significance import Crossed
from alue_bench.planning.build import PlannedRun
from alue_bench.searching.candidates import Candidate
from alue_bench.searching.observations import Evaluation, OnTest
from alue_bench.searching.policy import Decision, Question, Standing, Step, ahead, decide, mean_of_full, referenced
from alue_bench.searching.runs import SearchGrid

CLEARER = "more --epochs, another --lr or more rows"
"""The advice to users if low-fidelity runs, or whole runs of single settings, did not learn anything."""


@dataclass(frozen=True)
class Confirmation:
    """The loss of the search's answer on the test split, with seeds that took no part in the search."""

    seeds: int
    """The number of seeds with which both the answer and full fine-tuning were run."""
    score: float
    """The mean score of the answer."""
    score_of_full: float
    """The mean score of full fine-tuning."""
    margin: float
    """The tolerance plus the margin, as a difference of test scores."""
    verdict: str
    """The verdict by that margin, as in `alue-bench compare`."""
    test: Crossed | None
    """The test of the difference between the two scores; None if there is only one seed."""

    @property
    def loss(self) -> float:
        """The score of full fine-tuning minus the score of the answer."""
        return self.score_of_full - self.score

    def sentence(self, metric: str) -> str:
        """Return a sentence that states the loss to expect."""
        seeds = f"{self.seeds} fresh seed{'s' if self.seeds > 1 else ''}"
        interval = ""
        if self.test is not None:
            low, high = (self.loss + sign * self.test.half_width for sign in (-1, 1))
            interval = f" (95 % interval {low:.4f} to {high:.4f})"
        return (
            f"Confirmed on test with {seeds}: {metric} {self.score:.4f} against {self.score_of_full:.4f}, so expect a "
            f"loss of {self.loss:.4f}{interval}; {self.verdict} (margin: tolerance + margin, {self.margin:.4f})."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the values as a dict for JSON."""
        test = self.test
        return {
            "loss": self.loss,
            "standard_error": test.error if test else None,
            "low": self.loss - test.half_width if test else None,
            "high": self.loss + test.half_width if test else None,
            "seeds": self.seeds,
            "margin": self.margin,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Done:
    """A finished run that the search asked for."""

    step: Step
    run_id: str
    reused: bool
    """True if the run had already finished before this search began."""
    why: str
    """The reason why the search asked for the run."""
    dev: Evaluation
    """The score on the dev split, with its uncertainty."""
    on_test: Callable[[], OnTest]
    """A function that computes the score on the test split. It is called for the runs of the confirmation only."""
    fingerprint: str
    """The identifier of the planned run."""
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
    posed: Question
    """The specification of the search, before the reference is chosen among several learning rates."""
    done: list[Done] = field(default_factory=list)
    failed: dict[Step, str] = field(default_factory=dict)
    """The cause of failure for each failed run."""
    confirmation: Confirmation | None = None
    """The confirmation of the answer; None if there is none, or not yet."""

    @property
    def question(self) -> Question:
        """The specification of the search, with the reference that the runs so far suggest as the first candidate."""
        return referenced(self.posed, [done.dev for done in self.done])

    def decision(self) -> Decision:
        """Return the next run, or the end of the search, with the reason and the state of all freezing settings."""
        return decide(self.question, [done.dev for done in self.done], tuple(self.failed))

    def asked(self, *, all_certain: bool) -> list[Asked]:
        """Return the runs to execute next; empty at the end of the search.

        Args:
            all_certain: Whether to return also the later runs that do not depend on the outcome of the next run.
        """
        decisions = ahead(self.question, [done.dev for done in self.done], tuple(self.failed))
        return [
            Asked(self, decision, decision.step, self.grid.run_of(decision.step))
            for decision in (decisions if all_certain else decisions[:1])
            if decision.step is not None
        ]

    @property
    def broken(self) -> str | None:
        """The cause of failure if full fine-tuning failed before it had any score; otherwise None.

        If full fine-tuning fails with a later seed only, the search ends, and its results until then remain valid.
        """
        if self.full_score is not None:
            return None
        return next((why for step, why in self.failed.items() if step.candidate == self.question.full), None)

    @property
    def full_score(self) -> float | None:
        """Full fine-tuning's mean dev score over seeds without the confirmation's; None before its first run."""
        return mean_of_full(self.question, [done.dev for done in self.done])

    def confirming(self, candidate: Candidate) -> dict[int, Done]:
        """Return the finished runs of a freezing setting in the confirmation, keyed by the index of the seed."""
        seeds = self.question.confirming
        return {d.step.replicate: d for d in self.done if d.step.candidate == candidate and d.step.replicate in seeds}

    def selecting(self, candidate: Candidate) -> list[Done]:
        """Return the whole runs of a freezing setting with the seeds that chose and tested it."""
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
        """The largest cost of the confirmation, in units of the cost of one full fine-tuning."""
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
        said = []
        if decision.best.loss is None:
            said.append(
                f"Answer: {full.name}. "
                + (
                    f"The budget ended before a cheaper setting was supported: {decision.why}. The most "
                    f"promising one was {decision.hoped_for.name}."
                    if decision.hoped_for
                    else f"No cheaper setting was supported: {decision.why}."
                )
            )
        else:
            said.append(self._answer(decision.best))
            if decision.hoped_for:
                said.append(
                    f"The budget ended before the search did: {decision.why}, which is cheaper and may do as well."
                )
            said.append(self._confirmed(best))
        if len(self.question.fulls) > 1:
            said.append(
                f"Reference: {full.name}, the best of {len(self.question.fulls)} learning rates of full fine-tuning on "
                "dev with the first seed."
            )
        return [*said, *self._not_learnt(decision)]

    def _answer(self, best: Standing) -> str:
        assert best.loss is not None
        assert self.full_score is not None
        question, loss, score = self.question, best.loss, self.full_score
        part = f"{loss.mean / score:.1%}; " if score else ""
        return (
            f"Answer: {best.candidate.name}, at {best.candidate.cost:.0%} of full fine-tuning's FLOPs. On dev, over "
            f"{loss.pairs} seeds that did not choose it, it loses {loss.mean:.4f} of {score:.4f} ({part}tolerance "
            f"{question.tolerance}), and with {1 - question.level:.0%} confidence no more than "
            f"{loss.upper(question.level):.4f} (tolerance and margin: {question.limit(score):.4f})."
        )

    def _confirmed(self, best: Candidate) -> str:
        if self.confirmation is None:
            unknown = "Not confirmed, so its loss on test is not known without bias"
            if not self.question.confirm:
                return f"{unknown}; add --confirm 3."
            failed = any(step.replicate in self.question.confirming for step in self.failed)
            return f"{unknown}{': runs with fresh seeds failed' if failed else ''}; run the same command again."
        seconds, of_full = self.seconds(best), self.seconds(self.question.full)
        time = f" Training took {seconds:.1f} s against {of_full:.1f} s." if seconds and of_full else ""
        return self.confirmation.sentence(self.metric) + time

    def _not_learnt(self, decision: Decision) -> list[str]:
        """Return sentences about the runs that have learnt nothing, with advice."""
        said = []
        if decision.ignored:
            runs = "1 low-fidelity run" if decision.ignored == 1 else f"{decision.ignored} low-fidelity runs"
            said.append(f"{runs} learnt nothing and took no part in the choice; {CLEARER} may make them useful.")
        names = [s.candidate.name for s in decision.standings if s.state == "nothing learnt"]
        if names:
            said.append(f"{', '.join(names)}: nothing learnt, and so no answer; {CLEARER} may change that.")
        return said

    def as_dict(self, decision: Decision) -> dict[str, Any]:
        """Return the state and the result of the search as a dict for JSON.

        It is part of the output of `--json`, and is stored in MLflow with the parent run, which holds the results of
        the command.

        Losses and scores are in units of the metric. The value of "answer" is None before the first run, and if full
        fine-tuning has learnt nothing.
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
            "why": decision.why,
            "said": self.conclusion(decision) if begun else [],
            "cost_of_full": best.candidate.cost if begun and decision.unlearnt is None else None,
            "dev": _loss(best, question.level),
            "low_fidelity_runs_ignored": decision.ignored,
            "dev_score_of_full": self.full_score,
            "test": confirmation.as_dict() if confirmation else None,
            "test_score": confirmation.score if confirmation else None,
            "test_score_of_full": confirmation.score_of_full if confirmation else None,
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
                    "why": done.why,
                }
                for done in self.done
            ],
            "failed": [{"setting": step.candidate.name, "why": why} for step, why in self.failed.items()],
        }


@dataclass(frozen=True)
class Asked:
    """A run that a search asks for: the step of the search, and the planned run that carries it out."""

    search: SearchState
    decision: Decision
    """The decision of the search that asks for the run, with the reason."""
    step: Step
    planned: PlannedRun


def _loss(standing: Standing, level: float) -> dict[str, float | None] | None:
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
