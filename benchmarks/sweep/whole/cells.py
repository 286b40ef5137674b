"""The cells of the sweep: their task and model, expected costs, full fine-tuning, and the tokens of a split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UsageError

if TYPE_CHECKING:
    from alue_bench.planning.build import Plan, PlannedRun

TASK, MODEL = "mdd", "mini"
FULLS = 6
"""The number of repetitions of our `full` run."""


def costs(plan: Plan) -> dict[str, float]:
    """Return the expected cost of each cell."""
    return {run.spec.strategy: run.cost for run in plan.runs}


def full_of(plan: Plan) -> PlannedRun:
    """Return the planned run of full fine-tuning.

    Raises:
        UsageError: The grid does not contain it.
    """
    for planned in plan.runs:
        if planned.spec.strategy == "full":
            return planned
    raise UsageError("--grid must hold full: begin both axes with 0")


def tokens_of(planned: PlannedRun, split: str) -> Any:
    """Return the token ids of a split, as the planned run uses them."""
    from alue_bench.running.inputs import tokenized

    inputs = planned.inputs
    return tokenized(inputs.rows, split, planned.spec, inputs, inputs.models.tokenizer(inputs.checkpoint))
