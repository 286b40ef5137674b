"""The user's request for runs: the tasks, models, strategies and seeds, and the conditions of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from alue_bench.contract.errors import UsageError
from alue_bench.contract.options import CheckedOptions, Group, option
from alue_bench.contract.spec import Fold
from alue_bench.data.file_task.given import GivenTask
from alue_bench.planning.grid import Grid
from alue_bench.training.device.selection import DEVICES, NUMBERED

DEFAULT_STRATEGIES = ("full", "bottom3top4")
DEFAULT_SEED = 42
DEFAULT_CACHE_SIZE = "20GB"
LARGEST_SEED = 2**32 - 1
"""The largest random seed that all the random number generators in use accept."""

Overrides = tuple[tuple[str, Mapping[str, object]], ...]
"""Pairs of an origin, such as a recipe, and the hyper-parameters that it sets, by name. Later pairs override earlier
ones."""


@dataclass(frozen=True, kw_only=True)
class PlanRequest(CheckedOptions):
    """The user's request for runs. If `tasks` or `models` is empty, all available tasks or models are requested."""

    tasks: tuple[str, ...] = option(
        (),
        name="task",
        short="-t",
        help="Task, or path of a task file (.toml); repeatable. Default: every available task.",
        group=Group.QUESTION,
    )
    models: tuple[str, ...] = option(
        (),
        name="model",
        short="-m",
        help="Model name, local folder, or hub/id@revision; repeatable. Default: every model on this machine.",
        group=Group.QUESTION,
    )
    strategies: tuple[str, ...] = option(
        (),
        name="strategy",
        short="-s",
        help="Strategy: full, bottomN, topM, bottomNtopM, bottomP%topQ%, layers-0+5-8, head-only, …; repeatable. "
        f"Default: {' and '.join(DEFAULT_STRATEGIES)}.",
        group=Group.QUESTION,
    )
    also_test: tuple[str, ...] = option(
        (),
        help="Task, or path of a task file, on whose test split each trained model is scored too, without training "
        "again; repeatable. See docs/out-of-domain.md.",
        group=Group.QUESTION,
    )
    maps: tuple[str, ...] = option(
        (),
        name="map",
        help="Labels for --also-test: which label of that task each label of the trained task counts as, as "
        "LABEL=LABEL,LABEL=LABEL. With several --also-test: TASK:LABEL=LABEL,…; repeatable. Default: the plugin's "
        "mapping, or equal names.",
        group=Group.QUESTION,
    )
    given: tuple[GivenTask, ...] = ()
    """The tasks that the user gives as files. Their names are also in the field `tasks` or `also_test`."""
    grid: Grid | None = None
    """The grid of a sweep: strategies in addition to `strategies`, and values of hyper-parameters for every
    strategy."""
    seeds: tuple[int, ...] = option(
        (DEFAULT_SEED,),
        name="seed",
        help=f"Random seed for head initialisation, data order and dropout; repeatable. Default: {DEFAULT_SEED}.",
        group=Group.QUESTION,
        at_least=0,
        at_most=LARGEST_SEED,
    )
    init_seed: int | None = option(
        None,
        help="Random seed for the head's initial weights only.",
        group=Group.QUESTION,
        at_least=0,
        at_most=LARGEST_SEED,
    )
    data_seed: int | None = option(
        None,
        help="Random seed for data order and dropout only.",
        group=Group.QUESTION,
        at_least=0,
        at_most=LARGEST_SEED,
    )
    overrides: Overrides = ()
    """Pairs of an origin (recipe, study file or command line) and the hyper-parameters that it sets. Later pairs
    override earlier ones."""
    strategy_settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """The hyper-parameters that apply to single strategies only, by the strategy's name. Hyper-parameters in the last
    pair of `overrides` and in the grid take precedence."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = option(
        "auto",
        help="Number format of matrix products: auto, fp32, tf32, bf16 or fp16. Auto takes bf16 where the hardware "
        "computes it fast, else fp16 on GPUs like V100 and T4, else fp32.",
        group=Group.TRAINING,
    )
    device: str = option(
        "auto",
        help="Device: auto (a CUDA device if there is one, else the CPU), cpu, gpu (whatever accelerator there is), "
        "cuda, cuda:N (the GPU of this number), or the experimental mps (Apple) and xpu (Intel).",
        group=Group.TRAINING,
        choices=DEVICES,
        pattern=NUMBERED,
    )
    cuda_graphs: Literal["auto", "on", "off"] = option(
        "auto",
        help="On a GPU, record training steps as CUDA graphs and replay them (BERT family): auto (if that is measured "
        "to be faster), on or off.",
        group=Group.TRAINING,
    )
    keep_head: bool = option(
        False,
        help="Start from the checkpoint's fine-tuned head, whose labels must be the task's, in the same order. "
        "Otherwise a new head is initialised from the seed.",
        group=Group.TRAINING,
    )
    allow_pickles: bool = option(
        False,
        help="Read pickled weights if a checkpoint has no others; use only if you trust its authors.",
        group=Group.TRAINING,
    )
    data_dir: Path | None = option(None, help="Folder with the official files; also ALUE_BENCH_DATA.", group=Group.DATA)
    sample: bool = option(False, help="Use the embedded sample data.", group=Group.DATA)
    limit_train: int | None = option(
        None,
        help="Train on at most this many rows (a fixed random subset).",
        group=Group.DATA,
        at_least=1,
        remark="leave it out to use every row",
    )
    limit_eval: int | None = option(
        None,
        help="Score on at most this many dev rows and test rows.",
        group=Group.DATA,
        at_least=1,
        remark="leave it out to use every row",
    )
    folds: int | None = option(
        None,
        help="Cross-validate: divide the rows into this many folds, stratified by label; each is the test split once.",
        group=Group.DATA,
        at_least=2,
        remark="leave it out to use the task's own test split",
    )
    repeats: int = option(
        1,
        help="With --folds: the number of repetitions, each with a new random division. Default: 1.",
        group=Group.DATA,
        at_least=1,
        at_most=1000,
    )
    fold: Fold | None = None
    """The only fold of a cross-validation to plan; None to plan all folds of all repetitions."""
    drop_bad: bool = option(False, help="Leave out malformed rows, and record how many.", group=Group.DATA)
    yardstick: bool = option(
        True,
        can_be_denied=True,
        help="Record the score of TF-IDF with logistic or ridge regression on the same rows, computed once for each "
        "task. Default: yes.",
        group=Group.RESULTS,
    )
    skip_missing: bool = option(
        False,
        help="Leave out named tasks and models whose files are not available, and say why.",
        group=Group.DATA,
    )
    download: bool = True
    """True if models and task files that the user named may be downloaded from the hub."""
    cache_size: str = option(
        DEFAULT_CACHE_SIZE,
        help="Disk space for cached outputs of frozen layers, such as 50GB; 0 to compute them at every step. "
        f"Default: {DEFAULT_CACHE_SIZE}.",
        group=Group.EXECUTION,
    )
    checkpoint_every: float | None = option(
        None,
        help="Minutes between training checkpoints. An interrupted run continues from the last one, with the same "
        "result. Default: no checkpoints.",
        group=Group.EXECUTION,
        at_least=0,
        remark="minutes",
    )

    def __post_init__(self) -> None:
        """Raise UsageError for the first option whose value is wrong."""
        super().__post_init__()
        if self.maps and not self.also_test:
            raise UsageError(f"--map {self.maps[0]} maps labels for --also-test; add --also-test TASK, or leave it out")
        if self.repeats > 1 and self.folds is None:
            raise UsageError(f"--repeats {self.repeats} says how often rows are divided into folds; add --folds 5")

    @property
    def requested_folds(self) -> tuple[Fold, ...]:
        """The folds of the cross-validation to plan, sorted by repetition; empty without cross-validation."""
        if self.fold is not None:
            return (self.fold,)
        if self.folds is None:
            return ()
        return tuple(
            Fold(self.folds, repeat, number)
            for repeat in range(1, self.repeats + 1)
            for number in range(1, self.folds + 1)
        )
