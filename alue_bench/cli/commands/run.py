"""`alue-bench run`: the main command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import typer

from alue_bench.cli import options
from alue_bench.cli.settings import Overrides, given_options, merge_study, plan_request
from alue_bench.cli.stopping import stoppable
from alue_bench.cli.views.standard_output import keep_for_documents
from alue_bench.contract.registry import Registry


def run(
    context: typer.Context,
    task: options.Task = None,
    model: options.Model = None,
    strategy: options.Strategy = None,
    seed: options.Seed = None,
    seeds: options.Seeds = None,
    init_seed: options.InitSeed = None,
    data_seed: options.DataSeed = None,
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
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    as_json: options.AsJson = False,
) -> None:
    """Fine-tune every combination of tasks, models, strategies and seeds, and record it in MLflow.

    Shows the plan first, then progress, then a table with the change against full fine-tuning. Finished runs are not
    repeated: the same command again goes on where it stopped.

    `alue-bench run --strategy bottom3top4`  (everything available, offline)

    `alue-bench run -t mdd -m UBC-NLP/MARBERT -s full -s bottom3top4 --seeds 5 --data-dir DIR`
    """
    keep_for_documents(as_json)
    settings, overrides = merge_study(given_options(context.params), config, context.obj)
    with stoppable():
        raise typer.Exit(run_plan(context.obj, settings, overrides, dry_run=dry_run, yes=yes, as_json=as_json))


def run_plan(
    registry: Registry,
    settings: Mapping[str, Any],
    overrides: Overrides,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Plan, execute, show. Returns the exit code."""
    from alue_bench.cli.dry_run import show_plan
    from alue_bench.cli.invocation import Invocation, Streams
    from alue_bench.cli.views.progress import progress_of
    from alue_bench.cli.views.tables import plan_view, result_view
    from alue_bench.planning.build import build_plan

    streams = Streams.of_command(as_json=as_json)
    streams.warn_of_plugins(registry)
    invocation = Invocation(registry, settings, streams)  # a wrong executor is told before the plan is made
    request = plan_request(settings, overrides)
    # A plan that may leave out what is missing is shown as things are: nothing is fetched for it.
    plan = build_plan(replace(request, download=not (dry_run and request.skip_missing)), registry)
    streams.talk.print(plan_view(plan))
    if dry_run:
        return show_plan(plan, registry, invocation, streams)
    invocation.check(plan)
    streams.confirm(len(plan.runs), yes=yes)

    with invocation:
        if len(plan.runs) > 1:
            invocation.start_parent(plan, name=f"plan of {len(plan.runs)} runs")
        execution = invocation.execute(plan, progress_of(plan, streams.talk))
        document = invocation.document(execution)
        invocation.finish_parent(document, execution)
        if execution.outcomes:
            streams.result(result_view(execution.outcomes))
        return invocation.farewell(document, execution)
