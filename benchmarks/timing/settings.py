"""The settings that all training runs share: rows, model, hyper-parameters and device."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from alue_bench.contract.errors import UsageError
from alue_bench.contract.spec import HyperParameters

TASKS = ("oold", "arabicner")
"""The tasks that can be measured: one classifies texts, the other tags words."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The settings that all training runs share; the fields have the names of command-line options."""

    rows: int
    eval_rows: int
    epochs: int
    batch_size: int
    lr: float
    max_length: int
    longest: int | None
    """The largest number of tokens of a text; longer texts are left out. None keeps all texts."""
    layers: int
    hidden: int
    heads: int
    checkpoint: Path | None
    """The folder of the checkpoint to fine-tune. None for a BERT with random weights and with `layers`, `hidden` and
    `heads` as its sizes."""
    device: str
    batch_order: Literal["length", "random"] = "length"
    """The way in which our engine groups examples into batches; see `HyperParameters.batch_order`."""

    @property
    def hyper(self) -> HyperParameters:
        """The hyper-parameters of all training runs: no weight decay, no warm-up, clipping at 1, last weights."""
        return HyperParameters(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            warmup=0.0,
            weight_decay=0.0,
            adam_eps=1e-8,
            clip=1.0,
            max_length=self.max_length,
            select="last",
            batch_order=self.batch_order,
        )

    def arguments(self) -> list[str]:
        """Return the command-line options that give these settings."""
        given = {f"--{name.replace('_', '-')}": value for name, value in asdict(self).items() if value is not None}
        return [text for name, value in given.items() for text in (name, str(value))]


def chosen_setup(options: argparse.Namespace) -> Setup:
    """Return the settings that the command-line options give.

    Raises:
        UsageError: A hyper-parameter is invalid, or `--hidden` is not a multiple of `--heads`.
    """
    setup = Setup(**{name: getattr(options, name) for name in Setup.__dataclass_fields__})
    try:
        _ = setup.hyper
    except ValueError as error:
        raise UsageError(str(error)) from error
    if setup.hidden % setup.heads:
        raise UsageError(f"--hidden {setup.hidden} is not a multiple of --heads {setup.heads}; choose one that is")
    return setup


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for rows, model, hyper-parameters, device and output files to a command-line parser."""
    add = parser.add_argument
    add("--task", choices=TASKS, default=TASKS[0], help=f"classify texts or tag words (default: {TASKS[0]})")
    add("--data-dir", type=Path, help="folder with the official files (default: $ALUE_BENCH_DATA)")
    add("--sample", action="store_true", help="use the embedded sample data: to try the benchmark")
    add("--rows-json", type=Path, metavar="FILE", help="take the rows from this file; its last ones are held out")
    add("--rows", type=_count, default=800, help="train rows at most (default: 800)")
    add("--eval-rows", type=_count, default=400, help="held-out rows at most (default: 400)")
    add("--epochs", type=_count, default=3, help="(default: 3)")
    add("--batch-size", type=_count, default=16, help="(default: 16)")
    add("--lr", type=float, default=5e-5, help="peak learning rate (default: 5e-5)")
    add("--max-length", type=_count, default=128, help="tokens of an example at most (default: 128)")
    add("--longest", type=_count, metavar="TOKENS", help="leave out texts of more tokens than this")
    add("--layers", type=_count, default=12, help="of a BERT with random weights (default: 12)")
    add("--hidden", type=_count, default=256, help="(default: 256)")
    add("--heads", type=_count, default=4, help="(default: 4)")
    add("--checkpoint", type=Path, metavar="FOLDER", help="take this model instead")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="(default: cpu)")
    add("--batch-order", choices=("length", "random"), default="length", help="of our engine (default: length)")
    add("--repetitions", type=_count, default=3, help="with seeds 1, 2, … (default: 3)")
    add("--json", type=Path, metavar="FILE", help="write all numbers here; go on from those that it holds")
    add("--markdown", type=Path, metavar="FILE", help="write the tables here")


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number above 0")
    return int(value)
