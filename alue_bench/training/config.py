"""The settings that stay constant during training."""

from __future__ import annotations

from dataclasses import dataclass

from alue_bench.contract.spec import HyperParameters
from alue_bench.contract.task import Labels
from alue_bench.data.batches import Padding
from alue_bench.training.device.precision import Device


@dataclass(frozen=True)
class TrainingConfig:
    """The settings that stay constant during training."""

    labels: Labels
    """The label space of the training task; it determines the loss."""
    hyper: HyperParameters
    data_seed: int
    """The seed that determines the order of the training examples and the dropout masks."""
    device: Device
    padding: Padding
    """The padding token id of training and dev batches, and the side on which they are padded."""
    class_weights: tuple[float, ...] | None = None
    """The weight of each label in the loss, in the order of the labels; None if the loss is not weighted."""
    steps: int | None = None
    """The number of training steps; None for all steps of all epochs."""
