"""`alue-bench new-task`: write a task file for a data file of the user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from alue_bench.cli.arguments import with_file_options
from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.options import build_options
from alue_bench.data.file_task.options import FileOptions


@with_file_options(without=("file",))
def new_task(
    file: Annotated[str, typer.Argument(help="Data file, folder of datasets.save_to_disk, or hub:owner/name.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Task file to write. Default: NAME.task.toml beside the data file."),
    ] = None,
    *,
    described: dict[str, Any],
) -> None:
    """Write a task file for a data file: columns, labels and splits as inferred, to be checked and edited.

    `alue-bench new-task complaints.csv --text complaint --label category`, then
    `alue-bench run --task complaints.task.toml`
    """
    from alue_bench.contract.task_file import HUB_PREFIX, TASK_FILE_ENDING
    from alue_bench.data.file_task.given import from_content, from_task_file, name_of_file
    from alue_bench.data.file_task.inference import infer
    from alue_bench.data.file_task.writing import task_file_text
    from alue_bench.messages.suggestion import command_line
    from alue_bench.views.console import remarks, results

    options = build_options(FileOptions, {**described, "file": file})
    folder = Path() if file.startswith(HUB_PREFIX) else Path(os.path.expanduser(file)).parent
    name = name_of_file(file)
    target = output or folder / f"{name}{TASK_FILE_ENDING}"
    if target.suffix != ".toml":
        raise UsageError(f"--output {target}: the name of a task file ends with {TASK_FILE_ENDING}")
    if target.exists():
        raise UsageError(f"{target} exists; choose another file with --output, so that nothing is overwritten")
    inferred = infer(options)
    from_content(inferred, options)  # raises an error before anything is written if this is no valid task
    try:
        target.write_text(task_file_text(inferred.content, name=name, path=target), encoding="utf-8")
    except OSError as error:
        raise UnavailableError(f"{target} cannot be written: {error.strerror}") from error
    from_task_file(str(target))
    for note in inferred.notes:
        remarks().print(note)
    results().print(f"Wrote {target}. Check it, then: {command_line('run', options={'task': target})}")
