"""The contract of executors, which execute runs in other processes, on this or on other machines.

alue-bench divides a list of runs into assignments, each of which is a group of runs for one worker process. It submits
the longest assignment first; for a sweep, it keeps the order of the sweep instead. The executor brings each assignment
to a worker and returns the events that the worker reports. A worker only has to call

    from alue_bench.executors.worker import carry_out
    carry_out(assignment, tell)      # tell: called in the worker with a Started, Advanced, RunEnded or Warned

The worker process needs the same plugins, data and models, and access to the tracking store. The worker writes results
to the store; results never pass through the executor. alue-bench does the rest: it submits the assignment of a dead
worker again, waits for runs that other alue-bench commands execute, stops at the first failure with --fail-fast, and
closes runs that an interruption left open in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from alue_bench.contract.spec import RunSpec


Keep = Literal["best", "all"]
"""The choice of the runs whose trained models are saved: for each task and model the run with the best dev score
("best"), or all runs ("all")."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources that the user allows an executor to use."""

    device: str = "cpu"
    """The kind of device of the runs: "cpu", "cuda", "mps" or "xpu"."""
    gpu: int | None = None
    """The number of the only GPU of this machine that runs may use, as in --device cuda:1; None for all. An executor
    whose workers cannot be given this GPU raises UsageError."""
    jobs: int | None = None
    """The largest number of runs that execute at the same time; None if the user does not set it."""
    gpus_per_run: float | None = None
    """The number of GPUs per run: a fraction of one GPU, or a whole number; None if the user does not set it."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The names, paths and settings with which a worker loads the data and the model of a run.

    Data rows and model weights are not sent to the worker; it reads them itself.
    """

    model: str
    """The model as `--model` takes it: a name, a folder, or a hub id with an optional revision."""
    options: Mapping[str, Any]
    """The user's settings that are not part of `RunSpec`, such as the data folder and the size of the cache, by the
    name of the field that holds them."""
    depths: tuple[int, ...]
    """The numbers of frozen lowest layers (above frozen embeddings) that occur among all planned runs on the same data
    and model. One forward pass computes the outputs for all these numbers of layers."""
    tags: Mapping[str, str]
    """The MLflow tags that are recorded with the run."""
    notes: tuple[str, ...] = ()
    """Remarks on the model that were made before any run began; they are recorded as notes of the run."""
    shared_depths: tuple[int, ...] = ()
    """The numbers in `depths` that several runs of the plan have in common. On an accelerator, only their outputs may
    be worth storing."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A group of runs for one worker, which executes them in order. It can be pickled.

    The runs of a group use the same trained weights, for example to test one model on several tasks, so that the worker
    trains only once.
    """

    number: int
    """The identifier of the assignment; `Returned` and `Lost` refer to it."""
    runs: tuple[tuple[RunSpec, Source], ...]
    tracking_uri: str
    """The MLflow tracking URI."""
    experiment: str
    """The name of the MLflow experiment."""
    parent_id: str | None
    """The id of the parent run in MLflow that groups the runs; None if there is none."""
    invocation: str
    """The identifier of the `alue-bench` command that planned the runs."""
    disabled_plugins: tuple[str, ...]
    """The names of the plugins that the worker must not load."""
    rerun: bool
    """True if runs with a recorded result are executed again."""
    device: str
    """The kind of device of the runs: "cpu", "cuda", "mps" or "xpu"."""
    keep: Keep | None = None
    """The choice of the runs whose trained models are saved; None to save no model."""


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
    """The total number of steps of the run."""


Status = Literal["finished", "reused", "failed", "held"]
"""The outcome of a run. "reused" means that an earlier result was in the tracking store, so that the run was not
executed; "held" means that another alue-bench command is executing the same run at this moment."""


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
    """True if the worker died for a reason outside its runs, for example because its machine failed."""


Event = Report | Returned | Lost


class WorkerPool(Protocol):
    """The workers of one alue-bench command. They execute one list of runs, or several lists one after the other.

    alue-bench calls the methods from one thread.
    """

    def has_room(self) -> bool:
        """Return whether the pool would start one more assignment soon. The first call must return True."""
        ...

    def submit(self, assignment: Assignment) -> None:
        """Bring an assignment to a worker and return at once.

        alue-bench calls this only when `has_room` returned True.
        """
        ...

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return the events that workers have reported since the last call, in order.

        Each assignment must end with exactly one `Returned` or one `Lost`.

        Args:
            timeout_s: The longest time to wait for the first event, in seconds.
        """
        ...

    def stop(self) -> None:
        """End every worker, and return when none of them is working any more.

        A busy worker first gets SIGTERM or a KeyboardInterrupt and has some seconds to close its run. alue-bench calls
        this once, whether the runs succeeded or failed.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Executor:
    """The declaration of an executor: its name for `--executor` and the function that starts its workers."""

    name: str
    title: str
    """A phrase that describes the executor to people."""
    start: Callable[[Resources], WorkerPool]
    """The function that starts the workers. alue-bench calls it once per command, when there is a run to execute. It
    raises UsageError or UnavailableError, with one sentence for the user, if the workers cannot be started."""
