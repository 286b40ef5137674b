"""Which executor does a plan: those that come with the harness, and those of plugins."""

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
    """By name. A plugin cannot take the name of one that comes with the harness."""
    others = {name: declared.value for name, declared in registry.executors.items()}
    return others | {executor.name: executor for executor in BUILT_IN}


def chosen_executor(
    name: str | None, jobs: int | None, gpus_per_run: float | None, registry: Registry
) -> Executor | None:
    """Return the executor that the options ask for; None for runs in this process, one after the other.

    Raises UsageError where there is none of this name, or it has no use for an option.
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
