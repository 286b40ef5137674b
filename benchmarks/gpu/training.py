"""The timing of one training, by our engine, `Trainer` or a plain loop; weights and token ids are random."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from alue_bench.contract.errors import NonFiniteLossError
from alue_bench.contract.strategy import EncoderShape, FreezePlan
from alue_bench.contract.task import Labels
from benchmarks.engine.profiling import flops_of_step
from benchmarks.gpu.arms import ENGINE, Arm
from benchmarks.gpu.sizes import LEARNING_RATE, MAX_LENGTH, TASKS, VOCABULARIES, Scale
from benchmarks.machine import peaks
from benchmarks.timing.fitting import fit_by_engine
from benchmarks.timing.settings import Setup
from benchmarks.timing.starting_point import MODEL_SEED, StartingPoint, freeze_plan

if TYPE_CHECKING:
    from alue_bench.data.tokenization import TokenizedSplit
    from alue_bench.training.architecture.encoder_stack import EncoderStack
    from alue_bench.training.device.precision import Device

OnStep = Callable[..., None]
"""A function that is called after each training step with the number of steps done. The total number of steps is an
optional second argument."""
SETTLING = 2
"""The number of steps at the start of the second epoch that are not timed, because they include the epoch's start."""
FIRST_ID = 5
"""The lowest token id that is drawn at random; lower ids are special tokens."""
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "best": {"logging_nan_inf_filter": False},
    "workers": {"logging_nan_inf_filter": False, "dataloader_num_workers": 2, "dataloader_persistent_workers": True},
    "compiled": {"logging_nan_inf_filter": False, "torch_compile": True},
    "glue": {},
}
"""The arguments of `TrainingArguments` for each configuration of `Trainer`. The key "best" is for the ways of training
"trainer-best" and "loop-best", and so on."""


@dataclass(frozen=True)
class RandomStart(StartingPoint):
    """The data of a training run, and its initial model with random weights. Each run trains a copy of the model."""

    model: Any = None
    """The model with its initial weights, on the CPU; only copies of it are trained."""

    def fresh_stack(self, plan: FreezePlan) -> EncoderStack:
        """Return a copy of the initial model, on the device, in which the plan's parameters are frozen."""
        from alue_bench.training.architecture.encoder_stack import view_as_stack
        from alue_bench.training.freezing import apply_plan

        stack = view_as_stack(copy.deepcopy(self.model).to(self.setup.device))
        apply_plan(stack, plan)
        return stack


def device_of(arm: Arm, name: str) -> Device:
    """Return the device with the number format and the use of CUDA graphs that an arm (way of training) describes."""
    from alue_bench.training.device.precision import Device

    return Device(name, arm.precision, arm.graphs)  # type: ignore[arg-type]


def starting_point(arm: Arm, scale: Scale, device: str, *, rows: int, epochs: int) -> RandomStart:
    """Return the initial model and data for the training that an arm describes.

    Weights, token ids and labels are random. The lengths of the texts have the same distribution as in the arm's task.

    Args:
        arm: The arm (way of training, strategy and settings).
        scale: The size of the model.
        device: The name of the device.
        rows: The number of examples to train on.
        epochs: The number of epochs.
    """
    vocabulary = scale.vocabulary or VOCABULARIES[arm.model]
    task, batch_size = TASKS[arm.task], scale.batch_size or arm.batch_size
    setup = Setup(
        rows=rows,
        eval_rows=1,
        epochs=epochs,
        batch_size=batch_size,
        lr=LEARNING_RATE,
        max_length=MAX_LENGTH,
        longest=None,
        layers=scale.layers,
        hidden=scale.hidden,
        heads=scale.heads,
        checkpoint=None,
        device=device,
    )
    train = random_split(task.lengths(rows), vocabulary, task.labels)
    longest = random_split(sorted(train.lengths.tolist())[-batch_size:], vocabulary, task.labels)
    labels = Labels.multiclass(*(f"label {index:02}" for index in range(task.labels)))
    held_out = random_split([int(train.lengths.mean())], vocabulary, task.labels)
    model = _random_model(scale.layers, scale.hidden, scale.heads, vocabulary, task.labels)
    return RandomStart(setup, padding_tokenizer(), labels, train, held_out, longest, model)


def random_split(lengths: Sequence[int] | Any, vocabulary: int, labels: int) -> TokenizedSplit:
    """Return a split of random token ids with random labels.

    Args:
        lengths: The number of tokens of each text.
        vocabulary: The number of token ids to draw from.
        labels: The number of labels to draw from.
    """
    import torch

    from alue_bench.data.tokenization import TokenizedSplit

    sizes = torch.as_tensor(lengths, dtype=torch.long)
    generator = torch.Generator().manual_seed(len(sizes))
    total = int(sizes.sum())
    return TokenizedSplit(
        input_ids=torch.randint(FIRST_ID, vocabulary, (total,), generator=generator),
        token_type_ids=torch.zeros(total, dtype=torch.long),
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)]),
        targets=torch.randint(0, labels, (len(sizes),), generator=generator),
        ids=[str(index) for index in range(len(sizes))],
        truncated=0,
    )


@lru_cache(maxsize=4)
def _random_model(layers: int, hidden: int, heads: int, vocabulary: int, labels: int) -> Any:
    """Return a BERT model with random weights on the CPU, for classification."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from alue_bench.training.pretrained.library import quiet_transformers

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        num_labels=labels,
        problem_type="single_label_classification",
    )
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(MODEL_SEED)
        return BertForSequenceClassification(config)


@lru_cache
def padding_tokenizer() -> Any:
    """Return the tokenizer of the bundled model, which is used only for padding, with token id 0 as in BERT."""
    from alue_bench_models.mini import MODEL
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL.checkpoint)


class Watch:
    """A function that is called after each training step and measures the seconds and energy between two given steps.

    Energy is measured only if the GPU has an energy counter. The device is synchronised at these two steps only.
    """

    def __init__(self, device: Device, first: int, last: int) -> None:
        """Set the measured period: from the end of step `first` to the end of step `last`, both counted from 1."""
        from alue_bench.measure.energy import Energy

        self._device, self._first, self._last = device, first, last
        self._energy = Energy(device.name)
        self._marks: dict[int, float] = {}

    def __call__(self, done: int, total: int = 0) -> None:
        """Read the clock and the energy counter if this step begins or ends the measured period."""
        if done in (self._first, self._last):
            self._device.synchronise()
            self._marks[done] = time.perf_counter()
            if done == self._first:
                self._energy.__enter__()
            else:
                self._energy.__exit__(None, None, None)

    @property
    def step_s(self) -> float:
        """The mean seconds of a training step."""
        return (self._marks[self._last] - self._marks[self._first]) / (self._last - self._first)

    @property
    def step_j(self) -> float | None:
        """The mean energy of the GPU in a training step, in joules; None without a counter."""
        joules = self._energy.joules.get("gpu")
        return None if joules is None else joules / (self._last - self._first)


@dataclass(frozen=True)
class Timing:
    """The times and costs of one training."""

    arm: str
    """The name of the arm: a combination of way of training (our engine, `Trainer`, a plain loop), strategy and
    options."""
    repetition: int
    step_s: float
    """The mean seconds of a training step."""
    examples_per_s: float
    training_s: float
    """The seconds of the whole training: all epochs of a real training, or two short epochs if only steps are compared.
    For our engine, they exclude a warm-up and include computing the stored outputs of frozen layers; for `Trainer` and
    the plain loop, they include the set-up."""
    prefix_s: float
    """The part of `training_s` in which the outputs of the frozen bottom layers were computed and stored."""
    rows: int
    """The number of examples in an epoch."""
    flops_per_step: float
    """The FLOPs of a training step by formula; padding does not count."""
    peak_mib: float | None
    """The peak of the device's memory in MiB; None on a CPU."""
    graphs: int
    """The number of batch shapes for which the step was replayed as a CUDA graph."""
    step_j: float | None
    """The mean energy of the GPU in a training step, in joules; None without a counter."""
    final_loss: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The fields of the `Arm`, by name."""


def timed(arm: Arm, scale: Scale, device_name: str, repetition: int, *, whole: bool = False) -> Timing:
    """Train once as an arm describes, and return the times and costs.

    Unless `whole` is true, the training has two short epochs: the first one includes compilation, the capture of CUDA
    graphs and memory allocation; the second one is timed.

    Args:
        arm: The arm (way of training, strategy and settings).
        scale: The size of the model and the number of steps.
        device_name: The name of the device.
        repetition: The number of the repetition; it is also the seed of data order and dropout.
        whole: Whether to train with as many rows and epochs as a real training has.

    Raises:
        NonFiniteLossError: A loss is not finite.
    """
    device = device_of(arm, device_name)
    batch_size = scale.batch_size or arm.batch_size
    steps = scale.steps_of(arm.way)
    rows = (scale.whole_rows or TASKS[arm.task].rows) if whole else (steps + SETTLING) * batch_size
    epochs = scale.whole_epochs if whole else 2
    start = starting_point(arm, scale, device_name, rows=rows, epochs=epochs)
    in_epoch = math.ceil(rows / batch_size)
    watch = Watch(device, 1 if whole else in_epoch + SETTLING, epochs * in_epoch)
    device.reset_peak()
    with settings_restored():
        trained = train(start, arm, device, repetition, watch)
    if not all(map(math.isfinite, trained.losses)):
        raise NonFiniteLossError(f"{arm.name}: a loss is not finite")
    peak = peaks(device_name)["peak_device_mib"]
    return Timing(
        arm=arm.name,
        repetition=repetition,
        step_s=watch.step_s,
        examples_per_s=rows * epochs / trained.seconds if whole else batch_size / watch.step_s,
        training_s=trained.seconds,
        prefix_s=trained.prefix_s,
        rows=rows,
        flops_per_step=trained.flops_per_step,
        peak_mib=peak,
        graphs=trained.graphs,
        step_j=watch.step_j,
        final_loss=trained.losses[-1],
        settings=asdict(arm),
    )


@contextmanager
def settings_restored() -> Iterator[None]:
    """Restore torch's setting for fp32 products after the `with` block, because `Trainer` can leave TF32 on."""
    import torch

    backends: Any = torch.backends
    if hasattr(backends, "fp32_precision"):  # since torch 2.9
        settings = [(backends, "fp32_precision")]
    else:
        settings = [(backends.cuda.matmul, "allow_tf32"), (backends.cudnn, "allow_tf32")]
    before = [getattr(backend, name) for backend, name in settings]
    try:
        yield
    finally:
        for (backend, name), value in zip(settings, before, strict=True):
            if getattr(backend, name) != value:
                setattr(backend, name, value)


@dataclass(frozen=True)
class Trained:
    """The times, losses and costs of a training, as `train` reports them."""

    seconds: float
    prefix_s: float
    losses: Sequence[float]
    flops_per_step: float
    graphs: int = 0
    """The number of batch shapes for which the step was replayed as a CUDA graph."""


def train(start: RandomStart, arm: Arm, device: Device, seed: int, on_step: OnStep) -> Trained:
    """Train a model once as an arm describes: by our engine, by `Trainer` or by a plain loop.

    Args:
        start: The initial weights and the data.
        arm: The arm (way of training, strategy and settings).
        device: The device and the number format.
        seed: The seed of data order and dropout.
        on_step: The function that is called after each step.
    """
    plan = freeze_plan(arm.strategy, EncoderShape(start.setup.layers, start.setup.hidden))
    if arm.way != ENGINE:
        stack = start.fresh_stack(plan)
        began = time.perf_counter()
        losses = _by_other(start, arm, device, seed, stack.model, on_step)
        device.synchronise()
        flops = flops_of_step(start, stack, plan, cached=False, last_layer="whole")
        return Trained(time.perf_counter() - began, 0.0, losses, flops)
    fitted = fit_by_engine(start, plan, seed, device, cached=arm.cached, on_step=on_step)
    stored = fitted.costs["build_s"] > 0
    return Trained(
        seconds=fitted.costs["seconds"],
        prefix_s=fitted.costs["prefix_s"],
        losses=[loss for _, loss in fitted.losses],
        flops_per_step=flops_of_step(start, fitted.stack, plan, cached=stored, last_layer=fitted.forward.last_layer),
        graphs=fitted.recorded_shapes,
    )


def _by_other(start: RandomStart, arm: Arm, device: Device, seed: int, model: Any, on_step: OnStep) -> list[float]:
    """Train a model by `Trainer` or by a plain loop, and return the loss of each step."""
    import torch

    by = _by_trainer if arm.way.startswith("trainer") else _by_loop
    return torch.stack(by(start, arm, device, seed, model, on_step)).float().cpu().tolist()


def _by_trainer(start: RandomStart, arm: Arm, device: Device, seed: int, model: Any, on_step: OnStep) -> list[Any]:
    """Train a model by `Trainer`, and return the loss of each step, on the device."""
    from transformers import TrainerCallback

    from alue_bench.training.pretrained.library import quiet_transformers
    from benchmarks.timing.features import features
    from benchmarks.timing.trainer_baseline import build_trainer, training_arguments

    class EachStep(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            on_step(state.global_step)

    way = "trainer-128" if arm.padded_to_maximum else "trainer-grouped"
    options = OPTIONS[arm.way.partition("-")[2]]
    examples = features(start.train, start.tokenizer.pad_token_id, MAX_LENGTH if arm.padded_to_maximum else None)
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        arguments = training_arguments(folder, way, start.setup.hyper, seed, device, **options)
        trainer = build_trainer(model, examples, way, start.tokenizer, arguments)
        trainer.add_callback(EachStep())
        trainer.train()
    return trainer.losses


def _by_loop(start: RandomStart, arm: Arm, device: Device, seed: int, model: Any, on_step: OnStep) -> list[Any]:
    """Train by a plain loop that imitates `Trainer` without accelerate; return the loss of each step, on the device.

    The loop does less work per step than `Trainer`, so that it is faster than `Trainer` would be.
    """
    import torch
    from torch.utils.data import DataLoader
    from transformers import DataCollatorWithPadding, default_data_collator, get_scheduler
    from transformers.trainer_pt_utils import LengthGroupedSampler

    from alue_bench.training.device.precision import autocast
    from benchmarks.timing.features import features

    hyper, padded, part = start.setup.hyper, arm.padded_to_maximum, arm.way.partition("-")[2]
    examples = features(start.train, start.tokenizer.pad_token_id, MAX_LENGTH if padded else None)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    sampler = None if padded else LengthGroupedSampler(hyper.batch_size, examples, generator=generator)
    loader: DataLoader[Any] = DataLoader(
        cast(Any, examples),  # a DataLoader accepts any sequence
        hyper.batch_size,
        shuffle=padded,
        sampler=sampler,
        generator=generator,
        num_workers=OPTIONS[part].get("dataloader_num_workers", 0),
        collate_fn=default_data_collator if padded else DataCollatorWithPadding(start.tokenizer),
        pin_memory=device.pins_memory,
    )
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=hyper.lr, weight_decay=0.0, eps=hyper.adam_eps, fused=True)
    scheduler = get_scheduler("linear", optimizer, 0, hyper.epochs * len(loader))
    forward = torch.compile(model) if arm.compiled else model
    model.train()
    losses: list[Any] = []
    for _ in range(hyper.epochs):
        for batch in loader:
            inputs = {name: tensor.to(start.setup.device, non_blocking=True) for name, tensor in batch.items()}
            with autocast(device):
                loss = forward(**inputs).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, hyper.clip)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
            on_step(len(losses))
    return losses
