"""What planned runs will cost, before any of them is done: FLOPs from shapes and lengths, no weights loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alue_bench.measure.flops import training_flops
from alue_bench.plan import PlannedRun
from alue_bench.training.checkpoint import empty_model, load_config, load_tokenizer
from alue_bench.training.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.surgery import operate

if TYPE_CHECKING:
    import numpy as np


def forecast_flops(runs: Sequence[PlannedRun]) -> list[float]:
    """FLOPs of training, run by run, as `flops/train` records them. Token ids are computed once and kept.

    It is assumed that the outputs of frozen prefixes can be kept; a model that cannot start from them costs more. Of a
    strategy that changes its mind, the cost is what it would be if it did not.
    """
    stacks: dict[tuple[str, ...], tuple[EncoderStack, bool]] = {}
    lengths: dict[tuple[str, ...], np.ndarray[Any, Any]] = {}
    found = []
    for run in runs:
        spec, labels = run.spec, run.inputs.train_task.labels
        model = (spec.model, spec.model_digest)
        head = (*model, spec.train_task, str(spec.kept_layers), spec.strategy if spec.adapter else "")
        if head not in stacks:
            stacks[head] = _empty_stack(run)
        stack, first = stacks[head]
        rows = (*model, spec.data.train, str(spec.hyper.max_length))
        if rows not in lengths:
            lengths[rows] = run.inputs.tokens.tokenised(
                run.inputs.train_rows.splits["train"],
                labels=labels,
                model=run.inputs.model,
                model_digest=spec.model_digest,
                tokenizer=load_tokenizer(run.inputs.checkpoint),
                max_length=spec.hyper.max_length,
            ).lengths
        found.append(
            training_flops(
                stack,
                spec.freeze_plan,
                lengths[rows],
                spec.hyper.epochs,
                prefix_cached=bool(run.inputs.prefixes.limit_bytes and run.inputs.strategy.keeps_prefix),
                head_reads_first=first,
            )
        )
    return found


def _empty_stack(run: PlannedRun) -> tuple[EncoderStack, bool]:
    """The model without memory for weights, and whether its last layer is computed for the first token alone."""
    from alue_bench.training.forward import LibraryForward
    from alue_bench.training.lean_forward import LeanForward

    stack = view_as_stack(empty_model(load_config(run.inputs.checkpoint), run.inputs.train_task.labels))
    stack = operate(stack, run.spec.kept_layers, run.spec.adapter)
    return stack, LeanForward.head_reads_first if LeanForward.fits(stack) else LibraryForward.head_reads_first
