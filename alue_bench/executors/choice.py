"""The choice of an executor, which executes the runs of a plan. Executors are built in or come from plugins."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from alue_bench.contract.errors import UsageError
from alue_bench.contract.executor import Executor, Resources, WorkerPool
from alue_bench.contract.registry import Registry

DEFAULT = "local"


def _processes(resources: Resources) -> WorkerPool:
    from alue_bench.executors.processes import start

    return start(resources)


def _ray(resources: Resources) -> WorkerPool:
    from alue_bench.executors.ray_cluster import start

    return start(resources)


BUILT_IN = (
    Executor(name=DEFAULT, title="in this process; with --jobs, in worker processes on this machine", start=_processes),
    Executor(name="ray", title="on a Ray cluster", start=_ray),
)


def known_executors(registry: Registry) -> Mapping[str, Executor]:
    """Return all executors by name. A built-in executor takes precedence over a plugin's executor of the same name."""
    others = {name: declared.value for name, declared in registry.executors.items()}
    return others | {executor.name: executor for executor in BUILT_IN}


def chosen_executor(
    name: str | None, jobs: int | None, gpus_per_run: float | None, registry: Registry
) -> Executor | None:
    """Return the executor that the options select.

    Args:
        name: The value of --executor; None for the default.
        jobs: The value of --jobs, the number of concurrent runs; None if it was not given.
        gpus_per_run: The value of --gpus-per-run: a fraction of one GPU, or a number of whole GPUs; None if it was not
            given.
        registry: The declarations of the installed plugins.

    Returns:
        The executor; None if the runs are to be executed one after the other in this process.

    Raises:
        UsageError: There is no executor of this name, or --gpus-per-run was given together with the default executor.
    """
    known = known_executors(registry)
    name = name or DEFAULT
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UsageError(f"--executor {name!r} is unknown{hint}; known are {', '.join(sorted(known))}")
    if name == DEFAULT and gpus_per_run is not None:
        raise UsageError("--gpus-per-run is for --executor ray; with local, --jobs workers share this machine's GPUs")
    return None if name == DEFAULT and (jobs or 1) == 1 else known[name]
