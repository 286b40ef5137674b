"""Access to the trained models of the runs that `run`, `sweep` and `search` return."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from alue_bench.executors.outcome import Outcome
from alue_bench.studies.invocation import Place

if TYPE_CHECKING:
    from alue_bench.deployment.kept_model import KeptModel
    from alue_bench.tracking.connection import Connection


def model_of(place: Place, outcome: Outcome) -> KeptModel:
    """Return the trained model of a run.

    If the model was not saved, it is trained again, and its test predictions must agree with the recorded ones.

    Args:
        place: The MLflow store and the experiment of the run.
        outcome: The outcome of the run, which identifies the run.

    Raises:
        UnavailableError: The store does not answer, or a model that was trained again gives different predictions.
    """
    from alue_bench.deployment.kept_model import KeptModel

    return KeptModel(_folder(place, outcome))


def save(place: Place, outcome: Outcome, folder: Path) -> Path:
    """Write the trained model of a run into a new folder, and return the folder.

    Args:
        place: The MLflow store and the experiment of the run.
        outcome: The outcome of the run, which identifies the run.
        folder: The folder to create.

    Raises:
        UsageError: The folder exists.
        UnavailableError: The store does not answer, the predictions of a model that was trained again differ from the
            recorded ones, or the folder cannot be written.
    """
    from alue_bench.deployment.logged_models import check_new, copy_model

    check_new(folder)
    copy_model(_folder(place, outcome), folder)
    return folder


def _folder(place: Place, outcome: Outcome) -> Path:
    """Return a folder on this machine with a run's trained model; a model in a remote store is downloaded.

    If the model was not saved, it is trained again and saved first.
    """
    from alue_bench.deployment.logged_models import folder_of, model_of_run
    from alue_bench.tracking.connection import open_store

    connection = open_store(place.uri, place.experiment)
    if model_of_run(connection, outcome.run_id) is None:
        _keep(connection, outcome)
    return folder_of(outcome.run_id, place.uri)


def _keep(connection: Connection, outcome: Outcome) -> None:
    """Train a run's model again, and log it in MLflow as the run's model."""
    from alue_bench.deployment.keeping import keep_again
    from alue_bench.deployment.repeating import recorded_run, train_again

    finished = train_again(recorded_run(connection, outcome.run_id), outcome.planned)
    keep_again(connection, finished, on_problem=warnings.warn)
