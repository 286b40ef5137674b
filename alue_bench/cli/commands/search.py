"""`alue-bench search`: the cheapest frozen setting that keeps the score, for a small part of the grid's cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alue_bench.cli import options
from alue_bench.cli.settings import Overrides, given_options, merge_study, plan_request
from alue_bench.cli.stopping import stoppable
from alue_bench.cli.views.standard_output import keep_for_documents
from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.registry import Registry
from alue_bench.planning.grid import WHOLE, cell_name, parse_grid

if TYPE_CHECKING:
    from alue_bench.cli.invocation import Execution, Invocation
    from alue_bench.cli.views.search_progress import SearchProgress
    from alue_bench.executors.local import Interrupted, Outcome
    from alue_bench.planning.build import Plan, PlannedRun, PlanRequest
    from alue_bench.search.observations import Evaluation
    from alue_bench.search.state import Asked, Done, SearchState

GO_ON = "; the search needs them. No run is lost: when the store answers again, the same command goes on"
DEFAULT_TOLERANCE, DEFAULT_MARGIN, DEFAULT_LEVEL, DEFAULT_BUDGET = "1%", "2%", 0.1, "25%"


def search(
    context: typer.Context,
    task: options.Task = None,
    model: options.Model = None,
    tolerance: Annotated[
        str | None,
        options.what(
            help="Accepted loss of score: relative to full fine-tuning (1%), or absolute (0.01). Default: 1%."
        ),
    ] = None,
    margin: Annotated[
        str | None,
        options.what(
            help="Margin beyond the tolerance for the upper bound of the loss. A smaller margin needs more seeds. "
            "Default: 2%."
        ),
    ] = None,
    level: Annotated[
        float | None,
        options.what(
            help="Highest accepted probability of returning a setting that loses more than tolerance + margin. "
            "Default: 0.1."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        options.what(help="Largest cost of the search, as a share of running every cell once. Default: 25%."),
    ] = None,
    grid: Annotated[
        list[str] | None,
        options.what(
            "--grid",
            "-g",
            help="Settings to search: bottom-top for every pair of frozen bottom and top layers, or ranges such as "
            "bottom=0..9,top=0..4; see alue-bench sweep. Default: bottom-top.",
        ),
    ] = None,
    short_runs: Annotated[
        bool | None,
        options.what(
            "--short-runs/--no-short-runs",
            help="Begin with low-fidelity runs: a few settings with a third of the epochs. Default: yes.",
        ),
    ] = None,
    seed: Annotated[int | None, options.what(help="First seed; further seeds count up from it. Default: 42.")] = None,
    config: options.Config = None,
    recipe: options.Recipe = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    lr: options.Lr = None,
    llrd: options.Llrd = None,
    max_length: options.MaxLength = None,
    warmup: options.Warmup = None,
    weight_decay: options.WeightDecay = None,
    clip: options.Clip = None,
    clip_by: options.ClipBy = None,
    select: options.Select = None,
    precision: options.Precision = None,
    device: options.Device = None,
    cuda_graphs: options.CudaGraphs = None,
    keep_head: options.KeepHead = None,
    data_dir: options.DataDir = None,
    sample: options.Sample = None,
    limit_train: options.LimitTrain = None,
    limit_eval: options.LimitEval = None,
    drop_bad: options.DropBad = None,
    skip_missing: options.SkipMissing = None,
    experiment: options.Experiment = None,
    tracking_uri: options.TrackingUri = None,
    allow_pickles: options.AllowPickles = None,
    cache_size: options.CacheSize = None,
    executor: options.Executor = None,
    jobs: options.Jobs = None,
    gpus_per_run: options.GpusPerRun = None,
    checkpoint_every: options.CheckpointEvery = None,
    rerun: options.Rerun = None,
    fail_fast: options.FailFast = None,
    dry_run: Annotated[
        bool,
        options.control(
            "--dry-run",
            help="Show the settings to search and the largest cost in FLOPs and time on this machine, and stop.",
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Find the cheapest layers to freeze that keep the score, without running the whole grid.

    Runs are chosen one by one, by what the ones before tell. Settings are chosen by the dev split; the test split
    reports. Finished runs, also those of a sweep, are not repeated, but count as spent. With --jobs the searches of
    several tasks and models go on side by side, and so do the runs of each one's first look; the answers are the same.

    `alue-bench search -t oold -m mini --tolerance 1%`

    `alue-bench search -t mdd -m UBC-NLP/MARBERT --budget 15% --grid bottom=0..12,top=0..4`
    """
    keep_for_documents(as_json)
    settings, overrides = merge_study(given_options(context.params), config, context.obj, command="search")
    rules = _rules(settings)
    with stoppable():
        raise typer.Exit(run_search(context.obj, settings, overrides, rules, dry_run=dry_run, as_json=as_json))


@dataclass(frozen=True)
class Rules:
    """What the command was asked to look for."""

    tolerance: Any
    margin: Any
    level: float
    budget: float
    """A part of the grid's cost."""
    grid: Any
    short_runs: bool


def _rules(settings: Mapping[str, Any]) -> Rules:
    """Raises UsageError naming the option that makes no sense."""
    from alue_bench.search.candidates import parse_amount, parse_share

    level = settings.get("level", DEFAULT_LEVEL)
    if not 0 < level < 0.5:
        raise UsageError(f"--level is {level}; it must lie between 0 and 0.5, such as 0.1")
    grid = parse_grid(settings.get("grid") or [WHOLE])
    if grid.strategies or grid.settings or grid.seeds:
        raise UsageError("--grid of a search has the axes bottom and top alone; alue-bench sweep takes the others too")
    return Rules(
        parse_amount("--tolerance", settings.get("tolerance", DEFAULT_TOLERANCE)),
        parse_amount("--margin", settings.get("margin", DEFAULT_MARGIN)),
        level,
        parse_share("--budget", settings.get("budget", DEFAULT_BUDGET)),
        grid,
        settings.get("short_runs", True),
    )


def run_search(
    registry: Registry,
    settings: Mapping[str, Any],
    overrides: Overrides,
    rules: Rules,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Search task by task, model by model. Returns the exit code: as of `run`, and NO_ANSWER where all searches end
    since nothing was learnt."""
    from alue_bench.cli.dry_run import show_question
    from alue_bench.cli.invocation import NO_ANSWER, Execution, Invocation, Streams
    from alue_bench.cli.views.search_progress import SearchProgress
    from alue_bench.cli.views.search_tables import question_view, search_view
    from alue_bench.planning.build import Plan

    streams = Streams.of_command(as_json=as_json)
    streams.warn_of_plugins(registry)
    invocation = Invocation(registry, settings, streams)  # a wrong executor is told before the plan is made
    plan, searches = _courses(_request(settings, overrides), rules, registry)
    streams.talk.print(question_view(plan, searches))
    if dry_run:
        return show_question(plan, searches, registry, streams)

    with invocation:
        first = Plan([search.grid.runs[search.question.full.name] for search in searches], plan.skipped)
        invocation.start_parent(first, name=f"search in {_counted(searches)}", tags={"command": "search"})
        outcomes: list[Outcome] = []
        stop: Interrupted | None = None
        fail_fast = settings.get("fail_fast", False)
        with SearchProgress(streams.talk) as progress, invocation.keeping_workers():
            for side_by_side in [searches] if invocation.uses_workers else [[search] for search in searches]:
                stop = _follow(side_by_side, invocation, progress, outcomes, fail_fast=fail_fast)
                if stop or (fail_fast and any(outcome.status == "failed" for outcome in outcomes)):
                    break
        execution = Execution(Plan([outcome.planned for outcome in outcomes], plan.skipped), outcomes, stop)
        searched = [(search, search.decision()) for search in searches if search.done or search.failed]
        document = invocation.document(execution)
        document["searches"] = [search.as_dict(decision) for search, decision in searched]
        asked = {(run.spec.task, run.spec.model): run.spec.hyper for run in first.runs}
        whole = [o for o in outcomes if o.spec.hyper == asked[o.spec.task, o.spec.model]]  # not the short runs
        invocation.finish_parent(document, replace(execution, outcomes=whole), _metrics(searched))
        for search, decision in searched:
            if decision.step is None:
                streams.result(search_view(search, decision))
        code = invocation.farewell(document, execution)
        return code or (NO_ANSWER if searched and all(decision.unlearnt for _, decision in searched) else 0)


def _request(settings: Mapping[str, Any], overrides: Overrides) -> PlanRequest:
    """Raises UsageError where a study asks for what a search decides itself."""
    for name in ("strategy", "seeds", "init_seed", "data_seed"):
        if name in settings:
            raise UsageError(f"the study sets {name}, but a search chooses strategies and seeds itself; leave it out")
    seeds = settings.get("seed")
    if isinstance(seeds, list | tuple) and len(seeds) > 1:
        raise UsageError("the study has several seeds, but a search takes the first one and counts up; leave one")
    listed = {"seed": seeds if isinstance(seeds, list | tuple) else (seeds,)} if seeds is not None else {}
    return plan_request({**settings, **listed}, overrides)


def _courses(request: PlanRequest, rules: Rules, registry: Registry) -> tuple[Plan, list[SearchState]]:
    """A search for each task and model. Raises UsageError where there is nothing to search."""
    from alue_bench.planning.build import Plan, build_plan
    from alue_bench.search.policy import Question, Step
    from alue_bench.search.runs import grid_of
    from alue_bench.search.state import SearchState

    full = cell_name((0, 0))
    cells = build_plan(replace(request, strategies=(full,), grid=rules.grid), registry)
    whole = [run for run in cells.runs if run.spec.strategy == full]
    if not whole:
        reasons = "; ".join(dict.fromkeys(skipped.reason for skipped in cells.skipped))
        raise UsageError(f"nothing to search: {reasons or 'no task and model go together'}")
    groups: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in cells.runs:
        groups.setdefault((run.spec.task, run.spec.model), []).append(run)
    searches = []
    for (task, model), runs in groups.items():
        field = grid_of(runs)
        question = Question(
            field.candidates,
            field.layers,
            rules.tolerance,
            rules.margin,
            rules.budget * field.cost,
            level=rules.level,
            short_runs=rules.short_runs and field.short_epochs is not None,
        )
        field.run_of(Step(question.full, question.max_pairs - 1))  # are there as many seeds?
        searches.append(SearchState(task, model, runs[0].inputs.task.primary, field, question))
    return Plan(whole, cells.skipped, keeps_prefixes=cells.keeps_prefixes), searches


def _follow(
    searches: Sequence[SearchState],
    invocation: Invocation,
    progress: SearchProgress,
    outcomes: list[Outcome],
    *,
    fail_fast: bool,
) -> Interrupted | None:
    """Round after round until these searches are over. A round has the next run of each; with workers, also the runs
    that will be asked for whatever those give. Returns what stopped it from outside."""
    from alue_bench.planning.build import Plan

    def asked() -> list[Asked]:
        return [one for search in searches for one in search.asked(all_certain=invocation.uses_workers)]

    progress.follow(searches)
    while now := asked():
        progress.begin(now)
        execution = invocation.execute(Plan([one.planned for one in now]), progress)
        execution = _with_predictions(execution, invocation, progress)
        outcomes += execution.outcomes
        if execution.stop is not None:
            return execution.stop
        _take_in(now, execution.outcomes, invocation, progress)
        if fail_fast and execution.failed:
            return None
    return None


def _with_predictions(execution: Execution, invocation: Invocation, progress: SearchProgress) -> Execution:
    """Runs of other commands that were recorded without dev predictions are done again."""
    from alue_bench.planning.build import Plan

    lacking = [outcome for outcome in execution.outcomes if _lacks_predictions(outcome, invocation)]
    if execution.stop is not None or not lacking:
        return execution
    for outcome in lacking:
        progress.warned(f"{outcome.spec.label} was recorded without dev predictions; it is done again")
    again = invocation.execute(Plan([outcome.planned for outcome in lacking]), progress, rerun=True)
    kept = [outcome for outcome in execution.outcomes if all(outcome is not one for one in lacking)]
    return replace(execution, outcomes=kept + again.outcomes, stop=again.stop)


def _take_in(
    asked: Sequence[Asked], outcomes: Sequence[Outcome], invocation: Invocation, progress: SearchProgress
) -> None:
    """In the order in which the searches ask for them. What one of them does not ask for any more, since full
    fine-tuning failed, was done in vain; it stays in the store."""
    ended = {outcome.spec.fingerprint: outcome for outcome in outcomes}
    for one in asked:
        search, outcome = one.search, ended.get(one.planned.spec.fingerprint)
        if outcome is None or search.decision().step != one.step:
            continue
        if outcome.status == "failed":
            search.failed[one.step] = outcome.cause
        else:
            search.done.append(_done(one, outcome, invocation))
        progress.settle(one, search.decision())


def _lacks_predictions(outcome: Outcome, invocation: Invocation) -> bool:
    from alue_bench.tracking.reading import read_dev_predictions

    return (
        outcome.status == "reused"
        and read_dev_predictions(_results(invocation, outcome.run_id), outcome.run_id) is None
    )


def _done(asked: Asked, outcome: Outcome, invocation: Invocation) -> Done:
    """The run as evidence: its scores on dev and test, example by example."""
    from alue_bench.search.runs import evaluation_of
    from alue_bench.search.state import Done
    from alue_bench.tracking.reading import read_dev_predictions, read_predictions

    step, inputs, results = asked.step, outcome.planned.inputs, _results(invocation, outcome.run_id)
    dev_table = read_dev_predictions(results, outcome.run_id)
    if dev_table is None:
        raise UnavailableError(f"the tracking store does not give the dev predictions of {outcome.run_id} back{GO_ON}")
    metrics, trained_on = outcome.metrics, inputs.train_task

    @cache
    def on_test() -> Evaluation:
        table = read_predictions(results, outcome.run_id)
        return evaluation_of(step, table, inputs.task.labels, inputs.task.primary, metrics["test/score"])

    return Done(
        step,
        outcome.run_id,
        outcome.status == "reused",
        asked.decision.why,
        replace(
            evaluation_of(step, dev_table, trained_on.labels, trained_on.primary, metrics["selection/dev_score"]),
            trivial=metrics.get("selection/trivial_score", math.nan),
            trivial_error=metrics.get("selection/above_trivial_error", math.nan),
        ),
        on_test,
        metrics["flops/train"],
        metrics["runtime/train_s"],
    )


def _results(invocation: Invocation, run_id: str) -> Any:
    """To read the files of one run from. Raises UnavailableError where the store does not answer."""
    from alue_bench.tracking.reading import read_runs

    try:
        return read_runs(invocation.recorder.connection, [run_id])
    except UnavailableError as error:
        raise UnavailableError(f"{error}{GO_ON}") from error


def _metrics(searched: Iterable[tuple[SearchState, Any]]) -> dict[str, float]:
    """Of the parent run."""
    found = {}
    for search, decision in searched:
        found[f"search/{search.task}/{search.model}/compute_share"] = search.share(decision.spent)
        if decision.unlearnt is None:
            found[f"search/{search.task}/{search.model}/cost_of_full"] = decision.best.candidate.cost
    return found


def _counted(searches: list[SearchState]) -> str:
    cells = sum(len(search.question.candidates) for search in searches)
    return f"{cells} settings"
