"""The command `sweep`, which fine-tunes with every setting of a grid of frozen layers, and recommends one setting."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UsageError
from alue_bench.contract.options import build_options
from alue_bench.evaluation.margins import Margin, Margins, MarginUnit, parse_margins
from alue_bench.executors.outcome import Outcome, in_reading_order
from alue_bench.measure.best_effort import best_effort
from alue_bench.planning.build import Plan, build_plan
from alue_bench.planning.grid import BOTTOM_TOP_AXIS, Grid, parse_grid
from alue_bench.planning.request import Overrides, PlanRequest
from alue_bench.planning.sweep_order import Order, order_runs
from alue_bench.reporting.choosing_runs import REFERENCE
from alue_bench.reporting.grid import (
    GridResults,
    Recommendation,
    grids_of,
    nothing_learnt,
    pareto_front,
    recommend,
)
from alue_bench.reporting.numbers import number_with_noun
from alue_bench.studies.confirmation import (
    CONFIRMS,
    ConfirmingSeeds,
    confirmation_of,
    confirming_runs,
    confirming_seeds,
    unused_seeds,
)
from alue_bench.studies.invocation import Execution, Invocation, Progress
from alue_bench.studies.options import HYPER_OPTIONS, ConfirmationOptions, SweepOptions, options_of_command
from alue_bench.studies.results import Sweep, is_of
from alue_bench.studies.run import Confirm, check_margins
from alue_bench.studies.settings import COMMAND_LINE, RECIPE_ORIGIN, Study, parse_tolerance, plan_request
from alue_bench.tracking.selection_tags import tag_selection_runs
from alue_bench.views.console import PlainConsole
from alue_bench.views.grid_view import grid_progress_of, table_of
from alue_bench.views.progress import progress_of as list_progress_of
from alue_bench.views.streams import Streams
from alue_bench.views.tables import plan_view

FOLDER = "sweep"
"""The folder with the figures of a sweep, in the artifacts of the sweep's MLflow parent run."""

Conclusions = tuple[tuple[GridResults, Recommendation | None], ...]
"""The grids of a sweep, each with its recommendation, which is None if no setting can be recommended."""


@dataclass(frozen=True)
class PlannedSweep:
    """The planned runs of a sweep in their order, the `Invocation` that will execute them, and the settings."""

    invocation: Invocation
    plan: Plan
    order: Order
    tolerance: float
    """The largest accepted loss of dev score, as a share of the dev score of full fine-tuning."""
    margins: Margins
    """The largest acceptable loss of score in the confirming runs, for each metric."""
    confirming: ConfirmingSeeds

    def json_document(self, conclusions: Conclusions = ()) -> dict[str, Any]:
        """Return the values that a sweep adds to the JSON document of the option `--json`."""
        return {"sweep": _json_document(self, conclusions)}


def planned_sweep(study: Study, streams: Streams, *, fetch: bool = True) -> PlannedSweep:
    """Make the plan of a sweep, that is, the list of runs to execute, and show it.

    Args:
        study: The settings and plugins.
        streams: The output streams.
        fetch: True to download the models and task files that the user named, if they are not on this machine. False
            not to download them if `--skip-missing` is set; tasks and models without files are then left out.
    """
    options = build_options(SweepOptions, study.settings)
    tolerance = parse_tolerance(options.tolerance)
    default_margin = Margin(tolerance, MarginUnit.SCORE)
    margins = Margins(default_margin) if options.margin is None else parse_margins(options.margin, default_margin)
    # An invalid executor is reported before the plan is made.
    invocation = Invocation(study, streams, margins=margins, tolerance=tolerance)
    request = sweep_request(study.settings, study.overrides)
    plan = build_plan(replace(request, download=fetch or not request.skip_missing), study.registry)
    check_margins(margins, plan)
    order = order_runs(plan.runs)
    plan.runs, plan.order_matters = order.runs, True
    invocation.limit_jobs(plan)
    check_margins(margins, plan)
    streams.stderr.print(plan_view(plan))
    streams.stderr.print(f"order: {order.describe()}")
    confirming = confirming_seeds(plan.runs, build_options(ConfirmationOptions, study.settings).confirm)
    streams.stderr.print(confirming.describe())
    return PlannedSweep(invocation, plan, order, tolerance, margins, confirming)


def do_sweep(
    study: Study,
    streams: Streams,
    confirm: Confirm | None = None,
    *,
    progress_of: Callable[[Plan, PlainConsole], Progress] = grid_progress_of,
) -> Sweep:
    """Plan and execute a sweep, recommend a setting for each grid, confirm it with fresh seeds, and draw figures.

    Args:
        study: The settings and plugins.
        streams: The output streams for the plan and the progress.
        confirm: A function that asks the user for consent before the first run; None to start at once.
        progress_of: A function that creates the display of the progress.

    Returns:
        The results. A failed run or an interruption by the user raises no error; the results record it.

    Raises:
        UsageError: There is nothing to run, or the value of an option is invalid.
    """
    planned = planned_sweep(study, streams)
    invocation, plan, order = planned.invocation, planned.plan, planned.order
    invocation.check(plan)
    if confirm is not None:
        confirm(len(plan.runs) + planned.confirming.most_runs)
    with invocation, invocation.keeping_workers():
        invocation.start_parent(plan, name=f"sweep of {len(plan.runs)} runs", tags={"sweep.order": order.describe()})
        execution = invocation.execute(plan, progress_of(plan, streams.stderr))
        conclusions = (
            () if execution.interruption else _conclusions_of(in_reading_order(execution.outcomes), planned.tolerance)
        )
        _tag_choosing_runs(conclusions, execution.outcomes, invocation)
        if not (execution.failed and study.execution.fail_fast):
            execution, conclusions = _confirm(planned, execution, conclusions)
        invocation.register_kept_models(execution.outcomes)
        document = invocation.document(execution) | planned.json_document(conclusions)
        if conclusions:
            best_effort(
                "no figures of the grid", lambda: _log_figures(conclusions, invocation, streams.warn), streams.warn
            )
        ending = invocation.finish(document, execution, _parent_metrics(conclusions))
        return Sweep(execution, document, ending, tolerance=planned.tolerance, grids=conclusions)


def _tag_choosing_runs(conclusions: Conclusions, outcomes: list[Outcome], invocation: Invocation) -> None:
    """Tag the runs that were used to choose settings, so that reports leave them out of verdicts.

    They are the runs of the recommended settings. If a grid does not contain `full`, its reference is the setting with
    the best dev score. This setting was chosen too, so that its runs are also tagged. Runs of `full` are never tagged.
    """
    parent_id = invocation.recorder.parent_id
    for group, recommendation in conclusions:
        if parent_id is not None and recommendation is not None:
            names = {recommendation.strategy, recommendation.reference} - {REFERENCE}
            chosen = [one for one in outcomes if any(is_of(one.spec, group, name) for name in names)]
            runs = {one.run_id: one.spec.fingerprint for one in chosen if one.status != "failed"}
            tag_selection_runs(invocation.recorder, runs, parent_id)


def _confirm(planned: PlannedSweep, execution: Execution, conclusions: Conclusions) -> tuple[Execution, Conclusions]:
    """Confirm each recommended setting: run it and its reference with fresh seeds.

    Returns:
        The execution, to which the confirming runs are added, and the conclusions with the confirmations. If the user
        interrupts the confirming runs, there are no confirmations.
    """
    invocation, seeds = planned.invocation, planned.confirming.seeds
    conclusions = tuple(
        (group, recommendation and planned.confirming.explained(recommendation))
        for group, recommendation in conclusions
    )
    runs_of = {
        place: confirming_runs(
            planned.plan.runs,
            group,
            recommendation,
            unused_seeds(invocation.recorder.connection, planned.plan.runs, group, recommendation, seeds),
        )
        for place, (group, recommendation) in enumerate(conclusions)
        if seeds and recommendation is not None and not recommendation.is_reference
    }
    further = Plan([run for runs in runs_of.values() for run in runs], order_matters=True)
    if not further.runs:
        return execution, conclusions
    stderr = invocation.streams.stderr
    names = ", ".join(dict.fromkeys(str(run.tags[CONFIRMS]) for run in further.runs))
    used = sorted({run.spec.seed for run in further.runs})
    stderr.print(
        f"confirming {names} with seeds {', '.join(map(str, used))}: {number_with_noun(len(further.runs), 'run')}"
    )
    done = invocation.execute(further, list_progress_of(further, stderr))
    whole = Execution(
        replace(planned.plan, runs=[*planned.plan.runs, *further.runs]),
        execution.outcomes + done.outcomes,
        done.interruption,
    )
    if done.interruption:
        return whole, conclusions
    outcomes = {one.spec.fingerprint: one for one in done.outcomes}
    return whole, tuple(
        (
            group,
            replace(
                recommendation,
                confirmation=confirmation_of(
                    invocation.recorder.connection, recommendation, runs_of[place], outcomes, planned.margins
                ),
            )
            if recommendation is not None and place in runs_of
            else recommendation,
        )
        for place, (group, recommendation) in enumerate(conclusions)
    )


def sweep_request(settings: Mapping[str, Any], overrides: Overrides) -> PlanRequest:
    """Return the specification of the runs of a sweep, which executes every setting of a grid.

    Args:
        settings: The values of the options, by name. Hyper-parameters with several values are varied in the grid.
        overrides: The hyper-parameters with one value, from each origin, such as the command line.

    Raises:
        UsageError: The grid is invalid, or an option and the grid both set the same value.
    """
    options = options_of_command("sweep")
    grid = parse_grid(settings.get("grid") or [BOTTOM_TOP_AXIS])
    lists = {name: settings[name] for name in HYPER_OPTIONS if settings.get(name)}
    check_no_setting_is_given_twice(grid, settings, (*overrides, (COMMAND_LINE, lists)))
    axes = {name: tuple(dict.fromkeys(options[name].converted(values))) for name, values in lists.items()}
    grid = replace(grid, settings={**grid.settings, **axes})
    request = plan_request({name: value for name, value in settings.items() if name not in lists}, overrides)
    if not (grid.bottom or grid.top or grid.strategies or request.strategies):
        raise UsageError(
            f"--grid does not say what to freeze; add {BOTTOM_TOP_AXIS}, axes such as bottom=0..12/3, or --strategy"
        )
    return replace(request, grid=grid, seeds=grid.seeds or request.seeds)


def check_no_setting_is_given_twice(grid: Grid, settings: Mapping[str, Any], overrides: Overrides) -> None:
    """Raise UsageError if a hyper-parameter or the seed is varied by the grid and also set by an option or study file.

    A recipe may set a hyper-parameter that the grid varies; the values in the grid then override the recipe.

    Args:
        grid: The grid, as given by `--grid`.
        settings: The values of the options, by name.
        overrides: The hyper-parameters with their origins, such as the command line or a study file.
    """
    given = {
        name: origin
        for origin, values in overrides
        if not origin.startswith(RECIPE_ORIGIN)  # other settings override a recipe without an error
        for name in values
    }
    twice = [name for name in grid.settings if name in given]
    twice += [name for name in ("seed", "seeds") if grid.seeds and name in settings]
    if twice:
        name, origin = twice[0].replace("_", "-"), given.get(twice[0], COMMAND_LINE)
        setting = f"--{name}" if origin == COMMAND_LINE else f"{name} of {origin}"
        axis = "seed" if twice[0] == "seeds" else name
        raise UsageError(f"{setting} and --grid {axis}=… set the same value twice; give only one of them")


def _conclusions_of(outcomes: list[Any], tolerance: float) -> Conclusions:
    """Divide runs into grids (one task, model and set of hyper-parameters), and return each with its recommendation."""
    grids = (group for group in grids_of(table_of(outcomes)) if len(group.cells))
    return tuple((group, recommend(group.cells, tolerance)) for group in grids)


def _log_figures(conclusions: Conclusions, invocation: Invocation, warn: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        _draw(conclusions, Path(scratch), warn)
        invocation.add_to_parent(Path(scratch), into=FOLDER)


def _draw(conclusions: Conclusions, folder: Path, warn: Callable[[str], None]) -> None:
    """Draw a map of scores, a map of training times and the Pareto front of each grid, as PNG files in a folder.

    If a figure cannot be drawn, `warn` is called with a message.
    """
    from alue_bench.messages.display import file_name
    from alue_bench.messages.figure_text import literal_text
    from alue_bench.reporting.grid import pareto_figure, runtime_map, score_map

    def draw_one(draw: Callable[..., Any], path: Path, group: Any, recommendation: Any) -> None:
        with literal_text():
            draw(group, recommendation).savefig(path, dpi=110)

    for group, recommendation in conclusions:
        for name, draw in (("score", score_map), ("runtime", runtime_map), ("pareto", pareto_figure)):
            path = folder / file_name(group.name, f"-{name}.png")
            drawing = partial(draw_one, draw, path, group, recommendation)
            best_effort(f"no figure {path.name}", drawing, warn)


def _parent_metrics(conclusions: Conclusions) -> dict[str, float]:
    """Return the recommendations of a sweep as metrics for its MLflow parent run.

    The test scores and their changes from the reference come from the confirming runs.
    """
    shown = {}
    for group, recommendation in conclusions:
        if recommendation is not None:
            values = recommendation.as_dict()
            values |= {name: value for name, value in (values["confirmation"] or {}).items() if name not in values}
            for name in ("test_score", "test_change", "loss_bound", "train_s", "saving"):
                if values.get(name) is not None:
                    shown[f"recommended_{name}/{group.name}"] = values[name]
    return shown


def _json_document(planned: PlannedSweep, conclusions: Conclusions) -> dict[str, Any]:
    """Return the values that a sweep adds to the JSON document of the option `--json`, such as tolerance and grids."""
    order, confirming = planned.order, planned.confirming
    return {
        "tolerance": planned.tolerance,
        "margin": str(planned.margins),
        "confirm": {"seeds": list(confirming.seeds), "runs_at_most": confirming.most_runs},
        "order": {"seed": order.seed, "bias": order.bias, "description": order.describe()},
        "grids": [
            {
                "task": group.task,
                "model": group.model,
                "settings": group.settings,
                "metric": group.metric,
                "recommendation": recommendation.as_dict() if recommendation else None,
                "nothing_learnt": why.as_dict() if (why := nothing_learnt(group.cells)) else None,
                "front": [
                    {name: row[name] for name in ("strategy", "dev_score", "test_score", "train_s")}
                    for row in pareto_front(group.cells).to_dict("records")
                ],
            }
            for group, recommendation in conclusions
        ],
    }
