"""`alue-bench sweep`: every setting of a grid, and which one to take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from alue_bench.cli.options import HYPER_OPTIONS, Given, OutputOptions, SweepOptions, options_of_command, takes
from alue_bench.cli.settings import RECIPE_ORIGIN, merge_study, parse_tolerance, plan_request
from alue_bench.cli.stopping import stoppable
from alue_bench.cli.views.standard_output import keep_for_documents
from alue_bench.contract.errors import UsageError
from alue_bench.contract.options import filled
from alue_bench.contract.registry import Registry
from alue_bench.measure.best_effort import best_effort
from alue_bench.planning.grid import WHOLE, Grid, parse_grid
from alue_bench.planning.request import Overrides, PlanRequest

if TYPE_CHECKING:
    from alue_bench.cli.invocation import Invocation, Progress
    from alue_bench.cli.views.console import PlainConsole
    from alue_bench.planning.build import Plan
    from alue_bench.planning.sweep_order import Order
    from alue_bench.report.grid import Group, Recommendation

FOLDER = "sweep"
"""The folder of the figures among the parent run's artifacts."""


@takes("sweep")
def sweep(context: typer.Context, given: Given) -> None:
    """Fine-tune every setting of a grid of frozen layers, and recommend one.

    Draws heat maps of score and training time and the Pareto front of the two, and names the fastest setting whose
    score on the dev split is within the tolerance of full fine-tuning, with its loss on the test split and the time
    saved. Finished runs are not repeated: to continue an interrupted plan, run the same command again.

    `alue-bench sweep -t mdd -m mini`  (every pair of bottom and top layers: 91 runs)

    `alue-bench sweep -t mdd -m mini --grid bottom=0..12/3,top=0..4 --grid lr=2e-5,5e-5 --seeds 3`
    """
    output = filled(OutputOptions, given)
    keep_for_documents(output.json)
    settings, overrides = merge_study(given, given.get("config"), context.obj, command="sweep")
    with stoppable():
        raise typer.Exit(run_sweep(context.obj, settings, overrides, output))


def run_sweep(
    registry: Registry,
    settings: Mapping[str, Any],
    overrides: Overrides,
    output: OutputOptions,
    *,
    progress_of: Callable[[Plan, PlainConsole], Progress] | None = None,
) -> int:
    """Plan, execute, draw, recommend.

    Args:
        registry: the plugins' declarations.
        settings: the options' values, by name.
        overrides: hyper-parameters by origin.
        output: what this call does and prints.
        progress_of: makes the observer that follows the sweep, in place of the view on the terminal.

    Returns:
        The exit code.
    """
    from alue_bench.cli.dry_run import show_plan
    from alue_bench.cli.invocation import Invocation, Streams
    from alue_bench.cli.views.grid_view import grid_progress_of, grid_result
    from alue_bench.cli.views.tables import plan_view, result_view
    from alue_bench.executors.outcome import in_reading_order
    from alue_bench.planning.build import build_plan
    from alue_bench.planning.sweep_order import spread_out

    streams = Streams.of_command(as_json=output.json)
    streams.warn_of_plugins(registry)
    tolerance = parse_tolerance(filled(SweepOptions, settings).tolerance)
    invocation = Invocation(registry, settings, streams)  # a wrong executor is reported before the plan is made
    request = sweep_request(settings, overrides)
    plan = build_plan(replace(request, download=not (output.dry_run and request.skip_missing)), registry)
    order = spread_out(plan.runs)
    plan.runs, plan.order_matters = order.runs, True
    streams.talk.print(plan_view(plan))
    streams.talk.print(f"order: {order.describe()}")
    if output.dry_run:
        return show_plan(plan, registry, invocation, streams, {"sweep": _described(order, tolerance, [])})
    invocation.check(plan)
    streams.confirm(len(plan.runs), yes=output.yes)

    with invocation:
        invocation.start_parent(plan, name=f"sweep of {len(plan.runs)} runs", tags={"sweep.order": order.describe()})
        execution = invocation.execute(plan, (progress_of or grid_progress_of)(plan, streams.talk))
        outcomes = in_reading_order(execution.outcomes)
        conclusions = [] if execution.stop else list(_concluded(outcomes, tolerance))
        invocation.settle_kept(execution.outcomes)
        document = invocation.document(execution) | {"sweep": _described(order, tolerance, conclusions)}
        if conclusions:
            best_effort(
                "no figures of the grid", lambda: _keep_figures(conclusions, invocation, streams.warn), streams.warn
            )
        invocation.finish_parent(document, execution, _headline(conclusions))
        if conclusions:
            for group, recommendation in conclusions:
                streams.result(grid_result(group, recommendation))
        elif outcomes:
            streams.result(result_view(outcomes))
        return invocation.farewell(document, execution)


def sweep_request(settings: Mapping[str, Any], overrides: Overrides) -> PlanRequest:
    """Return the request for every setting of a grid.

    Args:
        settings: the options' values, by name; hyper-parameters with several values are axes of the grid.
        overrides: hyper-parameters with one value, by origin.

    Raises:
        UsageError: the grid makes no sense, or an option and the grid both set the same.
    """
    options = options_of_command("sweep")
    grid = parse_grid(settings.get("grid") or [WHOLE])
    lists = {name: settings[name] for name in HYPER_OPTIONS if settings.get(name)}
    _check_said_once(grid, settings, (*overrides, ("command line", lists)))
    axes = {name: tuple(dict.fromkeys(options[name].converted(values))) for name, values in lists.items()}
    grid = replace(grid, settings={**grid.settings, **axes})
    request = plan_request({name: value for name, value in settings.items() if name not in lists}, overrides)
    if not (grid.bottom or grid.top or grid.strategies or request.strategies):
        raise UsageError(f"--grid does not say what to freeze; add {WHOLE}, axes such as bottom=0..12/3, or --strategy")
    return replace(request, grid=grid, seeds=grid.seeds or request.seeds)


def _check_said_once(grid: Grid, settings: Mapping[str, Any], overrides: Overrides) -> None:
    """Raise UsageError if an axis of the grid has values by an option or a study too."""
    given = {
        name: origin
        for origin, values in overrides
        if not origin.startswith(RECIPE_ORIGIN)  # a recipe gives way to whatever else was said
        for name in values
    }
    twice = [name for name in grid.settings if name in given]
    twice += [name for name in ("seed", "seeds") if grid.seeds and name in settings]
    if twice:
        name, origin = twice[0].replace("_", "-"), given.get(twice[0], "command line")
        said = f"--{name}" if origin == "command line" else f"{name} of {origin}"
        axis = "seed" if twice[0] == "seeds" else name
        raise UsageError(f"{said} and --grid {axis}=… set the same value twice; give only one of them")


Conclusions = list["tuple[Group, Recommendation | None]"]


def _concluded(outcomes: list[Any], tolerance: float) -> Conclusions:
    """Return each grid with what to recommend of it."""
    from alue_bench.cli.views.grid_view import table_of
    from alue_bench.report.grid import groups, recommend

    return [(group, recommend(group.cells, tolerance)) for group in groups(table_of(outcomes)) if len(group.cells)]


def _keep_figures(conclusions: Conclusions, invocation: Invocation, warn: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        _draw(conclusions, Path(scratch), warn)
        invocation.add_to_parent(Path(scratch), into=FOLDER)


def _draw(conclusions: Conclusions, folder: Path, warn: Callable[[str], None]) -> None:
    """Draw three PNG files of each grid. One that cannot be drawn is reported, and the others are drawn."""
    from alue_bench.messages.display import file_name
    from alue_bench.messages.figure_text import literal_text
    from alue_bench.report.grid import pareto_figure, runtime_map, score_map

    def draw_one(draw: Callable[..., Any], path: Path, group: Any, recommendation: Any) -> None:
        with literal_text():
            draw(group, recommendation).savefig(path, dpi=110)

    for group, recommendation in conclusions:
        for name, draw in (("score", score_map), ("runtime", runtime_map), ("pareto", pareto_figure)):
            path = folder / file_name(group.name, f"-{name}.png")
            drawing = partial(draw_one, draw, path, group, recommendation)
            best_effort(f"no figure {path.name}", drawing, warn)


def _headline(conclusions: Conclusions) -> dict[str, float]:
    """Return the metrics of the parent run that tell its recommendations."""
    shown = {}
    for group, recommendation in conclusions:
        if recommendation is not None:
            values = recommendation.as_dict()
            for name in ("test_score", "test_change", "train_s", "saving"):
                if values[name] is not None:
                    shown[f"recommended_{name}/{group.name}"] = values[name]
    return shown


def _described(order: Order, tolerance: float, conclusions: Conclusions) -> dict[str, Any]:
    """Return the part of the document that a sweep adds."""
    from alue_bench.report.grid import nothing_learnt, pareto_front

    return {
        "tolerance": tolerance,
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
