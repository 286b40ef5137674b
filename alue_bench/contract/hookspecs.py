"""The hooks that a plugin can implement. A plugin is a module named by an entry point of the group `alue_bench`.

Every hook is optional. Mark an implementation with `alue_bench.hookimpl`. The hooks that return declarations are called
once per command, in no particular order; a plugin registers nothing by side effect.
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
    """Return the tasks that this plugin adds."""
    raise NotImplementedError


@hookspec
def alue_bench_models() -> Iterable[Model]:
    """Return the models that this plugin adds."""
    raise NotImplementedError


@hookspec
def alue_bench_strategies() -> Iterable[StrategyFamily]:
    """Return the families of strategies that this plugin adds.

    A family is a set of strategies whose names have a common form, such as `bottom<N>top<M>`.
    """
    raise NotImplementedError


@hookspec
def alue_bench_studies() -> Iterable[Path]:
    """Return the paths of the study files that this plugin ships.

    A study file is a TOML file with the options of an experiment. Users refer to it by its file name without `.toml`.
    """
    raise NotImplementedError


# Executors: where runs are executed ------------------------------------------------------------------------------


@hookspec
def alue_bench_executors() -> Iterable[Executor]:
    """Return the executors that this plugin adds.

    An executor executes runs in other processes. Users choose it by its name with `--executor`.
    """
    raise NotImplementedError


# The command line ------------------------------------------------------------------------------------------------


@hookspec
def alue_bench_commands(app: typer.Typer) -> None:
    """Add commands to the command-line application at start-up."""


# Observers: called around each run, in the process that executes it, outside the timed region ---------------------


@hookspec
def alue_bench_run_started(spec: RunSpec) -> None:
    """Observe the start of a run, before its data and model are loaded."""


@hookspec
def alue_bench_run_finished(spec: RunSpec, result: RunResult) -> None:
    """Observe the end of a run, after its result was measured and recorded.

    This hook is not called for a run that fails or whose recorded result is reused.
    """
