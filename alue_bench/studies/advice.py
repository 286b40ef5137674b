"""The command `advise`: predict what freezing layers costs on a task, from sweeps of other tasks."""

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
from alue_bench.evaluation.across_tasks import FEWEST_TASKS
from alue_bench.messages.suggestion import command_line
from alue_bench.planning.available import PlanCache
from alue_bench.planning.build import Plan, PlannedRun, build_plan
from alue_bench.reporting.advice import Advice, Calibration, advise, calibration, feature
from alue_bench.reporting.choosing_runs import options_beside
from alue_bench.reporting.swept_tasks import FULL, SweptTask, swept_tasks
from alue_bench.running.choosing import choice_of
from alue_bench.studies.missing_runs import GRID, SEEDS, grid_of, options_of_sweep, selectors_of
from alue_bench.studies.settings import plan_request
from alue_bench.tracking.connection import where_options
from alue_bench.tracking.reading import Results, read_layer_scores

if TYPE_CHECKING:
    import numpy as np

ORIGIN = "the sweeps"
"""The text that shows that a hyper-parameter has the value of the sweeps."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """The task to advise on, as the options of the command give it."""

    task: str
    model: str
    data_dir: Path | None = None
    sample: bool = False
    tolerance: float = 0.05
    """The largest accepted loss, as a share of what full fine-tuning learns."""

    def options(self) -> dict[str, Any]:
        """Return the options of `alue-bench run` that select the task, the model and the data."""
        given = {"task": [self.task], "model": [self.model], "data_dir": self.data_dir, "sample": self.sample}
        return {name: value for name, value in given.items() if value}


def do_advise(
    question: Question, results: Results, registry: Registry, say: Callable[[str], None]
) -> tuple[Advice, str]:
    """Predict loss and cost of a handful of settings on a task.

    Args:
        question: The task and the model.
        results: The finished runs, among them sweeps of other tasks with the model.
        registry: The plugins' declarations.
        say: A function that tells the user what is left out.

    Returns:
        The advice, and the command that confirms the recommended setting.

    Raises:
        UsageError: There are sweeps of fewer than FEWEST_TASKS other tasks. The message names the command for
            a further sweep.
    """
    cache = PlanCache()
    (first, *_) = _plan(question, registry, cache, {}, ["full"]).runs
    sweeps, said = swept_tasks(results.frame)
    for sentence in said:
        say(sentence)
    ours = [
        sweep
        for sweep in sweeps
        if (sweep.model, sweep.example["model_digest"]) == (first.spec.model, first.spec.model_digest)
    ]
    load = partial(read_layer_scores, results)
    whole = calibration(ours, load, without=first.spec.task)
    if whole is None or len(whole.sweeps) < FEWEST_TASKS:
        raise UsageError(_missing(question, first, whole, results, registry))
    example = whole.sweeps[0].example
    conditions = {name: value for name, value in options_beside(example, (), ()).items() if name in _CONDITIONS}
    plan = _plan(question, registry, cache, conditions, [cell_name(cell) for cell in (FULL, *whole.cells)])
    flops = dict(zip((run.spec.strategy for run in plan.runs), forecast_flops(plan.runs), strict=True))
    costs = {name: value / flops[cell_name(FULL)] for name, value in flops.items()}
    features, seconds = _probed(whole, question, registry, cache, conditions)
    advice = advise(
        first.spec.task,
        first.spec.model,
        whole,
        costs,
        tolerance=question.tolerance,
        features=features,
        own=_own(sweeps, whole, first),
    )
    advice = replace(advice, probe_s=seconds)
    options = {**options_beside(example, ["full", advice.recommended.strategy], ()), **question.options()}
    seeds = {"seeds": SEEDS, "seed": None, "init_seed": None, "data_seed": None}
    return advice, command_line("run", options={**_without_task(options, question), **seeds})


_CONDITIONS = (*options_of(HyperParameters), "limit_train", "limit_eval", "drop_bad", "keep_head")
"""The options that must be those of the sweeps: the hyper-parameters, and the options that select rows."""


def _without_task(options: Mapping[str, object], question: Question) -> dict[str, object]:
    """Return options without those that give the example's task as a file; the task is the question's."""
    from alue_bench.data.file_task.options import FileOptions

    return {name: value for name, value in options.items() if name not in options_of(FileOptions)}


def _plan(
    question: Question,
    registry: Registry,
    cache: PlanCache,
    conditions: Mapping[str, object],
    strategies: Sequence[str],
) -> Plan:
    """Plan runs of the question's task under conditions, one for each strategy.

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


def _probed(
    whole: Calibration,
    question: Question,
    registry: Registry,
    cache: PlanCache,
    conditions: Mapping[str, object],
) -> tuple[dict[str, np.ndarray[Any, Any]], float]:
    """Return the task's feature of each cell by the family that corrects the predictions, and the probe's seconds.

    The dict is empty if no correction helps; the model is then not loaded.
    """
    if whole.correction is None:
        return {}, 0.0
    family, _ = whole.correction
    ran = [name for run in whole.sweeps[0].others if (name := str(run["strategy"])).startswith(f"{family}-")]
    cheapest = min(ran, key=lambda name: (len(name), name))  # the fewest layers; all have the same scores
    (run, *_) = _plan(question, registry, cache, conditions, [cheapest]).runs
    probed = choice_of(run.spec, run.inputs)
    return {family: feature(probed.choice.scores, whole.cells)}, probed.seconds


def _own(sweeps: Sequence[SweptTask], whole: Calibration, first: PlannedRun) -> SweptTask | None:
    """Return the task's own sweep under the conditions of the calibration, or None."""
    return next((sweep for sweep in sweeps if sweep.task == first.spec.task and whole.is_alike(sweep)), None)


def _missing(
    question: Question, first: PlannedRun, whole: Calibration | None, results: Results, registry: Registry
) -> str:
    """Return the message that too few tasks were swept, with the command that sweeps further ones."""
    swept = [sweep.task for sweep in whole.sweeps] if whole else []
    has = f"it has {len(swept)} ({', '.join(swept)})" if swept else "it has none"
    options = options_of_sweep(whole.sweeps[0].example) if whole else {}
    others = _available(registry, question, [*swept, first.spec.task])[: FEWEST_TASKS - len(swept)]
    grid = f"{grid_of([FULL, *whole.cells])}" if whole else GRID
    more = {
        "task": others or ["TASK"],
        "model": question.model,
        "grid": [grid, f"strategy={','.join(selectors_of(registry))}"] if not whole else [grid],
        "seeds": SEEDS,
        "data_dir": question.data_dir,
        "sample": question.sample,
        **where_options(results.connection.uri, results.connection.experiment),
    }
    command = command_line("sweep", options={**_without_task(options, question), **more})
    return (
        f"advise needs sweeps of at least {FEWEST_TASKS} tasks other than {first.spec.task} with model "
        f"{first.spec.model} and equal options in experiment '{results.connection.experiment}'; {has}. Make more with: "
        f"{command}"
    )


def _available(registry: Registry, question: Question, besides: Sequence[str]) -> list[str]:
    """Return the names of trainable tasks whose data is on this machine, in the registry's order.

    Tasks that train on the same file as one of `besides`, or as an earlier one, are left out: they are not independent.
    """
    from alue_bench.contract.errors import DataError
    from alue_bench.data.location import given_data_folder, locate

    given, names = given_data_folder(question.data_dir), []
    wanted = "sample" if question.sample else "real"
    used = {_train_file(registry.tasks[name].value) for name in besides if name in registry.tasks}
    for name, declared in registry.tasks.items():
        task = declared.value
        if _train_file(task) in used or task.trained_on or task.only_by_name or task.labels.extracts_spans:
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
