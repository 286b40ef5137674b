"""The results of the quality benchmark, by task, model and strategy, and comparisons between them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alue_bench.evaluation.intervals import Estimate, estimate
from alue_bench.evaluation.yardstick import Yardstick, yardstick
from alue_bench.searching.observations import or_zero

if TYPE_CHECKING:
    from alue_bench.executors.outcome import Outcome
    from alue_bench.planning.build import Plan, PlannedRun
    from alue_bench.views.console import PlainConsole


@dataclass(frozen=True)
class Measured:
    """The test scores and the training seconds of all runs of one task, model and strategy, both by seed."""

    scores: Mapping[int, float]
    seconds: Mapping[int, float]


NOTHING = Measured({}, {})


@dataclass(frozen=True)
class TaskFacts:
    """The facts about a task that do not depend on the model, such as its metric and the linear model's scores."""

    name: str
    metric: str
    train_rows: int
    test_rows: int
    source: str
    """The kind of data: "real" for the official files, "sample" for the embedded sample."""
    trivial: float
    """The test score of the best baseline that ignores the text."""
    yardstick: Yardstick
    """The linear model's scores."""


@dataclass(frozen=True)
class Results:
    """All results of the quality benchmark, and comparisons between them."""

    tasks: tuple[TaskFacts, ...]
    models: tuple[str, ...]
    """The names of the models, without the random copy. Strategies are compared for the first model."""
    random: str
    """The name of the copy with random weights."""
    strategies: tuple[str, ...]
    """The names of the strategies. The first one is the base with which the other ones are compared."""
    seeds: tuple[int, ...]
    measured: Mapping[tuple[str, str, str], Measured]
    """The scores and times, by task, model and strategy."""

    def of(self, task: TaskFacts, model: str, strategy: str) -> Measured:
        """Return the results of a task, model and strategy; they are empty if there are no runs."""
        return self.measured.get((task.name, model, strategy), NOTHING)

    def score(self, task: TaskFacts, model: str, strategy: str) -> Estimate | None:
        """Return a model's mean score over seeds with its confidence interval, or None if there are no runs."""
        return estimate(list(self.of(task, model, strategy).scores.values()))

    def gain(self, task: TaskFacts, model: str, strategy: str) -> Estimate | None:
        """Return a model's score minus that of random weights, paired by seed, or None if no seed has both."""
        base = self.of(task, self.random, strategy)
        return paired_difference(self.of(task, model, strategy).scores, base.scores)

    def change(self, task: TaskFacts, strategy: str) -> Estimate | None:
        """Return the first model's score with a strategy minus that with the base strategy, paired by seed.

        None means that no seed has both scores.
        """
        base = self.of(task, self.models[0], self.strategies[0])
        return paired_difference(self.of(task, self.models[0], strategy).scores, base.scores)

    def time_change(self, task: TaskFacts, strategy: str) -> float | None:
        """Return the relative change of the first model's training time from the base strategy to another strategy.

        A value of -0.2 means 20 % less time; None means that a time is missing.
        """
        base = self.of(task, self.models[0], self.strategies[0])
        return relative_change(self.of(task, self.models[0], strategy).seconds, base.seconds)

    def seconds(self, task: TaskFacts, model: str, strategy: str) -> float | None:
        """Return a model's mean training time in seconds, or None if there are no runs."""
        values = self.of(task, model, strategy).seconds.values()
        return statistics.fmean(values) if values else None


def gathered(
    plan: Plan, outcomes: Iterable[Outcome], models: Sequence[str], random: str, talk: PlainConsole
) -> Results:
    """Collect the results of all runs; also fit and score the linear model for each task.

    Args:
        plan: The plan of the runs.
        outcomes: The outcomes of the runs.
        models: The names of the models without the random copy.
        random: The name of the random copy.
        talk: The console on which progress is printed.
    """
    specs = [planned.spec for planned in plan.runs]
    first_of = {planned.spec.task: planned for planned in reversed(plan.runs)}
    facts = []
    for task in dict.fromkeys(spec.task for spec in specs):
        facts.append(task_facts(first_of[task]))
        linear = facts[-1].yardstick
        talk.print(f"{task}/TF-IDF: {facts[-1].metric} {linear.test_score:.3f}, in {linear.seconds:.1f} s")
    return Results(
        tasks=tuple(facts),
        models=tuple(models),
        random=random,
        strategies=tuple(dict.fromkeys(spec.strategy for spec in specs)),
        seeds=tuple(sorted({spec.seed for spec in specs})),
        measured=by_cell(outcomes),
    )


def task_facts(planned: PlannedRun) -> TaskFacts:
    """Return the facts about the task of a planned run, with the linear model fitted and scored on the run's rows."""
    from alue_bench.data.tokenization import encode_targets
    from alue_bench.evaluation.metrics import trivial_metrics

    inputs = planned.inputs
    labels = inputs.task.labels
    train, test = inputs.train_rows.splits["train"], inputs.rows.splits["test"]
    known, gold = (encode_targets(rows, labels).numpy() for rows in (train, test))
    return TaskFacts(
        name=planned.spec.task,
        metric=inputs.task.primary,
        train_rows=len(train.examples),
        test_rows=len(test.examples),
        source=planned.spec.data.source,
        trivial=trivial_metrics(known, gold, labels)[inputs.task.primary],
        yardstick=yardstick(inputs.task, inputs.rows, inputs.train_task, inputs.train_rows),
    )


def by_cell(outcomes: Iterable[Outcome]) -> dict[tuple[str, str, str], Measured]:
    """Return the scores and training seconds for each (task, model, strategy), without failed runs."""
    scores: dict[tuple[str, str, str], dict[int, float]] = {}
    seconds: dict[tuple[str, str, str], dict[int, float]] = {}
    for outcome in outcomes:
        if outcome.status != "failed":
            spec = outcome.spec
            cell = (spec.task, spec.model, spec.strategy)
            scores.setdefault(cell, {})[spec.seed] = or_zero(outcome.metrics["test/score"])
            seconds.setdefault(cell, {})[spec.seed] = outcome.metrics["runtime/train_s"]
    return {cell: Measured(scores[cell], seconds[cell]) for cell in scores}


def paired_difference(values: Mapping[int, float], base: Mapping[int, float]) -> Estimate | None:
    """Return the mean difference between the values of the same seed, with its confidence interval.

    The result is None if no seed has a value in both mappings.

    Args:
        values: The values by seed.
        base: The values to subtract, by seed.
    """
    return estimate([values[seed] - base[seed] for seed in sorted(values.keys() & base.keys())])


def sign(difference: Estimate | None) -> int:
    """Return 1 or -1, the sign of a difference, if its confidence interval excludes zero, and otherwise 0."""
    if difference is None or difference.interval is None:
        return 0
    low, high = difference.interval
    return int(low > 0) - int(high < 0)


def relative_change(values: Mapping[int, float], base: Mapping[int, float]) -> float | None:
    """Return the mean of `values` divided by the mean of `base`, minus 1; None if one of them is empty."""
    return statistics.fmean(values.values()) / statistics.fmean(base.values()) - 1 if values and base else None
