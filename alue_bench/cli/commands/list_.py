"""`alue-bench list tasks|models|strategies|recipes|studies`: list what can be run, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alue_bench.contract.errors import UsageError
from alue_bench.contract.registry import Registry
from alue_bench.views.standard_output import reserve_stdout_for_documents

if TYPE_CHECKING:
    from alue_bench.contract.model import Model

app = typer.Typer(help="List tasks, models, strategies and studies.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

NOMINAL_TOKENS = 64
"""The example length in tokens for which FLOPs are shown by default. It is fixed, because `list` reads no data."""


@app.command("tasks")
def tasks(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TASKS]...", help="Tasks, or task files, to list. Default: all tasks."),
    ] = None,
    as_json: Json = False,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the official files.")] = None,
) -> None:
    """List tasks: what they predict, their primary metric, and which data would be used."""
    reserve_stdout_for_documents(as_json)
    from alue_bench.contract.errors import DataError
    from alue_bench.data.file_task.given import given_tasks
    from alue_bench.data.file_task.options import FileOptions
    from alue_bench.data.location import given_data_folder, locate
    from alue_bench.planning.given import with_given_tasks

    asked, own = given_tasks(names or (), FileOptions())
    registry: Registry = with_given_tasks(context.obj, own)
    files = {one.task.name: one.files for one in own}
    given = given_data_folder(data_dir)
    entries = []
    for name in asked or sorted(registry.tasks):
        task = registry.task(name)
        try:
            data: str = (files.get(name) or locate(task, given=given, sample=False)).kind
        except DataError:
            data = "missing"
        entries.append(
            {
                "name": name,
                "title": task.title,
                "kind": str(task.labels.kind),
                "labels": 0 if task.labels.extracts_spans else len(task.labels.names),
                "pair": task.is_pair,
                "primary": task.primary,
                "official_metric": task.official_metric,
                "languages": list(task.languages),
                "data": data,
                "trained_on": task.trained_on,
                "label_map": dict(task.label_map),
                "companions": sorted(task.companions),
                "only_by_name": task.only_by_name,
                "protocol": task.splits.protocol,
                "source": task.source,
                "licence": task.licence,
                "citation": task.citation,
            }
        )
    if as_json:
        _print_json(entries)
        return
    rows = [
        (
            str(task["name"]),
            str(task["title"]),
            ", ".join(
                [
                    str(task["kind"]),
                    *([f"{task['labels']} labels"] if task["labels"] else []),
                    *["pair"] * bool(task["pair"]),
                ]
            ),
            str(task["primary"]),
            str(task["data"]),
        )
        for task in entries
    ]
    _print_table(("task", "what", "predicts", "primary metric", "data"), rows)


@app.command("models")
def models(context: typer.Context, as_json: Json = False) -> None:
    """List models, and whether they can be used."""
    reserve_stdout_for_documents(as_json)
    from alue_bench.contract.errors import UnavailableError
    from alue_bench.training.pretrained.loading import locate_checkpoint

    registry: Registry = context.obj
    entries = []
    for name, declared in sorted(registry.models.items()):
        model = declared.value
        try:
            locate_checkpoint(model, download=False)
            available = "yes"
        except UnavailableError as error:
            available = str(error)
        entries.append(
            {
                "name": name,
                "title": model.title,
                "checkpoint": str(model.checkpoint) if isinstance(model.checkpoint, str) else "bundled",
                "normalisation": model.normalisation,
                "defaults": dict(model.defaults),
                "licence": model.licence,
                "citation": model.citation,
                "available": available,
            }
        )
    if as_json:
        _print_json(entries)
        return
    rows = [(str(m["name"]), str(m["title"]), str(m["checkpoint"]), str(m["available"])) for m in entries]
    _print_table(("model", "what", "checkpoint", "available"), rows)


@app.command("recipes")
def recipes(as_json: Json = False) -> None:
    """List recipes: hyper-parameters that publications recommend together, for --recipe."""
    reserve_stdout_for_documents(as_json)
    from alue_bench.planning.recipes import RECIPES

    if as_json:
        _print_json(
            [
                {"name": name, "title": recipe.title, "source": recipe.source, "values": dict(recipe.values)}
                for name, recipe in RECIPES.items()
            ]
        )
        return
    rows = [
        (name, recipe.title, ", ".join(f"{key} {value}" for key, value in recipe.values.items()), recipe.source)
        for name, recipe in RECIPES.items()
    ]
    _print_table(("recipe", "what", "sets", "source"), rows)


@app.command("strategies")
def strategies(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Show the effect of each strategy on this model.")
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            help="Strategy to show; repeatable. Without --model: show how names of strategies are written.",
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option(min=1, help="With --model: number of tokens per example for which FLOPs are counted.")
    ] = NOMINAL_TOKENS,
    as_json: Json = False,
) -> None:
    """List strategies; with --model, what is frozen, what trains, and the compute saved, without loading weights."""
    reserve_stdout_for_documents(as_json)
    registry: Registry = context.obj
    if model is None:
        if _was_given(context, "tokens"):
            raise UsageError("--tokens needs --model; it sets the text length for which that model's FLOPs are counted")
        families = registry.families_of(strategy) if strategy else [declared.value for declared in registry.families]
        if as_json:
            _print_json(
                [
                    {"grammar": f.grammar, "title": f.title, "source": f.source, "examples": list(f.examples)}
                    for f in families
                ]
            )
            return
        rows = [(f.grammar, f.title, ", ".join(f.examples), f.source) for f in families]
        _print_table(("grammar", "what", "for example", "source"), rows)
        return
    from alue_bench.planning.available import resolve_model
    from alue_bench.reporting.numbers import percent

    names = strategy or [example for declared in registry.families for example in declared.value.examples]
    entries = [_effect(registry, name, resolve_model(model, registry), tokens) for name in names]
    if as_json:
        _print_json(entries)
        return
    effects: list[tuple[str, ...]] = [
        (e["strategy"], e["reason"], "", "", "")
        if "reason" in e
        else (
            e["strategy"],
            e["frozen"],
            f"{e['trainable']:,}",
            percent(e["trainable"] / e["total"], 1),
            percent(e["flops_saved"], 1),
        )
        for e in entries
    ]
    columns = ("strategy", "frozen", "trainable parameters", "of all", f"FLOPs saved ({tokens} tokens)")
    _print_table(columns, effects, title=f"{model}: {entries[0].get('total', 0):,} parameters" if entries else None)


@app.command("studies")
def studies(context: typer.Context, as_json: Json = False) -> None:
    """List the studies that --config knows by name: which command runs each, and what it compares."""
    reserve_stdout_for_documents(as_json)
    from alue_bench.studies.files import read_study

    registry: Registry = context.obj
    entries = []
    for name, declared in sorted(registry.studies.items()):
        entry: dict[str, Any] = {"name": name, "from": str(declared.origin), "file": str(declared.value)}
        try:
            content = read_study(declared.value)
        except UsageError as error:
            entry["problem"] = str(error)
        else:
            entry["for"] = content.pop("command", "run")
            entry |= {"command": f"alue-bench {entry['for']} --config {name}", "title": content.pop("title", "")}
            entry["options"] = content
        entries.append(entry)
    if as_json:
        _print_json(entries)
        return
    # The origin of a study is only in the JSON output. A further column would split the names, which users copy.
    rows = [(entry["name"], entry.get("for", "–"), entry.get("title") or entry.get("problem", "")) for entry in entries]
    _print_table(("study", "for", "what"), rows)


TEXTS = 16
"""The number of texts of the invented batch for which FLOPs are counted."""


def _effect(registry: Registry, name: str, model: Model, tokens: int) -> dict[str, Any]:
    """Return the effect of a strategy on a model (frozen parts, parameters, FLOPs saved) as JSON-like data.

    If the strategy does not fit the model, return the reason instead.

    Args:
        registry: The plugins' declarations.
        name: The name of the strategy.
        model: The model, of which only the configuration is read.
        tokens: The number of tokens per example for which FLOPs are counted.
    """
    from dataclasses import replace

    import numpy as np

    from alue_bench.contract.errors import AlueBenchError, PluginError
    from alue_bench.contract.registry import outline_of
    from alue_bench.contract.strategy import FreezePlan, Outline
    from alue_bench.measure.flops import training_flops
    from alue_bench.training.freezing import count_parameters, without_idle_parts
    from alue_bench.training.pretrained.loading import encoder_shape, fetch_config
    from alue_bench.training.surgery import model_in_outline

    strategy, origin = registry.strategy(name)
    config = fetch_config(model)
    shape = encoder_shape(config)
    whole = model_in_outline(config, Outline(FreezePlan(shape), None, None))
    try:
        outlined = outline_of(strategy, origin, shape)
        stack = model_in_outline(config, outlined)
        outlined = replace(outlined, freeze_plan=without_idle_parts(stack, outlined.freeze_plan))
    except PluginError:
        raise
    except AlueBenchError as error:  # the strategy does not fit the model, or a package is missing
        return {"strategy": strategy.name, "reason": f"does not fit: {error}"}
    lengths = np.full(TEXTS, tokens)
    counts = count_parameters(stack, outlined.freeze_plan)
    full = training_flops(whole, FreezePlan(shape), lengths, epochs=1)
    saved = 1 - training_flops(stack, outlined.freeze_plan, lengths, epochs=1) / full
    if (limit := strategy.compute_limit()) is not None:
        like = None if limit.like is None else _effect(registry, limit.like, model, tokens)
        if like is not None and "reason" in like:
            return {"strategy": strategy.name, "reason": like["reason"]}
        saved = 1 - limit.share if like is None else like["flops_saved"]
    revisions = strategy.revisions()
    chosen = strategy.chooses or (revisions is not None and revisions.at_start)
    return {
        "strategy": strategy.name,
        "frozen": outlined.describe()
        + (" or other layers, chosen in the run" if chosen else " at first" if revisions else ""),
        "changes": revisions is not None,
        "trainable": counts.trainable,
        "total": count_parameters(whole, FreezePlan(shape)).total,
        "left": counts.total,
        "flops_saved": saved,
    }


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _print_json(value: object) -> None:
    from alue_bench.views.console import print_document

    print_document(value)


def _print_table(columns: tuple[str, ...], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    from alue_bench.views.console import results
    from alue_bench.views.tables import print_table

    print_table(results(), columns, rows, title)
