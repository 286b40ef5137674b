"""The registry of plugins, extended by the tasks that the user gives as files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from alue_bench.contract.errors import UsageError
from alue_bench.contract.registry import Declared, Origin, Registry
from alue_bench.contract.task import Task
from alue_bench.contract.version import __version__
from alue_bench.data.file_task.given import GivenTask


def with_given_tasks(registry: Registry, given: Iterable[GivenTask]) -> Registry:
    """Return a registry that also contains the tasks that the user gives as files.

    Raises:
        UsageError: A task that is given as a file has the name of a plugin's task.
    """
    own: dict[str, Declared[Task]] = {}
    for one in given:
        name = one.task.name
        if name in registry.tasks:
            raise UsageError(
                f"{one.origin}: the task would be called {name!r}, as one of plugin {registry.tasks[name].origin}; "
                "rename the file, or give another name in a task file (see alue-bench new-task)"
            )
        own[name] = Declared(one.task, Origin("alue-bench", __version__, one.origin, ""))
    return replace(registry, tasks={**registry.tasks, **own}) if own else registry
