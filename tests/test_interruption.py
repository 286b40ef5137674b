"""A plan that is killed loses nothing that was finished, and repeat the command that started it to continue."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine
from mlflow import MlflowClient

pytestmark = [pytest.mark.slow, pytest.mark.stress]

Start = Callable[..., "subprocess.Popen[str]"]

EXPERIMENT = "interrupted"
# Long enough that a signal meets a run in its training, short enough to be begun four times.
PLAN = ("--task", "anger", "--strategy", "full", "--strategy", "bottom2", "--seeds", "2")
TRAINING = ("--epochs", "8", "--limit-train", "120", "--limit-eval", "32", "--max-length", "64", "--batch-size", "4")


class Plan:
    """Four runs in a store of their own, started in a process of their own."""

    def __init__(self, start: Start, uri: str, model: Path) -> None:
        self._start = start
        self.arguments = ("run", "--model", model, *PLAN, *TRAINING, "--tracking-uri", uri, "--experiment", EXPERIMENT)
        self.client = MlflowClient(tracking_uri=uri)

    def runs(self, where: str = "tags.kind = 'run'") -> list[Any]:
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return []
        return list(self.client.search_runs([experiment.experiment_id], where))

    def statuses(self) -> Counter[str]:
        return Counter(run.info.status for run in self.runs())

    def start_and_wait_for(self, finished: int) -> subprocess.Popen[str]:
        """Starts the plan; returns in the middle of the run after so many finished ones."""
        process = self._start(*self.arguments, "--json")
        for _ in range(3000):
            statuses = self.statuses()
            if statuses["FINISHED"] >= finished and statuses["RUNNING"]:
                time.sleep(0.3)
                return process
            assert process.poll() is None, process.communicate()
            time.sleep(0.5)
        raise AssertionError(f"not there after 3,000 looks: {self.statuses()}")


@pytest.fixture
def plan(start_process: Start, own_store: str, tiny_bert: Path) -> Plan:
    return Plan(start_process, own_store, tiny_bert)


def test_asked_to_stop_then_killed_and_at_last_repeated(plan: Plan, command: CommandLine) -> None:
    stopped = plan.start_and_wait_for(finished=1)
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate(timeout=300)  # a bound, not an expectation
    assert stopped.returncode == 143, err
    assert "Traceback" not in err
    statuses = plan.statuses()
    assert statuses["KILLED"] == 1
    assert statuses["FINISHED"] == len(json.loads(out)["runs"]) >= 1
    assert f"interrupted: {4 - statuses['FINISHED']} runs are left" in err
    (parent,) = plan.runs("tags.kind = 'plan'")
    assert parent.info.status == "KILLED"

    killed = plan.start_and_wait_for(finished=statuses["FINISHED"])
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    finished = {run.info.run_id for run in plan.runs("attributes.status = 'FINISHED' and tags.kind = 'run'")}
    assert plan.statuses()["RUNNING"] == 1

    again = command(*plan.arguments, "--json")
    assert again.code == 0, again.err
    runs = json.loads(again.out)["runs"]
    assert {run["run_id"] for run in runs if run["status"] == "reused"} == finished
    assert Counter(run["status"] for run in runs) == {"reused": len(finished), "finished": 4 - len(finished)}
    assert plan.statuses() == {"FINISHED": 4, "KILLED": 2}
    assert not plan.runs("attributes.status = 'RUNNING'")
    assert "2 runs of an earlier invocation were interrupted" in again.err  # the run and its parent
