"""The baseline of the engine's benchmark: the same fine-tuning by transformers' `Trainer`.

There are three ways of padding:

    trainer-128       every example is padded to the maximal length, as in transformers' example script for GLUE
    trainer           each batch is padded to its longest example
    trainer-grouped   the same, and each batch consists of examples of similar length

Rows, initial weights, frozen parameters, optimiser, learning rates and clipping are the same as with the engine.
Nothing is logged, evaluated or saved during training. Batches of words with tags are padded by
`DataCollatorForTokenClassification`.

One difference remains: `Trainer` puts the whole model into training mode at each step, so that dropout stays on in
frozen layers, as it does for every user of `Trainer`.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from transformers import (
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from alue_bench.contract.spec import HyperParameters
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.training.architecture.encoder_stack import reads_tokens
from alue_bench.training.device.precision import Device
from alue_bench.training.pretrained.library import quiet_transformers
from benchmarks.timing.features import Features, features


@dataclass(frozen=True)
class TrainerRun:
    """The result of fine-tuning by `Trainer`: times, losses and counts."""

    model: Any
    seconds: float
    """The seconds of all epochs. A warm-up step, on another copy of the model, precedes them and is not timed."""
    setup_s: float
    """The seconds of `train()` before the first epoch (garbage collection, set-up of model, optimiser and data loader),
    which are not part of `seconds`."""
    losses: list[float]
    """The training loss of each step."""
    padded_tokens: int
    """The number of tokens trained on, with padding."""


def fit(
    make_model: Callable[[], Any],
    train: TokenizedSplit,
    longest: TokenizedSplit,
    *,
    way: str,
    tokenizer: Any,
    hyper: HyperParameters,
    seed: int,
    device: Device,
) -> TrainerRun:
    """Fine-tune a model by `Trainer` and measure the time.

    Args:
        make_model: A function that returns a new model with the initial weights and with frozen parameters.
        train: The train split.
        longest: The longest examples of the train split, for warm-up.
        way: The way of padding: "trainer-128", "trainer" or "trainer-grouped".
        tokenizer: The tokenizer.
        hyper: The hyper-parameters.
        seed: The seed of data order and dropout.
        device: The device and the number format.
    """
    pad_to = hyper.max_length if way == "trainer-128" else None
    warm_up, examples = (features(split, tokenizer.pad_token_id, pad_to) for split in (longest, train))
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():

        def trainer(content: Features, **more: Any) -> CountingTrainer:
            arguments = training_arguments(folder, way, hyper, seed, device, **more)
            return build_trainer(make_model(), content, way, tokenizer, arguments)

        trainer(warm_up, max_steps=1).train()
        gc.collect()  # frees the warm-up copy, so that the peak memory is that of one model
        run, clock = trainer(examples), Clock()
        run.add_callback(clock)
        device.synchronise()
        device.reset_peak()
        started = time.perf_counter()
        run.train()
        device.synchronise()
        ended = time.perf_counter()
    losses = torch.stack(run.losses).float().cpu().tolist()
    return TrainerRun(run.model, ended - clock.began, clock.began - started, losses, run.padded_tokens)


def training_arguments(
    folder: str, way: str, hyper: HyperParameters, seed: int, device: Device, **more: Any
) -> TrainingArguments:
    """Return `TrainingArguments` with which `Trainer` neither logs, evaluates nor saves.

    Args:
        folder: The output folder, which stays empty.
        way: The way of padding, see `fit`.
        hyper: The hyper-parameters.
        seed: The seed of data order and dropout.
        device: The device and the number format.
        **more: Further arguments of `TrainingArguments`.
    """
    grouped: dict[str, Any] = {}
    if way == "trainer-grouped":
        known = {field.name for field in fields(TrainingArguments)}
        new = "train_sampling_strategy" in known  # since transformers 5; earlier versions have a flag
        grouped = {"train_sampling_strategy": "group_by_length"} if new else {"group_by_length": True}
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=hyper.epochs,
        per_device_train_batch_size=hyper.batch_size,
        learning_rate=hyper.lr,
        weight_decay=hyper.weight_decay,
        adam_epsilon=hyper.adam_eps,
        max_grad_norm=hyper.clip,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        bf16=device.precision == "bf16",
        use_cpu=not device.accelerated,
        seed=seed,
        eval_strategy="no",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **grouped,
        **more,
    )
    return on_one_gpu(arguments)


def on_one_gpu(arguments: TrainingArguments) -> TrainingArguments:
    """Change `TrainingArguments` in place so that `Trainer` uses one GPU, as our engine does, and return them.

    By default, `Trainer` uses all visible GPUs (`nn.DataParallel`): it multiplies the batch size by their number, and
    divides each batch among them.
    """
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def build_trainer(
    model: Any, examples: Features, way: str, tokenizer: Any, arguments: TrainingArguments
) -> CountingTrainer:
    """Return a `Trainer` for a model and examples; for `way`, the way of padding, see `fit`."""
    padded = DataCollatorForTokenClassification if reads_tokens(model) else DataCollatorWithPadding
    trainer = CountingTrainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        data_collator=default_data_collator if way == "trainer-128" else padded(tokenizer),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, which is reserved for the result
    return trainer


class Clock(TrainerCallback):  # type: ignore[misc]
    """A callback that records the time when the first epoch begins."""

    began = math.nan

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Record the time at the beginning of the first epoch."""
        self.began = time.perf_counter()


class CountingTrainer(Trainer):  # type: ignore[misc]
    """A `Trainer` that records the loss of each step and counts tokens, without waiting for the GPU."""

    def __init__(self, **options: Any) -> None:
        """Create the trainer; the options are the arguments of `Trainer`."""
        super().__init__(**options)
        self.losses: list[torch.Tensor] = []
        self.padded_tokens = 0

    def training_step(self, model: Any, inputs: dict[str, Any], *others: Any, **options: Any) -> torch.Tensor:
        """Train one step; count the tokens of its batch, and append its loss to `losses`."""
        self.padded_tokens += inputs["input_ids"].numel()
        loss: torch.Tensor = super().training_step(model, inputs, *others, **options)
        self.losses.append(loss)
        return loss
