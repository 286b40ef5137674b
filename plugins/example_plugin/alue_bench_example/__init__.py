"""A plugin for alue-bench with three tasks, one model and one family of strategies.

An entry point in `pyproject.toml` names this module, so that alue-bench imports it. alue-bench then calls the hooks
below, and adds the tasks, models and strategies that they return.
"""

from collections.abc import Iterable

from alue_bench import Model, StrategyFamily, Task, hookimpl
from alue_bench_example import answers, names, task
from alue_bench_example.model import MODEL
from alue_bench_example.strategy import FAMILY


@hookimpl
def alue_bench_tasks() -> Iterable[Task]:
    """Return the tasks of this plugin."""
    return [task.TASK, names.TASK, answers.TASK]


@hookimpl
def alue_bench_models() -> Iterable[Model]:
    """Return the models of this plugin."""
    return [MODEL]


@hookimpl
def alue_bench_strategies() -> Iterable[StrategyFamily]:
    """Return the families of strategies of this plugin."""
    return [FAMILY]
