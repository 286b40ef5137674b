"""The command `run`, which fine-tunes every combination of tasks, models, strategies and seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from alue_bench.contract.errors import UsageError
from alue_bench.contract.task import METRICS
from alue_bench.evaluation.margins import Margins
from alue_bench.planning.build import Plan, build_plan
from alue_bench.studies.invocation import Invocation
from alue_bench.studies.results import Runs
from alue_bench.studies.settings import Study, plan_request
from alue_bench.studies.tuning import TunedRuns, do_tuned_run, plan_tuning, settings_for_given_strategies
from alue_bench.tracking.recording import TUNING
from alue_bench.views.progress import progress_of
from alue_bench.views.streams import Streams
from alue_bench.views.tables import plan_view

Confirm = Callable[[int], None]
"""A function that asks the user whether to start the given number of runs, and raises an error if the user declines."""


def planned_run(study: Study, streams: Streams, *, fetch: bool = True) -> tuple[Invocation, Plan]:
    """Make the plan of the command `run`, that is, the list of runs to execute, and show it.

    Args:
        study: The settings of the command, and the plugins.
        streams: The output streams.
        fetch: True to download the models and task files that the user named, if they are not on this machine. False
            not to download them if `--skip-missing` is set; tasks and models without files are then left out.

    Returns:
        The `Invocation` that executes the runs and records them, and the plan.
    """
    if study.settings.get("tune"):
        planned = plan_tuning(study, streams)
        return planned.invocation, planned.plan
    # An invalid executor is reported before the plan is made.
    invocation = Invocation(study, streams, margins=study.margins)
    request = plan_request(study.settings, study.overrides)
    plan = build_plan(replace(request, download=fetch or not request.skip_missing), study.registry)
    check_margins(study.margins, plan)
    invocation.limit_jobs(plan)
    streams.stderr.print(plan_view(plan))
    return invocation, plan


def check_margins(margins: Margins, plan: Plan) -> None:
    """Raise UsageError if a margin is given for a metric that no planned task has."""
    known = {metric for run in plan.runs for metric in METRICS[run.inputs.task.labels.kind]}
    for metric, margin in margins.by_metric:
        if plan.runs and metric not in known:
            raise UsageError(
                f"--margin {metric}={margin}: no planned task has this metric; there are {', '.join(sorted(known))}"
            )


def do_run(study: Study, streams: Streams, confirm: Confirm | None = None) -> Runs:
    """Plan the runs of a study, execute them and record them in MLflow.

    Args:
        study: The settings of the command, and the plugins.
        streams: The output streams for the plan and the progress.
        confirm: A function that asks the user for consent before the first run; None to start at once.

    Returns:
        The results. A failed run or an interruption by the user raises no error; the results record it.

    Raises:
        UsageError: There is nothing to run, or the value of an option is invalid.
    """
    if study.settings.get("tune"):
        return do_tuned_run(study, streams, confirm)
    invocation, plan = planned_run(study, streams)
    invocation.check(plan)
    if confirm is not None:
        confirm(len(plan.runs))
    with invocation:
        own = plan.runs[0].request.strategy_settings
        if len(plan.runs) > 1:
            tags = {TUNING: "yes"} if own else {}
            invocation.start_parent(plan, name=f"plan of {len(plan.runs)} runs", tags=tags)
        execution = invocation.execute(plan, progress_of(plan, streams.stderr))
        invocation.register_kept_models(execution.outcomes)
        document = invocation.document(execution)
        if own:
            document["tuning"] = settings_for_given_strategies(execution.outcomes, own)
            return TunedRuns(execution, document, invocation.finish(document, execution))
        return Runs(execution, document, invocation.finish(document, execution))
