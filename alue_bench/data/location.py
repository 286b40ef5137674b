"""Where a task's files come from: a given folder, the user's own data folder, or the embedded sample."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from alue_bench.contract.errors import DataError, UnavailableError, UsageError
from alue_bench.contract.task import DataFile, Task
from alue_bench.messages.suggestion import command_line

VARIABLE = "ALUE_BENCH_DATA"
CACHE_VARIABLE = "ALUE_BENCH_CACHE"


@dataclass(frozen=True)
class DataFolder:
    """A folder laid out as the tasks expect, and whether it holds real files or the embedded sample."""

    path: Path
    kind: Literal["real", "sample"]

    def file(self, data_file: DataFile) -> Path:
        return self.path / data_file.path


def user_data_folder() -> Path:
    """Where `alue-bench data add` puts files."""
    return platformdirs.user_data_path("alue-bench") / "data"


def cache_folder() -> Path:
    """Where what can be computed again is kept: prepared splits and token ids."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else platformdirs.user_cache_path("alue-bench")


def check_cache_folder() -> None:
    """Raises UnavailableError where the cache folder cannot be made or written to: then no run can be done."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # permissions alone do not tell of a disk mounted read-only
            pass
    except OSError as error:
        raise UnavailableError(
            f"the cache folder {folder} is not writable ({error.strerror}); choose another with {CACHE_VARIABLE}"
        ) from error


def given_data_folder(option: Path | None) -> Path | None:
    """The folder that the user names, by option or environment variable.

    Raises UsageError where it does not exist.
    """
    origin, value = ("--data-dir", option) if option else (VARIABLE, os.environ.get(VARIABLE))
    if not value:
        return None
    folder = Path(value)
    if not folder.is_dir():
        raise UsageError(f"{origin}: {folder} is not a folder; name the one that holds the tasks' files")
    return folder


def has_files(task: Task, folder: Path) -> bool:
    """Whether at least one file that the task needs for running lies in the folder."""
    return any((folder / file.path).is_file() for split, file in task.splits.files().items() if split != "submission")


def locate(task: Task, *, given: Path | None, sample: bool) -> DataFolder:
    """The folder to read a task from.

    A folder that the user names is never silently replaced: a task that it lacks is an error. Without one, files added
    to the user's data folder come before the embedded sample.

    Raises DataError where the task's files are nowhere.
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
    if task.sample is None or not has_files(task, task.sample):
        raise DataError(
            f"task {task.name!r} has no embedded sample and its files were not added; "
            f"add them with: {command_line('data', 'add', task.name, 'PATH')}"
        )
    return DataFolder(task.sample, "sample")
