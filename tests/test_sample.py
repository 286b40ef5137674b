"""The embedded sample is what its generator writes, and the bundled model learns something from it: what a stranger
sees first must look alive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alue_bench.evaluation.learning import learning
from alue_bench.planning.build import build_plan
from alue_bench.planning.request import PlanRequest
from alue_bench.running.run import execute
from tools.sampledata.__main__ import DEFAULT_OUTPUT, differences

REPOSITORY = Path(__file__).parents[1]


def test_it_is_what_the_generator_writes() -> None:
    assert differences(REPOSITORY / DEFAULT_OUTPUT) == []


@pytest.mark.parametrize("task", ["ohsd", "sec"])
def test_full_fine_tuning_learns_tasks_with_rare_labels(task: str, registry: Any, folders_of_its_own: None) -> None:
    """With the settings of the first block of the README, where few steps are done."""
    request = PlanRequest(tasks=(task,), models=("mini",), strategies=("full",), sample=True)
    (planned,) = build_plan(request, registry).runs
    result, _ = execute(planned.spec, planned.inputs)
    losses, metrics = [point.value for point in result.curves if point.metric == "train/epoch_loss"], result.metrics
    assert losses[-1] < losses[0]
    for score, split in (("selection/dev_score", "selection"), ("test/score", "test")):
        verdict = learning(
            [metrics[score]], [metrics[f"{split}/trivial_score"]], [metrics[f"{split}/above_trivial_error"]]
        )
        assert verdict is not None
        assert verdict.has_learnt, (split, verdict)
    assert metrics["test/score"] > metrics["test/trivial_score"] + 0.1
