"""The tasks that are passed to a function of the Python API: names, paths, `Task` values or data frames."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from alue_bench.api.frames import is_frame, store_frame
from alue_bench.contract.errors import UsageError
from alue_bench.contract.registry import Declared, Origin, Registry
from alue_bench.contract.spec import digest_of
from alue_bench.contract.task import Labels, Task
from alue_bench.contract.task_file import HUB_PREFIX
from alue_bench.contract.version import __version__

PYTHON_TASK_PROVIDER = "task-in-python"
"""The name that is recorded, instead of the name of a plugin's package, for a task that is given as a `Task` value."""

FIELDS_WITHOUT_EFFECT = ("sample", "companions", "only_by_name")
"""The fields of a task that do not affect the results of runs, and are not part of the digest of its content."""


@dataclass(frozen=True)
class GivenTasks:
    """The tasks that were passed to a function of the Python API, converted to options and declarations."""

    options: Mapping[str, Any]
    """The value of the option `task` (a list of names and task files) and of the option `file` (a data file). An option
    without a value is missing."""
    registry: Registry
    """The declarations of the plugins, together with the tasks that were given as `Task` values."""


def given_tasks(given: Any, registry: Registry) -> GivenTasks:
    """Convert the tasks that were passed to a function of the Python API to options and declarations.

    Args:
        given: One task or a list of tasks. A task is the name of a declared task, an `alue_bench.Task`, the path of a
            task file (.toml) or a data file, or a data frame.
        registry: The declarations of the plugins.

    Raises:
        UsageError: A value is none of these, several data files or frames are given, or a `Task` has the same name as a
            different declared task.
    """
    names: list[str] = []
    files: list[str] = []
    declared = dict(registry.tasks)
    for one in list(given) if isinstance(given, list | tuple | set | frozenset) else [given]:
        if isinstance(one, Task):
            _declare(one, declared)
            names.append(one.name)
        elif is_frame(one):
            files.append(str(store_frame(one)))
        elif not isinstance(one, str | Path):
            raise UsageError(
                f"a task is given as {type(one).__name__}; give the name of a declared task, an alue_bench.Task, a "
                "path or a data frame"
            )
        else:
            (files if _is_data_reference(one, declared) else names).append(str(one))
    if len(files) > 1:
        raise UsageError(f"{len(files)} data files are given as tasks; give one, and the others as task files")
    return GivenTasks(
        {**({"task": names} if names else {}), **({"file": files[0]} if files else {})},
        replace(registry, tasks=declared),
    )


def _is_data_reference(given: str | Path, declared: Mapping[str, Declared[Task]]) -> bool:
    """Return whether a string or path refers to a data file or a hub data set; False for a task or a task file."""
    if isinstance(given, str) and (given in declared or given.startswith(HUB_PREFIX)):
        return given not in declared
    path = Path(os.path.expanduser(given))  # Path.expanduser would raise an error for ~NAME without a user NAME
    return path.suffix != ".toml" and (isinstance(given, Path) or (path.suffix != "" and path.exists()))


def _declare(task: Task, declared: dict[str, Declared[Task]]) -> None:
    """Add a task to `declared` if it is missing. Raise UsageError if a different task has the same name."""
    known = declared.setdefault(task.name, Declared(task, _origin(task)))
    if known.value != task:
        raise UsageError(
            f"task {task.name!r} is declared by {known.origin}, and the given task of this name is a different one; "
            "give it a different name"
        )


def _origin(task: Task) -> Origin:
    """Return the origin (package and version) that is recorded for a `Task` value.

    The version is a digest of the task's content. If the content changes, runs of the earlier task are not reused.
    """
    version = digest_of([__version__, _content(task)])[:12]
    return Origin(PYTHON_TASK_PROVIDER, version, task.name, "a value given in Python")


def _content(value: Any) -> Any:
    """Convert a task declaration, or a part of one, to data that JSON can represent.

    A function, such as a reader, is represented by its name only. A change of a reader's code is noticed nevertheless:
    if the reader then yields other examples than before, the recorded digest of the data changes.
    """
    if is_dataclass(value) and not isinstance(value, type):
        content = {
            one.name: _content(getattr(value, one.name))
            for one in fields(value)
            if one.name not in FIELDS_WITHOUT_EFFECT
        }
        # Default values are left out, so that digests from before these fields existed stay valid.
        if isinstance(value, Labels) and value.scheme is None:
            del content["scheme"]
        if isinstance(value, Labels) and not value.no_answer:
            del content["no_answer"]
        return content
    if isinstance(value, Mapping):
        return {str(key): _content(one) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_content(one) for one in value]
    if isinstance(value, str | int | float | bool | None):
        return value
    return value.name if isinstance(value, Path) else getattr(value, "__qualname__", type(value).__qualname__)
