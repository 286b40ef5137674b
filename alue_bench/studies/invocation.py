"""The execution of the runs of one `run`, `sweep` or `search` command.

A plan is a list of runs to execute. The runs are recorded in MLflow as children of a parent run, which holds the plan
and the aggregated results.

    invocation = Invocation(study, streams)
    with invocation:                                        opens the store; marks runs of dead processes as KILLED
        invocation.start_parent(plan, name="...")           starts the run that holds plan and aggregates
        execution = invocation.execute(plan, progress)      never raises for a failed run or Ctrl-C
        document = invocation.document(execution)
        ending = invocation.finish(document, execution)     closes the parent run; returns final messages

Several plans may be executed one after the other under one parent run. If an exception leaves the `with` block early,
such as KeyboardInterrupt, all MLflow runs that are still open get the status KILLED.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from alue_bench.contract.errors import UsageError
from alue_bench.contract.executor import Resources
from alue_bench.data.cache_folder import check_cache_folder
from alue_bench.executors.choice import DEFAULT, chosen_executor
from alue_bench.executors.local import execute_plan
from alue_bench.executors.outcome import Interrupted, Observer, Outcome, aggregate, result_document
from alue_bench.executors.placement import gpu_sharing
from alue_bench.executors.scheduler import Workers, execute_with
from alue_bench.measure.best_effort import best_effort
from alue_bench.messages.redaction import redact
from alue_bench.messages.suggestion import command_line
from alue_bench.planning.build import Plan, PlannedRun
from alue_bench.planning.grid import DEFAULT_TOLERANCE
from alue_bench.studies.settings import Study
from alue_bench.tracking.connection import connect, tracking_uri, where_options, without_credentials
from alue_bench.tracking.recording import Recorder
from alue_bench.tracking.spool import SendResult
from alue_bench.training.device.selection import gpu_number
from alue_bench.views.console import PlainConsole
from alue_bench.views.streams import Streams

if TYPE_CHECKING:
    from alue_bench.deployment.keeping import KeptModels
    from alue_bench.evaluation.margins import Margins
    from alue_bench.reporting.recorded import RecordedRuns


class Progress(Observer, AbstractContextManager[Any], Protocol):
    """A context manager that observes the planned runs and shows their progress."""


@dataclass(frozen=True)
class StoreLocation:
    """The MLflow tracking store and the experiment in which runs are recorded."""

    uri: str
    """The tracking URI of the MLflow store."""
    experiment: str
    """The name of the MLflow experiment."""


@dataclass(frozen=True)
class Execution:
    """A plan (list of runs) with the outcomes of the runs that were executed."""

    plan: Plan
    outcomes: list[Outcome]
    interruption: Interrupted | None = None
    """The interruption by the user (Ctrl-C or SIGTERM); None if there was none."""

    @property
    def failed(self) -> bool:
        """True if at least one run failed."""
        return any(outcome.status == "failed" for outcome in self.outcomes)

    @property
    def status(self) -> str:
        """The status that the parent run of these runs gets in MLflow."""
        return "KILLED" if self.interruption else "FAILED" if self.failed else "FINISHED"

    @property
    def unfinished(self) -> int:
        """The number of planned runs that were not executed or not completed, because the execution ended early."""
        return len(self.plan.runs) - len(self.outcomes)


@dataclass(frozen=True)
class Ending:
    """The MLflow store and experiment that hold a command's runs, and the messages to show when the command ends."""

    store: StoreLocation
    parent_id: str | None
    """The MLflow id of the parent run, which holds the list of planned runs and the aggregated results; None if there
    is only one run and no parent run."""
    kept: tuple[str, ...] = ()
    """A sentence for each trained model that was saved, or that should have been saved and was not."""
    remarks: tuple[str, ...] = ()
    """The messages about results that the MLflow store did not accept."""
    recorded: RecordedRuns | None = None
    """The recorded runs, for the comparison at the end; None if the MLflow store did not accept all results."""


class Invocation:
    """One call of the command `run`, `sweep` or `search`, which executes runs and records them in MLflow."""

    def __init__(
        self, study: Study, streams: Streams, *, margins: Margins | None = None, tolerance: float = DEFAULT_TOLERANCE
    ) -> None:
        """Choose the MLflow store and the way to execute runs, according to the settings in `study`.

        Raise UsageError if the settings are invalid.

        Args:
            study: The settings of the command, and the plugins.
            streams: The output streams.
            margins: The largest acceptable loss of score, for each metric, on which the verdicts on strategies depend;
                None for the default.
            tolerance: The largest accepted loss of dev score for a setting that the report recommends, as a share of
                the dev score of full fine-tuning.
        """
        self.study, self.streams, self._margins, self._tolerance = study, streams, margins, tolerance
        self._options = study.execution
        self.store = StoreLocation(tracking_uri(self._options.tracking_uri), self._options.experiment)
        self._executor = chosen_executor(
            self._options.executor, self._options.jobs, self._options.gpus_per_run, study.registry
        )
        self._jobs = self._options.jobs
        self._workers: Workers | None = None
        self._keeps_workers = False
        self._recorder: Recorder | None = None
        if self._options.register is not None and self._options.keep is None:
            raise UsageError("--register registers kept models; add --keep best")
        if self._options.register is not None:
            from alue_bench.deployment.logged_models import check_registered_name

            check_registered_name(self._options.register)
        self._settled: KeptModels | None = None
        self._recorded: list[str] = []
        """The MLflow ids of the runs whose results the parent run aggregates."""

    @property
    def recorder(self) -> Recorder:
        """The recorder, which writes the runs to the opened store.

        Raises:
            RuntimeError: The store is not open yet.
        """
        if self._recorder is None:
            raise RuntimeError("the store is not open yet")
        return self._recorder

    @property
    def uses_workers(self) -> bool:
        """True if several runs may be executed at the same time by worker processes."""
        return self._executor is not None

    @contextmanager
    def keeping_workers(self) -> Iterator[None]:
        """Keep worker processes alive between calls of `execute` within the context, since they start slowly."""
        self._keeps_workers = True
        try:
            yield
        finally:
            self._keeps_workers = False
            if self._workers is not None:
                self._workers.dismiss()

    def limit_jobs(self, plan: Plan) -> None:
        """Limit the number of concurrent runs to what fits into this machine's GPU memory.

        A sentence about the limit is added to the plan's notes.
        """
        if not self.uses_workers or self._options.executor not in (None, DEFAULT) or not plan.runs:
            return
        jobs, only = self._options.jobs or 1, gpu_number(plan.runs[0].request.device)
        placement = best_effort(
            "no estimate of how many runs fit on a GPU", lambda: gpu_sharing(plan.runs, jobs, only), plan.notes.append
        )
        if placement is not None:
            self._jobs = placement.concurrent_runs
            plan.notes.append(placement.describe())

    def check(self, plan: Plan) -> None:
        """Raise UsageError if the list of planned runs is empty."""
        if not plan.runs:
            reasons = "; ".join(dict.fromkeys(skipped.reason for skipped in plan.skipped))
            raise UsageError(f"nothing to run: {reasons or 'no combination of task, model and strategy is possible'}")

    def __enter__(self) -> Self:
        """Open the MLflow store, or create it.

        Results of earlier runs that were kept on this machine, because the store was unavailable, are sent to it. Runs
        that still have the status RUNNING although their processes are dead get the status KILLED.
        """
        check_cache_folder()
        stderr = self.streams.stderr
        self._recorder = Recorder(
            connect(self.store.uri, self.store.experiment),
            keep=self._options.keep,
            on_problem=lambda message: stderr.print(message, style="yellow"),
        )
        show_sent_results(self._recorder.send_spooled(), stderr)
        closed = self._recorder.close_interrupted()
        if closed:
            stderr.print(
                f"{closed} runs of an earlier invocation were interrupted; they are marked KILLED and done again"
            )
        return self

    def __exit__(self, kind: type[BaseException] | None, *others: object) -> None:
        """If the `with` block ends with an exception, give all MLflow runs that are still open the status KILLED."""
        if kind is not None:
            self.recorder.abandon()

    def start_parent(self, plan: Plan, *, name: str, tags: Mapping[str, str] | None = None) -> str:
        """Create the MLflow parent run, which holds the plan (list of runs) and later the aggregated results.

        All runs that are executed afterwards become its children.

        Args:
            plan: The planned runs.
            name: The name of the parent run in MLflow.
            tags: Further MLflow tags of the parent run.

        Returns:
            The id of the parent run.
        """
        sources = ",".join(sorted({run.spec.data.source for run in plan.runs}))
        return self.recorder.start_parent(
            self.planned_document(plan), name=name, tags={"data.source": sources, **(tags or {})}
        )

    def execute(self, plan: Plan, progress: Progress, *, rerun: bool = False) -> Execution:
        """Execute the runs of a plan that are not finished yet.

        Args:
            plan: The list of runs to execute.
            progress: The display of the progress.
            rerun: True to repeat finished runs, too; the option `--rerun` has the same effect.

        Returns:
            The outcomes of the runs. If the user interrupts the execution (Ctrl-C or SIGTERM), no error is raised, and
            the attribute `interruption` of the result is set.
        """
        rerun, fail_fast = rerun or self._options.rerun, self._options.fail_fast
        common = (plan, self.recorder, self.study.registry, progress)
        try:
            with progress:
                if self._executor is None:
                    outcomes = execute_plan(*common, rerun=rerun, fail_fast=fail_fast)
                else:
                    self._workers = self._workers or Workers(self._executor, self._allowed(plan.runs[0]))
                    outcomes = execute_with(
                        self._workers, *common, rerun=rerun, fail_fast=fail_fast, keep_workers=self._keeps_workers
                    )
        except Interrupted as stop:
            return Execution(plan, stop.outcomes, stop)
        return Execution(plan, outcomes)

    def _allowed(self, run: PlannedRun) -> Resources:
        """Return the resources (device, GPUs, jobs) that worker processes may use for a plan.

        Args:
            run: The first run of the plan; all of its runs have the same device.
        """
        return Resources(
            device=run.spec.device,
            gpu=gpu_number(run.request.device),
            jobs=self._jobs,
            gpus_per_run=self._options.gpus_per_run,
        )

    def add_to_parent(self, folder: Path, *, into: str) -> None:
        """Write a folder's files to the artifacts of the MLflow parent run, if there is one.

        Args:
            folder: The folder on this machine.
            into: The folder in the artifacts to which the files are written.
        """
        self.recorder.add_to_parent(folder, into=into)

    def finish_parent(
        self, document: Mapping[str, Any], execution: Execution, metrics: Mapping[str, float] | None = None
    ) -> None:
        """End the MLflow parent run, if there is one, and write the results, their aggregates and `metrics` to it."""
        self._recorded = [outcome.run_id for outcome in execution.outcomes if outcome.run_id]
        plan_metrics = {**aggregate(execution.outcomes), **(metrics or {})}
        self.recorder.finish_parent(document, plan_metrics, status=execution.status)

    def register_kept_models(self, outcomes: Sequence[Outcome]) -> None:
        """Determine which trained models this command has kept; with `--register`, register them in the model registry.

        Call this before `document` and `finish`, whose results describe the kept models.

        Args:
            outcomes: The outcomes of all runs, except low-fidelity runs of a search, which have fewer epochs.
        """
        if self._options.keep is None:
            return
        from alue_bench.deployment.keeping import KeptCandidate, collect_kept_models

        candidates = [
            KeptCandidate(outcome.run_id, outcome.spec, outcome.metrics, outcome.status == "reused")
            for outcome in outcomes
            if outcome.status != "failed"
        ]
        self._settled = best_effort(
            "the list of kept models",
            lambda: collect_kept_models(self.recorder, candidates, self._options.register),
            self.streams.warn,
        )

    def finish(
        self, document: Mapping[str, Any], execution: Execution, metrics: Mapping[str, float] | None = None
    ) -> Ending:
        """End the MLflow parent run, and write a report on its child runs to its artifacts.

        Args:
            document: The results, to be stored with the parent run.
            execution: The plan and the outcomes of its runs.
            metrics: Further metrics of the parent run, in addition to the aggregates.

        Returns:
            The MLflow store and experiment that hold the runs, and the messages to show at the end.
        """
        self.finish_parent(document, execution, metrics)
        from alue_bench.reporting.recorded import RecordedRuns

        remarks = self.remarks()
        recorded = RecordedRuns(
            self.recorder.connection, self._recorded, self.recorder.parent_id, self._margins, self._tolerance
        )
        if not execution.interruption and not remarks:
            self.log_report_page(recorded)
        # Results are not read from a store that did not accept all of them.
        return Ending(
            self.store, self.recorder.parent_id, self.kept_sentences(), remarks, None if remarks else recorded
        )

    def kept_sentences(self) -> tuple[str, ...]:
        """Return a sentence for each trained model that was saved, or that should have been saved and was not."""
        if self._settled is None:
            return ()
        from alue_bench.deployment.keeping import kept_model_messages

        return tuple(kept_model_messages(self._settled, where_options(self.store.uri, self.store.experiment)))

    def document(self, execution: Execution) -> dict[str, Any]:
        """Return the results as a JSON-like document, for the option `--json` and for the MLflow parent run."""
        document = result_document(
            execution.outcomes,
            execution.plan,
            experiment=self.store.experiment,
            tracking_uri=without_credentials(self.store.uri),
        )
        return document | ({"kept": self._settled.as_documents()} if self._settled is not None else {})

    def planned_document(self, plan: Plan) -> dict[str, Any]:
        """Return the JSON-like document that describes the planned runs before their execution."""
        document = result_document(
            [], plan, experiment=self.store.experiment, tracking_uri=without_credentials(self.store.uri)
        )
        document["planned"] = [planned.spec.as_dict() for planned in plan.runs]
        return document

    def log_report_page(self, recorded: RecordedRuns) -> None:
        """Write a report on the runs to the artifacts of their MLflow parent run; print a message if that fails."""
        parent_id = recorded.parent_id
        if parent_id is None:
            return
        from alue_bench.reporting.parent_page import log_parent_page

        try:
            log_parent_page(recorded)
        except Exception as error:
            cause = next(iter(str(error).splitlines()), "")
            where = where_options(self.store.uri, self.store.experiment)
            self.streams.stderr.print(
                f"warning: no report was kept with the plan's run ({type(error).__name__}: {redact(cause)}); "
                f"{command_line('report', options={'parent': parent_id, **where})} writes one",
                style="yellow",
            )

    def remarks(self) -> tuple[str, ...]:
        """Return messages about results that the MLflow store did not accept, with the command that resends them."""
        sync = command_line("sync", options=where_options(self.store.uri))
        spool = self.recorder.spool
        entries = spool.entries()
        kept = sum(entry.is_result for entry in entries)
        artifacts = sum(entry.artifacts_only for entry in entries)
        sentences = []
        if kept:
            sentences.append(
                f"The tracking store did not accept {kept} results. They are kept in {spool.folder} and are written to "
                f"the store by the next run, or by: {sync}"
            )
        if artifacts:
            sentences.append(
                f"The artifacts of {artifacts} runs (predictions, figures, the report) could not be written "
                f"to this experiment's artifact location. They are kept in {spool.folder} and are written there by the "
                f"next run, or by: {sync}"
            )
        return tuple(sentences)


def show_sent_results(sent: Sequence[SendResult], stderr: PlainConsole) -> None:
    """Print which results, kept on this machine until now, were sent to the MLflow store, and which it refused."""
    results = sum(one.outcome != "refused" and one.entry.is_result for one in sent)
    artifacts = sum(one.outcome == "written" and one.entry.artifacts_only for one in sent)
    if results:
        stderr.print(f"{results} results that were kept on this machine are in the tracking store now")
    if artifacts:
        stderr.print(f"the artifacts of {artifacts} runs that were kept on this machine are with their runs now")
    for one in sent:
        name = one.entry.opening.name
        sentences = [f"{name}: {problem}" for problem in one.problems]
        if one.outcome == "refused":
            sentences.append(f"{name}, kept in {one.entry.folder}, was rejected by the tracking store: {one.reason}")
        if one.outcome == "without artifacts":
            sentences.append(f"{name}: its artifacts, kept in {one.entry.folder}, cannot be written to {one.reason}")
        for sentence in sentences:
            stderr.print(sentence, style="yellow")
