"""Tuning: every strategy gets the same number of runs to find its hyper-parameters, and is then run with fresh seeds.

    1. Every strategy is run with every combination of the values of `--tune`, with the tuning seeds.
    2. For each task, model and strategy, the combination with the best mean dev score is chosen. Test scores are not
       used for the choice.
    3. Every strategy is run with its chosen values and with fresh seeds, which were not used in the tuning.

The runs of steps 1 and 3 are ordinary runs. Later commands reuse them, and a repeated command gives the same result.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

from rich.console import RenderableType

from alue_bench.contract.errors import UsageError
from alue_bench.contract.options import build_options
from alue_bench.evaluation.best_of_budget import expected_best
from alue_bench.executors.outcome import Outcome
from alue_bench.planning.build import Plan, PlannedRun, build_plan
from alue_bench.planning.grid import Grid
from alue_bench.planning.request import DEFAULT_SEED, DEFAULT_STRATEGIES, LARGEST_SEED, PlanRequest
from alue_bench.planning.tuning import Axes, parse_tuning
from alue_bench.planning.variation import describe, settings_of
from alue_bench.studies.invocation import Invocation
from alue_bench.studies.options import TuningOptions
from alue_bench.studies.results import Runs
from alue_bench.studies.settings import Study, plan_request
from alue_bench.tracking.recording import TUNING
from alue_bench.views.progress import progress_of
from alue_bench.views.streams import Streams
from alue_bench.views.tables import plan_view
from alue_bench.views.tuning_view import choices_view, tuned_runs_view

DEV, FLOPS, SECONDS = "selection/dev_score", "flops/train", "runtime/train_s"


@dataclass(frozen=True)
class TuningTrial:
    """A combination of hyper-parameter values that was tried for a strategy, with its dev score."""

    values: dict[str, int | float]
    dev_score: float
    """The mean dev score over the tuning seeds; nan if a run failed or has no score."""
    runs: tuple[PlannedRun, ...]


@dataclass(frozen=True)
class TunedStrategy:
    """The result of tuning one strategy for one task and model."""

    task: str
    model: str
    strategy: str
    trials: tuple[TuningTrial, ...]
    flops: float
    """The training FLOPs of all runs of the tuning."""
    seconds: float
    """The training seconds of all runs of the tuning."""
    failed: int
    """The number of failed runs of the tuning."""

    @property
    def chosen(self) -> TuningTrial | None:
        """The trial with the highest mean dev score; the first one in case of a tie. None if no trial has a score."""
        scored = [trial for trial in self.trials if math.isfinite(trial.dev_score)]
        return max(scored, key=lambda trial: trial.dev_score) if scored else None

    def at_edge(self, axes: Axes) -> list[str]:
        """Return the hyper-parameters whose chosen value is the smallest or largest value that was tried."""
        chosen = self.chosen
        return [] if chosen is None else [n for n, tried in axes.items() if chosen.values[n] in (tried[0], tried[-1])]

    def as_dict(self, axes: Axes, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Return the tuning as JSON-like data.

        Args:
            axes: The values that were tried, by hyper-parameter.
            outcomes: The outcomes of the runs of all strategies with their chosen values.
        """
        own = [
            o
            for o in outcomes
            if (o.spec.task, o.spec.model, o.spec.strategy) == (self.task, self.model, self.strategy)
        ]
        chosen = self.chosen
        return {
            "task": self.task,
            "model": self.model,
            "strategy": self.strategy,
            "chosen": None if chosen is None else chosen.values,
            "dev_score": None if chosen is None else chosen.dev_score,
            "at_edge": self.at_edge(axes),
            "trials": [
                {"values": t.values, "dev_score": t.dev_score if math.isfinite(t.dev_score) else None}
                for t in self.trials
            ],
            "expected_best_dev": expected_best([trial.dev_score for trial in self.trials]),
            "cost": {
                "runs": sum(len(trial.runs) for trial in self.trials),
                "failed": self.failed,
                "flops": self.flops,
                "train_s": self.seconds,
            },
            "fingerprints": [outcome.spec.fingerprint for outcome in own],
        }


@dataclass(frozen=True, eq=False, repr=False)
class TunedRuns(Runs):
    """The results of a tuning: the runs of every strategy with its chosen values and fresh seeds."""

    def view(self) -> RenderableType:
        """Return the table of every strategy's chosen values, test score and cost of tuning."""
        return tuned_runs_view(self.document["tuning"], self.outcomes) if self.outcomes else ""


@dataclass(frozen=True)
class TuningPlan:
    """The planned runs of a tuning, and the seeds of the final runs, which use the chosen values."""

    invocation: Invocation
    axes: Axes
    tune_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    """The seeds of the final runs."""
    plan: Plan

    @property
    def final_runs(self) -> int:
        """The largest number of final runs; it is reached if a trial is chosen for every strategy."""
        tuned = {(run.spec.task, run.spec.model, run.spec.strategy) for run in self.plan.runs}
        return len(tuned) * len(self.seeds)


def plan_tuning(study: Study, streams: Streams) -> TuningPlan:
    """Plan the runs of a tuning, and show the plan.

    Args:
        study: The settings of the command, and the plugins.
        streams: The output streams.

    Raises:
        UsageError: The value of an option is invalid, or an option cannot be combined with `--tune`.
    """
    options = build_options(TuningOptions, study.settings)
    axes = parse_tuning(options.tune)
    invocation = Invocation(study, streams, margins=study.margins)
    request = plan_request(study.settings, study.overrides)
    _check(request, study, axes)
    tune_seeds, seeds = _seeds(request, study, options.tune_seeds)
    tuning = replace(
        request, strategies=request.strategies or DEFAULT_STRATEGIES, grid=Grid(settings=axes), seeds=tune_seeds
    )
    plan = build_plan(tuning, study.registry)
    invocation.limit_jobs(plan)
    planned = TuningPlan(invocation, axes, tune_seeds, seeds, plan)
    plan.notes.append(
        f"these {len(plan.runs)} runs tune every strategy on dev; {planned.final_runs} runs with the chosen values and "
        f"fresh seeds ({', '.join(map(str, seeds[:5]))}{', …' if len(seeds) > 5 else ''}) follow"
    )
    streams.stderr.print(plan_view(plan))
    return planned


def do_tuned_run(study: Study, streams: Streams, confirm: Callable[[int], None] | None = None) -> TunedRuns:
    """Tune every strategy of a study on the dev split, and run it with its best values and fresh seeds.

    Args:
        study: The settings of the command, and the plugins.
        streams: The output streams for the plans and the progress.
        confirm: A function that asks the user for consent before the first run; None to start at once.

    Returns:
        The results of the runs with the chosen values. A failed run or an interruption by the user raises no error.

    Raises:
        UsageError: There is nothing to run, or an option is invalid or cannot be combined with `--tune`.
    """
    planned = plan_tuning(study, streams)
    invocation, axes = planned.invocation, planned.axes
    invocation.check(planned.plan)
    if confirm is not None:
        confirm(len(planned.plan.runs) + planned.final_runs)
    with invocation:
        name = f"tuning of {describe(tuple((name, f'{len(tried)} values') for name, tried in axes.items()))}"
        invocation.start_parent(planned.plan, name=name, tags={TUNING: "yes"})
        trials = invocation.execute(planned.plan, progress_of(planned.plan, streams.stderr, on_dev=True))
        tuned = tuned_strategies(trials.outcomes, axes)
        execution = trials
        if not trials.interruption:
            streams.stderr.print(choices_view([one.as_dict(axes, ()) for one in tuned]))
            final = Plan(runs=final_runs(tuned, planned.seeds), skipped=planned.plan.skipped)
            final.keeps_prefixes = planned.plan.keeps_prefixes
            execution = invocation.execute(final, progress_of(final, streams.stderr)) if final.runs else trials
            invocation.register_kept_models(execution.outcomes)
        of_final = [] if execution is trials else execution.outcomes
        document = invocation.document(replace(execution, outcomes=of_final)) | {
            "tuning": {
                "axes": {name: list(tried) for name, tried in axes.items()},
                "tune_seeds": list(planned.tune_seeds),
                "seeds": list(planned.seeds),
                "strategies": [one.as_dict(axes, of_final) for one in tuned],
            }
        }
        ending = invocation.finish(document, execution)
        return TunedRuns(replace(execution, outcomes=of_final or execution.outcomes), document, ending)


def tuned_strategies(outcomes: Sequence[Outcome], axes: Axes) -> list[TunedStrategy]:
    """Return the result of tuning each strategy for each task and model, from the outcomes of the tuning's runs.

    Only dev scores are read, never test scores.
    """
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.spec.task, outcome.spec.model, outcome.spec.strategy), []).append(outcome)
    tuned = []
    for (task, model, strategy), group in groups.items():
        by_values: dict[tuple[tuple[str, object], ...], list[Outcome]] = {}
        for outcome in group:
            by_values.setdefault(settings_of(outcome.spec.hyper, tuple(axes)), []).append(outcome)
        trials = [
            TuningTrial(
                {name: getattr(of_values[0].spec.hyper, name) for name in axes},
                statistics.fmean(one.metrics.get(DEV, math.nan) for one in of_values),
                tuple(one.planned for one in of_values),
            )
            for _, of_values in sorted(by_values.items(), key=lambda item: [value for _, value in item[0]])
        ]
        flops, seconds = (math.fsum(one.metrics.get(name, 0.0) for one in group) for name in (FLOPS, SECONDS))
        failed = sum(one.status == "failed" for one in group)
        tuned.append(TunedStrategy(task, model, strategy, tuple(trials), flops, seconds, failed))
    return tuned


def settings_for_given_strategies(
    outcomes: Sequence[Outcome], strategy_settings: Mapping[str, Mapping[str, object]]
) -> dict[str, Any]:
    """Return the part "tuning" of the results of a study file that sets hyper-parameters for single strategies.

    It has the same form as the part "tuning" after `--tune`, but without trials. The chosen values are the
    hyper-parameters that the study file sets.

    Args:
        outcomes: The outcomes of the study's runs.
        strategy_settings: The hyper-parameters of single strategies, by strategy.
    """
    names = tuple(dict.fromkeys(name for values in strategy_settings.values() for name in values))
    axes = {name: sorted({getattr(outcome.spec.hyper, name) for outcome in outcomes}) for name in names}
    groups = dict.fromkeys((one.spec.task, one.spec.model, one.spec.strategy) for one in outcomes)
    strategies = []
    for task, model, strategy in groups:
        specs = (outcome.spec for outcome in outcomes)
        hyper = next(s.hyper for s in specs if (s.task, s.model, s.strategy) == (task, model, strategy))
        chosen = {name: getattr(hyper, name) for name in names}
        one = TunedStrategy(task, model, strategy, (), 0.0, 0.0, 0).as_dict({}, outcomes)
        strategies.append({**one, "chosen": chosen})
    seeds = sorted({outcome.spec.seed for outcome in outcomes})
    return {"axes": axes, "tune_seeds": [], "seeds": seeds, "strategies": strategies}


def final_runs(tuned: Sequence[TunedStrategy], seeds: Sequence[int]) -> list[PlannedRun]:
    """Return the runs of all strategies with their chosen values. Their order is reversed for every second seed."""
    runs = []
    for task, model in dict.fromkeys((one.task, one.model) for one in tuned):
        chosen = [one.chosen for one in tuned if (one.task, one.model) == (task, model)]
        for place, seed in enumerate(seeds):
            trials = [trial for trial in chosen if trial is not None]
            for trial in reversed(trials) if place % 2 else trials:
                run = trial.runs[0]
                runs.append(replace(run, spec=replace(run.spec, seed=seed, init_seed=seed, data_seed=seed)))
    return runs


def _check(request: PlanRequest, study: Study, axes: Axes) -> None:
    """Raise UsageError if an option cannot be combined with `--tune`."""
    _, given = study.overrides[-1] if study.overrides else ("", {})
    for name in axes:
        if given.get(name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} and --tune {name}= both set {name}; give only one of them")
    if request.folds is not None:
        raise UsageError("--tune chooses values by the scores on one dev split; leave out --folds")
    if request.init_seed is not None or request.data_seed is not None:
        raise UsageError(
            "--tune needs different seeds for tuning and for its runs; leave out --init-seed and --data-seed"
        )


def _seeds(request: PlanRequest, study: Study, number: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tuning seeds and the seeds of the runs with the chosen values; the two have no seed in common."""
    if "seed" in study.settings:
        unused = (seed for seed in count(DEFAULT_SEED) if seed not in request.seeds)
        return tuple(islice(unused, number)), request.seeds
    first = DEFAULT_SEED + number
    assert first + len(request.seeds) <= LARGEST_SEED
    return tuple(range(DEFAULT_SEED, first)), tuple(range(first, first + len(request.seeds)))
