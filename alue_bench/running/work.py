"""The amount of computation of a training run: the number of trained parameters, and the FLOPs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.strategy import FreezePlan
from alue_bench.measure.flops import FlopsMethod, prefix_flops, step_flops, training_flops
from alue_bench.training.architecture.encoder_stack import EncoderStack, LastLayer
from alue_bench.training.freezing import ParameterCounts, count_parameters
from alue_bench.training.schedule import Segment


@dataclass(frozen=True)
class TrainingCost:
    """The number of trained parameters and the training FLOPs of a run."""

    parameters: ParameterCounts
    """The parameter counts. If the frozen parts changed during training, the counts are from the time when the most
    parameters trained."""
    flops: float
    """The training FLOPs, including those of choosing the layers if the strategy chooses them in the run."""
    flops_full: float
    """The FLOPs of fine-tuning the whole pre-trained model, with all its layers and no adapter, on the same data."""
    method: FlopsMethod
    """The method that determines the FLOPs: formulas or torch's FLOP counter."""


def most_parameters(stack: EncoderStack, segments: list[Segment]) -> ParameterCounts:
    """Return the parameter counts of the segment of training in which the most parameters trained."""
    counts = [count_parameters(stack, segment.plan) for segment in segments]
    return max(counts, key=lambda count: count.trainable)


def full_flops(stack: EncoderStack, lengths: Any, hyper: HyperParameters, last_layer: LastLayer) -> float:
    """Return the FLOPs of fine-tuning the whole model, with nothing frozen.

    Args:
        stack: The model before layers are removed and adapters are inserted.
        lengths: The number of tokens of each train example, int64 [n].
        hyper: The hyper-parameters, which give the number of epochs and the batch size.
        last_layer: The tokens for which the last layer is computed, such as "whole" for all of them; see `LastLayer`.
    """
    return training_flops(
        stack,
        FreezePlan(stack.shape),
        lengths,
        hyper.epochs,
        last_layer=last_layer,
        batch_size=hyper.batch_size,
    )


def flops_done(
    stack: EncoderStack, segments: list[Segment], lengths: Any, hyper: HyperParameters, *, last_layer: LastLayer
) -> float:
    """Return the FLOPs of a finished training run.

    If the frozen parts changed during training, the FLOPs are summed over the segments. If training stopped early, only
    the steps that were executed count. A layer whose stored outputs were used counts once for each example, since its
    outputs are computed once.

    Args:
        stack: The model.
        segments: The periods of training during which the freeze plan did not change, in order.
        lengths: The number of tokens of each train example, int64 [n].
        hyper: The hyper-parameters, which give the number of epochs and the batch size.
        last_layer: The tokens for which the last layer is computed, such as "whole" for all of them; see `LastLayer`.
    """
    depth = max(segment.depth for segment in segments)
    counted = partial(step_flops, stack, last_layer=last_layer, batch_size=hyper.batch_size)
    if len(segments) == 1 and len(segments[0].indices) == len(lengths) * hyper.epochs:
        steps = counted(segments[0].plan, lengths, start=depth) * hyper.epochs
    else:
        steps = sum(counted(part.plan, lengths[part.indices], start=part.depth) for part in segments)
    below = prefix_flops(stack, depth, lengths, last_layer=last_layer, batch_size=hyper.batch_size)
    return below + steps
