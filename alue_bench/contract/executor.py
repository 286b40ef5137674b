"""What an executor is: a way to have the runs of a plan done in other processes, here or on other machines.

The harness cuts a plan into assignments and hands them out, the longest first, or those of a sweep in its order; an
executor brings each to a worker and brings back what is said of it. All that a worker must do with an assignment is

    from alue_bench.executors.worker import carry_out
    carry_out(assignment, tell)      # tell: called with a Started, Advanced, RunEnded or Warned, in the worker

in a process that has the same plugins, data and models, and that can reach the tracking store: results are written
there by the worker, and never pass through the executor. The harness does the rest: it hands the assignment of a dead
worker out again, waits for runs that other invocations do, stops at --fail-fast, and closes what an interruption left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from alue_bench.contract.spec import RunSpec


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the user allows."""

    device: str = "cpu"
    """"cpu" or "cuda": what the plan's runs compute on."""
    jobs: int | None = None
    """How many runs may be under way at once; None where the user does not say."""
    gpus_per_run: float | None = None
    """A part of one GPU, or a number of whole ones; None where the user does not say."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a worker finds what a run needs. Names and paths alone: rows and weights do not travel."""

    model: str
    """As for --model."""
    options: Mapping[str, Any]
    """The values of the plan's request that the spec does not tell, by field: the data folder, the cache's size, ..."""
    depths: tuple[int, ...]
    """Of the frozen prefixes of all runs of the plan that begin as this one does: computed in one pass."""
    tags: Mapping[str, str]
    """Recorded with the run."""
    notes: tuple[str, ...] = ()
    """What the plan found out about the model: for the run's notes."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Runs for one worker, to be done one after the other: they share a training. Can be pickled."""

    number: int
    runs: tuple[tuple[RunSpec, Source], ...]
    tracking_uri: str
    experiment: str
    parent_id: str | None
    invocation: str
    disabled_plugins: tuple[str, ...]
    rerun: bool
    device: str


@dataclass(frozen=True)
class Started:
    """A run has begun."""

    fingerprint: str


@dataclass(frozen=True)
class Advanced:
    """A run has done so many of its steps."""

    fingerprint: str
    done: int
    total: int


Status = Literal["finished", "reused", "failed", "held"]
"""Of a run: "held" is one that another invocation does at this moment."""


@dataclass(frozen=True)
class RunEnded:
    """What became of a run; it is in the store."""

    fingerprint: str
    status: Status
    run_id: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    cause: str = ""


@dataclass(frozen=True)
class Warned:
    """A remark for the user."""

    message: str


Report = Started | Advanced | RunEnded | Warned


@dataclass(frozen=True)
class Returned:
    """A worker is through with an assignment and has told of every run in it."""

    number: int


@dataclass(frozen=True)
class Lost:
    """A worker died, or its machine did, before it returned."""

    number: int
    cause: str
    """In words, such as "killed by SIGKILL"."""
    infrastructure_failure: bool = False
    """Whether the run had no part in it, as where a machine was lost."""


Event = Report | Returned | Lost


class WorkerPool(Protocol):
    """The workers of one invocation: of its plan, or of several after each other. Used by one thread."""

    def has_room(self) -> bool:
        """Whether one more assignment would be begun soon. At first it must be true."""
        ...

    def submit(self, assignment: Assignment) -> None:
        """Bring an assignment to a worker; returns at once. Called only where there is room."""
        ...

    def events(self, timeout_s: float) -> Sequence[Event]:
        """What happened since the last call, in order; waits up to so many seconds for the first. Each assignment ends
        in one Returned or one Lost."""
        ...

    def stop(self) -> None:
        """End every worker, and return when none of them works any more. One at work is asked first (SIGTERM or
        KeyboardInterrupt) and has some seconds to close its run. Called once, after whatever happened."""
        ...


@dataclass(frozen=True, kw_only=True)
class Executor:
    """A declaration: a name for --executor, and how to start a pool."""

    name: str
    title: str
    start: Callable[[Resources], WorkerPool]
    """Called once in an invocation, when there is something to do. Raises UsageError or UnavailableError, with one
    sentence for the user, where it cannot be had."""
