"""The state of a search: its finished runs, the next runs, and its conclusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from alue_bench.evaluation.learning import REMEDY
from alue_bench.planning.build import PlannedRun
from alue_bench.searching.candidates import Candidate
from alue_bench.searching.observations import Evaluation, Loss, by_replicate, mean_score, paired_loss, seed_noise
from alue_bench.searching.policy import Decision, Question, Standing, Step, ahead, decide
from alue_bench.searching.runs import SearchGrid

TEST_LEVEL = 0.025
"""The probability of error at each end of a 95 % confidence interval, which is used for losses on the test split."""


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
    on_test: Callable[[], Evaluation]
    """A function that computes the score on the test split, with its uncertainty. It is called for the few runs that
    are reported."""
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
    question: Question
    done: list[Done] = field(default_factory=list)
    failed: dict[Step, str] = field(default_factory=dict)
    """The cause of failure for each failed run."""

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
        """Full fine-tuning's mean dev score over seeds; None before its first run."""
        base = by_replicate([done.dev for done in self.done], self.question.full.name)
        return mean_score(base) if base else None

    def on_test(self, candidate: Candidate) -> Loss | None:
        """Return a freezing setting's loss of score against full fine-tuning on the test split.

        This loss is only reported. It is not used to choose a setting.

        Returns:
            The loss; None if no seed was run with both the setting and full fine-tuning.
        """
        full = self.question.full
        evaluations = [*self._test_evaluations(full), *self._test_evaluations(candidate)]
        base, own = (by_replicate(evaluations, c.name) for c in (full, candidate))
        return paired_loss(base, own, seed_noise(evaluations, full.name))

    def test_score(self, candidate: Candidate) -> float | None:
        """Return a freezing setting's mean test score over runs with all epochs; None if there are no such runs."""
        own = self._test_evaluations(candidate)
        return sum(e.score for e in own) / len(own) if own else None

    def _test_evaluations(self, candidate: Candidate) -> list[Evaluation]:
        """Return the test scores of a freezing setting's runs, without low-fidelity runs, which have fewer epochs."""
        return [d.on_test() for d in self.done if d.step.candidate == candidate and not d.step.short]

    def seconds(self, candidate: Candidate) -> float | None:
        """Return a freezing setting's mean training time in seconds.

        The mean is over runs with the full number of epochs; None if there are no such runs.
        """
        times = [d.train_s for d in self.done if d.step.candidate == candidate and not d.step.short]
        return sum(times) / len(times) if times else None

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
            elif any(step.candidate == full for step in self.failed):
                said.append(f"The search ended early, and a cheaper setting may do as well: {decision.why}.")
        if (on_test := self._told_by_test(best)) is not None:
            said.append(on_test)
        return said

    def _answer(self, best: Standing) -> str:
        assert best.loss is not None
        assert self.full_score is not None
        question, loss, score = self.question, best.loss, self.full_score
        limit = question.tolerance.of(score) + question.margin.of(score)
        part = f"{loss.mean / score:.1%}; " if score else ""
        return (
            f"Answer: {best.candidate.name}, at {best.candidate.cost:.0%} of full fine-tuning's FLOPs. On dev, over "
            f"{loss.pairs} seeds, it loses {loss.mean:.4f} of {score:.4f} ({part}tolerance {question.tolerance}), and "
            f"with {1 - question.level:.0%} confidence no more than {loss.upper(question.level):.4f} (tolerance and "
            f"margin: {limit:.4f})."
        )

    def _told_by_test(self, best: Candidate) -> str | None:
        loss, own, base = self.on_test(best), self.test_score(best), self.test_score(self.question.full)
        if loss is None or own is None or base is None or best == self.question.full:
            return None
        seconds, of_full = self.seconds(best), self.seconds(self.question.full)
        time = f" Training took {seconds:.1f} s against {of_full:.1f} s." if seconds and of_full else ""
        return (
            f"On test, which took no part in the choice: {self.metric} {own:.4f} against {base:.4f}, a loss of "
            f"{loss.mean:.4f} (95 % interval {loss.lower(TEST_LEVEL):.4f} to {loss.upper(TEST_LEVEL):.4f}).{time}"
        )

    def as_dict(self, decision: Decision) -> dict[str, Any]:
        """Return the state and the result of the search as a dict for JSON.

        It is part of the output of `--json`, and is stored in MLflow with the parent run, which holds the results of
        the command.

        Losses and scores are in units of the metric. The value of "answer" is None before the first run, and if full
        fine-tuning has learnt nothing.
        """
        question, best, begun = self.question, decision.best, bool(self.done or self.failed)
        full_flops = self.grid.full_flops
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
            "budget_ended": decision.exhausted,
            "why": decision.why,
            "said": self.conclusion(decision) if begun else [],
            "cost_of_full": best.candidate.cost if begun and decision.unlearnt is None else None,
            "dev": _loss(best.loss, question.level),
            "dev_score_of_full": self.full_score,
            "test": _loss(self.on_test(best.candidate), TEST_LEVEL),
            "test_score": self.test_score(best.candidate),
            "test_score_of_full": self.test_score(question.full),
            "train_s": self.seconds(best.candidate),
            "train_s_of_full": self.seconds(question.full),
            "compute": {
                "grid_flops": self.grid.cost * full_flops,
                "budget_flops": question.budget * full_flops,
                "spent_flops": decision.spent * full_flops,
                "spent_share": self.share(decision.spent),
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
                    "dev": _loss(s.loss, question.level),
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


def _loss(loss: Loss | None, level: float) -> dict[str, float] | None:
    if loss is None:
        return None
    return {
        "loss": loss.mean,
        "standard_error": loss.standard_error,
        "low": loss.lower(level),
        "high": loss.upper(level),
        "seeds": loss.pairs,
    }
