"""A plan on a Ray cluster of two nodes, one of which is lost in the middle of a run."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import CommandLine

from alue_bench.messages.extras import install_command

pytest.importorskip("ray", reason=f"Ray is not installed: {install_command('ray')}")
pytestmark = [pytest.mark.slow, pytest.mark.stress]


@pytest.fixture
def cluster(folders_of_its_own: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of two nodes, each with room for one run and with separate workers, as on two machines."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    started.second = started.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", started.address)
    yield started
    started.shutdown()


def test_the_plan_completes_on_the_node_that_is_left(
    cluster: Any, run: CommandLine, runs: Callable[..., list[Any]], tmp_path: Any
) -> None:
    from test_executors import scores

    long = ("-s", "full", "--seeds", "2", "--epochs", "60", "--json")
    both_at_work: list[bool] = []
    over = threading.Event()

    def lose_a_node() -> None:
        while not over.wait(0.1):
            try:
                under_way = runs("attributes.status = 'RUNNING' and tags.stage = 'training'")
            except AttributeError:  # the experiment is not there yet
                under_way = []
            if len(under_way) == 2:
                both_at_work.append(True)
                cluster.remove_node(cluster.second, allow_graceful=False)
                return

    lightning = threading.Thread(target=lose_a_node)
    lightning.start()
    said = run(*long, "--executor", "ray")
    over.set()
    lightning.join()
    assert both_at_work
    assert said.code == 0, said.err
    assert [done["status"] for done in json.loads(said.out)["runs"]] == ["finished", "finished"]
    assert (
        "the machine of its worker was lost; the run is repeated" in said.err or "the worker process died" in said.err
    )
    assert sorted(r.info.status for r in runs("tags.kind = 'run'")) == ["FINISHED", "FINISHED", "KILLED"]
    assert len({r.data.tags["process"] for r in runs("tags.kind = 'run'")}) == 3  # a fresh worker for each

    alone = run(*long, "--rerun")
    assert scores(alone) == scores(said)
