"""Training a recorded run again to obtain its model, and checking its predictions against the recorded ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.options import build_options, options_of
from alue_bench.contract.registry import Registry
from alue_bench.contract.spec import Fold, RunResult
from alue_bench.contract.task import TargetKind
from alue_bench.data.file_task.given import given_tasks
from alue_bench.data.file_task.options import FileOptions
from alue_bench.deployment.model_folder import FinishedRun
from alue_bench.messages.suggestion import command_line
from alue_bench.planning.build import PlannedRun, build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute
from alue_bench.tracking.connection import Connection
from alue_bench.tracking.reading import Results, read_config, read_predictions, read_runs
from alue_bench.tracking.reproduction import model_reference, task_options
from alue_bench.tracking.reproduction import options_of as options_of_run
from alue_bench.training.session import OnStep

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-5
"""The largest accepted difference between a new and a recorded probability or regression output, relative to the
recorded value if that exceeds 1. Recorded values are rounded to six digits."""
FIELD_WORDS = {
    "data": "data",
    "model_digest": "pre-trained model",
    "providers": "version of alue-bench or of a plugin",
    "test_providers": "version of a plugin",
    "freeze_plan": "strategy",
    "hyper": "hyper-parameters",
    "unusual": "pre-trained model",
}
"""The words that messages use for fields of a run's specification, by field name."""


@dataclass(frozen=True)
class RecordedRun:
    """A finished run in the MLflow store, with everything that is needed to repeat it."""

    run_id: str
    config: Mapping[str, Any]
    """The specification of the run, as read from its config.json."""
    row: Mapping[Any, Any]
    """The run's row in the data frame of recorded results."""
    predictions: pd.DataFrame
    """The recorded test predictions of the run."""

    @property
    def label(self) -> str:
        """The run's name in messages: task/model/strategy/seed, and the fold in a cross-validation."""
        fold = self.config.get("fold")
        of_fold = f"/{Fold(**fold).label}" if fold else ""
        return (
            f"{self.config['task']}/{self.config['model']}/{self.config['strategy']}/seed{self.config['seed']}{of_fold}"
        )


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Settings that are needed to repeat a run, but are not recorded because they depend on the machine."""

    data_dir: Path | None = None
    """The folder with the official data files of the tasks; None means ALUE_BENCH_DATA or the user's data folder."""
    allow_pickles: bool = False
    """True if pre-trained weights may be read from pickle files."""


def recorded_run(connection: Connection, run_id: str) -> RecordedRun:
    """Read a finished run from the MLflow store.

    Raises:
        UsageError: The run was not recorded by alue-bench, or is not finished.
        UnavailableError: The store does not answer, or lacks the run's files.
    """
    results: Results = read_runs(connection, [run_id])
    rows = results.frame.to_dict("records")
    if not rows:
        raise UsageError(f"run {run_id} is no finished run of alue-bench; only finished runs can be kept")
    config = read_config(results, run_id)
    if config is None:
        raise UnavailableError(
            f"run {run_id} has no config.json, so it cannot be repeated; execute a new run with: alue-bench run --keep "
            "best"
        )
    return RecordedRun(run_id, config, rows[0], read_predictions(results, run_id))


def plan_again(recorded: RecordedRun, conditions: Conditions, registry: Registry) -> PlannedRun:
    """Plan a recorded run again with the same settings, and check that the new run would have the same fingerprint.

    A fingerprint is a digest of everything that determines a run's result.

    Args:
        recorded: The run.
        conditions: The settings that are not recorded with the run.
        registry: The declarations of the installed plugins.

    Raises:
        UnavailableError: The data, the pre-trained model or a plugin of the run is missing on this machine, or differs
            from that of the recorded run.
    """
    config, model = recorded.config, model_reference(recorded.row, registry)
    task = task_options(recorded.row)
    names, given = given_tasks([str(task["task"])] if "task" in task else [], build_options(FileOptions, task))
    fold = config.get("fold")
    recorded_options = {
        declared.field: declared.converted(config[declared.field])
        for declared in options_of(PlanRequest).values()
        if config.get(declared.field) is not None
    }
    request = PlanRequest(
        **{
            **recorded_options,
            "tasks": names,
            "given": given,
            "fold": Fold(**fold) if fold else None,
            "models": (model,),
            "strategies": (config["strategy"],),
            "seeds": (config["seed"],),
            "data_dir": conditions.data_dir,
            "allow_pickles": conditions.allow_pickles,
            "sample": config["data"]["source"] == "sample",
        },
        overrides=((f"run {recorded.run_id}", config["hyper"]),),
    )
    plan = build_plan(request, registry)
    if not plan.runs:
        reasons = "; ".join(dict.fromkeys(skipped.reason for skipped in plan.skipped))
        raise UnavailableError(f"run {recorded.run_id} ({recorded.label}) cannot be done here: {reasons}")
    (planned,) = plan.runs
    planned = _with_recorded_name(planned, str(config["model"]))
    if planned.spec.fingerprint != config["fingerprint"]:
        raise UnavailableError(
            f"run {recorded.run_id} ({recorded.label}) cannot be repeated here: its {_difference(recorded, planned)}; "
            f"restore what it was done with, or do it as a new run with: {_new_run_command(recorded, registry)}"
        )
    return planned


def _with_recorded_name(planned: PlannedRun, name: str) -> PlannedRun:
    """Return the planned run with its model renamed to the recorded name.

    The name can differ: if a plan contains models from two folders of the same name, it adds suffixes to their names.
    """
    spec = replace(planned.spec, model=name)
    return replace(planned, spec=spec, inputs=replace(planned.inputs, model=replace(planned.inputs.model, name=name)))


def _difference(recorded: RecordedRun, planned: PlannedRun) -> str:
    """Return a description, for a message, of how a newly planned run differs from the recorded one."""
    here = json.loads(json.dumps(planned.spec.as_dict(), default=str))
    names = [name for name, value in here.items() if name not in ("fingerprint", "training_key")]
    names = [name for name in names if name in recorded.config and recorded.config[name] != here[name]]
    if names == ["data"]:
        digests = recorded.config["data"], here["data"]
        splits = [name for name in ("train", "test") if digests[0][name] != digests[1][name]]
        return f"data have changed since then (its {' and '.join(splits) or 'protocol'})"
    words = list(dict.fromkeys(FIELD_WORDS.get(name, name.replace("_", " ")) for name in names))
    if "providers" in names or "test_providers" in names:
        then = {**recorded.config.get("providers", {}), **recorded.config.get("test_providers", {})}
        now = {**here["providers"], **here["test_providers"]}
        changed = [
            f"{one} was {then.get(one)}, is {now.get(one)}" for one in {**then, **now} if then.get(one) != now.get(one)
        ]
        return f"{' and '.join(words)} differs ({'; '.join(changed)})"
    return f"{' and '.join(words) or 'record'} differs from what is here"


def _new_run_command(recorded: RecordedRun, registry: Registry) -> str:
    """Return an `alue-bench` command that starts a new run with the settings of a recorded one.

    If the recorded run is one fold of a cross-validation, the command runs all folds.
    """
    config = recorded.config
    options = options_of_run(recorded.row, registry) | {"sample": config["data"]["source"] == "sample"}
    if fold := config.get("fold"):
        options |= {"folds": fold["folds"], **({"repeats": fold["repeat"]} if fold["repeat"] > 1 else {})}
    return command_line("run", options={**options, "keep": "best"})


def train_again(recorded: RecordedRun, planned: PlannedRun, on_step: OnStep = lambda done, total: None) -> FinishedRun:
    """Train a recorded run again, and check that its predictions agree with the recorded ones.

    Args:
        recorded: The run.
        planned: The plan of the run, from `plan_again`.
        on_step: A function that is called after every training step, with the number of steps done and in total.

    Returns:
        The run with its trained model.

    Raises:
        UnavailableError: The predictions differ from the recorded ones.
        TrainingError: Training fails.
    """
    result, trained = execute(planned.spec, planned.inputs, on_step=on_step)
    problem = _problem(recorded, result, planned)
    if problem:
        raise UnavailableError(
            f"run {recorded.run_id} ({recorded.label}) was trained again, but {problem}; nothing is kept. "
            f"{_versions_then_and_now(recorded)}"
        )
    return FinishedRun(recorded.run_id, planned.spec, planned.inputs, trained, result)


def _problem(recorded: RecordedRun, result: RunResult, planned: PlannedRun) -> str | None:
    """Return a description of how a repeated run's predictions differ from the recorded ones; None if they agree."""
    import numpy as np

    then, now = recorded.predictions, result.predictions
    if [str(one) for one in then["id"]] != [str(one) for one in now.ids]:
        return "its test rows differ from the recorded ones"
    scores = then[[f"{now.prefix}{name}" for name in now.columns]].to_numpy(dtype="float64")
    difference = np.abs(scores - np.asarray(now.scores)) / np.maximum(1.0, np.abs(scores))
    if planned.inputs.task.labels.kind is not TargetKind.REGRESSION:
        other = sum(str(a) != str(b) for a, b in zip(then["prediction"], now.predicted, strict=True))
        if other:
            return f"{other} of its {len(then)} test predictions differ from the recorded ones"
    if not float(difference.max()) <= TOLERANCE:
        return f"a score of its test predictions differs by {float(difference.max()):.2g} from the recorded one"
    return None


def _versions_then_and_now(recorded: RecordedRun) -> str:
    """Return a sentence on whether the versions of torch and transformers, and the hardware, are as recorded.

    A change may explain why predictions differ.
    """
    from importlib.metadata import version

    from alue_bench.measure.environment import hardware_fingerprint

    then = str(recorded.row.get("versions") or "")
    listed = dict(one.rpartition(" ")[::2] for one in then.split(", ") if " " in one)
    now = {name: version(name) for name in ("torch", "transformers")}
    changed = [
        f"{name} was {listed[name]}, is {now[name]}" for name in now if listed.get(name) not in (None, now[name])
    ]
    hardware = recorded.row.get("hardware")
    if isinstance(hardware, str) and hardware != hardware_fingerprint(str(recorded.config["device"])):
        changed.append("the hardware differs")
    return f"The reason may be: {'; '.join(changed)}" if changed else "Versions and hardware are as recorded"
