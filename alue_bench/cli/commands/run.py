"""`alue-bench run`: the main command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import typer

from alue_bench.cli.options import Given, OutputOptions, takes
from alue_bench.cli.settings import merge_study, plan_request
from alue_bench.cli.stopping import stoppable
from alue_bench.cli.views.standard_output import keep_for_documents
from alue_bench.contract.options import filled
from alue_bench.contract.registry import Registry
from alue_bench.planning.request import Overrides


@takes("run")
def run(context: typer.Context, given: Given) -> None:
    """Fine-tune every combination of tasks, models, strategies and seeds, and record it in MLflow.

    Shows the plan first, then progress, then a table of scores with the change relative to full fine-tuning. Finished
    runs are not repeated: to continue an interrupted plan, run the same command again.

    `alue-bench run --strategy bottom3top4`  (everything available, offline)

    `alue-bench run -t mdd -m UBC-NLP/MARBERT -s full -s bottom3top4 --seeds 5 --data-dir DIR`
    """
    output = filled(OutputOptions, given)
    keep_for_documents(output.json)
    settings, overrides = merge_study(given, given.get("config"), context.obj)
    with stoppable():
        raise typer.Exit(run_plan(context.obj, settings, overrides, output))


def run_plan(
    registry: Registry,
    settings: Mapping[str, Any],
    overrides: Overrides,
    output: OutputOptions,
) -> int:
    """Plan, execute, show. Return the exit code."""
    from alue_bench.cli.dry_run import show_plan
    from alue_bench.cli.invocation import Invocation, Streams
    from alue_bench.cli.views.progress import progress_of
    from alue_bench.cli.views.tables import plan_view, result_view
    from alue_bench.planning.build import build_plan

    streams = Streams.of_command(as_json=output.json)
    streams.warn_of_plugins(registry)
    invocation = Invocation(registry, settings, streams)  # a wrong executor is reported before the plan is made
    request = plan_request(settings, overrides)
    # A plan that may leave out what is missing is shown as things are: nothing is fetched for it.
    plan = build_plan(replace(request, download=not (output.dry_run and request.skip_missing)), registry)
    streams.talk.print(plan_view(plan))
    if output.dry_run:
        return show_plan(plan, registry, invocation, streams)
    invocation.check(plan)
    streams.confirm(len(plan.runs), yes=output.yes)

    with invocation:
        if len(plan.runs) > 1:
            invocation.start_parent(plan, name=f"plan of {len(plan.runs)} runs")
        execution = invocation.execute(plan, progress_of(plan, streams.talk))
        invocation.settle_kept(execution.outcomes)
        document = invocation.document(execution)
        invocation.finish_parent(document, execution)
        if execution.outcomes:
            streams.result(result_view(execution.outcomes))
        return invocation.farewell(document, execution)
