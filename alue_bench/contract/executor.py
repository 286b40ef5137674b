"""The contract of executors, which execute the runs of a plan in other processes, on this or on other machines.

The harness divides a plan into assignments, each of which is a group of runs for one worker. It submits the longest
assignment first, or, for a sweep, follows the order of the sweep. The executor brings each assignment to a worker
process and returns the worker's events. A worker only has to call

    from alue_bench.executors.worker import carry_out
    carry_out(assignment, tell)      # tell: called in the worker with a Started, Advanced, RunEnded or Warned

The worker process needs the same plugins, data and models, and access to the tracking store. The worker writes results
to the store; results never pass through the executor. The harness does the rest: it submits the assignment of a dead
worker again, waits for runs that other invocations execute, stops at the first failure with --fail-fast, and closes
runs that an interruption left open in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from alue_bench.contract.spec import RunSpec


Keep = Literal["best", "all"]
"""The runs whose trained models are kept: the best one on dev for each task and model, or all."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources that the user allows an executor to use."""

    device: str = "cpu"
    """The device of the plan's runs, "cpu" or "cuda"."""
    jobs: int | None = None
    """The largest number of concurrent runs; None if the user does not set it."""
    gpus_per_run: float | None = None
    """The number of GPUs per run: a fraction of one GPU, or a whole number; None if the user does not set it."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The names, paths and settings with which a worker loads the inputs of a run.

    Data rows and model weights are not part of an assignment; the worker loads them itself.
    """

    model: str
    """The model as `--model` takes it: a name, a folder, or a hub id with an optional revision."""
    options: Mapping[str, Any]
    """The user's settings that `RunSpec` does not contain, by field name: the data folder, the cache's size, ..."""
    depths: tuple[int, ...]
    """The numbers of layers in the frozen prefixes of all runs of the plan with the same inputs. One forward pass
    computes the outputs of all these prefixes."""
    tags: Mapping[str, str]
    """The tags that are recorded with the run."""
    notes: tuple[str, ...] = ()
    """The plan's observations about the model, which become notes of the run."""
    shared_depths: tuple[int, ...] = ()
    """Those of `depths` that several runs of the plan have."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A group of runs that share one training, so that one worker executes them in order. It can be pickled."""

    number: int
    """The identifier of the assignment; `Returned` and `Lost` refer to it."""
    runs: tuple[tuple[RunSpec, Source], ...]
    tracking_uri: str
    """The address of the tracking store."""
    experiment: str
    """The name of the MLflow experiment."""
    parent_id: str | None
    """The id of the MLflow run that groups the plan's runs; None if there is none."""
    invocation: str
    """The identifier of the invocation that made the plan."""
    disabled_plugins: tuple[str, ...]
    """The plugins that the worker must not load."""
    rerun: bool
    """True if runs with a recorded result are executed again."""
    device: str
    """The device of the runs, "cpu" or "cuda"."""
    keep: Keep | None = None
    """The runs whose trained models are kept; None for none."""


@dataclass(frozen=True)
class Started:
    """The event that a run has started."""

    fingerprint: str


@dataclass(frozen=True)
class Advanced:
    """The event that a run has made progress."""

    fingerprint: str
    done: int
    """The number of steps done."""
    total: int
    """The number of steps of the whole run."""


Status = Literal["finished", "reused", "failed", "held"]
"""The outcome of a run. "reused" means that its recorded result was reused instead of executing it; "held" means that
another invocation is executing the run at this moment."""


@dataclass(frozen=True)
class RunEnded:
    """The event that a run has ended; its result is in the tracking store."""

    fingerprint: str
    status: Status
    run_id: str
    """The id of the MLflow run; empty if the run failed before it was recorded."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    cause: str = ""
    """The reason for a failure, in words."""


@dataclass(frozen=True)
class Warned:
    """A warning for the user."""

    message: str


Report = Started | Advanced | RunEnded | Warned


@dataclass(frozen=True)
class Returned:
    """The event that a worker has finished an assignment and has reported every run in it."""

    number: int


@dataclass(frozen=True)
class Lost:
    """The event that a worker or its machine died before it finished an assignment."""

    number: int
    cause: str
    """The cause in words, such as "killed by SIGKILL"."""
    infrastructure_failure: bool = False
    """True if the runs of the assignment cannot have caused the loss, for example because a machine failed."""


Event = Report | Returned | Lost


class WorkerPool(Protocol):
    """The workers of one invocation of alue-bench, which executes one plan or several plans in succession.

    The harness calls the methods from one thread.
    """

    def has_room(self) -> bool:
        """Return whether one more assignment would start soon. The first call must return True."""
        ...

    def submit(self, assignment: Assignment) -> None:
        """Bring an assignment to a worker and return at once.

        The harness calls this only when `has_room` returned True.
        """
        ...

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return the events since the last call, in order.

        Each assignment must end with exactly one `Returned` or one `Lost`.

        Args:
            timeout_s: The longest time to wait for the first event, in seconds.
        """
        ...

    def stop(self) -> None:
        """End every worker, and return when none of them is working any more.

        A busy worker first gets SIGTERM or a KeyboardInterrupt and has some seconds to close its run. The harness calls
        this once, whether the plan succeeded or failed.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Executor:
    """The declaration of an executor: its name for `--executor` and the function that starts its workers."""

    name: str
    title: str
    """A phrase that describes the executor to people."""
    start: Callable[[Resources], WorkerPool]
    """The function that starts the workers. The harness calls it once per invocation, when there is a run to execute.
    It raises UsageError or UnavailableError, with one sentence for the user, if the workers cannot be started."""
