"""The training of a run: load the model, freeze layers, fine-tune the model, and select the final weights."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from alue_bench.contract.errors import NonFiniteLossError
from alue_bench.contract.spec import Predictions, RunSpec
from alue_bench.data.batches import steps_per_epoch
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.evaluation.predictions import predictions_table
from alue_bench.measure.best_effort import best_effort
from alue_bench.measure.energy import Energy
from alue_bench.measure.flops import flops_method_of
from alue_bench.measure.host_load import HostLoad
from alue_bench.measure.memory import PeakMemory
from alue_bench.running.dev_scoring import dev_scorer
from alue_bench.running.inputs import RunInputs, cache_description, tokenized_for
from alue_bench.running.notes import NO_GRAPHS, flops_notes, model_notes, training_notes
from alue_bench.running.probing import Probed, probe, probe_once
from alue_bench.running.work import TrainingCost, flops_done, full_flops, most_parameters
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.checkpointing import CheckpointFile
from alue_bench.training.class_weights import class_weights, class_weights_note
from alue_bench.training.config import TrainingConfig
from alue_bench.training.device.errors import collect_and_release
from alue_bench.training.device.precision import Device
from alue_bench.training.device.random_state import seeded
from alue_bench.training.forward import Forward, choose_forward, last_layer_of
from alue_bench.training.freezing import apply_plan, check_frozen, frozen_weights
from alue_bench.training.prefix.frozen_prefix import ALL_FOLDS, Examples, FrozenPrefix
from alue_bench.training.prefix.growing import GrowingPrefix
from alue_bench.training.result import TrainingResult
from alue_bench.training.schedule import FreezeSchedule, first_plan
from alue_bench.training.session import OnStep, TrainingSession, fine_tune
from alue_bench.training.surgery import modify_model


@dataclass(frozen=True)
class Trained:
    """A fine-tuned model, the costs of its training, and everything else that scoring it on another test set needs."""

    key: str
    """A digest of everything that determines the trained weights: `RunSpec.training_key`."""
    file: CheckpointFile | None
    """The training's checkpoint file, which is deleted when the run has been recorded; None without checkpoints."""
    stack: EncoderStack
    forward: Forward
    device: Device
    tokenizer: Any
    training: TrainingResult
    dev_predictions: Predictions
    """The predictions for the dev split, made with the selected weights."""
    prefix: FrozenPrefix
    """The frozen embeddings and lowest layers, whose outputs are computed once for each further split, such as test. It
    is empty after an adaptive strategy."""
    prefixes: dict[str, Examples]
    """The train and dev splits, by name, with the outputs of the frozen prefix. On an accelerator, the outputs are
    released, because the next run needs the memory; their depth and their cost remain."""
    memory: PeakMemory
    """The peak memory while the model was trained and, if the strategy chooses layers, while it chose them."""
    energy: Energy
    """The energy used while the model was trained and, if the strategy chooses layers, while it chose them."""
    load: HostLoad
    """The load average of the host before the training (before the choice of layers, if the strategy chooses them), and
    the CPU time that this process used for both."""
    cost: TrainingCost
    probed: Probed | None
    """The layers that the strategy chose, with the cost of choosing; None for a strategy that does not choose."""
    prepare_s: float
    """The seconds for computing the outputs of frozen prefixes of all depths in the plan, for this and other runs."""
    notes: tuple[str, ...]


def train(spec: RunSpec, inputs: RunInputs, *, on_step: OnStep = lambda done, total: None) -> Trained:
    """Load, freeze and fine-tune a model, and give it the weights of the selected evaluation on the dev split.

    If a loss is not finite in bf16 or fp16, the training is repeated in fp32.

    Args:
        spec: The run.
        inputs: The objects to which the names in the specification refer.
        on_step: A function that is called after every training step, with the number of finished steps and the total.

    Raises:
        NonFiniteLossError: A loss is not finite in fp32 or TF32.
        TrainingError: The model cannot be trained, or frozen parameters changed.
    """
    try:
        return _train(spec, inputs, Device(spec.device, spec.precision, spec.cuda_graphs), on_step)
    except NonFiniteLossError as error:
        if spec.precision in ("fp32", "tf32"):  # TF32 has the same range as fp32
            raise
        failure = str(error)
    collect_and_release(spec.device)  # outside the handler: the error's traceback keeps the first model in memory
    trained = _train(spec, inputs, Device(spec.device, "fp32", spec.cuda_graphs), on_step)
    return replace(trained, notes=(f"trained in fp32, after {spec.precision} failed: {failure}", *trained.notes))


def _train(spec: RunSpec, inputs: RunInputs, device: Device, on_step: OnStep) -> Trained:
    """Train as `train` does, in the number format of `device`, without a second attempt in fp32."""
    notes = model_notes(inputs)
    inputs.prefixes.on_problem = notes.append
    file = None
    if inputs.checkpointing is not None:
        file = inputs.checkpointing.of(f"{spec.training_key}-{device.precision}", notes.append)

    labels = inputs.train_task.labels
    tokenizer = inputs.models.tokenizer(inputs.checkpoint)
    stack = view_as_stack(inputs.models.model(inputs.checkpoint, labels, init_seed=spec.init_seed))
    splits = {name: tokenized_for(stack, inputs.train_rows, name, spec, inputs, tokenizer) for name in ("train", "dev")}
    lengths = splits["train"].lengths
    last_layer = last_layer_of(stack, spec.device)
    whole_flops, method = full_flops(stack, lengths, spec.hyper, last_layer), flops_method_of(stack, spec.freeze_plan)
    notes += flops_notes(method)

    with seeded(spec.init_seed):
        stack = modify_model(stack, spec.kept_layers, spec.adapter)
    stack.model.to(spec.device)
    memory, energy, load = PeakMemory(spec.device, inputs.models.kept_bytes), Energy(spec.device), HostLoad()
    probed = None
    if inputs.strategy.chooses:
        ask = partial(probe, spec, inputs, stack, splits["train"], device)
        with memory, energy, load:
            probed = probe_once(spec, file, ask, notes)
    all_steps = spec.steps or steps_per_epoch(len(lengths), spec.hyper.batch_size) * spec.hyper.epochs
    plan = first_plan(
        inputs.strategy,
        spec.freeze_plan if probed is None else probed.choice.plan,
        epochs=spec.hyper.epochs,
        steps=all_steps,
        data_seed=spec.data_seed,
    )
    apply_plan(stack, plan)
    forward = choose_forward(stack, device.compute)
    if device.captures_graphs and not forward.recordable:
        if device.graphs == "on":
            notes.append(NO_GRAPHS)
        device = replace(device, graphs="off")

    prefixes = _Prefixes(spec, inputs, stack, forward, device)
    prefix = prefixes.frozen_prefix_of(plan.prefix_layers)
    prepare_s = prefixes.prepare(prefix, splits, tokenizer)
    frozen = frozen_weights(stack, plan)
    with memory, energy, load:
        data = GrowingPrefix(prefix, plan, splits, prefixes.frozen_prefix_of, prefixes.states_of)
        schedule = FreezeSchedule(stack, plan, inputs.strategy, data_seed=spec.data_seed)
        weights = class_weights(spec.hyper.class_weights, labels, splits["train"].known_targets.numpy())
        config = TrainingConfig(
            labels, spec.hyper, spec.data_seed, device, inputs.capabilities.padding, weights, spec.steps
        )
        session = TrainingSession(stack, forward, schedule, data, config, dev_scorer(inputs.train_task, splits["dev"]))
        training = fine_tune(session, file=file, on_step=on_step)
    check_frozen(stack, frozen, (segment.plan for segment in schedule.segments))
    prefixed = {name: data.examples(name) for name in splits}
    if device.accelerated:
        store_computed(prefix, inputs)
        prefixed = {name: examples.released() for name, examples in prefixed.items()}
    if probed is not None:
        notes.append(
            f"chosen from {min(spec.hyper.probe_rows, len(lengths))} train examples; frozen: {plan.describe()}"
        )
    notes += training_notes(spec, inputs, device, training, splits)
    if weights is not None:
        notes.append(class_weights_note(weights, labels))

    dev = splits["dev"]
    return Trained(
        key=spec.training_key,
        file=file,
        stack=stack,
        forward=forward,
        device=device,
        tokenizer=tokenizer,
        training=training,
        dev_predictions=predictions_table(dev.ids, dev.gold, training.selected_dev_logits, labels, dev.decoding),
        # An adaptive strategy may freeze layers after the selected epoch. The selected weights of these layers then
        # differ from the frozen ones, and outputs of the frozen layers cannot be used for other splits.
        prefix=prefixes.frozen_prefix_of(None) if schedule.adaptive else prefix,
        prefixes=prefixed,
        memory=memory,
        energy=energy,
        load=load,
        cost=TrainingCost(
            parameters=most_parameters(stack, schedule.segments),
            flops=flops_done(stack, schedule.segments, lengths, spec.hyper, last_layer=forward.last_layer)
            + (0.0 if probed is None else probed.flops),
            flops_full=whole_flops,
            method=method,
        ),
        probed=probed,
        prepare_s=prepare_s,
        notes=tuple(notes),
    )


def store_computed(prefix: FrozenPrefix, inputs: RunInputs) -> None:
    """Write to the store the outputs of frozen layers that an accelerator computed and other runs will read.

    A failure becomes a note, and the other runs compute the outputs again.
    """
    best_effort("the outputs of frozen layers are not stored", prefix.store_computed, inputs.prefixes.on_problem)


@dataclass(frozen=True)
class _Prefixes:
    """A factory of frozen prefixes of any depth.

    A frozen prefix consists of the embeddings and the lowest layers of the run's model, whose outputs are cached.
    """

    spec: RunSpec
    inputs: RunInputs
    stack: EncoderStack
    forward: Forward
    device: Device

    def frozen_prefix_of(self, depth: int | None) -> FrozenPrefix:
        """Return the frozen prefix of the embeddings and the lowest `depth` layers.

        If `depth` is None, the prefix is empty. It is also empty if the strategy or the architecture does not allow its
        outputs to be cached.
        """
        # If the outputs of a text depend on the other texts of its batch, stored outputs would come from
        # different batches than in training.
        can_be_cached = self.inputs.strategy.keeps_prefix and self.inputs.capabilities.independent
        return FrozenPrefix(
            self.stack,
            self.forward,
            depth if can_be_cached else None,
            store=self.inputs.prefixes,
            device=self.device,
            shared=depth in self.inputs.depths.shared,
        )

    def states_of(self, prefix: FrozenPrefix, name: str, split: TokenizedSplit) -> Examples:
        """Return the split called `name` with the outputs of the prefix, which are computed or read from the cache."""
        description = cache_description(self.spec, name)
        return prefix.examples(split, self.inputs.capabilities.padding, description, passes=self.spec.hyper.epochs)

    def prepare(self, prefix: FrozenPrefix, splits: Mapping[str, TokenizedSplit], tokenizer: Any) -> float:
        """Cache the outputs at all prefix depths that the plan's runs need, in one pass over the texts.

        The pass is not part of the run's training time: each run reports the time that its prefix alone would take.
        Nothing is done if the plan has at most one depth, or on an accelerator (see `FrozenPrefix.prepare`).

        Returns:
            The seconds that this took; 0 if nothing was done.
        """
        if self.device.accelerated or len(self.inputs.depths.depths) <= 1:
            return 0.0
        rows = self.inputs.rows
        test = tokenized_for(self.stack, rows, "test", self.spec, self.inputs, tokenizer)
        all_splits = {**splits, "test": test}
        if test.all_rows is not None:
            all_splits = {ALL_FOLDS: test.all_rows}
        descriptions = {name: cache_description(self.spec, name) for name in all_splits}
        began = time.perf_counter()
        prefix.prepare(all_splits, self.inputs.capabilities.padding, descriptions, self.inputs.depths)
        return time.perf_counter() - began
