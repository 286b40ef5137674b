"""The whole plugin contract. A plugin is a module named by an entry point of the group `alue_bench`.

Every hook is optional. Mark an implementation with `alue_bench.hookimpl`. Hooks are called once per invocation, in no
particular order, and return declarations; nothing is registered by side effect.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import typer

    from alue_bench.contract.executor import Executor
    from alue_bench.contract.model import Model
    from alue_bench.contract.spec import RunResult, RunSpec
    from alue_bench.contract.strategy import StrategyFamily
    from alue_bench.contract.task import Task

GROUP = "alue_bench"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


# Declarations: what can be compared ------------------------------------------------------------------------------


@hookspec
def alue_bench_tasks() -> Iterable[Task]:
    """Called when tasks are needed; returns the tasks this plugin adds."""
    raise NotImplementedError


@hookspec
def alue_bench_models() -> Iterable[Model]:
    """Called when models are needed; returns the models this plugin adds."""
    raise NotImplementedError


@hookspec
def alue_bench_strategies() -> Iterable[StrategyFamily]:
    """Called when strategies are needed; returns the families of strategies this plugin adds."""
    raise NotImplementedError


@hookspec
def alue_bench_studies() -> Iterable[Path]:
    """Called when studies are needed; returns the study files this plugin ships, each found by its name without
    `.toml`."""
    raise NotImplementedError


# Where runs are done ---------------------------------------------------------------------------------------------


@hookspec
def alue_bench_executors() -> Iterable[Executor]:
    """Called when executors are needed; returns those this plugin adds: ways to have runs done in other processes, each
    chosen by its name with `--executor`."""
    raise NotImplementedError


# The command line ------------------------------------------------------------------------------------------------


@hookspec
def alue_bench_commands(app: typer.Typer) -> None:
    """Called at start-up with the command-line application; adds commands of its own to it."""


# Observers: called around each run, in the process that executes it, outside the timed region ---------------------


@hookspec
def alue_bench_run_started(spec: RunSpec) -> None:
    """Called before a run's data and model are loaded."""


@hookspec
def alue_bench_run_finished(spec: RunSpec, result: RunResult) -> None:
    """Called after a run was measured and recorded. A run that fails does not reach this hook, nor one that
    is reused."""
