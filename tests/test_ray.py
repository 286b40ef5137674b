"""`--executor ray` on a real cluster of one node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import CommandLine
from test_executors import TWO, scores

from alue_bench.messages.extras import install_command

pytest.importorskip("ray", reason=f"Ray is not installed: {install_command('ray')}")
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(folders_of_its_own: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A node with room for one run."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", started.address)
    yield
    started.shutdown()


@pytest.mark.usefixtures("cluster")
def test_a_plan_gives_the_scores_of_one_in_this_process(run: CommandLine) -> None:
    there = run(*TWO, "--json", "--executor", "ray")
    assert there.code == 0, there.err
    assert scores(there) == scores(run(*TWO, "--json", "--rerun"))


@pytest.mark.parametrize(
    ("nodes", "jobs", "cores"),
    [
        ({"a": 8}, 2, 4),
        ({"a": 8, "b": 8}, 2, 8),
        ({"a": 1, "b": 1}, 1, 1),
        ({"a": 16, "b": 4}, 4, 2),
        ({"a": 2}, 8, 1),
        ({}, 1, 1),
    ],
)
def test_a_runs_cores_fit_on_every_node(nodes: dict[str, int], jobs: int, cores: int) -> None:
    from alue_bench.executors.ray_cluster import cores_per_run

    assert cores_per_run(nodes, jobs) == cores
