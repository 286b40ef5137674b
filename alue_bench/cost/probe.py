"""The estimated FLOPs of a strategy's choice of layers, from the work that the strategy declares."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.strategy import Strategy
from alue_bench.measure.empty_models import EmptyModel
from alue_bench.running.short_training import HELD_OUT_DIVISOR

if TYPE_CHECKING:
    import numpy as np


def probe_flops(strategy: Strategy, model: EmptyModel, lengths: np.ndarray[Any, Any], hyper: HyperParameters) -> float:
    """Return the estimated FLOPs of a strategy's choice of layers.

    The probe's examples are assumed to have the average length of all train examples, and padding is not counted. The
    run will record the FLOPs of its choice, padding included, as `flops/probe`. The result is 0 for a strategy that
    does not choose by a probe, or does not declare the work of choosing.

    Args:
        strategy: The strategy.
        model: The run's model without weights.
        lengths: The lengths of all train examples in tokens, int64 [examples].
        hyper: The hyper-parameters, among them the number of examples in the probe.
    """
    cost = strategy.probe_cost(model.plan.shape) if strategy.chooses else None
    if cost is None:
        return 0.0
    share = min(hyper.probe_rows, len(lengths)) / len(lengths)
    every_layer = replace(model.plan, frozen_layers=frozenset())
    probed = replace(model, plan=every_layer, kept_layers=0, last_layer="whole")  # computed by transformers' modules
    flops = cost.forward_passes * probed.scoring(lengths)
    if cost.gradient_passes:
        flops += cost.gradient_passes * probed.training(lengths, 1, hyper.batch_size)
    for plan in cost.trainings:
        training = replace(model, plan=plan, kept_layers=0).training(lengths, hyper.epochs, hyper.batch_size)
        flops += (1 - 1 / HELD_OUT_DIVISOR) * training
    return share * flops
