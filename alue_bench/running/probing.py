"""The choice of the trained layers at the start of a run, for strategies that choose by a probe of the model."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from alue_bench.contract.probe import Choice, LayerScore
from alue_bench.contract.spec import RunSpec
from alue_bench.data.batches import batches
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.measure.counted_flops import counting_flops
from alue_bench.running.inputs import RunInputs
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.class_weights import class_weights
from alue_bench.training.device.errors import release
from alue_bench.training.device.precision import Device
from alue_bench.training.device.random_state import seeded
from alue_bench.training.optimizer import loss_function
from alue_bench.training.probing import checked_choice, probe_of


@dataclass(frozen=True)
class Probed:
    """A strategy's choice of layers, with the cost of choosing."""

    choice: Choice
    seconds: float
    flops: float
    """The FLOPs of matrix products, with padding tokens, as torch's counter counts them."""

    @property
    def scores(self) -> tuple[LayerScore, ...]:
        """The score and the state of each layer, from layer 0 upwards."""
        frozen = self.choice.plan.frozen_layers
        return tuple(LayerScore(layer, score, layer in frozen) for layer, score in enumerate(self.choice.scores))


def probe(
    spec: RunSpec, inputs: RunInputs, stack: EncoderStack, split: TokenizedSplit, device: Device
) -> Probed | None:
    """Ask the run's strategy which layers to train; return None if it does not choose.

    The strategy gets a copy of the model, and `probe_rows` rows of the train split, drawn by the data seed. The time
    includes copying the model and drawing the rows.

    Raises:
        TrainingError: The choice is invalid.
    """
    if not inputs.strategy.chooses:
        return None
    import torch

    labels, size = inputs.train_task.labels, spec.hyper.batch_size
    weights = class_weights(spec.hyper.class_weights, labels, split.known_targets.numpy())
    on_device = None if weights is None else torch.tensor(weights, device=spec.device)
    device.synchronise()
    began = time.perf_counter()
    rng = np.random.default_rng([spec.data_seed, 1])  # not the generator of the training's order
    rows = rng.permutation(len(split))[: spec.hyper.probe_rows]
    rows = rows[np.argsort(split.lengths[rows], kind="stable")]  # batches of similar lengths need little padding
    order = [rows[start : start + size] for start in range(0, len(rows), size)]
    drawn = [batch.to(spec.device) for batch in batches(split, order, inputs.trial.padding)]
    with seeded(spec.data_seed), counting_flops() as flops_so_far:
        looked_at = probe_of(stack, drawn, loss_function(labels, on_device), spec.data_seed)
        choice = checked_choice(inputs.strategy, spec.freeze_plan, looked_at)
    device.synchronise()
    seconds = time.perf_counter() - began
    del looked_at, drawn
    release(spec.device)
    return Probed(choice, seconds, float(flops_so_far()))
