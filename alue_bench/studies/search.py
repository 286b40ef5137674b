"""The command `search`, which finds the cheapest freezing setting that keeps the score, with few runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alue_bench.contract.cells import cell_name
from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.options import build_options
from alue_bench.contract.registry import Registry
from alue_bench.evaluation.margins import Margin, Margins
from alue_bench.executors.outcome import Interrupted, Outcome
from alue_bench.planning.build import Plan, PlannedRun, build_plan
from alue_bench.planning.grid import BOTTOM_TOP_AXIS, parse_grid
from alue_bench.planning.request import Overrides, PlanRequest
from alue_bench.reporting.confirmation import Confirmation
from alue_bench.searching.candidates import Candidate, parse_amount, parse_share
from alue_bench.searching.policy import Question, Step
from alue_bench.searching.runs import evaluation_of, grid_of
from alue_bench.searching.state import FinishedSearchRun, RequestedRun, SearchState
from alue_bench.studies.confirmation import confirmation_by
from alue_bench.studies.invocation import Execution, Invocation
from alue_bench.studies.options import SearchOptions, options_of_command
from alue_bench.studies.results import Search
from alue_bench.studies.settings import COMMAND_LINE, Study, plan_request
from alue_bench.studies.sweep import check_no_setting_is_given_twice
from alue_bench.tracking.connection import Connection
from alue_bench.tracking.reading import read_dev_predictions, read_runs
from alue_bench.tracking.recording import LOW_FIDELITY
from alue_bench.tracking.selection_tags import tag_selection_runs
from alue_bench.views.search_progress import SearchProgress
from alue_bench.views.search_tables import planned_search_view
from alue_bench.views.streams import Streams

CANNOT_CONTINUE = (
    "; the search cannot continue without it. No run is lost: run the same command again once the store answers"
)
"""The end of messages about an error that stops a search."""


@dataclass(frozen=True)
class Rules:
    """The settings of a search for the cheapest freezing setting, read from the options of `search`."""

    tolerance: Any
    """The accepted loss of score against full fine-tuning, as a share or an absolute value."""
    margin: Any
    """The amount by which the upper confidence bound of the loss of score may exceed the tolerance."""
    level: float
    """The highest accepted probability that the search returns a setting that loses more score than tolerance +
    margin."""
    budget: float
    """The largest cost of the search, as a share of the cost of running every freezing setting once."""
    grid: Any
    short_runs: bool
    confirm: int
    """The number of fresh seeds with which the returned setting is confirmed."""


def rules_of(settings: Mapping[str, Any], overrides: Overrides) -> Rules:
    """Read the settings of a search from its options. If an option is invalid, raise a UsageError that names it."""
    question = build_options(SearchOptions, settings)
    if question.folds is not None:
        raise UsageError(
            f"--folds {question.folds}: a search compares settings on the same dev rows, and each fold has different "
            "ones; leave it out, or cross-validate the settings with alue-bench sweep"
        )
    grid = parse_grid(question.grid or [BOTTOM_TOP_AXIS])
    if grid.settings.keys() - {"lr"} or grid.seeds:
        raise UsageError(
            "--grid of a search accepts only the axes bottom, top, strategy and lr; use alue-bench sweep for other axes"
        )
    rates = settings.get("lr")  # several learning rates; a single one is in `overrides`
    check_no_setting_is_given_twice(grid, settings, (*overrides, (COMMAND_LINE, {"lr": rates} if rates else {})))
    if rates:
        converted = options_of_command("search")["lr"].converted(rates)
        grid = replace(grid, settings={"lr": tuple(dict.fromkeys(converted))})
    return Rules(
        parse_amount("--tolerance", question.tolerance),
        parse_amount("--margin", question.margin),
        question.level,
        parse_share("--budget", question.budget),
        grid,
        question.short_runs,
        question.confirm,
    )


@dataclass(frozen=True)
class PlannedSearch:
    """The searches, one for each task and model, and the `Invocation` that will execute their runs."""

    invocation: Invocation
    plan: Plan
    """The plan of the first runs of the searches, which are full fine-tuning."""
    searches: list[SearchState]


def planned_search(study: Study, streams: Streams) -> PlannedSearch:
    """Prepare a search for each task and model, and show a description of the searches.

    Args:
        study: The settings and plugins.
        streams: The output streams.

    Raises:
        UsageError: The value of an option is invalid, or there is nothing to search.
    """
    rules = rules_of(study.settings, study.overrides)
    invocation = Invocation(study, streams)  # reports an invalid executor before the plan is made
    single = {name: value for name, value in study.settings.items() if name != "lr"}
    plan, searches = _planned_searches(plan_request(single, study.overrides), rules, study.registry)
    invocation.check(plan)
    invocation.limit_jobs(plan)
    streams.stderr.print(planned_search_view(plan, searches))
    return PlannedSearch(invocation, plan, searches)


def do_search(study: Study, streams: Streams) -> Search:
    """Execute a search for each task and model: one after the other or, with worker processes, all at the same time.

    Args:
        study: The settings and plugins.
        streams: The output streams for the description of the searches and the progress.

    Returns:
        The results. A failed run or an interruption by the user raises no error; the results record it.

    Raises:
        UsageError: The value of an option is invalid, or there is nothing to search.
    """
    planned = planned_search(study, streams)
    invocation, searches = planned.invocation, planned.searches
    skipped = planned.plan.skipped
    with invocation:
        first = Plan(
            [search.grid.runs[one.name] for search in searches for one in search.given_question.fulls], skipped
        )
        invocation.start_parent(first, name=f"search in {_number_of_settings(searches)}", tags={"command": "search"})
        outcomes: list[Outcome] = []
        stop: Interrupted | None = None
        fail_fast = study.execution.fail_fast
        with SearchProgress(streams.stderr) as progress, invocation.keeping_workers():
            for side_by_side in [searches] if invocation.uses_workers else [[search] for search in searches]:
                stop = _follow(side_by_side, invocation, progress, outcomes, fail_fast=fail_fast)
                if stop or (fail_fast and any(outcome.status == "failed" for outcome in outcomes)):
                    break
        execution = Execution(Plan([outcome.planned for outcome in outcomes], skipped), outcomes, stop)
        searched = tuple((search, search.decision()) for search in searches if search.done or search.failed)
        for search, decision in searched:
            if decision.step is None and decision.best.candidate != search.question.full:
                search.confirmation = _confirmation_of(search, decision.best.candidate, invocation.recorder.connection)
                _tag(search, decision.best.candidate, invocation)
        whole = [outcome for outcome in outcomes if LOW_FIDELITY not in outcome.planned.tags]
        invocation.register_kept_models(whole)
        document = invocation.document(execution)
        document["searches"] = [search.as_dict(decision) for search, decision in searched]
        ending = invocation.finish(document, replace(execution, outcomes=whole), _metrics(searched))
        return Search(execution, document, ending, searches=searched)


def _planned_searches(request: PlanRequest, rules: Rules, registry: Registry) -> tuple[Plan, list[SearchState]]:
    """Return the plan of the first runs, which are full fine-tuning, and a search for each task and model.

    Raise UsageError if there is nothing to search, or if the cost of a strategy is unknown before it is run.
    """
    full = cell_name((0, 0))
    for name in (*request.strategies, *rules.grid.strategies):
        if registry.strategy(name)[0].chooses:
            raise UsageError(
                f"strategy {name!r}: a search needs the FLOPs of each setting before its run, but {name} chooses its "
                "layers at the start of its run; leave it out, or run it with alue-bench run"
            )
        if registry.strategy(name)[0].revisions() is not None:
            raise UsageError(
                f"strategy {name!r}: a search needs the FLOPs of each setting before its run, but {name} changes what "
                "is frozen during training; leave it out, or run it with alue-bench run"
            )
    cells = build_plan(replace(request, strategies=(full, *request.strategies), grid=rules.grid), registry)
    full_runs = [run for run in cells.runs if run.spec.strategy == full]
    if not full_runs:
        reasons = "; ".join(dict.fromkeys(skipped.reason for skipped in cells.skipped))
        raise UsageError(f"nothing to search: {reasons or 'no task fits a model'}")
    groups: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in cells.runs:
        groups.setdefault((run.spec.task, run.spec.model), []).append(run)
    searches = []
    for (task, model), runs in groups.items():
        search_grid = grid_of(runs)
        question = Question(
            search_grid.candidates,
            search_grid.layers,
            rules.tolerance,
            rules.margin,
            rules.budget * search_grid.cost,
            level=rules.level,
            short_runs=rules.short_runs and search_grid.short_epochs is not None,
            confirm=rules.confirm,
        )
        search_grid.run_of(
            Step(question.full, question.max_pairs + question.confirm)
        )  # raises an error if there are too few seeds
        searches.append(SearchState(task, model, runs[0].inputs.task.primary, search_grid, question))
    return Plan(full_runs, cells.skipped, cells.notes, keeps_prefixes=cells.keeps_prefixes), searches


def _follow(
    searches: Sequence[SearchState],
    invocation: Invocation,
    progress: SearchProgress,
    outcomes: list[Outcome],
    *,
    fail_fast: bool,
) -> Interrupted | None:
    """Execute the runs of several searches, in rounds, until all searches have ended.

    A round has the next run of each search. With worker processes, it also has later runs that a search will need
    regardless of the results of this round.

    Args:
        searches: The searches.
        invocation: The object that executes the runs and records them in MLflow.
        progress: The display of the progress.
        outcomes: The list to which the outcomes are added.
        fail_fast: True to stop after the first failed run.

    Returns:
        The interruption by the user; None if there was none.
    """

    def asked() -> list[RequestedRun]:
        return [one for search in searches for one in search.next_runs(all_certain=invocation.uses_workers)]

    progress.set_searches(searches)
    while now := asked():
        progress.show_requested_runs(now)
        execution = invocation.execute(Plan([one.planned for one in now]), progress)
        execution = _with_predictions(execution, invocation, progress)
        outcomes += execution.outcomes
        if execution.interruption is not None:
            return execution.interruption
        _pass_outcomes(now, execution.outcomes, invocation, progress)
        if fail_fast and execution.failed:
            return None
    return None


def _with_predictions(execution: Execution, invocation: Invocation, progress: SearchProgress) -> Execution:
    """Repeat each reused run whose dev predictions were not recorded, because a search needs them.

    Return the execution with the outcomes of the repeated runs.
    """
    lacking = [outcome for outcome in execution.outcomes if _lacks_predictions(outcome, invocation)]
    if execution.interruption is not None or not lacking:
        return execution
    for outcome in lacking:
        progress.warned(f"{outcome.spec.label} was recorded without dev predictions; it is repeated")
    again = invocation.execute(Plan([outcome.planned for outcome in lacking]), progress, rerun=True)
    kept = [outcome for outcome in execution.outcomes if all(outcome is not one for one in lacking)]
    return replace(execution, outcomes=kept + again.outcomes, interruption=again.interruption)


def _pass_outcomes(
    asked: Sequence[RequestedRun], outcomes: Sequence[Outcome], invocation: Invocation, progress: SearchProgress
) -> None:
    """Pass the outcomes of a round's runs to the searches, in the order in which the searches asked for the runs.

    An outcome is ignored if its search no longer needs the run, for example because full fine-tuning has failed. The
    run remains in MLflow.

    Args:
        asked: The runs for which the searches asked in this round.
        outcomes: The outcomes of these runs; a run that was not executed has none.
        invocation: The invocation that executed the runs.
        progress: The display of the progress.
    """
    ended = {outcome.spec.fingerprint: outcome for outcome in outcomes}
    for one in asked:
        search, outcome = one.search, ended.get(one.planned.spec.fingerprint)
        if outcome is None or search.decision().step != one.step:
            continue
        if outcome.status == "failed":
            search.failed[one.step] = outcome.cause
        else:
            search.done.append(_finished_search_run(one, outcome, invocation))
        progress.show_decision(one, search.decision())


def _lacks_predictions(outcome: Outcome, invocation: Invocation) -> bool:

    return (
        outcome.status == "reused"
        and read_dev_predictions(_results(invocation, outcome.run_id), outcome.run_id) is None
    )


def _finished_search_run(asked: RequestedRun, outcome: Outcome, invocation: Invocation) -> FinishedSearchRun:
    """Return a finished run with the values that the search uses: its scores on dev and test, and its cost."""
    step, inputs, results = asked.step, outcome.planned.inputs, _results(invocation, outcome.run_id)
    dev_table = read_dev_predictions(results, outcome.run_id)
    if dev_table is None:
        raise UnavailableError(
            f"the dev predictions of run {outcome.run_id} cannot be read from the tracking store{CANNOT_CONTINUE}"
        )
    metrics, trained_on = outcome.metrics, inputs.train_task

    return FinishedSearchRun(
        step,
        outcome.run_id,
        outcome.status == "reused",
        asked.decision.reason,
        replace(
            evaluation_of(step, dev_table, trained_on.labels, trained_on.primary, metrics["selection/dev_score"]),
            trivial=metrics.get("selection/trivial_score", math.nan),
            trivial_error=metrics.get("selection/above_trivial_error", math.nan),
        ),
        metrics["test/score"],
        outcome.spec.fingerprint,
        metrics["flops/train"],
        metrics["runtime/train_s"],
    )


def _confirmation_of(search: SearchState, answer: Candidate, connection: Connection) -> Confirmation | None:
    """Return the confirmation of a search's answer: its loss of test score, with seeds not used for the choice.

    Args:
        search: The search, which has ended.
        answer: The answer, that is, the setting that was found; not full fine-tuning.
        connection: The open store, from which the test predictions are read.

    Returns:
        The confirmation; None with `--confirm 0`.
    """
    if not search.question.confirm:
        return None
    full = search.question.full
    ids = [done.run_id for candidate in (full, answer) for done in search.confirming(candidate)]
    margins = Margins(Margin(search.confirmed_margin))
    own, base = (search.grid.runs[candidate.name].spec.strategy for candidate in (answer, full))
    confirmation = confirmation_by(connection, (own, base), ids, margins, search.confirming_seeds)
    # Unlike the strategies' names, the candidates' names include the learning rate if the search varies it.
    return replace(confirmation, strategy=answer.name, reference=full.name)


def _tag(search: SearchState, answer: Candidate, invocation: Invocation) -> None:
    """Tag the runs that were used to choose the answer, so that reports leave them out of verdicts.

    If the search also chose the learning rate of full fine-tuning, the run of full fine-tuning with the chosen rate and
    the first seed is tagged, too.

    Args:
        search: The search, which has ended.
        answer: The answer, that is, the setting that was found; not full fine-tuning.
        invocation: The invocation that executed the runs.
    """
    parent_id = invocation.recorder.parent_id
    if parent_id is not None:
        chosen = search.selecting(answer)
        if len(search.question.fulls) > 1:
            chosen += [done for done in search.selecting(search.question.full) if done.step.replicate == 0]
        runs = {done.run_id: done.fingerprint for done in chosen}
        tag_selection_runs(invocation.recorder, runs, parent_id)


def _results(invocation: Invocation, run_id: str) -> Any:
    """Return an object that reads the files of one run. Raise UnavailableError if the MLflow store does not answer."""
    try:
        return read_runs(invocation.recorder.connection, [run_id])
    except UnavailableError as error:
        raise UnavailableError(f"{error}{CANNOT_CONTINUE}") from error


def _metrics(searched: Iterable[tuple[SearchState, Any]]) -> dict[str, float]:
    """Return the metrics that searches add to their MLflow parent run."""
    values = {}
    for search, decision in searched:
        values[f"search/{search.task}/{search.model}/compute_share"] = search.share(decision.spent)
        if decision.unlearnt is None:
            values[f"search/{search.task}/{search.model}/cost_of_full"] = decision.best.candidate.cost
    return values


def _number_of_settings(searches: list[SearchState]) -> str:
    number = sum(len(search.question.candidates) for search in searches)
    return f"{number} settings"
