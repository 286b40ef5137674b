"""`alue-bench run`: the main command."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from alue_bench.cli.termination import code_of_stop, stop_on_sigterm
from alue_bench.errors import UsageError
from alue_bench.plugins import Registry

if TYPE_CHECKING:
    from rich.console import Console

    from alue_bench.plan import Plan, PlanRequest

DEFAULT_EXPERIMENT = "alue-bench"
CONFIRM_ABOVE = 50
"""Plans with more runs than this ask before they start, on a terminal and without --yes."""

HYPER_OPTIONS = ("epochs", "batch_size", "lr", "max_length", "warmup", "weight_decay", "clip", "clip_by", "select")

what = partial(typer.Option, rich_help_panel="What to compare")
how = partial(typer.Option, rich_help_panel="How to train")
which = partial(typer.Option, rich_help_panel="Which data")
where = partial(typer.Option, rich_help_panel="Where results go")
control = partial(typer.Option, rich_help_panel="How the plan goes along")

Names = list[str] | None
Seeds = list[int] | None


def run(
    context: typer.Context,
    task: Annotated[Names, what("--task", "-t", help="A task; repeatable. Default: every available one.")] = None,
    model: Annotated[
        Names,
        what(
            "--model", "-m",
            help="A model by name, a local folder, or hub/id@revision; repeatable. "
            "Default: every one on this machine.",
        ),
    ] = None,
    strategy: Annotated[
        Names,
        what(
            "--strategy", "-s",
            help="full, bottomN, topM, bottomNtopM, head-only, …; repeatable. Default: full and bottom3top4.",
        ),
    ] = None,
    seed: Annotated[
        Seeds, what("--seed", help="Seeds head initialisation and data order; repeatable. Default: 42.")
    ] = None,
    seeds: Annotated[int | None, what(help="Run with this many seeds: 42, 43, …")] = None,
    init_seed: Annotated[int | None, what(help="Seeds the head's initial weights alone.")] = None,
    data_seed: Annotated[int | None, what(help="Seeds data order and dropout alone.")] = None,
    config: Annotated[
        Path | None,
        what("--config", "-c", help="A study file (TOML) with any of these options; an option given here wins."),
    ] = None,
    epochs: Annotated[int | None, how(help="Passes over the train split.")] = None,
    batch_size: Annotated[int | None, how(help="Examples in a step.")] = None,
    lr: Annotated[float | None, how(help="Peak learning rate.")] = None,
    max_length: Annotated[int | None, how(help="Tokens of an example; longer ones are cut.")] = None,
    warmup: Annotated[float | None, how(help="Part of all steps in which the rate rises, 0 to 1.")] = None,
    weight_decay: Annotated[float | None, how(help="Decay of weight matrices.")] = None,
    clip: Annotated[float | None, how(help="Largest gradient norm; 0 for no clipping.")] = None,
    clip_by: Annotated[
        str | None, how(help="Whose norm: global, of all gradients together, or component, of each parameter's.")
    ] = None,
    select: Annotated[str | None, how(help="Which epoch is tested: best (by dev score) or last.")] = None,
    precision: Annotated[str | None, how(help="auto, fp32, bf16 or fp16.")] = None,
    device: Annotated[str | None, how(help="auto, cpu or cuda.")] = None,
    data_dir: Annotated[
        Path | None, which(help="Folder with the official files; also the variable ALUE_BENCH_DATA.")
    ] = None,
    sample: Annotated[bool | None, which("--sample", help="Use the embedded sample data.")] = None,
    limit_train: Annotated[
        int | None, which(help="Train on this many rows (a fixed random subset).")
    ] = None,
    limit_eval: Annotated[int | None, which(help="Score on this many dev and test rows.")] = None,
    drop_bad: Annotated[
        bool | None, which("--drop-bad", help="Go on without malformed rows, and record how many.")
    ] = None,
    experiment: Annotated[str | None, where(help="MLflow experiment. Default: alue-bench.")] = None,
    tracking_uri: Annotated[
        str | None, where(help="MLflow store. Default: MLFLOW_TRACKING_URI, else sqlite below mlruns/.")
    ] = None,
    cache_size: Annotated[
        str | None,
        control(
            help="The most that outputs of frozen layers, computed once and kept, may take on disk, such as 50GB; "
            "0 to compute them at every step. Default: 20GB."
        ),
    ] = None,
    rerun: Annotated[bool | None, control("--rerun", help="Do finished runs again.")] = None,
    fail_fast: Annotated[
        bool | None, control("--fail-fast", help="Stop at the first run that fails.")
    ] = None,
    dry_run: Annotated[bool, control("--dry-run", help="Show the plan and stop.")] = False,
    yes: Annotated[bool, control("--yes", "-y", help="Do not ask before a long plan.")] = False,
    as_json: Annotated[
        bool, control("--json", help="Print one JSON document on stdout, all else on stderr.")
    ] = False,
) -> None:  # fmt: skip
    """Fine-tune every combination of tasks, models, strategies and seeds, and record it in MLflow.

    Shows the plan first, then progress, then a table with the change against full fine-tuning. Finished runs are not
    repeated: the same command again goes on where it stopped.

    `alue-bench run --strategy bottom3top4`  (everything available, offline)

    `alue-bench run -t mdd -m UBC-NLP/MARBERT -s full -s bottom3top4 --seeds 5 --data-dir DIR`
    """
    not_settings = ("config", "dry_run", "yes", "as_json")
    given = {
        name: value
        for name, value in context.params.items()
        if name not in not_settings and value not in (None, (), [])
    }
    settings, overrides = merge_study(given, config)
    with stop_on_sigterm():
        raise typer.Exit(run_plan(context.obj, settings, overrides, dry_run=dry_run, yes=yes, as_json=as_json))


Overrides = tuple[tuple[str, Mapping[str, object]], ...]


def merge_study(given: dict[str, Any], config: Path | None) -> tuple[dict[str, Any], Overrides]:
    """Settings from options and study file, options first; hyper-parameters apart, with where they come from."""
    from alue_bench.cli.study import read_study

    study = read_study(config) if config else {}
    if "seed" in given or "seeds" in given:  # two ways to say the same thing: one from the file gives way
        study.pop("seed", None)
        study.pop("seeds", None)
    merged = {**study, **given}
    if "seed" in merged and "seeds" in merged:
        raise UsageError("--seed and --seeds both say which seeds to run; give one of them")

    def hyper(values: Mapping[str, Any]) -> dict[str, object]:
        return {name: values[name] for name in HYPER_OPTIONS if name in values}

    overrides = ((f"study {config}", hyper(study)), ("command line", hyper(given)))
    return {name: value for name, value in merged.items() if name not in HYPER_OPTIONS}, overrides


def plan_request(settings: Mapping[str, Any], overrides: Overrides) -> PlanRequest:
    """Raises UsageError where a number of seeds makes no sense."""
    from alue_bench.plan import DEFAULT_SEED, PlanRequest
    from alue_bench.training.prefix_store import DEFAULT_LIMIT

    number = settings.get("seeds")
    if number is not None and number < 1:
        raise UsageError(f"--seeds is {number}; it must be at least 1")
    seeds = range(DEFAULT_SEED, DEFAULT_SEED + number) if number else settings.get("seed", (DEFAULT_SEED,))
    return PlanRequest(
        tasks=tuple(settings.get("task", ())),
        models=tuple(settings.get("model", ())),
        strategies=tuple(settings.get("strategy", ())),
        seeds=tuple(dict.fromkeys(seeds)),
        init_seed=settings.get("init_seed"),
        data_seed=settings.get("data_seed"),
        overrides=overrides,
        device=settings.get("device", "auto"),
        precision=settings.get("precision", "auto"),
        limit_train=settings.get("limit_train"),
        limit_eval=settings.get("limit_eval"),
        drop_bad=settings.get("drop_bad", False),
        data_dir=Path(settings["data_dir"]) if "data_dir" in settings else None,
        sample=settings.get("sample", False),
        cache_size=settings.get("cache_size", DEFAULT_LIMIT),
    )


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
    from rich.console import Console

    from alue_bench.cli.progress import LiveProgress, PlainProgress
    from alue_bench.cli.tables import plan_view, result_view
    from alue_bench.executors.local import Interrupted, aggregate, execute_plan, result_document
    from alue_bench.plan import build_plan
    from alue_bench.tracking.connection import connect, tracking_uri
    from alue_bench.tracking.recording import Recorder

    talk, show = Console(stderr=True, width=_log_width(sys.stderr)), Console(width=_log_width(sys.stdout))
    for report in registry.failures():
        talk.print(f"warning: plugin {report.origin} failed: {report.problems[0]}", style="yellow", markup=False)
    plan = build_plan(plan_request(settings, overrides), registry)
    talk.print(plan_view(plan))
    experiment = settings.get("experiment", DEFAULT_EXPERIMENT)
    uri = tracking_uri(settings.get("tracking_uri"))
    if not plan.runs:
        reasons = "; ".join(dict.fromkeys(skipped.reason for skipped in plan.skipped))
        raise UsageError(f"nothing to run: {reasons or 'no task, model and strategy go together'}")
    if dry_run:
        if as_json:
            print(json.dumps(_planned_document(plan, experiment, uri), ensure_ascii=False, indent=2))
        return 0
    _confirm(plan, yes, talk)

    connection = connect(uri, experiment)
    recorder = Recorder(connection)
    closed = recorder.close_interrupted()
    if closed:
        talk.print(f"{closed} runs of an earlier invocation were interrupted; they are marked KILLED and done again")
    if len(plan.runs) > 1:
        sources = ",".join(sorted({run.spec.data.source for run in plan.runs}))
        recorder.start_parent(
            _planned_document(plan, experiment, uri),
            name=f"plan of {len(plan.runs)} runs",
            tags={"data.source": sources},
        )
    progress = LiveProgress(plan, talk) if talk.is_terminal else PlainProgress(plan, talk)
    interrupted: Interrupted | None = None
    try:
        with progress:
            outcomes = execute_plan(
                plan,
                recorder,
                registry,
                progress,
                rerun=settings.get("rerun", False),
                fail_fast=settings.get("fail_fast", False),
            )
    except Interrupted as stop:
        interrupted, outcomes = stop, stop.outcomes
    failed = any(outcome.status == "failed" for outcome in outcomes)
    document = result_document(outcomes, plan, experiment=experiment, tracking_uri=uri)
    status = "KILLED" if interrupted else "FAILED" if failed else "FINISHED"
    recorder.finish_parent(document, aggregate(outcomes), status=status)

    if outcomes:
        (talk if as_json else show).print(result_view(outcomes))
    talk.print(f"Compare in the browser: alue-bench ui{_ui_options(settings)}", markup=False, highlight=False)
    if as_json:
        print(json.dumps(document, ensure_ascii=False, indent=2))
    if interrupted:
        left = len(plan.runs) - len(outcomes)
        talk.print(f"interrupted: {left} runs are left; the same command goes on from here")
        return code_of_stop(interrupted.__cause__)
    return 1 if failed else 0


def _log_width(stream: TextIO) -> int | None:
    """Logs and pipes have no width of their own; 120 characters keep the tables whole."""
    return None if stream.isatty() else 120


def _planned_document(plan: Plan, experiment: str, uri: str) -> dict[str, Any]:
    from alue_bench.executors.local import result_document

    document = result_document([], plan, experiment=experiment, tracking_uri=uri)
    document["planned"] = [planned.spec.as_dict() for planned in plan.runs]
    return document


def _ui_options(settings: Mapping[str, Any]) -> str:
    uri = settings.get("tracking_uri")
    return f" --tracking-uri {uri}" if uri else ""


def _confirm(plan: Plan, yes: bool, talk: Console) -> None:
    if len(plan.runs) > CONFIRM_ABOVE and not yes and sys.stdin.isatty() and talk.is_terminal:
        typer.confirm(f"Start {len(plan.runs)} runs?", default=True, abort=True, err=True)
