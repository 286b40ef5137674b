"""Access to the trained models of the runs that `run`, `sweep` and `search` return."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from alue_bench.executors.outcome import Outcome
from alue_bench.studies.invocation import StoreLocation

if TYPE_CHECKING:
    from alue_bench.deployment.kept_model import KeptModel
    from alue_bench.tracking.connection import Connection


def model_of(store: StoreLocation, outcome: Outcome) -> KeptModel:
    """Return the trained model of a run.

    If the model was not saved, it is trained again, and its test predictions must agree with the recorded ones.

    Args:
        store: The MLflow store and the experiment of the run.
        outcome: The outcome of the run, which identifies the run.

    Raises:
        UnavailableError: The store does not answer, or a model that was trained again gives different predictions.
    """
    from alue_bench.deployment.kept_model import KeptModel

    return KeptModel(_folder(store, outcome))


def save(store: StoreLocation, outcome: Outcome, folder: Path) -> Path:
    """Write the trained model of a run into a new folder, and return the folder.

    Args:
        store: The MLflow store and the experiment of the run.
        outcome: The outcome of the run, which identifies the run.
        folder: The folder to create.

    Raises:
        UsageError: The folder exists.
        UnavailableError: The store does not answer, the predictions of a model that was trained again differ from the
            recorded ones, or the folder cannot be written.
    """
    from alue_bench.deployment.logged_models import check_new, copy_model

    check_new(folder)
    copy_model(_folder(store, outcome), folder)
    return folder


def _folder(store: StoreLocation, outcome: Outcome) -> Path:
    """Return a folder on this machine with a run's trained model; a model in a remote store is downloaded.

    If the model was not saved, it is trained again and saved first.
    """
    from alue_bench.deployment.logged_models import folder_of, model_of_run
    from alue_bench.tracking.connection import open_store

    connection = open_store(store.uri, store.experiment)
    if model_of_run(connection, outcome.run_id) is None:
        _keep(connection, outcome)
    return folder_of(outcome.run_id, store.uri)


def _keep(connection: Connection, outcome: Outcome) -> None:
    """Train a run's model again, and log it in MLflow as the run's model."""
    from alue_bench.deployment.keeping import keep_retrained_model
    from alue_bench.deployment.repeating import recorded_run, train_again

    finished = train_again(recorded_run(connection, outcome.run_id), outcome.planned)
    keep_retrained_model(connection, finished, on_problem=warnings.warn)
