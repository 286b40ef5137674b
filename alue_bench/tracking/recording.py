"""The recorder, which writes runs to MLflow and finds finished runs, so that they need not be repeated.

A fingerprint is a digest of everything that determines a run's result; runs with the same fingerprint give the same
result. An invocation is one execution of a command, including its worker processes. Its plan is the list of the runs to
execute, and is stored in an MLflow parent run. Results that cannot be written to the store are kept in the spool, a
folder on this machine.

The recorder uses an MLflow client with explicit run ids, since functions such as `mlflow.log_metric` write to the one
active run of a process.
"""

from __future__ import annotations

import csv
import functools
import json
import shutil
import socket
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar
from uuid import uuid4

from alue_bench.contract.errors import StoreUnavailableError
from alue_bench.contract.executor import Keep
from alue_bench.contract.probe import LayerScore
from alue_bench.contract.spec import FreezeEvent, Predictions, RunResult, RunSpec
from alue_bench.contract.strategy import FreezePlan, Outline
from alue_bench.contract.task import Labels
from alue_bench.contract.version import __version__
from alue_bench.measure.best_effort import best_effort
from alue_bench.measure.environment import git_state, hardware_fingerprint
from alue_bench.messages.display import markdown
from alue_bench.messages.redaction import redact, redacted
from alue_bench.running.inputs import RunInputs
from alue_bench.tracking.claims import (
    CLAIMING,
    FINGERPRINT,
    INVOCATION,
    STAGE,
    HeldRun,
    close_running,
    competitors,
    settle_claim,
    withdraw,
)
from alue_bench.tracking.connection import Connection, store_name, without_credentials
from alue_bench.tracking.figures import draw_predictions
from alue_bench.tracking.liveness import (
    HEARTBEAT,
    MACHINE,
    PROCESS,
    DeadProcessDetector,
    HeartbeatWriter,
    heartbeat_value,
    this_machine,
    this_process,
)
from alue_bench.tracking.metric_names import (
    LONGEST,
    TAG_LENGTH,
    metrics_by_original,
    storable_value,
    stored_names,
    tags_of_originals,
)
from alue_bench.tracking.prediction_files import (
    PREDICTIONS,
    without_scores,
    write_predictions,
    write_without_scores,
)
from alue_bench.tracking.record import (
    NOTES_FILE,
    NOTHING_MISSING,
    REFUSALS,
    Closing,
    DataUsed,
    Opening,
    Point,
    UnwrittenParts,
    end_run,
    refusal_note,
    write_closing,
    write_files,
    write_folder,
    write_opening,
    write_texts,
)
from alue_bench.tracking.scores_elsewhere import ALSO_TEST, digests_in, has_scores, predictions_file, tags_of_scores
from alue_bench.tracking.scratch import write_to_temporary_folder
from alue_bench.tracking.spool import MISSING_TAG, SPOOLED, SendResult, Spool, missing_artifacts_note, new_run_id

FAILURE = "failure"
"""The tag that holds the cause of a run's failure."""
LOW_FIDELITY = "search.first_look"
"""The tag of the low-fidelity runs of `alue-bench search`. These runs have fewer epochs, and are used only to choose
candidate settings, which are then tested by other runs."""
TUNING = "tuning"
"""The tag of the parent runs of `alue-bench run --tune`, whose `results.json` holds the tried and the chosen values."""
FOLDS_DIGEST = "folds.digest"
"""The tag with a digest of everything that determines which examples are in which fold of a cross-validation."""
TASK_OPTIONS = "task.options"
"""The tag with the options of `alue-bench run` that select the task. Only runs of a task that the user gave as a file
have it."""
ROW_OPTIONS = "data.options"
"""The tag with the options that select a run's rows (`RunSpec.row_options`), as JSON. Older versions did not set it."""
CHOSEN_LAYERS = "chosen_layers"
"""The tag with the trained layers, such as "0,2,5", if the strategy chose them by a probe. Runs with other strategies
do not have this tag."""
SUBMISSION_FILE = "submission_predictions.csv"
TRACEBACK_FILE = "traceback.txt"
CURVES = ("train/", "dev/")
"""The prefixes of the names of metrics that are logged repeatedly during training. No final metric has one of them."""

PARAM_LENGTH, DATASET_LENGTH = 6000, 500
"""The most characters that MLflow allows in a param's value, and in the name of a data set."""

MAX_REPETITIONS = 50
"""The largest number of finished runs with one fingerprint that are examined in order to find a run with the wanted
scores on other tasks."""
RETRY_INTERVAL_S = 10.0
"""The seconds to wait, after a store or its artifact location did not answer, before it is tried again. Without this
pause, a series of short runs would spend most of its time in MLflow's own retries."""

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")
T = TypeVar("T")


def _convert_store_errors(
    method: Callable[Concatenate[Recorder, Arguments], Returned],
) -> Callable[Concatenate[Recorder, Arguments], Returned]:
    """Decorate a method to raise StoreUnavailableError if the MLflow store does not answer or does not accept a write.

    For RETRY_INTERVAL_S seconds after such an error, all decorated methods raise the same error without calling the
    store.
    """

    @functools.wraps(method)
    def guarded(recorder: Recorder, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        if recorder.unavailable is not None and time.monotonic() < recorder.unavailable.until:
            raise StoreUnavailableError(recorder.unavailable.reason)
        try:
            returned = method(recorder, *args, **kwargs)
        except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
            refuses = isinstance(error, MlflowException) and error.error_code in REFUSALS
            problem = "rejects the results" if refuses else "stopped answering"
            why = f"the tracking store {problem} ({without_credentials(_first_line(error))})"
            recorder.unavailable = UnavailablePeriod(why, time.monotonic() + RETRY_INTERVAL_S)
            raise StoreUnavailableError(why) from error
        recorder.unavailable = None
        return returned

    return guarded


@dataclass(frozen=True)
class Recorded:
    """A finished run, in the MLflow store or in the spool (a folder of results that the store could not accept yet)."""

    run_id: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    scored_elsewhere: Mapping[str, str] = field(default_factory=dict)
    """The other tasks on which the run's model was scored, each with a digest; see `RunSpec.scored_elsewhere`."""


@dataclass(frozen=True)
class StatusElsewhere:
    """The status of a run that another process is executing or has executed."""

    status: str
    """The MLflow status of the run; RUNNING if the run has not ended."""
    cause: str
    """The cause of failure if the run failed; otherwise empty."""
    fingerprint: str = ""


class ClaimLost(Exception):
    """An error: while this process executed a run, it lost its claim, that is, the exclusive right to execute the run.

    There are two possible causes. Another process saw no sign of life in the MLflow store and considered this process
    dead. Or another process executed a run with the same fingerprint while the store could not be reached.
    """


@dataclass(frozen=True)
class UnavailablePeriod:
    """A period during which an MLflow store or its artifact location is not used, because it did not answer before."""

    reason: str
    """The reason why the MLflow store or the artifact location did not answer, for messages."""
    until: float
    """The end of the period on the monotonic clock, in seconds."""


@dataclass(frozen=True)
class _OpenRun:
    """A run that this process has begun to record and has not ended yet."""

    opening: Opening
    fingerprint: str | None
    """The digest of everything that determines the run's result; None for a parent run, which holds a list of runs."""
    again: bool
    """True if the run is executed even if another process executes or has finished a run with the same fingerprint, for
    example with --rerun."""
    written: bool
    """True if the opening (the values known before the run begins) was written to the MLflow store, except the parts in
    `missing`."""
    missing: UnwrittenParts = NOTHING_MISSING
    """The parts of the opening (the values known before the run begins) that the MLflow store did not accept."""


class Recorder:
    """A writer that records one process's runs in MLflow.

    All processes that work on the same plan (list of runs) record their runs as children of one MLflow parent run.

    If the store stops answering, the execution of the plan continues. Results are kept in the spool, a folder on this
    machine. This process or a later one writes them to the store when it answers again.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        parent_id: str | None = None,
        invocation: str | None = None,
        keep: Keep | None = None,
        on_problem: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Create a recorder. No run is created in the store.

        Args:
            connection: The open store.
            parent_id: The id of the MLflow parent run, for a recorder in a worker process. None in the main process,
                where `start_parent` creates the parent run.
            invocation: The id of the invocation (execution of a command) that this process belongs to; None to create a
                new id.
            keep: The choice of the runs whose trained models are kept on disk; None for none. The recorder only stores
                this value, for the module `deployment.keeping`.
            on_problem: A function that shows the user a message.
        """
        self.connection = connection
        self.parent_id = parent_id
        self.invocation = invocation or uuid4().hex
        """The id of the invocation (execution of a command). Its worker processes use the same id, and all its runs
        have the id as a tag."""
        self.keep = keep
        self.spool = Spool(store_name(connection.uri), connection.experiment)
        self.unavailable: UnavailablePeriod | None = None
        self._artifacts_unavailable: UnavailablePeriod | None = None
        self._on_problem = on_problem
        self._store_problem_reported = self._artifact_problem_reported = False
        self._open_run: str | None = None
        self._opened: dict[str, _OpenRun] = {}
        self._parent_files: tempfile.TemporaryDirectory[str] | None = None
        """A temporary folder of files that will be written as artifacts when the MLflow parent run ends; None as long
        as there are none."""
        self._heartbeats = HeartbeatWriter(connection.client)
        weakref.finalize(self, self._heartbeats.stop)  # a run that could not be closed must not appear alive
        self._dead_processes = DeadProcessDetector()

    # Looking up runs ---------------------------------------------------------------------------------------------

    def finished(
        self, fingerprint: str, *, this_invocation_only: bool = False, scored: Mapping[str, str] | None = None
    ) -> Recorded | None:
        """Return the newest finished run with this fingerprint, a digest of everything that determines the result.

        The run is looked up in the spool (the folder of results that were not written to the MLflow store yet), and
        then in the store.

        Args:
            fingerprint: The fingerprint to look for.
            this_invocation_only: Whether to ignore runs that another invocation (execution of a command) has executed.
            scored: The other tasks on which the run's model must have been scored, as in `RunSpec.scored_elsewhere`;
                None for none.

        Returns:
            The run; None if there is no such run, or if the store does not answer.
        """
        invocation = self.invocation if this_invocation_only else None
        kept = self.spool.finished(fingerprint, invocation=invocation)
        if kept is not None and has_scores(kept.opening.tags, scored or {}):
            points = {name: value for name, value, *_ in kept.closing.points if not name.startswith(CURVES)}
            metrics = metrics_by_original(points, kept.closing.tags)
            elsewhere = digests_in(kept.opening.tags.get(ALSO_TEST))
            return Recorded(kept.run_id or kept.id, metrics, kept.opening.params, elsewhere)
        return self._if_available(lambda: self._finished(fingerprint, invocation, scored), None)

    @_convert_store_errors
    def _finished(
        self, fingerprint: str, invocation: str | None = None, scored: Mapping[str, str] | None = None
    ) -> Recorded | None:
        wanted = f"attributes.status = 'FINISHED' and tags.{FINGERPRINT} = '{fingerprint}'"
        if invocation is not None:
            wanted += f" and tags.{INVOCATION} = '{invocation}'"
        most = 1 if not scored else MAX_REPETITIONS
        matching_runs = self.connection.client.search_runs([self.connection.experiment_id], wanted, max_results=most)
        run = next((run for run in matching_runs if has_scores(run.data.tags, scored or {})), None)
        if run is None:
            return None
        # The last points of curves are left out, so that a reused run shows the same metrics as a newly finished one.
        final = {name: v for name, v in run.data.metrics.items() if not name.startswith(CURVES)}
        metrics = metrics_by_original(final, run.data.tags)
        elsewhere = digests_in(run.data.tags.get(ALSO_TEST))
        return Recorded(run.info.run_id, metrics, dict(run.data.params), elsewhere)

    def holder(self, fingerprint: str) -> HeldRun | None:
        """Return the MLflow run in which a living process executes the run with this fingerprint; None if none does.

        A fingerprint is a digest of everything that determines a run's result.
        """
        return self._if_available(lambda: self._holder(fingerprint), None)

    @_convert_store_errors
    def _holder(self, fingerprint: str) -> HeldRun | None:
        for run in competitors(self.connection, fingerprint):
            if run.info.status == "RUNNING" and not self._dead_processes.is_dead(run.info.run_id, run.data.tags):
                return HeldRun(run.info.run_id)
        return None

    def ending_of(self, held: HeldRun) -> StatusElsewhere:
        """Return the present status of a run that another process is executing or has executed.

        If the store does not answer, the status is RUNNING.
        """
        return self._if_available(lambda: self._ending_of(held), StatusElsewhere("RUNNING", ""))

    @_convert_store_errors
    def _ending_of(self, held: HeldRun) -> StatusElsewhere:
        run = self.connection.client.get_run(held.run_id)
        return StatusElsewhere(run.info.status, run.data.tags.get(FAILURE, ""), run.data.tags.get(FINGERPRINT, ""))

    def close_interrupted(self) -> int:
        """Set the status KILLED for runs that have the status RUNNING although their processes are dead.

        MLflow itself never changes the status of such runs. The death of a process on another machine is recognised
        only if this method is called again at least `liveness.LEASE_S` seconds after a first call.

        Returns:
            The number of runs whose status was changed.
        """
        return self._if_available(self._close_interrupted, 0)

    def send_spooled(self) -> list[SendResult]:
        """Write the results in the spool to the MLflow store, and return the outcome for each that was not skipped.

        If the store does not answer, the list is empty. Entries that consist only of artifacts are skipped while
        artifacts cannot be written.

        The spool is a folder of results that could not be written to the store before.
        """
        return self._if_available(self._send_spooled, [])

    @_convert_store_errors
    def _send_spooled(self) -> list[SendResult]:
        sent = self.spool.send(self.connection, artifacts_unavailable=self._why_artifacts_unavailable())
        for one in sent:
            if one.outcome == "without artifacts":
                self._suspend_artifacts(one.reason)
        return sent

    def _why_artifacts_unavailable(self) -> str:
        """Return the reason why no artifacts are written at present; empty if artifacts are written."""
        unavailable = self._artifacts_unavailable
        return unavailable.reason if unavailable is not None and time.monotonic() < unavailable.until else ""

    def _suspend_artifacts(self, missing: str) -> None:
        """Stop writing artifacts for RETRY_INTERVAL_S seconds; the first time, print a message to the user.

        Args:
            missing: The location to which artifacts could not be written, and the reason.
        """
        self._artifacts_unavailable = UnavailablePeriod(missing, time.monotonic() + RETRY_INTERVAL_S)
        if not self._artifact_problem_reported:
            self._artifact_problem_reported = True
            self._on_problem(
                f"artifacts cannot be written to {missing}; results are still recorded in the tracking store, and "
                f"their artifacts are kept in {self.spool.folder} until they can be written. Make that location "
                "writable from this machine, or let a server write there: start mlflow server with "
                "--artifacts-destination and use a new --experiment"
            )

    def _if_available(self, call: Callable[[], T], otherwise: T) -> T:
        """Return the result of `call`, or `otherwise` if the MLflow store is unavailable.

        The first time the store is unavailable, a warning is printed for the user.
        """
        try:
            return call()
        except StoreUnavailableError as error:
            if not self._store_problem_reported:
                self._store_problem_reported = True
                self._on_problem(f"{error}; the plan continues, and its results are kept in {self.spool.folder}")
            return otherwise

    @_convert_store_errors
    def _close_interrupted(self) -> int:
        dead = [run for run in self._running() if self._dead_processes.is_dead(run.info.run_id, run.data.tags)]
        return sum(close_running(self.connection, run.info.run_id) for run in dead)

    def _running(self) -> list[Any]:
        """Return alue-bench's runs with the status RUNNING, without other programs' runs in the same experiment."""
        running: list[Any] = []
        token = None
        while True:
            page = self.connection.client.search_runs(
                [self.connection.experiment_id], "attributes.status = 'RUNNING'", page_token=token
            )
            running += [run for run in page if PROCESS in run.data.tags]
            token = page.token
            if not token:
                return running

    # Writing runs ------------------------------------------------------------------------------------------------

    def start_parent(self, plan: Mapping[str, Any], *, name: str, tags: Mapping[str, str]) -> str:
        """Create the MLflow parent run of this command's runs.

        It holds the plan, that is, the list of the runs, and later their aggregated results.

        Args:
            plan: The content of the artifact `plan.json`.
            name: The run's name in MLflow.
            tags: Further tags of the run.

        Returns:
            The MLflow id of the run. If the store does not answer, it is an id from `new_run_id` instead, under which
            the run is kept on this machine until it can be written to the store.
        """
        opening = Opening(
            storable_value(name, LONGEST),
            _now(),
            _redacted({**self._common_tags(), **tags, "kind": "plan"}),
            files={"plan.json": _json(plan)},
        )
        started = self._if_available(lambda: self._start_parent(opening), None)
        self.parent_id, missing = started or (new_run_id(), NOTHING_MISSING)
        self._opened[self.parent_id] = _OpenRun(opening, None, again=True, written=started is not None, missing=missing)
        return self.parent_id

    @_convert_store_errors
    def _start_parent(self, opening: Opening) -> tuple[str, UnwrittenParts]:
        run_id = self._create(opening)
        self._heartbeats.start_heartbeat(run_id)
        missing = self._why_artifacts_unavailable() or write_files(self.connection.client, run_id, opening.files)
        if missing:
            self._suspend_artifacts(missing)
        return run_id, UnwrittenParts(artifacts=missing)

    def add_to_parent(self, folder: Path, *, into: str) -> None:
        """Write a folder's files as artifacts of the MLflow parent run; if this fails, try again when that run ends.

        Args:
            folder: The folder to copy.
            into: The folder in the run's artifacts into which to write the files.
        """
        parent = self.parent_id
        if parent is None:
            return
        if parent.startswith(SPOOLED) or not self._if_available(lambda: self._add_files(parent, folder, into), False):
            best_effort(f"no {into} with the plan's run", lambda: self._add_at_end(folder, into), self._on_problem)

    def _add_at_end(self, folder: Path, into: str) -> None:
        self._parent_files = self._parent_files or tempfile.TemporaryDirectory(prefix="alue-bench-")
        shutil.copytree(folder, Path(self._parent_files.name) / into, dirs_exist_ok=True)

    @_convert_store_errors
    def _add_files(self, run_id: str, folder: Path, into: str) -> bool:
        missing = self._why_artifacts_unavailable() or write_folder(self.connection.client, run_id, folder, into=into)
        if missing:
            self._suspend_artifacts(missing)
        return not missing

    def finish_parent(self, results: Mapping[str, Any], metrics: Mapping[str, float], *, status: str) -> None:
        """End the MLflow parent run of this command's runs; do nothing if there is none.

        Args:
            results: The content of the artifact `results.json`.
            metrics: The aggregated metrics of the runs.
            status: The run's MLflow status.
        """
        if self.parent_id is None:
            return
        now = _now()
        points, tags = _points([(name, value, 0) for name, value in metrics.items()], now)

        def render(folder: Path) -> None:
            if self._parent_files is not None:
                shutil.copytree(self._parent_files.name, folder, dirs_exist_ok=True)

        self._close(self.parent_id, Closing(status, now, tags, points), {"results.json": _json(results)}, render)

    def start(
        self,
        spec: RunSpec,
        inputs: RunInputs,
        *,
        again: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> str | HeldRun:
        """Create the MLflow run of a fine-tuning run that is about to begin, unless another process executes it.

        All values that are known before the run begins are written. If the store does not answer, this method cannot
        see whether another process executes the run. It then returns an id, so that the caller executes the run.

        Args:
            spec: The specification of the run.
            inputs: The task, model and data that `spec` names.
            again: Whether to create the run even if another process executes or has finished a run with its
                fingerprint.
            tags: Further tags of the run.

        Returns:
            The id of the new run; or a `HeldRun` with the run of the same fingerprint that another process executes or
            has just finished.
        """
        opening = self._opening(spec, inputs, tags or {})
        started = self._if_available(lambda: self._start(opening, spec.fingerprint, again=again), None)
        if isinstance(started, HeldRun):
            return started
        written = started is not None
        # The store may have stopped answering after the run was created there.
        run_id, missing = started or (self._open_run or new_run_id(), NOTHING_MISSING)
        if not written and not run_id.startswith(SPOOLED):
            self._heartbeats.start_heartbeat(run_id)
        self._open_run = run_id
        self._opened[run_id] = _OpenRun(opening, spec.fingerprint, again, written, missing)
        return run_id

    def _opening(self, spec: RunSpec, inputs: RunInputs, more_tags: Mapping[str, str]) -> Opening:
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

        tags = {
            **more_tags,
            **self._common_tags(),
            "kind": "run",
            FINGERPRINT: spec.fingerprint,
            STAGE: CLAIMING,
            "data.source": spec.data.source,
            "data.protocol": spec.data.protocol,
            ROW_OPTIONS: json.dumps(spec.row_options),
            "hardware": hardware_fingerprint(spec.device),
            "device": spec.device,
            "precision": spec.precision,
            "primary_metric": inputs.task.primary,
            # These values seldom vary and are therefore tags, not params; a comparison of two runs needs them.
            "model.digest": spec.model_digest,
            "model.checkpoint": _checkpoint(inputs),
            "init_seed": str(spec.init_seed),
            "data_seed": str(spec.data_seed),
            "versions": json.dumps(_versions(spec)),
            MLFLOW_RUN_NOTE: _description(spec, inputs),
        }
        tags |= tags_of_scores(spec.scored_elsewhere)
        if inputs.rows.folder.options:
            tags[TASK_OPTIONS] = json.dumps(dict(inputs.rows.folder.options), ensure_ascii=False)
        if self.parent_id:
            tags[MLFLOW_PARENT_RUN_ID] = self.parent_id
            plan_page = f"#/experiments/{self.connection.experiment_id}/runs/{self.parent_id}"
            tags[MLFLOW_RUN_NOTE] += f"\n\nPart of [a plan]({plan_page}), with whose run the report is kept."
        params = {
            "task": spec.task,
            "model": spec.model,
            "strategy": spec.strategy,
            **({} if inputs.strategy.chooses else _freezing_params(spec.freeze_plan)),
            "layers": spec.freeze_plan.shape.layers,
            "seed": spec.seed,
            "lr": spec.hyper.lr,
            "epochs": spec.hyper.epochs,
            "batch_size": spec.hyper.batch_size,
            "max_length": spec.hyper.max_length,
        }
        if spec.fold:
            params |= {"folds": spec.fold.folds, "repeat": spec.fold.repeat, "fold": spec.fold.number}
            tags[FOLDS_DIGEST] = inputs.rows.folds_digest
        others = {name: value for name, value in spec.hyper.identity().items() if name not in params}
        others |= {"keep_head": True} if spec.keep_head else {}
        tags["hyper"] = json.dumps(others, sort_keys=True)
        return Opening(
            storable_value(spec.label, LONGEST),
            _now(),
            _redacted(tags),
            _redacted({name: str(value) for name, value in params.items()}, PARAM_LENGTH),
            _data_used(inputs),
            {"config.json": _json(spec.as_dict())},
        )

    @_convert_store_errors
    def _start(self, opening: Opening, fingerprint: str, *, again: bool) -> tuple[str, UnwrittenParts] | HeldRun:
        client = self.connection.client
        self._open_run = None
        run_id = self._create(opening)
        self._open_run = run_id
        held = None if again else settle_claim(self.connection, self._dead_processes, run_id, fingerprint)
        if held is not None:
            withdraw(self.connection, run_id)
            self._open_run = None
            return held
        client.set_tag(run_id, STAGE, "training")
        self._heartbeats.start_heartbeat(run_id)
        missing = write_opening(
            client, run_id, opening, tags=False, artifacts_unavailable=self._why_artifacts_unavailable()
        )
        self._report_refusals(opening.name, missing)
        if missing.artifacts:
            self._suspend_artifacts(missing.artifacts)
        return run_id, missing

    def _create(self, opening: Opening) -> str:
        run = self.connection.client.create_run(
            self.connection.experiment_id, start_time=opening.started, tags=dict(opening.tags), run_name=opening.name
        )
        return str(run.info.run_id)

    def finish(self, run_id: str, spec: RunSpec, result: RunResult, labels: Labels) -> tuple[str, ...]:
        """Write the result of a run to MLflow, and set the run's status to FINISHED.

        Args:
            run_id: The id of the run, which `start` returned.
            spec: The run's specification.
            result: The run's result.
            labels: The label space of the task, for the figure of the predictions.

        Returns:
            A sentence about each file, such as the figure, that could not be created. The result is recorded without
            these files, and the sentences are added to the run's notes.

        Raises:
            ClaimLost: Another process has ended this MLflow run, which is then not changed; or another process has
                finished a run with the same fingerprint while the store did not answer.
        """
        self._heartbeats.stop_heartbeat(run_id)
        now = _now()
        values = [(name, value, 0) for name, value in result.metrics.items()]
        values += [(point.metric, point.value, point.step) for point in result.curves]
        points, originals = _points(values, now)
        # The number format that was used. A run that cannot be executed in the planned format falls back to another.
        engine = result.environment["engine"]
        tags = {"precision": engine["precision"], STAGE: "done", **originals}
        tags |= {"cuda_graphs": "yes"} if engine["recorded_shapes"] else {}
        chosen = result.chosen_plan
        tags |= {CHOSEN_LAYERS: _trained_layers(chosen)} if chosen is not None else {}
        params = {} if chosen is None else {name: str(value) for name, value in _freezing_params(chosen).items()}
        problems: list[str] = []

        def render(folder: Path) -> None:
            problems.clear()

            def part(name: str, write: Callable[[Path], None], *, needs_space: bool = True) -> None:
                _write_part(folder / name, write, problems.append, needs_space=needs_space)

            def predictions_part(name: str, predictions: Predictions) -> None:
                part(name, lambda path: write_predictions(path, predictions))
                part(without_scores(name), lambda path: write_without_scores(path, folder / name))

            predictions_part(PREDICTIONS, result.predictions)
            part("dev_predictions.csv", lambda path: write_predictions(path, result.dev_predictions))
            submission = result.submission_predictions
            if submission is not None:
                part(SUBMISSION_FILE, lambda path: write_predictions(path, submission))
            for task, predictions in result.predictions_elsewhere.items():
                predictions_part(predictions_file(task), predictions)
            if result.layer_scores:
                part("layer_scores.csv", lambda path: write_layer_scores(path, result.layer_scores))
            if result.freezing:
                part("freezing.csv", lambda path: write_freezing(path, result.freezing))
            part(
                "confusion_matrix.png",
                lambda path: draw_predictions(path, result.predictions, labels, title=spec.label),
                needs_space=False,
            )
            notes = [*result.notes, *problems]
            if notes:
                write_texts(folder, {NOTES_FILE: redact("\n".join(notes)) + "\n"})

        files = {"environment.json": _json(result.environment)}
        self._close(run_id, Closing("FINISHED", now, tags, points, params), files, render)
        return tuple(problems)

    def fail(self, run_id: str, cause: str, trace: str) -> None:
        """Write the error of a failed run to MLflow, and set the run's status to FAILED.

        Args:
            run_id: The id of the run, which `start` returned.
            cause: The cause in one line, which becomes a tag.
            trace: The traceback, which becomes an artifact.

        Raises:
            ClaimLost: Another process has ended this MLflow run, or has finished a run with the same fingerprint while
                the store did not answer.
        """
        self._heartbeats.stop_heartbeat(run_id)
        tags = {FAILURE: redact(cause)[:5000]}
        self._close(run_id, Closing("FAILED", _now(), tags), {TRACEBACK_FILE: redact(trace)})

    def tag_run(self, run_id: str, tags: Mapping[str, str], *, fingerprint: str) -> None:
        """Add tags to a run that has ended. If the store does not answer, the tags are kept in the spool.

        Args:
            run_id: The id of the run, in the store or in the spool.
            tags: The tags. A value may be the id of a parent run in the spool. When this parent run and the tag are
                written to the store, the value is replaced by the MLflow id of the parent run.
            fingerprint: The digest of everything that determines the run's result.
        """
        kept = any(one.startswith(SPOOLED) for one in (run_id, *tags.values()))
        if kept or not self._if_available(lambda: self._set_tags(run_id, tags), otherwise=False):
            self.spool.add_tags(run_id, tags, fingerprint=fingerprint, now=_now())

    @_convert_store_errors
    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> bool:
        for name, value in tags.items():
            self.connection.client.set_tag(run_id, name, value)
        return True

    def close_lost(self, fingerprint: str, *, failure: str = "") -> str | None:
        """End the MLflow run that a dead worker process of this command left with the status RUNNING.

        Args:
            fingerprint: The digest of everything that determines the run's result.
            failure: The cause of failure, which is recorded with the status FAILED. Empty if the run will be repeated;
                the MLflow run then gets the status KILLED.

        Returns:
            The run's id; None if the worker died before it created the run, or if the store does not answer.
        """
        return self._if_available(lambda: self._close_lost(fingerprint, failure), None)

    @_convert_store_errors
    def _close_lost(self, fingerprint: str, failure: str) -> str | None:
        run_id: str | None = None
        for run in competitors(self.connection, fingerprint):
            if run.info.status == "RUNNING" and run.data.tags.get(INVOCATION) == self.invocation:
                run_id = str(run.info.run_id)
                if failure:
                    self.connection.client.set_tag(run_id, FAILURE, redact(failure)[:5000])
                self._terminate(run_id, "FAILED" if failure else "KILLED")
        return run_id

    def close_workers(self) -> int:
        """Set the status KILLED for runs that this command's stopped worker processes left with the status RUNNING.

        Returns:
            The number of runs whose status was changed.
        """
        return self._if_available(self._close_workers, 0)

    @_convert_store_errors
    def _close_workers(self) -> int:
        mine = [run for run in self._running() if run.data.tags.get(INVOCATION) == self.invocation]
        left = [str(run.info.run_id) for run in mine if run.info.run_id != self.parent_id]
        for run_id in left:
            self._terminate(run_id, "KILLED")
        return len(left)

    def kill_open(self) -> None:
        """Set the status KILLED for the run that this process is executing, if any, after a user's interruption."""
        run_id = self._open_run
        if run_id is not None and not run_id.startswith(SPOOLED):
            self._if_available(lambda: self._terminate(run_id, "KILLED"), None)

    def abandon(self) -> None:
        """Set the status KILLED for all runs of this command that have not ended, including the MLflow parent run."""
        self.close_workers()
        parent = self.parent_id
        if parent is not None and parent in self._opened and not parent.startswith(SPOOLED):
            self._if_available(lambda: self._terminate(parent, "KILLED"), None)

    def _close(
        self,
        run_id: str,
        closing: Closing,
        files: Mapping[str, str],
        render: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        """Write the end of a run to the MLflow store or, if it is unavailable, to the spool on this machine."""
        self._heartbeats.stop_heartbeat(run_id)
        opened = self._opened.get(run_id)

        def everything(folder: Path) -> None:
            render(folder)
            write_texts(folder, files)
            if opened is not None and opened.missing.artifacts:
                write_texts(folder, opened.opening.files)
            if opened is not None and opened.missing.refused:
                notes = "\n".join(map(refusal_note, opened.missing.refused))
                with (folder / NOTES_FILE).open("a", encoding="utf-8") as file:
                    file.write(notes + "\n")

        with ExitStack() as stack:
            folder, problem = write_to_temporary_folder(stack, everything)
            if problem:
                self._on_problem(problem)
            try:
                taken = not run_id.startswith(SPOOLED) and self._if_available(
                    lambda: self._write_closing(run_id, closing, folder), otherwise=False
                )
            except KeyboardInterrupt:  # keep the result; if the store has it already, sending the entry will show that
                if opened is not None:
                    self._spool_run(run_id, opened, closing, folder)
                raise
            if not taken:
                if opened is None:
                    raise StoreUnavailableError(f"run {run_id} cannot be recorded: the tracking store does not answer")
                self._spool_run(run_id, opened, closing, folder)
        self._opened.pop(run_id, None)
        if run_id == self._open_run:
            self._open_run = None
        self.send_spooled()

    def _spool_run(
        self, run_id: str, opened: _OpenRun, closing: Closing, files: Path, *, artifacts_only: bool = False
    ) -> None:
        self.spool.add(
            files,
            run_id=run_id,
            fingerprint=opened.fingerprint,
            again=opened.again,
            opening=opened.opening,
            closing=closing,
            artifacts_only=artifacts_only,
        )

    @_convert_store_errors
    def _write_closing(self, run_id: str, closing: Closing, folder: Path) -> bool:
        opened = self._opened.get(run_id)
        claimed = opened is None or opened.fingerprint is not None  # a parent run is never claimed
        if claimed and self.connection.client.get_run(run_id).info.status != "RUNNING":
            self._raise_claim_lost(run_id)
        if opened is not None and not opened.written:
            # The store stopped answering before the claim was settled: another process may have executed the run.
            scored = digests_in(opened.opening.tags.get(ALSO_TEST))
            if opened.fingerprint is not None and not opened.again and self._finished(opened.fingerprint, None, scored):
                withdraw(self.connection, run_id)
                self._raise_claim_lost(run_id)
            missing = write_opening(
                self.connection.client, run_id, opened.opening, artifacts_unavailable=self._why_artifacts_unavailable()
            )
            self._report_refusals(opened.opening.name, missing)
            if missing.artifacts:
                self._suspend_artifacts(missing.artifacts)
                write_texts(folder, opened.opening.files)
        missing = write_closing(
            self.connection.client, run_id, closing, folder, artifacts_unavailable=self._why_artifacts_unavailable()
        )
        self._report_refusals(opened.opening.name if opened else run_id, missing)
        if missing.artifacts:
            self._suspend_artifacts(missing.artifacts)
            self._spool_artifacts(run_id, opened, closing, folder, missing.artifacts)
        end_run(self.connection.client, run_id, closing)
        return True

    def _spool_artifacts(
        self, run_id: str, opened: _OpenRun | None, closing: Closing, folder: Path, missing: str
    ) -> None:
        """Keep artifacts that could not be written to their location, and say so in a tag of their run.

        They are kept in the spool, a folder on this machine, until they can be written.

        Args:
            run_id: The id of the MLflow run.
            opened: The values recorded when the run was begun; None if this process did not begin the run.
            closing: The values recorded at the end of the run.
            folder: The folder of the artifacts.
            missing: The location to which the artifacts could not be written, and the reason.
        """
        try:
            if opened is None:
                raise StoreUnavailableError("the run was not started by this process")
            self._spool_run(run_id, opened, closing, folder, artifacts_only=True)
            said = missing_artifacts_note(missing, self.spool.folder)
        except StoreUnavailableError as error:
            said = f"could not be written to {missing}, and are lost: {error}"
            self._on_problem(f"the artifacts of run {run_id} {said}")
        self.connection.client.set_tag(run_id, MISSING_TAG, storable_value(redact(said), TAG_LENGTH))

    def _report_refusals(self, name: str, missing: UnwrittenParts) -> None:
        for refused in missing.refused:
            self._on_problem(f"{name}: {refusal_note(refused)}")

    def _raise_claim_lost(self, run_id: str) -> NoReturn:
        self._opened.pop(run_id, None)
        if run_id == self._open_run:
            self._open_run = None
        raise ClaimLost(run_id)

    # Helpers -----------------------------------------------------------------------------------------------------

    def _common_tags(self) -> dict[str, str]:
        from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

        tags = {
            MLFLOW_SOURCE_NAME: "alue-bench",
            MLFLOW_SOURCE_TYPE: "LOCAL",
            "alue_bench.version": __version__,
            "host": socket.gethostname(),
            MACHINE: this_machine(),
            PROCESS: this_process(),
            HEARTBEAT: heartbeat_value(),
            INVOCATION: self.invocation,
        }
        git = git_state(Path.cwd())
        if git:
            tags |= {MLFLOW_GIT_COMMIT: git["commit"], "git.dirty": git["dirty"]}
        return tags

    def set_progress(self, run_id: str, done: int, total: int) -> None:
        """Set the progress of a run in steps, which its next heartbeats contain.

        Nothing is written to the store by this call. A heartbeat is a tag of the run that is rewritten regularly, to
        show that the process is alive.
        """
        self._heartbeats.set_status(run_id, f"{done}/{total}")

    @_convert_store_errors
    def _terminate(self, run_id: str, status: str) -> None:
        self._heartbeats.stop_heartbeat(run_id)
        close_running(self.connection, run_id, status)
        if run_id == self._open_run:
            self._open_run = None


def _write_part(
    path: Path, write: Callable[[Path], None], on_problem: Callable[[str], None], *, needs_space: bool
) -> None:
    """Write one of a run's files. If this fails, report it, so that the other files can still be written.

    Args:
        path: The path of the file.
        write: The function that writes the file.
        on_problem: A function that receives the message.
        needs_space: Whether to raise an OSError instead of reporting it, so that the caller can try a folder on another
            disk.
    """

    def attempt() -> OSError | None:
        try:
            write(path)
        except OSError as error:
            if not needs_space:
                raise
            return error
        return None

    before: list[str] = []
    error = best_effort(f"no {path.name}", attempt, before.append)
    if error is not None:
        raise error
    for problem in before:
        path.unlink(missing_ok=True)
        on_problem(problem)


def _points(values: Iterable[tuple[str, float, int]], now: int) -> tuple[tuple[Point, ...], dict[str, str]]:
    """Return a run's metrics as points for MLflow, and tags with the original forms of shortened metric names.

    Args:
        values: The metrics as (name, value, step).
        now: The time of all points, in milliseconds since 1970.
    """
    listed = list(values)
    stored = stored_names(name for name, *_ in listed)
    points = tuple((stored[name], float(value), now, step) for name, value, step in listed)
    return points, tags_of_originals(stored)


def write_freezing(path: Path, events: Iterable[FreezeEvent]) -> None:
    """Write a CSV file of the decisions that an adaptive freezing strategy made during training.

    The strategy decides at certain steps which blocks to freeze. A block is the embeddings, one layer of the encoder
    or, for strategies that freeze single weight matrices, one weight matrix. For each decision and block, there is a
    row with the step, the epoch, the block, the norm of the block's gradient (for a weight matrix, the change of its
    gradient), and 1 if the block is frozen from then on, otherwise 0.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "epoch", "block", "norm", "frozen"])
        for event in events:
            norm = "" if event.norm is None else repr(event.norm)
            writer.writerow([event.step, event.epoch, event.block, norm, int(event.frozen)])


def write_layer_scores(path: Path, scores: Iterable[LayerScore]) -> None:
    """Write a CSV file with a row for each layer: its index, its probe score, and 1 if it is frozen, otherwise 0."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["layer", "score", "frozen"])
        writer.writerows([one.layer, repr(one.score), int(one.frozen)] for one in scores)


def _data_used(inputs: RunInputs) -> tuple[DataUsed, ...]:
    parts = [
        ("train", inputs.train_task, inputs.train_rows, "training"),
        ("dev", inputs.train_task, inputs.train_rows, "validation"),
        ("test", inputs.task, inputs.rows, "testing"),
    ]
    return tuple(
        DataUsed(
            name=storable_value(f"{task.name}-{split}", DATASET_LENGTH),
            digest=rows.splits[split].digest,
            source=json.dumps({"publisher": task.source[:400], "kind": rows.folder.kind}, ensure_ascii=False),
            profile=json.dumps(
                {
                    "rows": len(rows.splits[split].examples),
                    "protocol": (rows.protocol or task.splits.protocol)[:400],
                }
            ),
            context=context,
        )
        for split, task, rows, context in parts
    )


def _freezing_params(plan: FreezePlan) -> dict[str, int]:
    return {"freeze.bottom": plan.bottom, "freeze.top": plan.top, "freeze.embeddings": int(plan.embeddings)}


def _trained_layers(plan: FreezePlan) -> str:
    return ",".join(str(layer) for layer in range(plan.shape.layers) if layer not in plan.frozen_layers)


def _description(spec: RunSpec, inputs: RunInputs) -> str:
    sample = (
        "**Embedded sample data**, written for demonstration: scores say nothing about the real task.\n\n"
        if spec.data.source == "sample"
        else ""
    )
    trained_on = f", trained on {spec.train_task}" if spec.train_task != spec.task else ""
    outlined = Outline(spec.freeze_plan, spec.kept_layers, spec.adapter)
    frozen = "chosen in the run, see layer_scores.csv" if inputs.strategy.chooses else outlined.describe()
    return (
        f"{sample}{markdown(f'{inputs.task.title}{trained_on}; {inputs.model.title}; frozen: {frozen}.')}"
        f"\n\nSplits: {markdown(spec.data.protocol)}. Text normalisation: {markdown(inputs.model.normalisation)}."
    )


def _checkpoint(inputs: RunInputs) -> str:
    """Return the checkpoint of a run's model as a value of the option --model: a folder, or a hub id with revision."""
    model = inputs.model
    return f"{model.checkpoint}@{model.revision}" if model.revision else str(model.checkpoint)


def _versions(spec: RunSpec) -> dict[str, str]:
    """Return the versions of alue-bench, of the plugins that a run uses, and of torch and transformers."""
    return {
        "alue-bench": __version__,
        **spec.providers,
        **spec.test_providers,
        **{name: version(name) for name in ("torch", "transformers")},
    }


def _json(value: object) -> str:
    return json.dumps(redacted(value), ensure_ascii=False, indent=2, default=lambda one: redact(str(one))) + "\n"


def _redacted(values: Mapping[str, str], longest: int = TAG_LENGTH) -> dict[str, str]:
    return {name: storable_value(redact(str(value)), longest) for name, value in values.items()}


def _now() -> int:
    return int(time.time() * 1000)


def _first_line(error: BaseException) -> str:
    """Return the line of an error's message that states the error; the error's type if there is no such line.

    It is usually the first line. SQLAlchemy's messages may begin with a line about the circumstances, which is skipped.
    """
    lines = [line for line in str(error).splitlines() if line and "(raised as a result of" not in line]
    return next(iter(lines), type(error).__name__)
