"""One measurement: a training, timed and scored, in a process of its own or in this one."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import TrainingError
from alue_bench.data.batches import Padding
from benchmarks.cells import ENGINE, GRAPHS, TRAINER_WAYS, Cell
from benchmarks.comparison import tail_mean
from benchmarks.fitting import Fitted, fit_by_engine, fit_by_trainer
from benchmarks.machine import hardware
from benchmarks.rows import read_rows
from benchmarks.settings import Setup, chosen_setup
from benchmarks.starting_point import StartingPoint, encoder_shape, freeze_plan, prepared

if TYPE_CHECKING:
    from alue_bench.training.device.precision import Device

PART_OF_EPOCH = 4
"""The final loss is the mean over this part (a quarter) of the last epoch's steps."""
REPOSITORY = Path(__file__).parents[1]


class MeasurementFailed(TrainingError):
    """A training broke off."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One training."""

    way: str
    strategy: str
    precision: str
    repetition: int
    """Also the seed of data order and dropout."""
    seconds: float
    """Of training; for the engine, prefix and loop together."""
    prefix_s: float = 0.0
    """Around asking for the frozen prefix of the train rows: digests, computing, checksum."""
    build_s: float = 0.0
    """The part of it that the engine itself reports as the cost of the prefix, here or where it came from."""
    prefix_reused: bool = False
    setup_s: float = 0.0
    """Trainer only: what `train()` took before the first epoch, once; not counted."""
    steps: int
    samples: int
    """Examples trained on, all epochs together; and their tokens, without and with padding."""
    samples_per_s: float
    tokens: int
    padded_tokens: int
    peak_rss_mib: float
    """Of the process, its start and warm-up included."""
    peak_device_mib: float | None
    final_loss: float
    """Mean over the last quarter of the last epoch's steps."""
    f1_macro: float
    """On the held-out rows."""
    trainable: int
    flops: float | None = None
    """Analytic, of our engine's training; with those of full fine-tuning beside it."""
    flops_full: float | None = None
    hardware: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cell(self) -> Cell:
        return Cell(self.way, self.strategy, self.precision)


Measure = Callable[[Setup, Path, Cell, int, Path | None], Measurement]
"""From set-up, file of rows, what to measure, repetition, and a folder of prefixes to share, if any."""


def measured_apart(setup: Setup, rows: Path, cell: Cell, repetition: int, store: Path | None) -> Measurement:
    """In a process of its own: allocators, threads and caches of one training do not touch the next one.

    Raises MeasurementFailed with the last words of the process.
    """
    what = ["--way", cell.way, "--strategy", cell.strategy, "--precision", cell.precision]
    what += ["--repetition", str(repetition), *(["--store", str(store)] if store else [])]
    paths = [str(REPOSITORY), str(REPOSITORY / "plugins"), os.environ.get("PYTHONPATH", "")]
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine", "--one", *setup.arguments(), "--rows-json", str(rows), *what],
        env=os.environ | quiet | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = next(iter(done.stderr.strip().splitlines()[-1:]), f"exit code {done.returncode}")
        raise MeasurementFailed(f"{cell}, repetition {repetition}: {last.removeprefix('error: ')}")
    return Measurement(**json.loads(done.stdout))


def print_one(options: argparse.Namespace) -> int:
    """The process's own side: one JSON object on stdout, everything else on stderr."""
    cell = Cell(options.way[0], options.strategy[0], options.precision[0])
    with redirect_stdout(sys.stderr):
        found = measured_here(chosen_setup(options), options.rows_json, cell, options.repetition, options.store)
    print(json.dumps(asdict(found), allow_nan=False))
    return 0


def measured_here(setup: Setup, rows: Path, cell: Cell, repetition: int, store: Path | None) -> Measurement:
    """In this process."""
    from alue_bench.training.device.precision import Device
    from alue_bench.training.freezing import count_parameters

    start = prepared(setup, read_rows(rows, setup.rows, setup.eval_rows))
    device = Device(setup.device, cell.precision, graphs=cell.way == GRAPHS)  # type: ignore[arg-type]
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
        f1_macro=_f1_macro(start, fitted, device),
        trainable=count_parameters(fitted.stack, plan).trainable,
        hardware=hardware(setup.device),
        **fitted.costs,
    )


def _final_loss(start: StartingPoint, fitted: Fitted) -> float:
    """Raises TrainingError where it is not finite."""
    steps_of_epoch = math.ceil(len(start.train) / start.setup.batch_size)
    found = tail_mean(fitted.losses, math.ceil(steps_of_epoch / PART_OF_EPOCH))
    if not math.isfinite(found):
        raise TrainingError(f"the loss is {found}; try a smaller --lr")
    return found


def _f1_macro(start: StartingPoint, fitted: Fitted, device: Device) -> float:
    from alue_bench.evaluation.metrics import metrics
    from alue_bench.training.inference import predict_logits
    from alue_bench.training.prefix.frozen_prefix import Examples

    padding = Padding(start.tokenizer.pad_token_id)
    logits = predict_logits(fitted.stack, fitted.forward, Examples(start.held_out), device=device, padding=padding)
    return metrics(start.held_out.targets.numpy(), logits.argmax(-1), start.labels)["f1_macro"]
