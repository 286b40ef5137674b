"""The measurement of one training, in a separate process or in this process: its time, its cost and its score."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import TrainingError
from alue_bench.data.batches import Padding
from benchmarks.machine import hardware
from benchmarks.processes import environment
from benchmarks.timing.cells import ENGINE, GRAPHS, TRAINER_WAYS, Cell
from benchmarks.timing.comparison import tail_mean
from benchmarks.timing.fitting import Fitted, fit_by_engine, fit_by_trainer
from benchmarks.timing.rows import read_rows
from benchmarks.timing.settings import Setup, chosen_setup
from benchmarks.timing.starting_point import StartingPoint, encoder_shape, freeze_plan, prepared

if TYPE_CHECKING:
    from alue_bench.training.device.precision import Device

PART_OF_EPOCH = 4
"""The divisor that defines the final loss: the mean loss over the last 1 / PART_OF_EPOCH (a quarter) of an epoch's
steps."""


class MeasurementFailed(TrainingError):
    """The error for a training that failed."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The measurement of one training: times, memory, loss, score and FLOPs."""

    way: str
    strategy: str
    precision: str
    repetition: int
    """The number of the repetition, which is also the seed of data order and dropout."""
    seconds: float
    """The seconds of training, without start-up and warm-up. For our engine, they include computing the frozen bottom
    layers' output."""
    prefix_s: float = 0.0
    """The seconds for computing and storing the frozen bottom layers' output on the train rows, or for finding it in a
    shared store; checksums are included. 0 for `Trainer`."""
    build_s: float = 0.0
    """The seconds for computing the frozen bottom layers' output, in this training or in the one that stored it."""
    prefix_reused: bool = False
    """True if the frozen bottom layers' output was in the shared store, where an earlier training had put it."""
    setup_s: float = 0.0
    """The seconds of `Trainer.train()` before the first epoch, which are not part of `seconds`."""
    steps: int
    """The number of training steps."""
    samples: int
    """The number of examples trained on, summed over all epochs."""
    samples_per_s: float
    tokens: int
    """The number of tokens of all `samples`, without padding."""
    padded_tokens: int
    """The number of tokens of all `samples`, with padding."""
    peak_rss_mib: float
    """The peak memory of the process in MiB, including its start and warm-up."""
    peak_device_mib: float | None
    """The peak memory on the GPU in MiB; None on a CPU."""
    final_loss: float
    """The mean loss over the last quarter of the last epoch's steps."""
    score: float
    """The score on the held-out rows: macro-F1 of the labels, or micro-F1 of entities if words are tagged."""
    trainable: int
    """The number of trainable parameters."""
    flops: float | None = None
    """The FLOPs of the training by a formula; None for `Trainer`."""
    flops_full: float | None = None
    """The FLOPs of full fine-tuning by a formula; None for `Trainer`."""
    hardware: Mapping[str, Any] = field(default_factory=dict)
    """The hardware; see `benchmarks.machine.hardware`."""

    @property
    def cell(self) -> Cell:
        """The combination of way of training, strategy and number format."""
        return Cell(self.way, self.strategy, self.precision)


Measure = Callable[[Setup, Path, Cell, int, Path | None], Measurement]
"""A function that makes a measurement, such as `measured_apart`, which explains the arguments."""


def measured_apart(setup: Setup, rows: Path, cell: Cell, repetition: int, store: Path | None) -> Measurement:
    """Make a measurement in a new process, so that allocators, threads and caches do not affect later measurements.

    Args:
        setup: The settings that all training runs share.
        rows: The JSON file of rows, which `write_rows` wrote.
        cell: The way of training, strategy and number format to measure.
        repetition: The number of the repetition, which is also the seed of data order and dropout.
        store: The folder of a store for the outputs of frozen layers, which other measurements use too; None for a new,
            empty store.

    Raises:
        MeasurementFailed: The process failed; the message contains its last line of stderr.
    """
    given = ["--way", cell.way, "--strategy", cell.strategy, "--precision", cell.precision]
    given += ["--repetition", str(repetition), *(["--store", str(store)] if store else [])]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine", "--one", *setup.arguments(), "--rows-json", str(rows), *given],
        env=environment(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = next(iter(done.stderr.strip().splitlines()[-1:]), f"exit code {done.returncode}")
        raise MeasurementFailed(f"{cell}, repetition {repetition}: {last.removeprefix('error: ')}")
    return Measurement(**json.loads(done.stdout))


def print_one(options: argparse.Namespace) -> int:
    """Make one measurement in the process that `measured_apart` has started, print it as JSON, and return exit code 0.

    Whatever else is printed meanwhile goes to stderr.
    """
    cell = Cell(options.way[0], options.strategy[0], options.precision[0])
    with redirect_stdout(sys.stderr):
        measurement = measured_here(chosen_setup(options), options.rows_json, cell, options.repetition, options.store)
    print(json.dumps(asdict(measurement), allow_nan=False))
    return 0


def measured_here(setup: Setup, rows: Path, cell: Cell, repetition: int, store: Path | None) -> Measurement:
    """Make a measurement in this process; `measured_apart` explains the arguments."""
    from alue_bench.training.device.precision import Device
    from alue_bench.training.freezing import count_parameters

    start = prepared(setup, read_rows(rows, setup.rows, setup.eval_rows))
    device = Device(setup.device, cell.precision, graphs="on" if cell.way == GRAPHS else "off")  # type: ignore[arg-type]
    plan = freeze_plan(cell.strategy, encoder_shape(setup))
    if cell.way in TRAINER_WAYS:
        fitted = fit_by_trainer(start, plan, cell.way, repetition, device)
    else:
        fitted = fit_by_engine(start, plan, repetition, device, cached=cell.way in (ENGINE, GRAPHS), store=store)
    samples = len(start.train) * setup.epochs
    return Measurement(
        **cell._asdict(),
        repetition=repetition,
        samples=samples,
        samples_per_s=samples / fitted.costs["seconds"],
        tokens=int(start.train.lengths.sum()) * setup.epochs,
        final_loss=_final_loss(start, fitted),
        score=_score(start, fitted, device),
        trainable=count_parameters(fitted.stack, plan).trainable,
        hardware=hardware(setup.device),
        **fitted.costs,
    )


def _final_loss(start: StartingPoint, fitted: Fitted) -> float:
    """Return the mean loss over the last quarter of the last epoch's steps.

    Raises:
        TrainingError: The loss is not finite.
    """
    steps_of_epoch = math.ceil(len(start.train) / start.setup.batch_size)
    loss = tail_mean(fitted.losses, math.ceil(steps_of_epoch / PART_OF_EPOCH))
    if not math.isfinite(loss):
        raise TrainingError(f"the loss is {loss}; try a smaller --lr")
    return loss


def _score(start: StartingPoint, fitted: Fitted, device: Device) -> float:
    from alue_bench.data.words import as_rows
    from alue_bench.evaluation.metrics import metrics
    from alue_bench.training.inference import predict_logits
    from alue_bench.training.prefix.frozen_prefix import Examples

    padding = Padding(start.tokenizer.pad_token_id)
    logits = predict_logits(fitted.stack, fitted.forward, Examples(start.held_out), device=device, padding=padding)
    words = start.held_out.words
    predicted = logits.argmax(-1) if words is None else as_rows(logits.argmax(-1), words.counts)
    return metrics(start.held_out.gold, predicted, start.labels)[start.labels.main_metric]
