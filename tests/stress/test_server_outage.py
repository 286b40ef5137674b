"""A tracking server that stops in the middle of a plan; records that it missed are written when it answers again."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import CommandLine
from test_spool import FOUR, Before, before_runs, state  # noqa: F401

from alue_bench.tracking import recording
from alue_bench.tracking.spool import SPOOL_TAG
from stress.servers import running_mlflow

pytestmark = [pytest.mark.slow, pytest.mark.stress]


def test_a_server_that_is_stopped_in_the_middle_of_a_plan_and_started_again_has_every_run(
    run: CommandLine,
    before_runs: Before,  # noqa: F811
    tmp_path: Path,
    store: str,
    experiment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setattr(recording, "RETRY_INTERVAL_S", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(store.removeprefix("sqlite:///"), folder / "mlflow.db")
    with running_mlflow(folder) as server:

        def act(number: int) -> None:
            if number == 2:
                server.stop()
            if number == 4:
                server.start()
                time.sleep(1.5)

        before_runs(act)
        address = server.address.replace("://", "://me:secret-of-a-test@")
        said = run(*FOUR, "--tracking-uri", address)
        assert "secret-of-a-test" not in said.everything
        assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"secret-of-a-test" in p.read_bytes()]
        assert said.code == 0, said.err
        assert "the tracking store stopped answering" in said.err
        assert "did not accept" not in said.err  # it was back before the end, and was given all
        client = MlflowClient(tracking_uri=server.address)
        recorded = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        assert Counter(one.info.status for one in recorded) == {"FINISHED": 5}
        fingerprints = [one.data.tags["fingerprint"] for one in recorded if one.data.tags["kind"] == "run"]
        assert len(set(fingerprints)) == len(fingerprints) == 4
        kept = [one for one in recorded if SPOOL_TAG in one.data.tags]
        assert kept
        assert {file.path for file in client.list_artifacts(kept[0].info.run_id)} >= {"predictions.csv"}
