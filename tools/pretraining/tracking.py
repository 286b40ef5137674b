"""The recording of a pre-training run's metrics in ``metrics.jsonl`` and, if a store is given, in MLflow."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Tracker:
    """A buffer of a run's metrics. `flush` writes it; MLflow is imported only if a store is given."""

    def __init__(self, folder: Path, uri: str | None, run_id: str | None, params: Mapping[str, Any]) -> None:
        """Prepare the recording of metrics. If an MLflow store is given, create an MLflow run or continue one.

        Args:
            folder: The folder of the run, for ``metrics.jsonl``.
            uri: The URI of the MLflow tracking store; None writes only the file.
            run_id: The id of the MLflow run to continue; None creates a new run.
            params: The parameters that are recorded in a new MLflow run.
        """
        self._file = folder / "metrics.jsonl"
        self._buffer: list[tuple[str, float, int, int]] = []
        self.run_id = run_id
        self._client: Any = None
        if uri:
            from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=uri)
            if self.run_id is None:
                name = "mini-pretraining"
                experiment = self._client.get_experiment_by_name(name)
                experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
                run = self._client.create_run(experiment_id, run_name=folder.name)
                self.run_id = str(run.info.run_id)
                for key, value in params.items():
                    self._client.log_param(self.run_id, key, value)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Buffer the metrics of a step until the next `flush`."""
        now = int(time.time() * 1000)
        self._buffer += [(key, float(value), now, step) for key, value in metrics.items()]

    def flush(self) -> None:
        """Write the buffered metrics to ``metrics.jsonl`` and to MLflow."""
        steps: dict[int, dict[str, float]] = {}
        for key, value, _, step in self._buffer:
            steps.setdefault(step, {})[key] = round(value, 5)
        with self._file.open("a", encoding="utf-8") as file:
            for step, metrics in steps.items():
                file.write(json.dumps({"step": step, **metrics}) + "\n")
        if self._client:
            from mlflow.entities import Metric

            for start in range(0, len(self._buffer), 1000):
                part = [Metric(*entry) for entry in self._buffer[start : start + 1000]]
                self._client.log_batch(self.run_id, metrics=part)
        self._buffer.clear()

    def finish(self, status: str) -> None:
        """Write the buffered metrics and close the MLflow run with the status FINISHED or KILLED."""
        self.flush()
        if self._client:
            self._client.set_terminated(self.run_id, status)

    def resume(self) -> None:
        """Set the status of the MLflow run to RUNNING, since it was closed when training stopped."""
        if self._client and self.run_id:
            self._client.update_run(self.run_id, status="RUNNING")
