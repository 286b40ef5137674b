"""The reader of recorded runs, which returns them from MLflow as a typed pandas data frame.

    connection = open_store(tracking_uri(None), "alue-bench")
    results = read_results(connection, tasks=["mdd"])
    results.frame                           # one row per finished run, see COLUMNS
    read_predictions(results, run_id)       # the predictions of one run, fetched by this call

Runs without a row in the frame are counted: runs that failed or are still running, earlier executions of a repeated
run, and runs of other programs. `count_sentences` returns sentences about the counts.

A fingerprint is a digest of everything that determines a run's result; a run and its repetitions have the same one. A
plan is the list of the runs of one invocation (one execution of a command); it is stored in an MLflow parent run.

sqlite files, database servers and MLflow servers work alike; `tracking.stored_runs` reads the runs from each.
"""

from __future__ import annotations

import csv
import json
import shlex
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.probe import LayerScore
from alue_bench.contract.spec import digest_of
from alue_bench.messages.display import first_line
from alue_bench.messages.redaction import redact
from alue_bench.messages.suggestion import command_line
from alue_bench.tracking.claims import FINGERPRINT, INVOCATION
from alue_bench.tracking.connection import Connection, where_options, without_credentials
from alue_bench.tracking.liveness import MACHINE
from alue_bench.tracking.metric_names import is_stored_as_itself, metrics_by_original, original_name, originals_of
from alue_bench.tracking.prediction_files import (
    PREDICTIONS,
    load_predictions,
    load_targets,
    load_targets_without_scores,
    load_unlabelled,
    without_scores,
)
from alue_bench.tracking.recording import (
    CHOSEN_LAYERS,
    CURVES,
    FOLDS_DIGEST,
    LOW_FIDELITY,
    ROW_OPTIONS,
    SUBMISSION_FILE,
    TASK_OPTIONS,
)
from alue_bench.tracking.scores_elsewhere import ALSO_TEST, predictions_file
from alue_bench.tracking.selection_tags import CHOSEN_IN
from alue_bench.tracking.stored_runs import StoredRun, all_runs, convert_store_errors, runs_that_match, runs_with_ids

if TYPE_CHECKING:
    import pandas as pd

    from alue_bench.evaluation.predictions import GoldAndPredicted

LAYER_SCORES = "layer_scores.csv"
"""The artifact with the score of each layer, for a strategy that chooses its layers by a probe."""

COLUMNS: Mapping[str, str] = {
    # The run in MLflow
    "run_id": "string",
    "run_name": "string",
    "tracking_uri": "string",  # the tracking URI of the store, without passwords
    "experiment": "string",
    "parent_id": "string",
    "status": "string",
    "start_time": "datetime64[ms, UTC]",
    "end_time": "datetime64[ms, UTC]",
    "artifact_uri": "string",
    "fingerprint": "string",
    # Task, model and strategy
    "task": "string",
    "task_options": "string",  # JSON of the options that define a task given as a file, else missing
    "model": "string",
    "model_digest": "string",
    "model_checkpoint": "string",  # the checkpoint's folder or hub id, as --model takes it
    "strategy": "string",
    "seed": "Int64",
    "init_seed": "Int64",
    "data_seed": "Int64",
    "folds": "Int64",  # the number of folds of a cross-validation; missing for the task's own splits
    "repeat": "Int64",
    "fold": "Int64",
    "freeze_bottom": "Int64",
    "freeze_top": "Int64",
    "freeze_embeddings": "Int64",
    "chosen_layers": "string",  # "0,2": the layers that the strategy chose to train by a probe, else missing
    # Hyper-parameters; the less common ones together as JSON
    "epochs": "Int64",
    "batch_size": "Int64",
    "lr": "float64",
    "max_length": "Int64",
    "other_hyper": "string",
    # Data, hardware and software
    "data_source": "string",
    "protocol": "string",
    "row_options": "string",  # JSON of the options that select rows, such as limit_train
    "train_digest": "string",
    "dev_digest": "string",
    "test_digest": "string",
    "folds_digest": "string",  # a digest of everything that determines which rows are in which fold
    "hardware": "string",
    "device": "string",
    "precision": "string",
    "cuda_graphs": "string",  # "yes" if training steps were captured as CUDA graphs, else missing
    "session": "string",  # a digest of the run's invocation (execution of a command) and machine
    "version": "string",  # the version of alue-bench
    "versions": "string",  # "alue-bench 0.1.0, torch 2.13.0, …"
    "git_commit": "string",
    # The result
    "primary_metric": "string",
    "failure": "string",  # the cause of the failure, if the run failed
    "first_look": "string",  # "yes" for the low-fidelity runs of a search, else missing
    "chosen_in": "string",  # parent run of the sweep or search that used this run to choose a setting, else missing
    "also_test": "string",  # JSON with a digest for each other task that the model was scored on, else missing
    "score": "float64",
}
"""The columns that every frame has, with their dtypes.

They are followed by a column for each final metric, named like the metric (`test/f1_macro`, `runtime/train_s`,
`memory/process_peak_mib` …, all float64; see docs/measuring.md), in sorted order, with nan if a run has no value.
`score` equals `test/score`. `parent_id` is the id of the MLflow parent run of a command's runs, and is missing if the
command had only one run. Values that older versions of alue-bench did not record are missing; but missing values of
`init_seed` and `data_seed` are replaced by `seed`.
"""

PARAMS: Mapping[str, str] = {
    "task": "task",
    "model": "model",
    "strategy": "strategy",
    "seed": "seed",
    "freeze.bottom": "freeze_bottom",
    "freeze.top": "freeze_top",
    "freeze.embeddings": "freeze_embeddings",
    "lr": "lr",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "max_length": "max_length",
    "folds": "folds",
    "repeat": "repeat",
    "fold": "fold",
}
"""The columns whose values are read from MLflow params, by the name of the param."""
TAGS: Mapping[str, str] = {
    "alue_bench.version": "version",
    "mlflow.parentRunId": "parent_id",
    FINGERPRINT: "fingerprint",
    TASK_OPTIONS: "task_options",
    "model.digest": "model_digest",
    "model.checkpoint": "model_checkpoint",
    "init_seed": "init_seed",
    "data_seed": "data_seed",
    "hyper": "other_hyper",
    "data.source": "data_source",
    "data.protocol": "protocol",
    ROW_OPTIONS: "row_options",
    FOLDS_DIGEST: "folds_digest",
    "hardware": "hardware",
    "device": "device",
    "precision": "precision",
    "cuda_graphs": "cuda_graphs",
    "primary_metric": "primary_metric",
    "mlflow.source.git.commit": "git_commit",
    "failure": "failure",
    LOW_FIDELITY: "first_look",
    CHOSEN_IN: "chosen_in",
    ALSO_TEST: "also_test",
    CHOSEN_LAYERS: "chosen_layers",
}
"""The columns whose values are read from MLflow tags, by the name of the tag."""
SPLITS = {"training": "train_digest", "validation": "dev_digest", "testing": "test_digest"}
"""The columns with the digest of each split's examples. MLflow records each split as a data set, whose context (such as
"training") is the key."""
REQUIRED_COLUMNS = ("task", "model", "strategy", "seed", "fingerprint")
"""The columns in which every run of alue-bench has a value. A run that lacks one of these values was written by another
program or changed later."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The numbers of runs in an experiment that have no row in a frame of results.

    `foreign` and `unreadable` count all runs that were read; the other attributes count only the runs that the
    arguments of `read_results` select. A fingerprint is a digest of everything that determines a run's result; all
    attempts to execute a run have the same one.
    """

    failed: int = 0
    """The number of runs whose newest attempt failed and that have no finished attempt. The attempts to execute a run
    are the MLflow runs with its fingerprint."""
    interrupted: int = 0
    """The number of runs whose newest attempt was interrupted (status KILLED) and that have no finished attempt."""
    unfinished: int = 0
    """The number of runs whose newest attempt has the status RUNNING or SCHEDULED and that have no finished attempt.
    The newest attempt is being executed, or its process has died."""
    repeated: int = 0
    """The number of finished runs that are not in the frame because a newer finished run repeats them."""
    foreign: int = 0
    """The number of runs in the experiment that alue-bench did not write."""
    unreadable: int = 0
    """The number of runs that have alue-bench's tags, but not all necessary values (`REQUIRED_COLUMNS`), such as the
    task."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """The finished runs of an experiment, or a selection of them."""

    connection: Connection
    frame: pd.DataFrame
    """The finished runs, one per row, oldest first. If a run was repeated, only the newest execution has a row. The
    columns are `COLUMNS`, followed by the metrics."""
    counts: Counts
    parent_id: str | None = None
    """The id of the MLflow parent run that the caller gave to `read_results` or `read_runs`; None if it gave none."""
    _uris: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def metrics(self) -> list[str]:
        """The names of the metric columns."""
        return [name for name in self.frame.columns if name not in COLUMNS]


def read_results(
    connection: Connection,
    *,
    parent_id: str | None = None,
    tasks: Sequence[str] = (),
    models: Sequence[str] = (),
    strategies: Sequence[str] = (),
    data_source: str | None = None,
) -> Results:
    """Read the finished runs of an experiment that the arguments select.

    If a run was repeated, only the newest execution is returned.

    Args:
        connection: The open store.
        parent_id: The id of an MLflow parent run, which holds a plan (the list of runs of one command). Only the runs
            of this plan are selected. This includes runs that had finished before the command began and that the
            command therefore did not repeat. None to select runs of any plan or of none.
        tasks: The names of the tasks to select; empty for all.
        models: The names of the models to select; empty for all.
        strategies: The names of the strategies to select; empty for all.
        data_source: "real", or "sample" for runs on the embedded sample data; None for both.

    Raises:
        UsageError: The experiment has no run `parent_id`.
        UnavailableError: The store does not answer.
    """
    attempts, foreign, unreadable = _read(connection)
    keep = attempts["run_id"].notna()
    if parent_id is not None:
        keep &= (attempts["parent_id"] == parent_id).fillna(False) | attempts["fingerprint"].isin(
            _planned_fingerprints(connection, parent_id)
        )
    wanted = {"task": tasks, "model": models, "strategy": strategies}
    for column, values in (wanted | {"data_source": [data_source] if data_source else []}).items():
        if values:
            keep &= attempts[column].isin(list(values))
    return _results(connection, attempts[keep], Counts(foreign=foreign, unreadable=unreadable), parent_id)


def read_runs(connection: Connection, run_ids: Sequence[str], *, parent_id: str | None = None) -> Results:
    """Read the runs with the given ids, and return the finished ones.

    Of all other runs, only those are read that a sweep or a search used to choose a setting (see `read_choices`). The
    time therefore depends little on the size of the experiment.

    Args:
        connection: The open store.
        run_ids: The ids of the MLflow runs to read.
        parent_id: The id of the MLflow parent run of these runs. It is only stored in the results, and not used to
            select.

    Raises:
        UnavailableError: The store does not answer.
    """
    attempts, _, unreadable = _read(connection, run_ids)
    chosen_in = read_choices(connection) if len(attempts) else {}
    attempts["chosen_in"] = attempts["chosen_in"].fillna(attempts["fingerprint"].map(chosen_in).astype("string"))
    return _results(connection, attempts, Counts(unreadable=unreadable), parent_id)


def read_choices(connection: Connection) -> dict[str, str]:
    """Return the fingerprints of all finished runs that a sweep or a search in the experiment used to choose a setting.

    A repetition of such a run has the same fingerprint and the same score. Its score is therefore as biased by the
    choice as the score of the first run, although only the first run is tagged.

    Args:
        connection: The open store.

    Returns:
        A dictionary from each fingerprint to the id of the MLflow parent run of the sweep or search. If several sweeps
        or searches used the run, it is the id of the last of them.

    Raises:
        UnavailableError: The store does not answer.
    """
    wanted = f"attributes.status = 'FINISHED' AND tags.`{CHOSEN_IN}` != ''"
    tags = [run.tags for run in runs_that_match(connection, wanted)]
    return {one[FINGERPRINT]: one[CHOSEN_IN] for one in tags if FINGERPRINT in one}


def count_sentences(counts: Counts) -> list[str]:
    """Return a sentence for the user about each count above zero, except `repeated`."""
    said = [
        (counts.failed, "{} {runs} failed and {is_} left out; repeat the command that started {them} to retry"),
        (counts.interrupted, "{} {runs} {was} interrupted; repeat the command that started {them} to continue"),
        (counts.unfinished, "{} {runs} {is_} still running, or {was} left unfinished by a process that died"),
        (counts.foreign, "{} {runs} in the experiment {was} written by another program and {is_} left out"),
        (counts.unreadable, "{} {runs} of alue-bench {lack} a task, model, strategy or seed and {is_} left out"),
    ]
    words = [
        {"runs": "run", "is_": "is", "was": "was", "lack": "lacks", "them": "it"},
        {"runs": "runs", "is_": "are", "was": "were", "lack": "lack", "them": "them"},
    ]
    return [sentence.format(number, **words[number > 1]) for number, sentence in said if number]


# Files and curves of one run ---------------------------------------------------------------------------------------


def read_predictions(results: Results, run_id: str) -> pd.DataFrame:
    """Read a run's test predictions, in the order of the test file.

    Returns:
        A frame with the columns id, gold and prediction, and score_LABEL for each label or score_value for a
        regression. Gold and prediction are label names, or numbers for a regression. In a multi-label task, several
        label names are joined to one string by `evaluation.label_cells`. In a task that tags words, gold and prediction
        are the tags of a sentence, separated by spaces. In span extraction, gold is a JSON list of answers and
        prediction an answer. The frames of tasks that tag words or find spans have other columns instead of the
        scores of labels; see `evaluation.predictions.predictions_table`.

    Raises:
        UnavailableError: The file with the predictions is missing or damaged.
    """
    table = _predictions(results, run_id, PREDICTIONS)
    if table is None:
        raise _without_predictions(run_id)
    return table


def read_targets(results: Results, run_id: str, multilabel: bool) -> GoldAndPredicted:
    """Read the gold and predicted labels of a run's test predictions, in the order of the test file.

    The scores of the labels are not read, so that this is several times as fast as `read_predictions`.

    Args:
        results: The results that hold the run.
        run_id: The id of the MLflow run.
        multilabel: Whether an example may have several labels.

    Raises:
        UnavailableError: The file with the predictions is missing or damaged.
        DataError: A label has no column of scores, or a cell cannot be divided into label names.
    """
    targets = _targets(results, run_id, PREDICTIONS, multilabel=multilabel)
    if targets is None:
        raise _without_predictions(run_id)
    return targets


def read_dev_predictions(results: Results, run_id: str) -> pd.DataFrame | None:
    """Read a run's dev predictions, in the format of `read_predictions`; None if none were recorded."""
    return _predictions(results, run_id, "dev_predictions.csv")


def read_targets_elsewhere(results: Results, run_id: str, multilabel: bool, task: str) -> GoldAndPredicted | None:
    """Read the gold and predicted labels of a run on the test split of another task, like `read_targets`.

    Args:
        results: The results that hold the run.
        run_id: The id of the MLflow run.
        multilabel: Whether an example may have several labels.
        task: The name of the other task.

    Returns:
        The labels; None if no predictions on the task were recorded.
    """
    return _targets(results, run_id, predictions_file(task), multilabel=multilabel)


def is_on_this_machine(artifact_uri: str) -> bool:
    """Return whether the artifacts at a URI are files of this machine, which need not be downloaded."""
    return _local(artifact_uri) is not None


def read_submission_predictions(results: Results, run_id: str) -> pd.DataFrame | None:
    """Read a run's predictions for the examples of a leaderboard, which have no gold labels.

    Returns:
        A frame with the text columns id and prediction, in the order of the leaderboard's file; None if no such
        predictions were recorded.
    """
    table: pd.DataFrame | None = _fetch(results, run_id, SUBMISSION_FILE, load_unlabelled)
    return table


def read_curves(results: Results, run_id: str, metrics: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the metrics that were logged repeatedly during a run's training, such as the dev score.

    Args:
        results: The results that hold the run.
        run_id: The id of the MLflow run.
        metrics: The metrics to read, such as "dev/f1_macro"; None for all. The store is queried once for each metric.

    Returns:
        A frame with the columns metric, step and value, sorted by metric, then step.

    Raises:
        UnavailableError: The store does not answer.
    """
    import pandas as pd

    client = results.connection.client
    points: list[tuple[str, int, float]] = []
    with convert_store_errors(results.connection):
        for name, stored in _stored_curves(client, run_id, metrics).items():
            history = client.get_metric_history(run_id, stored)
            points += [(name, point.step, point.value) for point in history]
    frame = pd.DataFrame(points, columns=["metric", "step", "value"])
    frame = frame.astype({"metric": "string", "step": "int64", "value": "float64"})
    return frame.sort_values(["metric", "step"], kind="stable").reset_index(drop=True)


def _stored_curves(client: Any, run_id: str, metrics: Sequence[str] | None) -> dict[str, str]:
    """Return the MLflow names of the metrics that were logged repeatedly during a run's training, by original name.

    If MLflow stores all wanted names unchanged, as is usual, the store is not queried.

    Args:
        client: The MLflow client.
        run_id: The id of the MLflow run.
        metrics: The original names of the wanted metrics; None for all.
    """
    if metrics is not None and all(map(is_stored_as_itself, metrics)):
        return {name: name for name in metrics if name.startswith(CURVES)}
    data = client.get_run(run_id).data
    originals = originals_of(data.tags)
    curves = {original_name(stored, originals): stored for stored in sorted(data.metrics) if stored.startswith(CURVES)}
    return curves if metrics is None else {name: curves[name] for name in metrics if name in curves}


def read_layer_scores(results: Results, run_id: str) -> list[LayerScore]:
    """Read the scores of the layers among which a run's strategy chose, from layer 0 upwards.

    Returns:
        The scores; empty if the strategy does not choose its layers by a probe.

    Raises:
        UnavailableError: The file with the scores is damaged.
    """
    return _fetch(results, run_id, LAYER_SCORES, _load_layer_scores) or []


def read_config(results: Results, run_id: str) -> dict[str, Any] | None:
    """Read a run's complete configuration from its file config.json; None if the file is missing."""
    return _json(results, run_id, "config.json")


def read_plan_results(results: Results, parent_id: str) -> dict[str, Any] | None:
    """Read the results of a plan from the file results.json of its parent run; None if the file is missing."""
    artifact_uri = results.connection.client.get_run(parent_id).info.artifact_uri
    content: dict[str, Any] | None = _fetch_from(
        results.connection, parent_id, artifact_uri, "results.json", _load_json
    )
    return content


def read_environment(results: Results, run_id: str) -> dict[str, Any] | None:
    """Read the description of a run's hardware and software from environment.json; None if the file is missing."""
    return _json(results, run_id, "environment.json")


def read_notes(results: Results, run_id: str) -> list[str]:
    """Read the notes about a run from its file notes.txt, such as how many texts were truncated."""
    text = _fetch(results, run_id, "notes.txt", lambda path: path.read_text(encoding="utf-8"))
    return text.splitlines() if text else []


# Helpers -----------------------------------------------------------------------------------------------------------


def _results(connection: Connection, attempts: pd.DataFrame, excluded: Counts, parent_id: str | None) -> Results:
    """Select the newest finished execution of each run, and count the runs that are not selected.

    Args:
        connection: The open store.
        attempts: The runs of alue-bench with any status, oldest first.
        excluded: The counts of foreign and unreadable runs (see `Counts`), which are not among `attempts`.
        parent_id: The id of the MLflow parent run to store in the results.
    """
    finished = attempts[attempts["status"] == "FINISHED"]
    rows = finished.drop_duplicates("fingerprint", keep="last").reset_index(drop=True)
    tagged = finished.dropna(subset="chosen_in").set_index("fingerprint")["chosen_in"]
    if len(tagged):  # a repetition gives the same score again, and is as biased by the choice as the tagged run
        rows["chosen_in"] = rows["chosen_in"].fillna(rows["fingerprint"].map(tagged.groupby(level=0).last()))
    # A failed attempt is not counted if another attempt to execute the same run has succeeded.
    open_ = attempts[~attempts["fingerprint"].isin(rows["fingerprint"])].drop_duplicates("fingerprint", keep="last")
    status = open_["status"].value_counts()
    counts = replace(
        excluded,
        failed=int(status.get("FAILED", 0)),
        interrupted=int(status.get("KILLED", 0)),
        unfinished=int(status.get("RUNNING", 0) + status.get("SCHEDULED", 0)),
        repeated=len(finished) - len(rows),
    )
    metrics = [name for name in rows.columns if name not in COLUMNS and rows[name].notna().any()]
    return Results(connection=connection, frame=rows[[*COLUMNS, *metrics]].copy(), counts=counts, parent_id=parent_id)


def _read(connection: Connection, run_ids: Sequence[str] | None = None) -> tuple[pd.DataFrame, int, int]:
    """Read an experiment's runs of any status, or only the runs with the given ids.

    Returns:
        A frame of the runs of alue-bench, the number of runs of other programs, and the number of runs of alue-bench
        that lack necessary values.
    """
    stored = all_runs(connection) if run_ids is None else runs_with_ids(connection, run_ids)
    ours = [run for run in stored if "alue_bench.version" in run.tags]
    tracking_uri = redact(connection.uri)  # once, because it searches all environment variables
    frame = _with_dtypes(
        [_record(run, connection.experiment, tracking_uri) for run in ours if run.tags.get("kind") == "run"]
    )
    readable = frame[list(REQUIRED_COLUMNS)].notna().all(axis="columns")
    return frame[readable].reset_index(drop=True), len(stored) - len(ours), int((~readable).sum())


def _record(run: StoredRun, experiment: str, tracking_uri: str) -> dict[str, Any]:
    record: dict[str, Any] = {
        "run_id": run.run_id,
        "run_name": run.run_name,
        "tracking_uri": tracking_uri,
        "experiment": experiment,
        "status": run.status,
        "start_time": run.start_time,
        "end_time": run.end_time,
        "artifact_uri": run.artifact_uri,
        "versions": _versions(run.tags),
        "session": _session(run.tags),
        "score": run.metrics.get("test/score"),
    }
    record |= {column: run.params.get(name) for name, column in PARAMS.items()}
    record |= {column: run.tags.get(name) for name, column in TAGS.items()}
    record |= {column: run.digests[context] for context, column in SPLITS.items() if context in run.digests}
    final = {name: value for name, value in run.metrics.items() if not name.startswith(CURVES)}
    return record | metrics_by_original(final, run.tags)


def _versions(tags: Mapping[str, str]) -> str:
    try:
        named = json.loads(tags.get("versions", "{}"))
        return ", ".join(f"{name} {version}" for name, version in named.items()) or _own_version(tags)
    except (ValueError, AttributeError):
        return _own_version(tags)


def _session(tags: Mapping[str, str]) -> str | None:
    """Return a digest of a run's invocation (execution of a command) and machine; None if one of them is unknown.

    The digest does not reveal the name of the machine.
    """
    return digest_of([tags[INVOCATION], tags[MACHINE]]) if INVOCATION in tags and MACHINE in tags else None


def _own_version(tags: Mapping[str, str]) -> str:
    return f"alue-bench {tags['alue_bench.version']}"


def _with_dtypes(records: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    metrics = sorted({name for record in records for name in record} - COLUMNS.keys())
    raw = pd.DataFrame.from_records(records, columns=[*COLUMNS, *metrics])
    columns = {}
    for name, kind in COLUMNS.items():
        if kind.startswith("datetime"):
            columns[name] = pd.to_datetime(raw[name], unit="ms", utc=True).astype(kind)
        elif kind in ("Int64", "float64"):
            numbers = pd.to_numeric(raw[name], errors="coerce").astype("float64")
            # A param is text that anyone may have written: a value that is not a whole number counts as missing.
            columns[name] = numbers.where(numbers % 1 == 0).astype(kind) if kind == "Int64" else numbers
        else:
            columns[name] = raw[name].astype(kind)
    frame = pd.concat([pd.DataFrame(columns), raw[metrics].astype("float64")], axis="columns")
    for name in ("init_seed", "data_seed"):
        frame[name] = frame[name].fillna(frame["seed"])
    return frame


def _planned_fingerprints(connection: Connection, parent_id: str) -> list[str]:
    """Return the fingerprints of all runs in the plan (list of runs) that an MLflow parent run holds.

    A fingerprint is a digest of everything that determines a run's result.

    Raises:
        UsageError: The experiment has no run `parent_id`.
    """
    from mlflow.exceptions import MlflowException

    try:
        parent = connection.client.get_run(parent_id)
    except MlflowException as error:
        ui = command_line("ui", options=where_options(connection.uri, connection.experiment))
        raise UsageError(
            f"there is no run {parent_id!r} in {without_credentials(connection.uri)}; {ui} shows the plans with their "
            "run ids"
        ) from error
    if parent.info.experiment_id != connection.experiment_id:
        home = connection.client.get_experiment(parent.info.experiment_id).name
        raise UsageError(
            f"run {parent_id} is not in experiment {connection.experiment!r}; use its own: --experiment "
            f"{shlex.quote(home)}"
        )
    # Runs that a sweep or search adds later, such as those that confirm its choice, are listed in results.json only.
    fingerprints = [
        spec["fingerprint"]
        for name, key in (("plan.json", "planned"), ("results.json", "runs"))
        for spec in (_fetch_from(connection, parent_id, parent.info.artifact_uri, name, _load_json) or {}).get(key, [])
        if "fingerprint" in spec
    ]
    return list(dict.fromkeys(fingerprints))


def _load_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def _json(results: Results, run_id: str, name: str) -> dict[str, Any] | None:
    content: dict[str, Any] | None = _fetch(results, run_id, name, _load_json)
    return content


def _predictions(results: Results, run_id: str, name: str) -> pd.DataFrame | None:
    return _fetch(results, run_id, name, load_predictions)


def _targets(results: Results, run_id: str, name: str, *, multilabel: bool) -> GoldAndPredicted | None:
    """Read the gold and predicted labels from a run's file of predictions; None if the run has no such file."""
    fast = partial(load_targets_without_scores, multilabel=multilabel)
    targets: GoldAndPredicted | None = _fetch(results, run_id, without_scores(name), fast)
    if targets is None:
        targets = _fetch(results, run_id, name, partial(load_targets, multilabel=multilabel))
    return targets


def _without_predictions(run_id: str) -> UnavailableError:
    return UnavailableError(
        f"{PREDICTIONS} of run {run_id} is missing in its artifact folder; if it is kept on this machine, "
        "alue-bench sync writes it; otherwise move the artifacts back, or repeat the run with --rerun"
    )


def _load_layer_scores(path: Path) -> list[LayerScore]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [LayerScore(int(row["layer"]), float(row["score"]), row["frozen"] == "1") for row in rows]
    if [one.layer for one in scores] != list(range(len(scores))):
        raise ValueError("its rows are not the layers in order")
    return scores


def _fetch(results: Results, run_id: str, name: str, load: Callable[[Path], Any]) -> Any:
    if run_id not in results._uris:
        results._uris.update(zip(results.frame["run_id"], results.frame["artifact_uri"], strict=True))
    return _fetch_from(results.connection, run_id, results._uris.get(run_id), name, load)


def _fetch_from(
    connection: Connection, run_id: str, artifact_uri: str | None, name: str, load: Callable[[Path], Any]
) -> Any:
    """Load an artifact of a run. It is downloaded first if it is not on this machine.

    Args:
        connection: The open store.
        run_id: The id of the MLflow run.
        artifact_uri: The URI of the run's artifacts; None if it is unknown.
        name: The file name of the artifact.
        load: The function that reads the file.

    Returns:
        The result of `load`; None if the artifact does not exist.

    Raises:
        UnavailableError: The artifact exists and cannot be read.
    """

    def loaded(path: Path) -> Any:
        try:
            return load(path)
        except (ValueError, KeyError, OSError, csv.Error) as error:  # includes the errors of json, pyarrow and pandas
            cause = first_line(error)
            raise UnavailableError(
                f"{name} of run {run_id} is damaged ({cause:.120}); restore it, or repeat the run with --rerun"
            ) from error

    local = _local(artifact_uri)
    if local is not None:
        path = local / name
        return loaded(path) if path.is_file() else None
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    with tempfile.TemporaryDirectory() as scratch:
        try:
            path = Path(connection.client.download_artifacts(run_id, name, scratch))
        except (MlflowException, RequestException, OSError):
            return None
        return loaded(path)


def _local(artifact_uri: str | None) -> Path | None:
    if artifact_uri is None:
        return None
    parts = urlparse(artifact_uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(artifact_uri) if not parts.scheme else None


def distinct(values: Iterable[Any]) -> list[Any]:
    """Return the distinct values in order of first appearance, without missing values."""
    import pandas as pd

    return list(dict.fromkeys(value for value in values if not pd.isna(value)))
