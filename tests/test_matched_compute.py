"""Full fine-tuning with the FLOPs of a frozen strategy: its names, its steps, and the report that asks for it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine

from alue_bench.contract.errors import UsageError
from alue_bench.executors.replan import rebuild_run, source_of
from alue_bench.planning.available import PlanCache
from alue_bench.planning.build import build_plan
from alue_bench.planning.request import PlanRequest

pytestmark = pytest.mark.usefixtures("folders_of_its_own")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("full@0%", "from 1% to 99%"),
        ("full@100%", "100% is full"),
        ("full@07%", "is written 'full@7%'"),
        ("full@full", "has no fewer FLOPs than full"),
        ("full@full@50%", "has no fewer FLOPs than full"),
        ("full@botom3", "'botom3' is no built-in strategy"),
    ],
)
def test_a_limit_that_is_none_is_refused(registry: Any, tiny_bert: Path, name: str, problem: str) -> None:
    request = PlanRequest(tasks=("anger",), models=(str(tiny_bert),), strategies=(name,), sample=True)
    with pytest.raises(UsageError, match=problem):
        build_plan(request, registry)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("full@autofreeze", "not known before"), ("full@bottom9", "has only 4"), ("full@top1-trainemb", "")],
)
def test_a_limit_that_does_not_fit_is_skipped_with_the_reason(
    registry: Any, tiny_bert: Path, name: str, reason: str
) -> None:
    request = PlanRequest(tasks=("anger",), models=(str(tiny_bert),), strategies=(name,), sample=True)
    if not reason:
        with pytest.raises(UsageError):
            build_plan(request, registry)
        return
    (skipped,) = build_plan(request, registry).skipped
    assert skipped.strategy == name
    assert reason in skipped.reason


def test_a_worker_plans_the_same_number_of_steps(registry: Any, tiny_bert: Path) -> None:
    request = PlanRequest(tasks=("anger",), models=(str(tiny_bert),), strategies=("full@bottom2",), sample=True)
    (planned,) = build_plan(request, registry).runs
    again = rebuild_run(planned.spec, source_of(planned, registry), registry, PlanCache())
    assert again.spec == planned.spec
    assert planned.spec.steps is not None


def test_half_of_two_epochs_is_a_training_of_one(run: CommandLine) -> None:
    """The learning rate decays over the shortened length, and the order of examples is the same."""
    rows = ("--limit-train", "48", "--batch-size", "8", "--limit-eval", "20", "--lr", "1e-3", "--json")
    (half,) = json.loads(run("-s", "full@50%", "--epochs", "2", *rows).out)["runs"]
    (one,) = json.loads(run("-s", "full", "--epochs", "1", *rows).out)["runs"]
    same = ("test/score", "test/mcc", "selection/dev_score", "selection/epoch", "flops/train", "data/train_steps")
    assert {name: half["metrics"][name] for name in same} == {name: one["metrics"][name] for name in same}
    assert half["metrics"]["flops/train_vs_full"] == pytest.approx(0.5)


def test_has_the_flops_of_the_frozen_strategy_and_is_asked_for(
    run: CommandLine, alue_bench: CommandLine, store: str, experiment: str, tmp_path: Path
) -> None:
    rows = ("--limit-train", "60", "--batch-size", "4", "--limit-eval", "20", "--epochs", "2")
    run("-s", "full", "-s", "bottom2", *rows)
    where = ("--experiment", experiment, "--tracking-uri", store)
    (block,) = json.loads(alue_bench("compare", "--format", "json", *where).out)["blocks"]
    (asked,) = [note for note in block["notes"] if "as many FLOPs as bottom2" in note]
    command = shlex.split(asked[asked.index("alue-bench run") :])
    assert {"full@bottom2", "--limit-train", "60", "--sample"} <= {*command}
    said = alue_bench(*command[1:], "--json")
    (done,) = json.loads(said.out)["runs"]
    assert done["strategy"] == "full@bottom2"
    document = json.loads(alue_bench("compare", "--format", "json", *where).out)
    (block,) = document["blocks"]
    shares = {row["strategy"]: row["flops_share"] for row in block["rows"]}
    assert abs(shares["full@bottom2"] - shares["bottom2"]) < 1 / 30  # the nearest of 30 steps
    assert "as many FLOPs as bottom2" not in json.dumps(block["notes"])
    alue_bench("report", "-o", str(tmp_path / "page.md"), *where)
    assert "full@bottom2" in (tmp_path / "page.md").read_text()
