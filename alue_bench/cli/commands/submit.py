"""`alue-bench submit`: write files for a leaderboard from the predictions of finished runs."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alue_bench.cli import arguments
from alue_bench.cli import reading_options as reading
from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.registry import Registry
from alue_bench.messages.suggestion import command_line
from alue_bench.views.standard_output import reserve_stdout_for_documents

if TYPE_CHECKING:
    from alue_bench.contract.task import Task
    from alue_bench.reporting.submission import Chosen, MissingSubmission
    from alue_bench.tracking.reading import Results
    from alue_bench.views.streams import Streams

RECORD = "submission.json"
"""The name of the file that records the run of each submission file. The file is in the output folder, but not in the
archive."""


def submit(
    context: typer.Context,
    output: Annotated[
        Path, typer.Argument(help="New folder for the files. They are also written to NAME.zip beside it.")
    ],
    task: Annotated[
        list[str] | None,
        arguments.comparison_option(
            "--task", "-t", help="Task, or path of a task file; repeatable. Default: every task with a leaderboard."
        ),
    ] = None,
    model: Annotated[
        list[str] | None, arguments.comparison_option("--model", "-m", help="Only use runs of this model; repeatable.")
    ] = None,
    strategy: Annotated[
        list[str] | None,
        arguments.comparison_option("--strategy", "-s", help="Only use runs of this strategy; repeatable."),
    ] = None,
    seed: Annotated[
        list[int] | None, arguments.comparison_option("--seed", help="Only use runs with this seed; repeatable.")
    ] = None,
    parent: Annotated[
        str | None,
        arguments.comparison_option("--parent", help="Only use runs of this plan: the id of its parent run."),
    ] = None,
    data_dir: Annotated[Path | None, arguments.run_option("data_dir")] = None,
    sample: Annotated[
        bool, arguments.data_option("--sample", help="Use runs on the embedded sample, to try the command out.")
    ] = False,
    experiment: Annotated[str | None, arguments.run_option("experiment")] = None,
    tracking_uri: Annotated[str | None, arguments.run_option("tracking_uri")] = None,
    as_json: Annotated[bool, arguments.run_option("json")] = False,
) -> None:
    """Write the files for the ALUE leaderboard: for each task, the predictions of the run with the best dev score.

    Checks the number, order, identifiers and labels of the rows against the official file. Names the files that are
    missing, and the commands that produce them. Uploads nothing.

    `alue-bench submit to-alue --data-dir DIR`

    `alue-bench submit to-alue -m marbert -s bottom3top4 --seed 42`
    """
    from alue_bench.data.file_task.given import given_tasks
    from alue_bench.data.file_task.options import FileOptions
    from alue_bench.data.location import given_data_folder, locate
    from alue_bench.planning.given import with_given_tasks
    from alue_bench.reporting.submission import collect
    from alue_bench.tracking.connection import where_options
    from alue_bench.views.streams import Streams

    reserve_stdout_for_documents(as_json)
    names, own = given_tasks(task or (), FileOptions())
    registry: Registry = with_given_tasks(context.obj, own)
    files = {one.task.name: one.files for one in own}
    streams = Streams.of_command(as_json=as_json)
    streams.warn_of_plugins(registry)
    archive = output.with_name(f"{output.name}.zip")
    for path in (output, archive):
        if path.exists():
            raise UsageError(f"{path} exists; name a new folder, so that nothing is overwritten")
    tasks = _tasks_with_leaderboard(names, registry)
    given = given_data_folder(data_dir)
    selection = {
        "model": model, "strategy": strategy, "experiment": experiment, "parent": parent, "tracking_uri": tracking_uri,
        "data_source": "sample" if sample else "real",
    }  # fmt: skip
    results = reading.open_results(selection)
    if seed:
        results = replace(results, frame=results.frame[results.frame["seed"].isin(seed)])
    chosen, missing = collect(
        results, tasks, lambda one: files.get(one.name) or locate(one, given=given, sample=sample), rehearsal=sample
    )
    asked = _RepeatedOptions(
        models=tuple(model or ()), strategies=tuple(strategy or ()), seeds=tuple(seed or ()), data_dir=data_dir,
        sample=sample, where=where_options(results.connection.uri, results.connection.experiment),
        given={one.task.name: one.options for one in own},
    )  # fmt: skip
    commands = {lacking.task.name: _command(lacking, asked, results, registry) for lacking in missing}
    document = _document(output, archive, chosen, missing, commands)
    if chosen:
        _write(output, archive, chosen, document)
    _print_summary(streams, output, archive, chosen, missing, commands, sample=sample, parent=parent)
    streams.document(document)
    named_and_missing = task and missing
    raise typer.Exit(1 if named_and_missing or not chosen else 0)


def _tasks_with_leaderboard(names: Sequence[str] | None, registry: Registry) -> list[Task]:
    if not names:
        return [one.value for _, one in sorted(registry.tasks.items()) if one.value.submission is not None]
    tasks = [registry.task(name) for name in dict.fromkeys(names)]
    without = next((one for one in tasks if one.submission is None), None)
    if without is not None:
        known = ", ".join(name for name, one in sorted(registry.tasks.items()) if one.value.submission is not None)
        raise UsageError(f"task {without.name!r} has no leaderboard file; tasks with one: {known}")
    return tasks


@dataclass(frozen=True, kw_only=True)
class _RepeatedOptions:
    """The options of `submit` that are repeated in suggested commands, each of which produces a missing file."""

    models: tuple[str, ...]
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    data_dir: Path | None
    sample: bool
    where: Mapping[str, object]
    """The options that name the MLflow store and the experiment."""
    given: Mapping[str, Mapping[str, object]]
    """For each task from a task file, by name, the options that define the task on the command line."""


def _command(lacking: MissingSubmission, asked: _RepeatedOptions, results: Results, registry: Registry) -> str:
    """Return the command that produces a missing submission file; an empty string if no command does.

    If the task has runs, the command repeats the best of them with the same settings. Otherwise, it has the options
    that the user gave or, if an option was not given, the value that all runs of other tasks share.
    """
    from alue_bench.tracking.reproduction import options_of

    if not lacking.can_be_run:
        return ""
    if lacking.run is not None:
        what = {**options_of(lacking.run, registry), "rerun": True}
    else:
        what = {
            **asked.given.get(lacking.task.name, {"task": lacking.task.name}),
            "model": _models(asked, results, registry),
            "strategy": asked.strategies or _common_value(results, "strategy"),
            "seed": asked.seeds or _common_value(results, "seed"),
        }
    return command_line("run", options={**what, "data_dir": asked.data_dir, "sample": asked.sample, **asked.where})


def _models(asked: _RepeatedOptions, results: Results, registry: Registry) -> list[str]:
    """Return values of `--model` for the suggested command: names of declared models, folders or hub ids of others."""
    from alue_bench.tracking.reproduction import model_reference

    runs = results.frame.to_dict("records")
    references = {run["model"]: model_reference(run, registry) for run in runs}
    return [references.get(name, name) for name in asked.models or _common_value(results, "model")]


def _common_value(results: Results, column: str) -> list[Any]:
    """Return a list with the one value that all runs have in a column; an empty list if they have different values."""
    values = results.frame[column].unique().tolist()
    return values if len(values) == 1 else []


def _document(
    output: Path, archive: Path, chosen: list[Chosen], missing: list[MissingSubmission], commands: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "folder": str(output),
        "archive": str(archive),
        "files": [
            {
                "file": one.submission.file,
                "leaderboard": one.submission.leaderboard,
                "task": one.task.name,
                "rows": one.rows,
                "sha256": hashlib.sha256(one.content.encode()).hexdigest(),
                "run_id": one.run_id,
                "run": one.run_name,
                "dev_score": one.dev_score if one.dev_score == one.dev_score else None,
                "passed_over": list(one.passed_over),
            }
            for one in chosen
        ],
        "missing": [
            {
                "file": one.submission.file,
                "task": one.task.name,
                "reason": one.reason,
                "command": commands[one.task.name],
            }
            for one in missing
        ],
    }


def _write(output: Path, archive: Path, chosen: list[Chosen], document: Mapping[str, Any]) -> None:
    import json

    try:
        output.mkdir(parents=True)
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for one in chosen:
                (output / one.submission.file).write_bytes(one.content.encode())
                packed.writestr(one.submission.file, one.content.encode())
        text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
        (output / RECORD).write_text(text, encoding="utf-8", errors="backslashreplace")  # as JSON escapes
    except OSError as error:
        raise UnavailableError(f"{output} cannot be written: {error.strerror}; name another folder") from error


def _print_summary(
    streams: Streams,
    output: Path,
    archive: Path,
    chosen: list[Chosen],
    missing: list[MissingSubmission],
    commands: Mapping[str, str],
    *,
    sample: bool,
    parent: str | None,
) -> None:
    from rich.table import Table

    from alue_bench.reporting.numbers import decimal, number_with_noun
    from alue_bench.views.wide_tables import Fitted

    if chosen:
        rehearsal = " (embedded sample: not for submission)" if sample else ""
        title = f"{number_with_noun(len(chosen), 'file')} in {output} and {archive}{rehearsal}"
        table = Table(title=title, title_justify="left", title_style="bold")
        for column in ("file", "task", "rows", "best on dev", "of run"):
            table.add_column(column)
        for one in chosen:
            table.add_row(one.submission.file, one.task.name, str(one.rows), decimal(one.dev_score), one.run_name)
        streams.result(Fitted(table))
    for one in chosen:
        for reason in one.passed_over:
            streams.stderr.print(f"{one.submission.file}: passed over {reason}", style="yellow")
    for lacking in missing:
        command = commands[lacking.task.name]
        then = f"; produce it with: {command}" if command else ""
        if command and parent:
            then += "; then leave out --parent, or name the new plan's run"
        streams.stderr.print(
            f"missing {lacking.submission.file} ({lacking.task.name}): {lacking.reason}{then}",
            style="yellow",
        )
