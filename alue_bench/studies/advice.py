"""The command `advise`, which predicts how much score a task loses if layers are frozen.

The prediction is computed from sweeps of other tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.cells import cell_name
from alue_bench.contract.errors import UsageError
from alue_bench.contract.options import options_of
from alue_bench.contract.registry import Registry
from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.task import DataFile, Task
from alue_bench.cost.flops import forecast_flops
from alue_bench.evaluation.across_tasks import MIN_TASKS
from alue_bench.messages.suggestion import command_line
from alue_bench.planning.available import PlanCache
from alue_bench.planning.build import Plan, PlannedRun, build_plan
from alue_bench.reporting.advice import Advice, Calibration, advise, calibration, feature
from alue_bench.reporting.choosing_runs import options_under_same_conditions
from alue_bench.reporting.swept_tasks import FULL, SweptTask, swept_tasks
from alue_bench.running.choosing import choice_of
from alue_bench.studies.missing_runs import SUGGESTED_GRID, SUGGESTED_SEEDS, grid_of, options_of_sweep, selectors_of
from alue_bench.studies.settings import plan_request
from alue_bench.tracking.connection import where_options
from alue_bench.tracking.reading import Results, read_layer_scores

if TYPE_CHECKING:
    import numpy as np

ORIGIN = "the sweeps"
"""The words that messages use for the origin of hyper-parameters whose values are copied from the recorded sweeps."""


@dataclass(frozen=True, kw_only=True)
class AdviceQuestion:
    """The question to `advise`: the task and model, the source of the data, and the accepted loss of score."""

    task: str
    model: str
    data_dir: Path | None = None
    sample: bool = False
    tolerance: float = 0.05
    """The largest accepted loss of score, as a share of what full fine-tuning learns (its score minus the trivial
    score)."""

    def options(self) -> dict[str, Any]:
        """Return the options of `alue-bench run` that select the task, the model and the data."""
        given = {"task": [self.task], "model": [self.model], "data_dir": self.data_dir, "sample": self.sample}
        return {name: value for name, value in given.items() if value}


def do_advise(
    question: AdviceQuestion, results: Results, registry: Registry, say: Callable[[str], None]
) -> tuple[Advice, str]:
    """Predict the loss of score and the cost of freezing settings on a task, and recommend one of them.

    Only settings that ran in all sweeps of other tasks are considered.

    Args:
        question: The task, the model and the accepted loss of score.
        results: The finished runs, among them sweeps of other tasks with the model.
        registry: The plugins' declarations, among them the tasks and models.
        say: A function that shows the user a sentence about recorded runs that are not used.

    Returns:
        The advice, and a command that compares the recommended setting with full fine-tuning on the task.

    Raises:
        UsageError: The task or the model is not available; or fewer than MIN_TASKS other tasks were swept. The
            message then contains a command that sweeps further tasks.
    """
    cache = PlanCache()
    (first, *_) = _plan(question, registry, cache, {}, ["full"]).runs
    sweeps, remarks = swept_tasks(results.frame)
    for sentence in remarks:
        say(sentence)
    ours = [
        sweep
        for sweep in sweeps
        if (sweep.model, sweep.example["model_digest"]) == (first.spec.model, first.spec.model_digest)
    ]
    load = partial(read_layer_scores, results)
    whole = calibration(ours, load, without=first.spec.task)
    if whole is None or len(whole.sweeps) < MIN_TASKS:
        raise UsageError(_too_few_sweeps(question, first, whole, results, registry))
    example = whole.sweeps[0].example
    conditions = {
        name: value for name, value in options_under_same_conditions(example, (), ()).items() if name in _CONDITIONS
    }
    plan = _plan(question, registry, cache, conditions, [cell_name(cell) for cell in (FULL, *whole.cells)])
    flops = dict(zip((run.spec.strategy for run in plan.runs), forecast_flops(plan.runs), strict=True))
    costs = {name: value / flops[cell_name(FULL)] for name, value in flops.items()}
    features, seconds = _probe_layers(whole, question, registry, cache, conditions)
    advice = advise(
        first.spec.task,
        first.spec.model,
        whole,
        costs,
        tolerance=question.tolerance,
        features=features,
        measured=_sweep_of_task(sweeps, whole, first),
    )
    advice = replace(advice, probe_s=seconds)
    options = {
        **options_under_same_conditions(example, ["full", advice.recommended.strategy], ()),
        **question.options(),
    }
    seeds = {"seeds": SUGGESTED_SEEDS, "seed": None, "init_seed": None, "data_seed": None}
    return advice, command_line("run", options={**_without_task(options), **seeds})


_CONDITIONS = (*options_of(HyperParameters), "limit_train", "limit_eval", "drop_bad", "keep_head")
"""The options whose values are taken from the sweeps: the hyper-parameters, and the options that select rows."""


def _without_task(options: Mapping[str, object]) -> dict[str, object]:
    """Return the options of a recorded sweep, except those that define the sweep's task by a data file of the user."""
    from alue_bench.data.file_task.options import FileOptions

    return {name: value for name, value in options.items() if name not in options_of(FileOptions)}


def _plan(
    question: AdviceQuestion,
    registry: Registry,
    cache: PlanCache,
    conditions: Mapping[str, object],
    strategies: Sequence[str],
) -> Plan:
    """Plan a run of the question's task with each strategy.

    Args:
        question: The task, the model and the source of the data.
        registry: The plugins' declarations, among them the tasks and models.
        cache: The rows and models that earlier plans have loaded, to be used again.
        conditions: The values of options that all runs get, copied from a recorded sweep; empty for the defaults.
        strategies: The names of the strategies.

    Raises:
        UsageError: The task or the model is not available, or cannot be trained with a strategy.
    """
    hyper = {name: value for name, value in conditions.items() if name in options_of(HyperParameters)}
    rows = {name: value for name, value in conditions.items() if name not in hyper}
    request = plan_request({**question.options(), **rows, "strategy": list(strategies)}, ((ORIGIN, hyper),))
    plan = build_plan(replace(request, yardstick=False), registry, cache)
    if not plan.runs:
        reasons = "; ".join(dict.fromkeys(skipped.reason for skipped in plan.skipped)) or "it was left out"
        raise UsageError(f"task {question.task} cannot be trained with model {question.model}: {reasons}")
    return plan


def _probe_layers(
    full_calibration: Calibration,
    question: AdviceQuestion,
    registry: Registry,
    cache: PlanCache,
    conditions: Mapping[str, object],
) -> tuple[dict[str, np.ndarray[Any, Any]], float]:
    """Let a selector score the layers on the question's task, if such scores improve the predictions.

    The scores improve the predictions if `full_calibration.correction` is not None. It is computed from the sweeps of
    other tasks.

    Returns:
        A dict from the selector's family (such as `rank-K`) to a number for each freezing setting, [settings], which is
        computed from the scores of the layers (see `reporting.advice.feature`); and the seconds that the probe took. If
        no family improves the predictions, the model is not loaded, and the result is an empty dict and 0.
    """
    if full_calibration.correction is None:
        return {}, 0.0
    family, _ = full_calibration.correction
    ran = [name for run in full_calibration.sweeps[0].others if (name := str(run["strategy"])).startswith(f"{family}-")]
    # All strategies of the family compute the same scores of layers; the one with the fewest layers is the cheapest.
    cheapest = min(ran, key=lambda name: (len(name), name))
    (run, *_) = _plan(question, registry, cache, conditions, [cheapest]).runs
    probed = choice_of(run.spec, run.inputs)
    return {family: feature(probed.choice.scores, full_calibration.cells)}, probed.seconds


def _sweep_of_task(sweeps: Sequence[SweptTask], full_calibration: Calibration, first: PlannedRun) -> SweptTask | None:
    """Return the sweep of the question's task; None if there is none under the conditions of the calibration.

    Args:
        sweeps: The sweeps of all tasks.
        full_calibration: The sweeps of other tasks, which all have the same conditions.
        first: A planned run of the question's task.
    """
    return next((sweep for sweep in sweeps if sweep.task == first.spec.task and full_calibration.is_alike(sweep)), None)


def _too_few_sweeps(
    question: AdviceQuestion,
    first: PlannedRun,
    full_calibration: Calibration | None,
    results: Results,
    registry: Registry,
) -> str:
    """Return the message that too few tasks were swept, with a command that sweeps further tasks."""
    swept = [sweep.task for sweep in full_calibration.sweeps] if full_calibration else []
    has = f"it has {len(swept)} ({', '.join(swept)})" if swept else "it has none"
    options = options_of_sweep(full_calibration.sweeps[0].example) if full_calibration else {}
    others = _available_tasks(registry, question, [*swept, first.spec.task])[: MIN_TASKS - len(swept)]
    grid = f"{grid_of([FULL, *full_calibration.cells])}" if full_calibration else SUGGESTED_GRID
    more = {
        "task": others or ["TASK"],
        "model": question.model,
        "grid": [grid, f"strategy={','.join(selectors_of(registry))}"] if not full_calibration else [grid],
        "seeds": SUGGESTED_SEEDS,
        "data_dir": question.data_dir,
        "sample": question.sample,
        **where_options(results.connection.uri, results.connection.experiment),
    }
    command = command_line("sweep", options={**_without_task(options), **more})
    return (
        f"advise needs sweeps of at least {MIN_TASKS} tasks other than {first.spec.task} with model "
        f"{first.spec.model} and equal options in experiment '{results.connection.experiment}'; {has}. Make more with: "
        f"{command}"
    )


def _available_tasks(registry: Registry, question: AdviceQuestion, besides: Sequence[str]) -> list[str]:
    """Return the names of tasks that could be swept, because their data is on this machine, in the registry's order.

    Tasks without a train split, tasks of span extraction and tasks that run only if they are named are left out. So are
    tasks that train on the same file as one of `besides` or as an earlier task, since they would not be independent.
    """
    from alue_bench.contract.errors import DataError
    from alue_bench.data.location import given_data_folder, locate

    given, names = given_data_folder(question.data_dir), []
    wanted = "sample" if question.sample else "real"
    used = {_train_file(registry.tasks[name].value) for name in besides if name in registry.tasks}
    for name, declared in registry.tasks.items():
        task = declared.value
        untrained = task.splits.train is None
        if untrained or task.only_by_name or task.labels.extracts_spans or _train_file(task) in used:
            continue
        try:
            here = locate(task, given=given, sample=question.sample).kind == wanted
        except DataError:
            continue
        if here:
            names.append(name)
            used.add(_train_file(task))
    return names


def _train_file(task: Task) -> str | None:
    """Return the name of the file with a task's train rows; None if it has none."""
    return task.splits.train.path if isinstance(task.splits.train, DataFile) else None
