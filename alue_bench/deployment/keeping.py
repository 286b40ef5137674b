"""Saving trained models, as requested by `--keep best|all`.

A model is saved right after its run. When the command ends, it registers the saved models in MLflow's model registry if
`--register` is given.

With `best`, the command keeps one model for each combination of task, training data and pre-trained model. The model of
a run is written if the run's dev score exceeds that of the model kept so far, which is then removed. The scores are
read from the MLflow store, so that worker processes on several machines need not communicate with each other. If the
MLflow store does not accept a model, its folder stays on this machine.

A run's result is recorded before its model is written, and the run's time does not include the time for writing.
If writing fails, the recorded result does not change, and a message is shown.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from alue_bench.contract.errors import StoreUnavailableError, UnavailableError
from alue_bench.contract.spec import RunSpec, digest_of
from alue_bench.deployment.logged_models import (
    DEV_SCORE,
    GROUP,
    RUN_LABEL,
    LoggedModel,
    attach,
    copy_model,
    log_model,
    model_of_run,
    models_of_invocation,
    register,
    remove,
)
from alue_bench.deployment.model_folder import FinishedRun, write_model_folder
from alue_bench.measure.best_effort import best_effort, cause_of
from alue_bench.messages.redaction import redact
from alue_bench.messages.suggestion import command_line
from alue_bench.tracking.claims import FINGERPRINT, INVOCATION
from alue_bench.tracking.connection import Connection
from alue_bench.tracking.recording import LOW_FIDELITY, Recorder
from alue_bench.tracking.scratch import state_folder, write_to_temporary_folder
from alue_bench.tracking.spool import SPOOLED

SELECTION_METRIC = "selection/dev_score"
"""The MLflow metric by which `--keep best` chooses the best run."""


def group_of(spec: RunSpec) -> str:
    """Return a digest of a run's task, training data and pre-trained model.

    With `--keep best`, a command keeps one model for all of its runs that have the same digest.
    """
    return digest_of([spec.train_task, spec.model, spec.model_digest, spec.data.train])


def keep_model(recorder: Recorder, run: FinishedRun, tags: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Save the model of a run that has just been recorded, if the option `--keep` requires it.

    No model is saved for a low-fidelity run of a search (a run with fewer epochs), nor for a run that only tests a
    model that another run trained.

    Args:
        recorder: The recorder, which holds the value of `--keep`.
        run: The run, with its trained model.
        tags: The MLflow tags that the plan gives to the run; they show whether it is a low-fidelity run. None if the
            plan gives no tags.

    Returns:
        A sentence for each problem that occurred. A problem does not change the recorded result of the run.
    """
    if LOW_FIDELITY in (tags or {}) or run.result.metrics.get("runtime/train_reused"):
        return ()
    problems: list[str] = []
    best_effort("the model is not kept", lambda: _keep(recorder, run, problems), problems.append)
    return tuple(problems)


def _keep(recorder: Recorder, run: FinishedRun, problems: list[str]) -> None:
    in_store = not run.run_id.startswith(SPOOLED) and recorder.unavailable is None
    if recorder.keep == "best":
        try:
            if in_store and not _is_best(recorder, run):
                return
        except Exception:  # MLflow's errors have no common base class; the model is then kept on this machine
            in_store = False
    with ExitStack() as stack:
        folder, problem = write_to_temporary_folder(stack, lambda folder: _write(folder, run))
        if problem:
            problems.append(problem)
        try:
            if not in_store:
                raise StoreUnavailableError("the tracking store does not answer")
            log_run_model(recorder, folder, run)
        except KeyboardInterrupt:
            raise
        except Exception as error:  # errors of MLflow and of artifact stores, which have no common base class
            place = copy_to_state_folder(folder, recorder, run)
            problems.append(
                f"its model is kept in {place}, since the tracking store did not take it ({redact(cause_of(error))}); "
                f"it predicts with: {command_line('predict', place, 'FILE', options={'text': 'COLUMN'})} -o OUT"
            )


def _write(folder: Path, run: FinishedRun) -> None:
    write_model_folder(folder, run)


def keep_retrained_model(
    connection: Connection, run: FinishedRun, *, folder: Path | None = None, on_problem: Callable[[str], None]
) -> LoggedModel:
    """Save the model of a recorded run that was trained again, and log it in MLflow as the run's model.

    Args:
        connection: The open MLflow store.
        run: The run, with the model that was trained again.
        folder: A new folder to which the model is also copied; None for no copy.
        on_problem: A function that is called with a warning if another folder is used for temporary files, because the
            system's folder for them is full.

    Raises:
        UnavailableError: The MLflow store does not accept the model (its folder then stays on this machine), or
            `folder` cannot be written.
    """
    recorder = Recorder(connection)
    with ExitStack() as stack:
        written, problem = write_to_temporary_folder(stack, lambda place: _write(place, run))
        if problem:
            on_problem(problem)
        if folder is not None:
            copy_model(written, folder)
        try:
            return log_run_model(recorder, written, run)
        except Exception as error:  # MLflow's errors and those of artifact stores have no common base class
            safe = folder or copy_to_state_folder(written, recorder, run)
            raise UnavailableError(
                f"the tracking store did not take the model ({redact(cause_of(error))}); it is kept in {safe}"
            ) from error


def log_run_model(recorder: Recorder, folder: Path, run: FinishedRun) -> LoggedModel:
    """Log the folder of a trained model in MLflow, as a model of its run.

    With `--keep best`, also compare the models that the command has kept for the same task, training data and
    pre-trained model, and remove all of them except the best one.
    """
    spec = run.spec
    tags = {
        INVOCATION: recorder.invocation,
        GROUP: group_of(spec),
        DEV_SCORE: repr(run.result.metrics[SELECTION_METRIC]),
        RUN_LABEL: redact(spec.label)[:500],
        FINGERPRINT: spec.fingerprint,
        "task": spec.train_task,
        "strategy": spec.strategy,
    }
    logged = log_model(recorder.connection, folder, run.run_id, tags)
    if recorder.keep == "best":
        _remove_worse_models(recorder, group_of(spec))
    else:
        attach(recorder.connection, logged)
    return logged


def _is_best(recorder: Recorder, run: FinishedRun) -> bool:
    """Return whether a run's dev score exceeds those of all models that the command has kept for the same group.

    A group is all runs with the same digest `group_of`. If no model of the group is kept, the result is True, even for
    an undefined score.
    """
    score = run.result.metrics[SELECTION_METRIC]
    rivals = _rivals(recorder, group_of(run.spec))
    return not rivals or (math.isfinite(score) and score > max(rival.dev_score for rival in rivals))


def _rivals(recorder: Recorder, group: str) -> list[LoggedModel]:
    models = models_of_invocation(recorder.connection, recorder.invocation)
    return [model for model in models if model.ready and model.tags.get(GROUP) == group]


def _remove_worse_models(recorder: Recorder, group: str) -> None:
    """Remove all models that the command has kept for a group except the best; of equally good models, keep the first.

    Args:
        recorder: The recorder of the command's runs.
        group: The digest of task, training data and pre-trained model that `group_of` returns.
    """
    rivals = _rivals(recorder, group)
    best = max(rivals, key=lambda model: model.dev_score, default=None)
    for rival in rivals:
        if rival is not best:
            remove(recorder.connection, rival)


def copy_to_state_folder(folder: Path, recorder: Recorder, run: FinishedRun) -> Path:
    """Copy a trained model from a temporary folder to a permanent folder on this machine, and return the permanent one.

    With `--keep best`, the permanent folder may already hold the model of another run of the command with the same
    `group_of`. That model is replaced only if the new model has a higher dev score. Otherwise, nothing is copied, and
    the folder with the old model is returned.

    Args:
        folder: The temporary folder.
        recorder: The recorder of the command, which holds the value of `--keep`.
        run: The run that trained the model.
    """
    place = state_folder() / "models" / run.run_id
    if recorder.keep == "best":
        place = state_folder() / "models" / f"{recorder.invocation}-{group_of(run.spec)[:8]}"
        # Models in the store, if it answers, were compared before. Only a model on this machine remains to be compared.
        from alue_bench.deployment.description import read_description

        if (
            place.is_dir()
            and not run.result.metrics[SELECTION_METRIC] > read_description(place).scores[SELECTION_METRIC]
        ):
            return place
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place)
    return place


# At the end of a command ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeptCandidate:
    """A finished run whose model may be kept; the command has executed the run or found it in the MLflow store."""

    run_id: str
    spec: RunSpec
    metrics: Mapping[str, float]
    reused: bool
    """True if an earlier command executed the run."""

    @property
    def dev_score(self) -> float:
        """The dev score of the run's selected epoch; -inf if the score is undefined."""
        score = self.metrics.get(SELECTION_METRIC, math.nan)
        return score if math.isfinite(score) else -math.inf


@dataclass(frozen=True)
class KeptRun:
    """A run whose trained model is kept."""

    candidate: KeptCandidate
    model: LoggedModel
    chosen_from: int
    """The number of runs from which `--keep best` chose the best one; 1 with `--keep all`."""
    registered: str = ""
    """The model's URI in the model registry, such as "models:/NAME/1"; empty if it was not registered."""


@dataclass(frozen=True)
class KeptModels:
    """The models that a command has kept when it ends, and the runs whose models it should have kept but could not."""

    kept: list[KeptRun] = field(default_factory=list)
    lacking: list[KeptCandidate] = field(default_factory=list)
    """The runs whose models should be kept but are not in the MLflow store: an earlier command finished the run without
    keeping its model, or the store did not accept the model."""

    def as_documents(self) -> list[dict[str, object]]:
        """Return the kept models as JSON-like data, one dictionary per model."""
        return [
            {
                "run_id": one.candidate.run_id,
                "model_id": one.model.model_id,
                "uri": one.registered or f"models:/{one.model.model_id}",
                "task": one.candidate.spec.train_task,
                "model": one.candidate.spec.model,
                "strategy": one.candidate.spec.strategy,
                "seed": one.candidate.spec.seed,
                "dev_score": one.candidate.dev_score if math.isfinite(one.candidate.dev_score) else None,
            }
            for one in self.kept
        ]


def collect_kept_models(recorder: Recorder, candidates: Sequence[KeptCandidate], name: str | None = None) -> KeptModels:
    """List the models that a command has kept, and register them in MLflow. Call this once, at the end of the command.

    Incomplete models, left behind by worker processes that died, are removed.

    Args:
        recorder: The recorder of the command.
        candidates: The finished and reused runs of the command, in the plan's order.
        name: The name under which the models are registered; None to register nothing.

    Raises:
        UsageError: MLflow does not accept the name.
    """
    connection, settled = recorder.connection, KeptModels()
    ours = {}
    for model in models_of_invocation(connection, recorder.invocation):
        if model.ready:
            ours[model.run_id] = model
        else:
            remove(connection, model)
    for runs in _groups(candidates).values():
        for run in [max(runs, key=lambda run: run.dev_score)] if recorder.keep == "best" else runs:
            kept_model = ours.get(run.run_id) or model_of_run(connection, run.run_id)
            kept = run
            if kept_model is None:
                settled.lacking.append(run)
                there = [one for one in runs if one.run_id in ours] if recorder.keep == "best" else []
                kept = max(there, key=lambda one: one.dev_score, default=run)
                kept_model = ours.get(kept.run_id)
            if kept_model is not None:
                attach(connection, kept_model)
                version = register(connection, kept_model, name) if name else ""
                among = len(runs) if recorder.keep == "best" else 1
                settled.kept.append(KeptRun(kept, kept_model, among, version))
    return settled


def _groups(candidates: Sequence[KeptCandidate]) -> dict[str, list[KeptCandidate]]:
    """Group runs by task, training data and pre-trained model; the keys are the digests that `group_of` returns.

    If several runs test the same trained model, only the first of them is included.
    """
    groups: dict[str, dict[str, KeptCandidate]] = {}
    for run in candidates:
        groups.setdefault(group_of(run.spec), {}).setdefault(run.spec.training_key, run)
    return {group: list(runs.values()) for group, runs in groups.items()}


def kept_model_messages(kept_models: KeptModels, where: Mapping[str, object]) -> list[str]:
    """Return a message for each kept model, with a command that uses the model for predictions.

    For each run whose model should have been kept but was not, add a message with the command that keeps it.

    Args:
        kept_models: The kept models, and the runs without a model.
        where: The options that name the MLflow store and the experiment.
    """
    sentences = []
    for one in kept_models.kept:
        run = one.candidate
        best = f", the best of {one.chosen_from} runs on dev ({run.dev_score:.3f})" if one.chosen_from > 1 else ""
        name = one.registered or run.run_id
        predict = command_line("predict", name, "new.csv", "--text", "COLUMN", "-o", "out.csv", options=_store(where))
        sentences.append(f"kept the model of {run.spec.label}{best}; predict with: {predict}")
    for run in kept_models.lacking:
        keep = command_line("keep", run.run_id, options=_store(where))
        sentences.append(
            f"{run.spec.label} is to be kept too (dev {run.dev_score:.3f}), but its model is not in the store; "
            f"this trains it again and keeps it: {keep}"
        )
    return sentences


def _store(where: Mapping[str, object]) -> dict[str, object]:
    return {"tracking_uri": where.get("tracking_uri")}
