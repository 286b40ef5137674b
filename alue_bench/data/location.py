"""The choice of the folder that a task's files are read from.

The candidates are a folder that the user names, the user's own data folder, and the sample in the task's plugin.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import platformdirs

from alue_bench.contract.errors import DataError, UsageError
from alue_bench.contract.task import DataFile, Task
from alue_bench.contract.task_file import HUB_PREFIX
from alue_bench.data.hub_data import HubData
from alue_bench.messages.suggestion import command_line

DATA_VARIABLE = "ALUE_BENCH_DATA"
"""The environment variable that names a data folder, as the option `--data-dir` does."""


@dataclass(frozen=True)
class DataFolder:
    """A folder that contains a task's files at the paths that the task declares."""

    path: Path
    kind: Literal["real", "sample"]
    """The kind of files: "real" for official files and the user's own files, "sample" for a plugin's small sample."""
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The command-line options with which `alue-bench run` builds the same task again, if the user gave the task as a
    file; empty for any other task."""

    def file(self, data_file: DataFile) -> Path:
        """Return the path of a data file in this folder; for a data set of the hub, the path of its local copy."""
        return file_in(self.path, data_file)


def user_data_folder() -> Path:
    """Return the user's own data folder, to which `alue-bench data add` copies files."""
    return platformdirs.user_data_path("alue-bench") / "data"


def given_data_folder(option: Path | None) -> Path | None:
    """Return the data folder that the user names by `--data-dir` or environment variable; None if there is none.

    Args:
        option: The value of `--data-dir`, which takes precedence over the environment variable `ALUE_BENCH_DATA`.

    Raises:
        UsageError: The folder does not exist.
    """
    origin, value = ("--data-dir", option) if option else (DATA_VARIABLE, os.environ.get(DATA_VARIABLE))
    if not value:
        return None
    folder = Path(value)
    if not folder.is_dir():
        raise UsageError(f"{origin}: {folder} is not a folder; name the one that holds the tasks' files")
    return folder


def has_files(task: Task, folder: Path) -> bool:
    """Return whether the folder contains at least one of the files that a run on the task needs."""
    return any(file_in(folder, file).exists() for split, file in task.splits.files().items() if split != "submission")


def file_in(folder: Path, file: DataFile) -> Path:
    """Return the path of a data file below a folder; for a data set of the hub, the path of its local copy."""
    if not file.path.startswith(HUB_PREFIX):
        return folder / file.path
    return HubData.read(file.path).folder


def fetch_hub_files(task: Task) -> None:
    """Download each data set of the hub that a task declares as a data file, unless the cache folder contains it.

    Raises:
        UnavailableError: The hub does not answer, or has no such data set.
    """
    for file in task.splits.files().values():
        if file.path.startswith(HUB_PREFIX):
            HubData.read(file.path).fetch()


def locate(task: Task, *, given: Path | None, sample: bool) -> DataFolder:
    """Return the folder from which to read a task's files.

    If the user names a folder and it lacks the task's files, an error is raised; no other folder is tried. Otherwise
    the user's own data folder takes precedence over the small sample that the task's plugin contains.

    Args:
        task: The task.
        given: The folder that the user names (see `given_data_folder`); None if the user names none.
        sample: Whether to use the plugin's sample even if official files are available.

    Raises:
        DataError: The task's files are in none of the folders.
    """
    if not sample:
        folder = given or user_data_folder()
        if has_files(task, folder):
            return DataFolder(folder, "real")
        if given is not None:
            wanted = ", ".join(file.path for split, file in task.splits.files().items() if split != "submission")
            raise DataError(
                f"no files of task {task.name!r} in {given} (expected {wanted}); get them from: {task.source}"
            )
    if task.sample is None and any(file.path.startswith(HUB_PREFIX) for file in task.splits.files().values()):
        raise DataError(
            f"task {task.name!r}: its data set of the hub is not on this machine; name the task with --task to "
            "download it"
        )
    if task.sample is None or not has_files(task, task.sample):
        raise DataError(
            f"task {task.name!r} has no embedded sample and its files were not added; "
            f"add them with: {command_line('data', 'add', task.name, 'PATH')}"
        )
    return DataFolder(task.sample, "sample")
