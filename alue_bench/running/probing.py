"""The choice of the trained layers at the start of a run, for strategies that choose by a probe of the model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alue_bench.contract.errors import DoesNotFit, TrainingError
from alue_bench.contract.probe import Choice, HeldOutScore, LayerScore
from alue_bench.contract.spec import RunSpec, digest_of
from alue_bench.contract.strategy import FreezePlan
from alue_bench.data.batches import Batch, batches
from alue_bench.data.splits import SplitRows
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.measure.counted_flops import counting_flops
from alue_bench.running.dev_scoring import dev_scorer
from alue_bench.running.inputs import RunInputs, tokenized
from alue_bench.running.short_training import HELD_OUT_DIVISOR, ShortTrainings
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.checkpointing import CheckpointFile
from alue_bench.training.class_weights import class_weights
from alue_bench.training.config import TrainingConfig
from alue_bench.training.device.errors import collect_and_release
from alue_bench.training.device.precision import Device
from alue_bench.training.device.random_state import seeded
from alue_bench.training.optimizer import loss_function
from alue_bench.training.probing import checked_choice, probe_of
from alue_bench.training.schedule import plan_as_json, plan_from_json


@dataclass(frozen=True)
class Probed:
    """A strategy's choice of layers, with the cost of choosing."""

    choice: Choice
    seconds: float
    flops: float
    """The sum of the probe's FLOPs, padding included, as torch's FLOP counter counts them, and the FLOPs of the short
    training runs (`Probe.train_and_score`), which are computed like those of a run."""

    @property
    def scores(self) -> tuple[LayerScore, ...]:
        """The score of each layer, and whether the layer is frozen, from layer 0 upwards; empty without scores."""
        frozen = self.choice.plan.frozen_layers
        return tuple(LayerScore(layer, score, layer in frozen) for layer, score in enumerate(self.choice.scores))

    def as_json(self) -> dict[str, Any]:
        """Return the choice and its cost as JSON values."""
        choice = {"plan": plan_as_json(self.choice.plan), "scores": list(self.choice.scores)}
        return {**choice, "seconds": self.seconds, "flops": self.flops}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], bound: FreezePlan) -> Probed:
        """Return the choice and its cost, restored from JSON values.

        Args:
            content: The JSON values, as returned by `as_json`.
            bound: The run's plan from `Strategy.freeze_plan`. The fields of the chosen plan that are not among the JSON
                values are copied from it.

        Raises:
            KeyError, TypeError, ValueError, DoesNotFit: The content is damaged, or belongs to a different model.
        """
        choice = Choice(plan_from_json(content["plan"], bound), tuple(content["scores"]))
        return cls(choice, content["seconds"], content["flops"])


def probe_once(spec: RunSpec, file: CheckpointFile | None, choose: Callable[[], Probed], notes: list[str]) -> Probed:
    """Return the layers that an interrupted process chose for this training run.

    If no usable choice was saved, make the choice now and save it.

    On some devices, probes are reproducible only up to rounding, so that a second probe may choose differently. But a
    resumed training run must train the same layers as before.

    Args:
        spec: The run.
        file: The checkpoint file of the training run; None without checkpoints.
        choose: A function that asks the strategy for its choice.
        notes: The run's notes, to which a sentence is added if a saved choice is found.
    """
    content = None if file is None else file.load_choice()
    if content is not None and file is not None:
        try:
            probed = Probed.from_json(content, spec.freeze_plan)
        except (KeyError, TypeError, ValueError, DoesNotFit) as error:
            notes.append(f"the choice of layers that an interrupted process made is damaged ({error!r}): chosen again")
        else:
            notes.append("the trained layers are those that an interrupted process chose for this training")
            file.earlier_s = probed.seconds
            return probed
    probed = choose()
    if file is not None:
        file.save_choice(probed.as_json())
    return probed


def probe(spec: RunSpec, inputs: RunInputs, stack: EncoderStack, split: TokenizedSplit, device: Device) -> Probed:
    """Ask a strategy that chooses by a probe which layers to train.

    The strategy gets a copy of the model, and `probe_rows` rows of the train split, drawn with the data seed. The
    recorded seconds include copying the model and drawing the rows.

    Args:
        spec: The run.
        inputs: The run's inputs, with the strategy.
        stack: The loaded model, which is not changed.
        split: The tokenized train split.
        device: The device and the number format.

    Raises:
        TrainingError: The choice is invalid.
    """
    import torch

    labels = inputs.train_task.labels
    weights = class_weights(spec.hyper.class_weights, labels, split.known_targets.numpy())
    config = TrainingConfig(labels, spec.hyper, spec.data_seed, device, inputs.capabilities.padding, weights)
    on_device = None if weights is None else torch.tensor(weights, device=spec.device)
    trainings: list[ShortTrainings] = []
    device.synchronise()
    began = time.perf_counter()
    with seeded(spec.data_seed), counting_flops() as count:

        def train_and_score(plan: FreezePlan) -> HeldOutScore:
            with count.paused():
                if not trainings:
                    train, held_out = _train_and_held_out(spec, inputs)
                    scorer = dev_scorer(inputs.train_task, held_out)
                    trainings.append(ShortTrainings(stack, train, held_out, scorer, config))
                return trainings[0](plan)

        model_probe = probe_of(
            stack, _batches(spec, inputs, split), loss_function(labels, on_device), train_and_score, spec.data_seed
        )
        choice = checked_choice(inputs.strategy, spec.freeze_plan, model_probe)
    device.synchronise()
    seconds = time.perf_counter() - began
    del model_probe
    collect_and_release(spec.device)
    return Probed(choice, seconds, count.total + math.fsum(training.flops for training in trainings))


def _probe_rows(spec: RunSpec, count: int) -> np.ndarray[Any, Any]:
    """Draw the probe's rows: return their indices among `count` rows, int64 [rows], in the order of the draw."""
    rng = np.random.default_rng([spec.data_seed, 1])  # a different sequence from that of the data order in training
    return rng.permutation(count)[: spec.hyper.probe_rows]


def _batches(spec: RunSpec, inputs: RunInputs, split: TokenizedSplit) -> list[Batch]:
    """Return the probe's examples in batches of similar lengths, which need little padding, on the run's device."""
    rows, size = _probe_rows(spec, len(split)), spec.hyper.batch_size
    rows = rows[np.argsort(split.lengths[rows], kind="stable")]
    order = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [batch.to(spec.device) for batch in batches(split, order, inputs.capabilities.padding)]


def _train_and_held_out(spec: RunSpec, inputs: RunInputs) -> tuple[TokenizedSplit, TokenizedSplit]:
    """Divide the probe's examples into two splits, one to train on and one to score.

    In a task that tags words, examples are whole sentences here, while the probe's batches contain windows of
    sentences.

    Raises:
        TrainingError: The probe has fewer than two examples.
    """
    rows = inputs.train_rows.splits["train"]
    drawn = _probe_rows(spec, len(rows.examples))
    if len(drawn) < 2:
        raise TrainingError(
            f"strategy {spec.strategy!r} trains on some examples of its probe and scores others, but the probe has "
            f"{len(drawn)}; raise --probe-rows"
        )
    held_out = max(1, len(drawn) // HELD_OUT_DIVISOR)
    tokenizer = inputs.models.tokenizer(inputs.checkpoint)

    def part(name: str, indices: np.ndarray[Any, Any]) -> TokenizedSplit:
        chosen = SplitRows(
            tuple(rows.examples[index] for index in indices), digest_of([rows.digest, name, indices.tolist()])
        )
        only = replace(inputs.train_rows, splits={name: chosen})
        return tokenized(only, name, spec, inputs, tokenizer)

    return part("probe-train", drawn[held_out:]), part("probe-held-out", drawn[:held_out])
