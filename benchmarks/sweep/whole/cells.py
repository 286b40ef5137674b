"""The cells of the sweep (pairs of numbers of frozen bottom and top layers): task, model, costs and token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UsageError

if TYPE_CHECKING:
    from alue_bench.planning.build import Plan, PlannedRun

TASK, MODEL = "mdd", "mini"
FULLS = 6
"""The number of repetitions of full fine-tuning by our engine."""


def costs(plan: Plan) -> dict[str, float]:
    """Return the cost that the plan expects of each cell, by the name of the cell's strategy."""
    return {run.spec.strategy: run.cost for run in plan.runs}


def full_of(plan: Plan) -> PlannedRun:
    """Return the planned run of full fine-tuning.

    Raises:
        UsageError: The grid does not contain full fine-tuning.
    """
    for planned in plan.runs:
        if planned.spec.strategy == "full":
            return planned
    raise UsageError("--grid must hold full: begin both axes with 0")


def tokens_of(planned: PlannedRun, split: str) -> Any:
    """Return a split, tokenized in the same way as in the planned run."""
    from alue_bench.running.inputs import tokenized

    inputs = planned.inputs
    return tokenized(inputs.rows, split, planned.spec, inputs, inputs.models.tokenizer(inputs.checkpoint))
