"""The work of a training: parameters that train, and floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.strategy import FreezePlan
from alue_bench.measure.flops import Method, prefix_flops, step_flops, training_flops
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.forward import reads_first_only
from alue_bench.training.freezing import ParameterCounts, count_parameters
from alue_bench.training.schedule import Segment


@dataclass(frozen=True)
class Work:
    """The work of a training."""

    parameters: ParameterCounts
    """The model's parameters; where what trains changes, when the most of them did."""
    flops: float
    """The operations of the training."""
    flops_full: float
    """The operations of fine-tuning the whole model on the same data, as the pre-trained checkpoint has it."""
    method: Method
    """The way in which the operations are found: by formulas or by a counter."""


def most_parameters(stack: EncoderStack, segments: list[Segment]) -> ParameterCounts:
    """Return the parameter counts of the segment of training in which the most parameters trained."""
    counts = [count_parameters(stack, segment.plan) for segment in segments]
    return max(counts, key=lambda count: count.trainable)


def full_flops(stack: EncoderStack, lengths: Any, hyper: HyperParameters) -> float:
    """Return the operations of fine-tuning the whole model.

    Args:
        stack: The model before layers are left out and adapters put in.
        lengths: The tokens of each example of the train split: int64 [n].
        hyper: The number of epochs and the batch size.
    """
    return training_flops(
        stack,
        FreezePlan(stack.shape),
        lengths,
        hyper.epochs,
        head_reads_first=reads_first_only(stack),
        batch_size=hyper.batch_size,
    )


def flops_done(
    stack: EncoderStack, segments: list[Segment], lengths: Any, hyper: HyperParameters, *, head_reads_first: bool
) -> float:
    """Return the operations of a training that has ended.

    They are counted segment by segment where what is frozen, or stored, changed, and over the examples that were
    trained on where the training stopped early. Each layer of a growing prefix is computed once.

    Args:
        stack: The model.
        segments: The stretches of training in which the same parts were frozen.
        lengths: The tokens of each example of the train split: int64 [n].
        hyper: The number of epochs and the batch size.
        head_reads_first: Whether the last layer is computed for the first token of each example alone.
    """
    depth = max(segment.depth for segment in segments)
    counted = partial(step_flops, stack, head_reads_first=head_reads_first, batch_size=hyper.batch_size)
    if len(segments) == 1 and len(segments[0].indices) == len(lengths) * hyper.epochs:
        steps = counted(segments[0].plan, lengths, start=depth) * hyper.epochs
    else:
        steps = sum(counted(part.plan, lengths[part.indices], start=part.depth) for part in segments)
    below = prefix_flops(stack, depth, lengths, head_reads_first=head_reads_first, batch_size=hyper.batch_size)
    return below + steps
