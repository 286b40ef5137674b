"""The contract of executors, which execute runs in other processes, on this or on other machines.

alue-bench divides a list of runs into assignments, each of which is a group of runs for one worker process, and submits
them one by one. Assignments of a sweep are submitted in the sweep's order; otherwise, expensive tasks and models come
first. The executor brings each assignment to a worker and returns the events that the worker reports. A worker only has
to call

    from alue_bench.executors.worker import execute_assignment
    execute_assignment(assignment, send)

where `send` is a function that sends a `RunStarted`, `RunAdvanced`, `RunEnded` or `WarningIssued` to alue-bench.

The worker process needs the same plugins, data and models as the main process, and access to the MLflow tracking store.
The worker writes results to the store; results never pass through the executor. alue-bench does the rest: it submits
the assignment of a dead worker again, waits for runs that other alue-bench commands are executing, stops at the first
failure with --fail-fast, and ends the MLflow runs that an interruption left unfinished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from alue_bench.contract.spec import RunSpec


Keep = Literal["best", "all"]
"""The runs whose trained models are saved: for each task and model the run with the best dev score ("best"), or every
run ("all")."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources that the user allows an executor to use."""

    device: str = "cpu"
    """The kind of device of the runs: "cpu", "cuda", "mps" or "xpu"."""
    gpu: int | None = None
    """The index of the only GPU that runs may use, such as 1 for --device cuda:1; None if runs may use all GPUs. An
    executor that cannot restrict its workers to this GPU raises UsageError."""
    jobs: int | None = None
    """The largest number of runs that are executed at the same time; None if the user does not set it."""
    gpus_per_run: float | None = None
    """The number of GPUs per run: a fraction of one GPU, or a whole number; None if the user does not set it."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The names, paths and settings with which a worker loads the data and the model of a run.

    Data rows and model weights are not sent to the worker; it reads them itself.
    """

    model: str
    """The model, in the form that the option `--model` accepts: a name, a folder, or a hub id with an optional
    revision."""
    options: Mapping[str, Any]
    """The user's settings that are not part of `RunSpec`, such as the data folder and the size of the cache, by the
    names of their fields in `PlanRequest`."""
    depths: tuple[int, ...]
    """The depths, each once, of the frozen prefix in this run and in all other planned runs with its data and model.
    The frozen prefix consists of the frozen embeddings and the frozen layers directly above them; its depth is the
    number of these layers. One forward pass computes the outputs at all depths."""
    tags: Mapping[str, str]
    """The MLflow tags that are recorded with the run."""
    notes: tuple[str, ...] = ()
    """Remarks on the model from the checks before the first run; they are recorded as notes of the run."""
    shared_depths: tuple[int, ...] = ()
    """The entries of `depths` that are the depth of more than one planned run. On an accelerator, storing the outputs
    of the frozen prefix may be worthwhile only at these depths."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A group of runs for one worker, which executes them in order. It can be pickled.

    The runs of a group use the same trained weights, for example to test one model on several tasks, so that the worker
    trains only once.
    """

    number: int
    """The identifier of the assignment; `AssignmentFinished` and `AssignmentLost` refer to it."""
    runs: tuple[tuple[RunSpec, Source], ...]
    """The specification of each run, and the settings with which the worker loads its data and model."""
    tracking_uri: str
    """The MLflow tracking URI."""
    experiment: str
    """The name of the MLflow experiment."""
    parent_id: str | None
    """The id of the MLflow parent run under which the runs are recorded; None if there is no parent run."""
    invocation: str
    """The identifier of the `alue-bench` command that planned the runs."""
    disabled_plugins: tuple[str, ...]
    """The names of the plugins that the worker must not load."""
    rerun: bool
    """True if runs whose results are already recorded are executed again."""
    device: str
    """The kind of device of the runs: "cpu", "cuda", "mps" or "xpu"."""
    keep: Keep | None = None
    """The runs whose trained models are saved; None to save no model."""


@dataclass(frozen=True)
class RunStarted:
    """The event that a run has started."""

    fingerprint: str
    """The fingerprint of the run (`RunSpec.fingerprint`), which identifies it."""


@dataclass(frozen=True)
class RunAdvanced:
    """The event that a run has made progress."""

    fingerprint: str
    done: int
    """The number of training steps done."""
    total: int
    """The number of training steps of the whole run."""


Status = Literal["finished", "reused", "failed", "held"]
"""The outcome of a run. "reused" means that the tracking store already had a result, so that the run was not executed.
"held" means that the run was not executed because another process is executing the same run at this moment."""


@dataclass(frozen=True)
class RunEnded:
    """The event that a run has ended in a worker: it was executed, reused or left to another process (see `status`).

    The result of a run that is "finished" or "reused" is in the tracking store.
    """

    fingerprint: str
    status: Status
    run_id: str
    """The id of the MLflow run; empty if the run failed before it was recorded. If the status is "held", it is the id
    under which the other process records the run."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The final metrics of the run by name (`RunResult.metrics`); empty if there is no result."""
    cause: str = ""
    """The reason for a failure, in words; empty if the run did not fail."""


@dataclass(frozen=True)
class WarningIssued:
    """A warning for the user."""

    message: str


Report = RunStarted | RunAdvanced | RunEnded | WarningIssued
"""An event that `execute_assignment` reports in the worker, and that the executor passes on unchanged."""


@dataclass(frozen=True)
class AssignmentFinished:
    """The event that a worker has finished an assignment and has reported every run in it."""

    number: int


@dataclass(frozen=True)
class AssignmentLost:
    """The event that a worker or its machine died before it finished an assignment."""

    number: int
    cause: str
    """The cause in words, such as "killed by SIGKILL"."""
    infrastructure_failure: bool = False
    """True if the worker died for a reason outside its runs, for example because its machine failed."""


Event = Report | AssignmentFinished | AssignmentLost
"""An event that an executor returns to alue-bench."""


class WorkerPool(Protocol):
    """The workers of one alue-bench command. They execute one list of runs, or several lists one after the other.

    alue-bench calls all methods from the same thread.
    """

    def has_capacity(self) -> bool:
        """Return whether a worker would soon start another assignment if it were submitted now.

        The first call must return True.
        """
        ...

    def submit(self, assignment: Assignment) -> None:
        """Give an assignment to a worker and return at once, without waiting for the worker.

        alue-bench calls this method only after `has_capacity` has returned True.
        """
        ...

    def events(self, timeout_s: float) -> Sequence[Event]:
        """Return the events that workers have reported since the last call, in order.

        The last event of each assignment must be an `AssignmentFinished` or an `AssignmentLost`. No assignment may have
        both, or one of them twice.

        Args:
            timeout_s: The longest time, in seconds, to wait for the first event.
        """
        ...

    def stop(self) -> None:
        """End every worker, and return when no worker is running any more.

        A busy worker must first receive SIGTERM or a KeyboardInterrupt, and get some seconds to record its run as
        killed. alue-bench calls this method once, whether the runs succeeded or failed.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Executor:
    """The declaration of an executor: its name for `--executor` and the function that starts its workers."""

    name: str
    title: str
    """A phrase for users that says where the runs are executed, such as "on a Ray cluster"."""
    start: Callable[[Resources], WorkerPool]
    """The function that starts the workers. alue-bench calls it at most once per command, when there is a run to
    execute. If the workers cannot be started, it raises UsageError or UnavailableError with one sentence for the
    user."""
