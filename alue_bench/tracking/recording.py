"""Writing runs to MLflow, and finding those that need not be done again.

Everything goes through a client with explicit run ids: MLflow's fluent functions keep one active run per process.
"""

from __future__ import annotations

import csv
import functools
import json
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from alue_bench import __version__
from alue_bench.errors import StoreUnavailableError
from alue_bench.measure.environment import git_state, hardware_fingerprint
from alue_bench.run import RunInputs
from alue_bench.spec import FreezeEvent, Predictions, RunResult, RunSpec
from alue_bench.task import Labels
from alue_bench.tracking.claims import CLAIMING, FINGERPRINT, STAGE, Held, competitors, settle, withdraw
from alue_bench.tracking.connection import Connection
from alue_bench.tracking.figures import draw_predictions
from alue_bench.tracking.liveness import HEARTBEAT, MACHINE, PROCESS, Heart, Watch, a_beat, this_machine, this_process

METRICS_PER_BATCH = 1000  # MLflow's limit
FAILURE = "failure"
SUBMISSION_FILE = "submission_predictions.csv"
TRACEBACK_FILE = "traceback.txt"
CURVES = ("train/", "dev/")
"""Names of metrics that are logged over the course of training begin with these; no final scalar's does."""

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")


def _tells_of_the_store(method: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Turns what MLflow raises when its store goes away into a sentence."""

    @functools.wraps(method)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Returned:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return method(*args, **kwargs)
        except (MlflowException, RequestException, SQLAlchemyError) as error:
            raise StoreUnavailableError(
                f"the tracking store stopped answering ({next(iter(str(error).splitlines()), type(error).__name__)}); "
                "finished runs are kept, and the same command goes on from there"
            ) from error

    return guarded


@dataclass(frozen=True)
class Recorded:
    """A finished run in the store."""

    run_id: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]


@dataclass(frozen=True)
class Ended:
    """How a run that another process held came out."""

    status: str
    """In MLflow's words; RUNNING where it has not ended."""
    cause: str
    """Of a failure."""


class ClaimLost(Exception):
    """A run was taken for dead while it was being done, by a process of another machine that saw no sign of life."""


class Recorder:
    """Writes the runs of one process. Those of a plan that several processes share have one parent."""

    def __init__(self, connection: Connection, *, parent_id: str | None = None) -> None:
        self.connection = connection
        self.parent_id = parent_id
        self._open_run: str | None = None
        self._heart = Heart(connection.client)
        self._watch = Watch()

    # Finding -----------------------------------------------------------------------------------------------------

    @_tells_of_the_store
    def finished(self, fingerprint: str) -> Recorded | None:
        """The newest finished run with this fingerprint in the experiment."""
        runs = self.connection.client.search_runs(
            [self.connection.experiment_id],
            f"attributes.status = 'FINISHED' and tags.{FINGERPRINT} = '{fingerprint}'",
            max_results=1,
        )
        if not runs:
            return None
        # A curve's last point is no final scalar: a reused run tells the same metrics as a finished one.
        final = {name: v for name, v in runs[0].data.metrics.items() if not name.startswith(CURVES)}
        return Recorded(runs[0].info.run_id, final, dict(runs[0].data.params))

    @_tells_of_the_store
    def holder(self, fingerprint: str) -> Held | None:
        """Who does a run at this moment, in this process or another; None where nobody lives who does."""
        for run in competitors(self.connection, fingerprint):
            if run.info.status == "RUNNING" and not self._watch.is_dead(run.info.run_id, run.data.tags):
                return Held(run.info.run_id)
        return None

    @_tells_of_the_store
    def ended(self, held: Held) -> Ended:
        """How a run that another process held has come out."""
        run = self.connection.client.get_run(held.run_id)
        return Ended(run.info.status, run.data.tags.get(FAILURE, ""))

    @_tells_of_the_store
    def close_interrupted(self) -> int:
        """Mark as KILLED the runs that a dead process left RUNNING: MLflow never does so itself. Returns their number.

        Of another machine's process it takes two calls, a lease apart, to see that it is dead.
        """
        dead = [run for run in self._running() if self._watch.is_dead(run.info.run_id, run.data.tags)]
        for run in dead:
            self._terminate(run.info.run_id, "KILLED")
        return len(dead)

    def _running(self) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self.connection.client.search_runs(
                [self.connection.experiment_id], "attributes.status = 'RUNNING'", page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found

    # Writing -----------------------------------------------------------------------------------------------------

    @_tells_of_the_store
    def start_parent(self, plan: Mapping[str, Any], *, name: str, tags: Mapping[str, str]) -> str:
        """Open the run that holds the plan of this invocation and its aggregates."""
        run = self.connection.client.create_run(
            self.connection.experiment_id, run_name=name, tags={**self._common_tags(), **tags, "kind": "plan"}
        )
        self.parent_id = str(run.info.run_id)
        self._heart.beat_for(self.parent_id)
        self._log_files(self.parent_id, {"plan.json": _json(plan)})
        return self.parent_id

    @_tells_of_the_store
    def add_to_parent(self, folder: Path, *, into: str) -> None:
        """A folder's files, as artifacts of the parent run in a folder of their own."""
        if self.parent_id is not None:
            self.connection.client.log_artifacts(self.parent_id, str(folder), into)

    @_tells_of_the_store
    def finish_parent(self, results: Mapping[str, Any], metrics: Mapping[str, float], *, status: str) -> None:
        if self.parent_id is None:
            return
        self._log_files(self.parent_id, {"results.json": _json(results)})
        self._log_metrics(self.parent_id, [(name, value, 0) for name, value in metrics.items()])
        self._terminate(self.parent_id, status)

    @_tells_of_the_store
    def start(
        self,
        spec: RunSpec,
        inputs: RunInputs,
        labels: Labels,
        *,
        again: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> str | Held:
        """Open a run, with everything about it that is known before it begins, and `tags` besides, unless another
        process does it or has done it. With `again` it is done whatever others do. Returns the run's id, or who does
        it.
        """
        from mlflow.entities import Param, RunTag
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

        plan = spec.freeze_plan
        tags = {
            **(tags or {}),
            **self._common_tags(),
            "kind": "run",
            FINGERPRINT: spec.fingerprint,
            STAGE: CLAIMING,
            "data.source": spec.data.source,
            "data.protocol": spec.data.protocol,
            "hardware": hardware_fingerprint(spec.device),
            "device": spec.device,
            "precision": spec.precision,
            "primary_metric": inputs.task.primary,
            # What is not a param because it seldom varies, and must be known before two runs are compared.
            "model.digest": spec.model_digest,
            "init_seed": str(spec.init_seed),
            "data_seed": str(spec.data_seed),
            "versions": json.dumps(_versions(spec)),
            MLFLOW_RUN_NOTE: _description(spec, inputs),
        }
        if self.parent_id:
            tags[MLFLOW_PARENT_RUN_ID] = self.parent_id
        params = {
            "task": spec.task,
            "model": spec.model,
            "strategy": spec.strategy,
            "freeze.bottom": plan.bottom,
            "freeze.top": plan.top,
            "freeze.embeddings": int(plan.embeddings),
            "layers": plan.shape.layers,
            "seed": spec.seed,
            "lr": spec.hyper.lr,
            "epochs": spec.hyper.epochs,
            "batch_size": spec.hyper.batch_size,
            "max_length": spec.hyper.max_length,
        }
        others = {name: value for name, value in asdict(spec.hyper).items() if name not in params}
        tags["hyper"] = json.dumps(others, sort_keys=True)
        client = self.connection.client
        run_id = str(client.create_run(self.connection.experiment_id, run_name=spec.label, tags=tags).info.run_id)
        self._open_run = run_id
        held = None if again else settle(self.connection, self._watch, run_id, spec.fingerprint)
        if held is not None:
            withdraw(self.connection, run_id)
            self._open_run = None
            return held
        client.log_batch(
            run_id,
            params=[Param(name, str(value)) for name, value in params.items()],
            tags=[RunTag(STAGE, "training")],
        )
        self._heart.beat_for(run_id)
        self._log_inputs(run_id, spec, inputs)
        self._log_files(run_id, {"config.json": _json(spec.as_dict())})
        return run_id

    @_tells_of_the_store
    def finish(self, run_id: str, spec: RunSpec, result: RunResult, labels: Labels) -> None:
        """Close a run with what was measured; only then does it count as finished.

        Raises ClaimLost where it was closed by another process meanwhile, and leaves it so.
        """
        self._heart.rest(run_id)
        if self.connection.client.get_run(run_id).info.status != "RUNNING":
            self._open_run = None
            raise ClaimLost(run_id)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_predictions(folder / "predictions.csv", result.predictions)
            write_predictions(folder / "dev_predictions.csv", result.dev_predictions)
            if result.submission_predictions is not None:
                write_predictions(folder / SUBMISSION_FILE, result.submission_predictions)
            draw_predictions(folder / "confusion_matrix.png", result.predictions, labels, title=spec.label)
            (folder / "environment.json").write_text(_json(result.environment), encoding="utf-8")
            if result.freezing:
                write_freezing(folder / "freezing.csv", result.freezing)
            if result.notes:
                (folder / "notes.txt").write_text("\n".join(result.notes) + "\n", encoding="utf-8")
            self.connection.client.log_artifacts(run_id, str(folder))
        final = [(name, value, 0) for name, value in result.metrics.items()]
        self._log_metrics(run_id, final + [(p.metric, p.value, p.step) for p in result.curves])
        # A run that could not be done in the format it was meant for was done in another one.
        self.connection.client.set_tag(run_id, "precision", result.environment["engine"]["precision"])
        self.connection.client.set_tag(run_id, STAGE, "done")
        self._terminate(run_id, "FINISHED")

    @_tells_of_the_store
    def fail(self, run_id: str, cause: str, trace: str) -> None:
        """Close a run that raised: status FAILED, the cause as a tag, the traceback as an artifact."""
        self.connection.client.set_tag(run_id, FAILURE, cause[:5000])
        self._log_files(run_id, {TRACEBACK_FILE: trace})
        self._terminate(run_id, "FAILED")

    @_tells_of_the_store
    def kill_open(self) -> None:
        """Close the run at hand, if there is one, as interrupted by the user."""
        if self._open_run is not None:
            self._terminate(self._open_run, "KILLED")

    # How ---------------------------------------------------------------------------------------------------------

    def _common_tags(self) -> dict[str, str]:
        from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

        tags = {
            MLFLOW_SOURCE_NAME: "alue-bench",
            MLFLOW_SOURCE_TYPE: "LOCAL",
            "alue_bench.version": __version__,
            "host": socket.gethostname(),
            MACHINE: this_machine(),
            PROCESS: this_process(),
            HEARTBEAT: a_beat(),
        }
        git = git_state(Path.cwd())
        if git:
            tags |= {MLFLOW_GIT_COMMIT: git["commit"], "git.dirty": git["dirty"]}
        return tags

    def _log_inputs(self, run_id: str, spec: RunSpec, inputs: RunInputs) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        entries = []
        parts = [
            ("train", inputs.train_task, inputs.train_rows, "training"),
            ("dev", inputs.train_task, inputs.train_rows, "validation"),
            ("test", inputs.task, inputs.rows, "testing"),
        ]
        for split, task, rows, context in parts:
            data = rows.splits[split]
            dataset = Dataset(
                name=f"{task.name}-{split}",
                digest=data.digest,
                source_type="local",
                source=json.dumps({"publisher": task.source[:400], "kind": rows.folder.kind}, ensure_ascii=False),
                profile=json.dumps({"rows": len(data.examples), "protocol": task.splits.protocol[:400]}),
            )
            entries.append(DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, context)]))
        self.connection.client.log_inputs(run_id, entries)

    def _log_metrics(self, run_id: str, values: Iterable[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(name, float(value), now, step) for name, value, step in values]
        for start in range(0, len(points), METRICS_PER_BATCH):
            self.connection.client.log_batch(run_id, metrics=points[start : start + METRICS_PER_BATCH])

    def _log_files(self, run_id: str, files: Mapping[str, str]) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for name, content in files.items():
                (Path(scratch) / name).write_text(content, encoding="utf-8")
            self.connection.client.log_artifacts(run_id, scratch)

    def advanced(self, run_id: str, done: int, total: int) -> None:
        """How far a run is, for whoever reads its heartbeat. Writes nothing now."""
        self._heart.tell(run_id, f"{done}/{total}")

    def _terminate(self, run_id: str, status: str) -> None:
        self._heart.rest(run_id)
        self.connection.client.set_terminated(run_id, status)
        if run_id == self._open_run:
            self._open_run = None


def write_freezing(path: Path, events: Iterable[FreezeEvent]) -> None:
    """CSV: at each evaluation point a row a block, with its gradient's norm and whether it is frozen from then on."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "epoch", "block", "norm", "frozen"])
        for event in events:
            norm = "" if event.norm is None else repr(event.norm)
            writer.writerow([event.step, event.epoch, event.block, norm, int(event.frozen)])


def write_predictions(path: Path, predictions: Predictions) -> None:
    """One line an example: id, gold, prediction, and the score of each label. No texts: many may not be passed on."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "gold", "prediction", *(f"score_{name}" for name in predictions.columns)])
        for row in zip(predictions.ids, predictions.gold, predictions.predicted, predictions.scores, strict=True):
            identifier, gold, predicted, scores = row
            writer.writerow([identifier, gold, predicted, *(f"{score:.6g}" for score in scores)])


def _description(spec: RunSpec, inputs: RunInputs) -> str:
    sample = (
        "**Embedded sample data**, written for demonstration: scores say nothing about the real task.\n\n"
        if spec.data.source == "sample"
        else ""
    )
    trained_on = f", trained on {spec.train_task}" if spec.train_task != spec.task else ""
    return (
        f"{sample}{inputs.task.title}{trained_on}; {inputs.model.title}; frozen: {spec.freeze_plan.describe()}.\n\n"
        f"Splits: {spec.data.protocol}. Text normalisation: {inputs.model.normalisation}."
    )


def _versions(spec: RunSpec) -> dict[str, str]:
    """Of the harness, of the plugins involved, and of the libraries that compute."""
    return {"alue-bench": __version__, **spec.providers, **{name: version(name) for name in ("torch", "transformers")}}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n"
