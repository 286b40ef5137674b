"""A plugin for alue-bench: one task, one model, one family of strategies.

The entry point in `pyproject.toml` names this module; alue-bench calls the hooks below and takes what they return.
"""

from collections.abc import Iterable

from alue_bench import Model, StrategyFamily, Task, hookimpl
from alue_bench_example.model import MODEL
from alue_bench_example.strategy import FAMILY
from alue_bench_example.task import TASK


@hookimpl
def alue_bench_tasks() -> Iterable[Task]:
    return [TASK]


@hookimpl
def alue_bench_models() -> Iterable[Model]:
    return [MODEL]


@hookimpl
def alue_bench_strategies() -> Iterable[StrategyFamily]:
    return [FAMILY]
