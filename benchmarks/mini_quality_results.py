"""What was measured, by task, model and strategy, and the comparisons that are made of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.bag_of_characters import Yardstick, defined, yardstick
from benchmarks.intervals import Estimate, estimate, paired_difference, relative_change

if TYPE_CHECKING:
    from rich.console import Console

    from alue_bench.executors.local import Outcome
    from alue_bench.planning.build import Plan, PlannedRun


@dataclass(frozen=True)
class Measured:
    """What the runs of one task, model and strategy gave, by seed."""

    scores: Mapping[int, float]
    seconds: Mapping[int, float]


NOTHING = Measured({}, {})


@dataclass(frozen=True)
class TaskFacts:
    """What holds for a task whatever the model."""

    name: str
    metric: str
    train_rows: int
    test_rows: int
    source: str
    yardstick: Yardstick


@dataclass(frozen=True)
class Results:
    """All that was measured, and the comparisons that are made of it."""

    tasks: tuple[TaskFacts, ...]
    models: tuple[str, ...]
    """The first one is compared between strategies; the random copy is not among them."""
    random: str
    strategies: tuple[str, ...]
    """The first one is the base of the others."""
    seeds: tuple[int, ...]
    measured: Mapping[tuple[str, str, str], Measured]
    """By task, model, strategy."""

    def of(self, task: TaskFacts, model: str, strategy: str) -> Measured:
        return self.measured.get((task.name, model, strategy), NOTHING)

    def score(self, task: TaskFacts, model: str, strategy: str) -> Estimate | None:
        return estimate(list(self.of(task, model, strategy).scores.values()))

    def gain(self, task: TaskFacts, model: str, strategy: str) -> Estimate | None:
        """Over random weights."""
        base = self.of(task, self.random, strategy)
        return paired_difference(self.of(task, model, strategy).scores, base.scores)

    def change(self, task: TaskFacts, strategy: str) -> Estimate | None:
        """Of the first model's score, against the base strategy."""
        base = self.of(task, self.models[0], self.strategies[0])
        return paired_difference(self.of(task, self.models[0], strategy).scores, base.scores)

    def time_change(self, task: TaskFacts, strategy: str) -> float | None:
        """Of the first model's seconds of training, against the base strategy."""
        base = self.of(task, self.models[0], self.strategies[0])
        return relative_change(self.of(task, self.models[0], strategy).seconds, base.seconds)

    def seconds(self, task: TaskFacts, model: str, strategy: str) -> float | None:
        values = self.of(task, model, strategy).seconds.values()
        return statistics.fmean(values) if values else None


def gathered(plan: Plan, outcomes: Iterable[Outcome], models: Sequence[str], random: str, talk: Console) -> Results:
    """The outcomes by task, model and strategy, with the yardstick of each task, which is measured here."""
    specs = [planned.spec for planned in plan.runs]
    first_of = {planned.spec.task: planned for planned in reversed(plan.runs)}
    facts = []
    for task in dict.fromkeys(spec.task for spec in specs):
        facts.append(task_facts(first_of[task]))
        found = facts[-1].yardstick
        talk.print(f"{task}/TF-IDF: {facts[-1].metric} {found.score:.3f}, in {found.seconds:.1f} s", highlight=False)
    return Results(
        tasks=tuple(facts),
        models=tuple(models),
        random=random,
        strategies=tuple(dict.fromkeys(spec.strategy for spec in specs)),
        seeds=tuple(sorted({spec.seed for spec in specs})),
        measured=by_cell(outcomes),
    )


def task_facts(planned: PlannedRun) -> TaskFacts:
    """Metric, rows and yardstick, on the very rows that the planned run has."""
    inputs = planned.inputs
    return TaskFacts(
        name=planned.spec.task,
        metric=inputs.task.primary,
        train_rows=len(inputs.train_rows.splits["train"].examples),
        test_rows=len(inputs.rows.splits["test"].examples),
        source=planned.spec.data.source,
        yardstick=yardstick(inputs),
    )


def by_cell(outcomes: Iterable[Outcome]) -> dict[tuple[str, str, str], Measured]:
    """Scores and seconds by seed of every task, model and strategy; failed runs are left out."""
    scores: dict[tuple[str, str, str], dict[int, float]] = {}
    seconds: dict[tuple[str, str, str], dict[int, float]] = {}
    for outcome in outcomes:
        if outcome.status != "failed":
            spec = outcome.spec
            cell = (spec.task, spec.model, spec.strategy)
            scores.setdefault(cell, {})[spec.seed] = defined(outcome.metrics["test/score"])
            seconds.setdefault(cell, {})[spec.seed] = outcome.metrics["runtime/train_s"]
    return {cell: Measured(scores[cell], seconds[cell]) for cell in scores}
