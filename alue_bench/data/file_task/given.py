"""Tasks that the user gives as a data file or a task file, instead of choosing a task that a plugin declares."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import DataError, UsageError
from alue_bench.contract.formats import excerpt
from alue_bench.contract.options import options_of
from alue_bench.contract.task import Task
from alue_bench.contract.task_file import HUB_PREFIX, TASK_FILE_ENDING, load_task_file, name_of, task_of
from alue_bench.data.file_task.options import FileOptions
from alue_bench.data.hub_data import HubData
from alue_bench.data.location import DataFolder

if TYPE_CHECKING:
    from alue_bench.data.file_task.inference import InferredTask


@dataclass(frozen=True, kw_only=True)
class GivenTask:
    """A task that the user gives as a file."""

    task: Task
    folder: Path
    """The absolute path of the folder to which the paths of the task's files are relative."""
    origin: str
    """The path of the data file or task file, or the reference to a hub data set, as the user wrote it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The values of the options with which `alue-bench run` builds the same task again, by option name. Paths in them
    are absolute."""
    notes: tuple[str, ...] = ()
    """Sentences for the user about what was inferred from the data, such as the columns and labels."""

    @property
    def files(self) -> DataFolder:
        """The folder that contains the task's files."""
        return DataFolder(self.folder, "real", self.options)


def is_task_file(name: str) -> bool:
    """Return whether a value of `--task` is the path of a task file, and not the name of a task."""
    return name.endswith(".toml")


def from_file(options: FileOptions) -> GivenTask:
    """Return a task whose columns and labels are inferred from a data file. For the errors raised, see `infer`."""
    from alue_bench.data.file_task.inference import infer

    return from_content(infer(options), options)


def name_of_file(given: str) -> str:
    """Return a task's name, derived from the path of its data file or from the name of its hub data set."""
    return name_of(HubData.read(given).name.rpartition("/")[2] if given.startswith(HUB_PREFIX) else Path(given).name)


def from_content(inferred: InferredTask, options: FileOptions) -> GivenTask:
    """Return the task that a task file with the given content would declare; the content was inferred from a data file.

    Args:
        inferred: The content of the task file.
        options: The user's options, from which the content was inferred.

    Raises:
        DataError: The content is not valid.
        UsageError: The data files lie on different drives.
    """
    given = str(options.file)
    content, folder = rebase_paths(inferred.content, Path.cwd())
    try:
        task = task_of(content, name=name_of_file(given), folder=folder)
    except (TypeError, ValueError) as error:
        raise DataError(f"{given}: {error}") from error
    return GivenTask(task=task, folder=folder, origin=given, options=_repeating_options(options), notes=inferred.notes)


def _repeating_options(options: FileOptions) -> dict[str, Any]:
    """Return the options that the user gave, by option name and with absolute paths; see `GivenTask.options`."""
    again: dict[str, Any] = {}
    for declared in options_of(FileOptions).values():
        value = getattr(options, declared.field)
        if value in (None, ()):
            continue
        if declared.name in ("file", "dev", "test") and not value.startswith(HUB_PREFIX):
            value = os.path.abspath(os.path.expanduser(value))
        again[declared.name] = list(value) if isinstance(value, tuple) else value
    return again


def from_task_file(given: str) -> GivenTask:
    """Return the task that a task file declares. Raise UsageError if the file cannot be read or is not valid."""
    path = Path(os.path.expanduser(given))
    file = load_task_file(path)
    content, folder = rebase_paths(file.content, path.parent.absolute())
    try:
        task = task_of(content, name=name_of(path.name), folder=path.parent.absolute())
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error
    labels = f"{len(task.labels.names)} labels" if task.labels.names else "a number"
    note = f"{path.name}: {task.labels.kind}, {labels}"
    return GivenTask(task=task, folder=folder, origin=given, options={"task": os.path.abspath(path)}, notes=(note,))


def rebase_paths(content: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], Path]:
    """Find a folder that contains all data files of a task file, and make their paths relative to this folder.

    Args:
        content: The content of the task file. Its paths are absolute or relative to `folder`.
        folder: The absolute path of the folder to which relative paths in the given content are relative.

    Returns:
        The content with the new paths, and the folder that contains all data files. If all data comes from the hub,
        both are as they were given.

    Raises:
        UsageError: The files lie on different drives.
    """
    paths = {split: _path_of(given) for split, given in content["files"].items()}
    absolute = {
        split: os.path.normpath(folder / os.path.expanduser(path))
        for split, path in paths.items()
        if path is not None and not path.startswith(HUB_PREFIX)
    }
    if not absolute:
        return dict(content), folder
    try:
        common = Path(os.path.commonpath([os.path.dirname(path) for path in absolute.values()]))
    except ValueError:
        raise UsageError(f"{' and '.join(absolute.values())} lie on different drives; put them on one") from None
    files = dict(content["files"])
    for split, path in absolute.items():
        relative = Path(path).relative_to(common).as_posix()
        files[split] = relative if isinstance(files[split], str) else {**files[split], "path": relative}
    return {**content, "files": files}, common


def _path_of(given: str | Mapping[str, Any]) -> str | None:
    return given if isinstance(given, str) else given.get("path")


def given_tasks(
    names: Sequence[str], options: FileOptions, *, flag: str = "--task", beside: Sequence[GivenTask] = ()
) -> tuple[tuple[str, ...], tuple[GivenTask, ...]]:
    """Return the names of all tasks that the user requests, and the tasks that are given as files.

    Args:
        names: The values of `--task`, or of the option `flag`: names of tasks, and paths of task files.
        options: The options that describe the user's data file; their `file` is None if there is none.
        flag: The option that names the tasks, for messages.
        beside: The tasks that another option gives as files. The returned names may include them, but the returned
            tasks do not. No other task may have the name of one of them.

    Raises:
        UsageError: Two files give a task of the same name, or one of `names` is a data file instead of a task file. See
            also `from_file` and `from_task_file`.
    """
    given: list[GivenTask] = []
    asked: list[str] = []
    for name in dict.fromkeys(names):
        if is_task_file(name):
            given.append(from_task_file(name))
            asked.append(given[-1].task.name)
        elif name.endswith((".csv", ".tsv", ".jsonl", ".json", ".parquet", ".xlsx")) or name.startswith(HUB_PREFIX):
            remedy = "name it with --file" if flag == "--task" else "write a task file: alue-bench new-task"
            raise UsageError(f"{flag} {excerpt(name, quote=False)} is a data file; {remedy}")
        else:
            asked.append(name)
    if options.file is not None:
        given.append(from_file(options))
        asked.append(given[-1].task.name)
    given = [given_task for given_task in given if all(given_task.options != other.options for other in beside)]
    _check_names_differ([*beside, *given])
    return tuple(asked), tuple(given)


def _check_names_differ(given: Iterable[GivenTask]) -> None:
    seen: dict[str, GivenTask] = {}
    for later in given:
        first = seen.setdefault(later.task.name, later)
        if first is not later:
            raise UsageError(
                f"{first.origin} and {later.origin} both give a task {later.task.name!r}; name one of them otherwise: "
                f'name = "…" in a task file (*{TASK_FILE_ENDING})'
            )
