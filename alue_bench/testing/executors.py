"""The conformance check of executors, which execute runs in other processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.executor import Executor, Resources
from alue_bench.contract.task import NAME
from alue_bench.testing.violations import Remark, cause, raise_if_any


def check_executor(executor: Executor) -> None:
    """Check an executor's declaration, and that its workers can be started and stopped. No run is executed.

    If `Executor.start` raises UsageError or UnavailableError, for example because there is no cluster, the workers
    cannot be checked, and there is a ConformanceWarning.

    Args:
        executor: The declaration of the executor.

    Raises:
        ConformanceError: The executor breaks the contract; the message has one sentence for each violation.
    """
    raise_if_any(executor, Executor, [_metadata, _pool])


def _metadata(executor: Executor) -> Iterator[str]:
    subject = f"executor {executor.name!r}"
    if not isinstance(executor.name, str) or not NAME.fullmatch(executor.name):
        yield f"{subject}: the name must match {NAME.pattern}; rename it"
    if not isinstance(executor.title, str) or not executor.title.strip():
        yield f"{subject}: the title is empty; say where the executor does runs"


def _pool(executor: Executor) -> Iterator[str]:
    subject = f"executor {executor.name!r}"
    try:
        pool: Any = executor.start(Resources(device="cpu", jobs=1))
    except (UsageError, UnavailableError) as error:
        yield Remark(f"{subject} was not tried: {error}")
        return
    except Exception as error:  # a plugin's function may raise anything
        yield f"{subject}: start raises {cause(error)}; raise UnavailableError with what is missing and what to do"
        return
    missing = [name for name in ("has_capacity", "submit", "events", "stop") if not callable(getattr(pool, name, None))]
    if missing:
        yield f"{subject}: its pool lacks {', '.join(missing)}; see alue_bench.contract.executor.WorkerPool"
        return
    try:
        if not pool.has_capacity():
            yield f"{subject}: an idle pool accepts no run; has_capacity must return True"
        if list(pool.events(0)):
            yield f"{subject}: there are events before any run was submitted; return none"
    except Exception as error:  # a plugin's method may raise anything
        yield f"{subject}: its pool raises {cause(error)} before any run was submitted; return no events"
    try:
        pool.stop()
    except Exception as error:  # a plugin's method may raise anything
        yield f"{subject}: stop raises {cause(error)}; it must end the workers, whatever happened before"
