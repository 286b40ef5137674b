"""The options of the commands that run plans: declared once, taken by each of them under the same names."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

HYPER_OPTIONS = (
    "epochs",
    "batch_size",
    "lr",
    "llrd",
    "max_length",
    "warmup",
    "weight_decay",
    "clip",
    "clip_by",
    "select",
)
"""Those that set hyper-parameters."""

what = partial(typer.Option, rich_help_panel="What to compare")
how = partial(typer.Option, rich_help_panel="How to train")
which = partial(typer.Option, rich_help_panel="Which data")
where = partial(typer.Option, rich_help_panel="Where results go")
control = partial(typer.Option, rich_help_panel="How the plan goes along")

Task = Annotated[list[str] | None, what("--task", "-t", help="A task; repeatable. Default: every available one.")]
Model = Annotated[
    list[str] | None,
    what(
        "--model",
        "-m",
        help="A model by name, a local folder, or hub/id@revision; repeatable. Default: every one on this machine.",
    ),
]
Strategy = Annotated[
    list[str] | None,
    what(
        "--strategy",
        "-s",
        help="full, bottomN, topM, bottomNtopM, head-only, …; repeatable. Default: full and bottom3top4.",
    ),
]
GridOption = Annotated[
    list[str] | None,
    what(
        "--grid",
        "-g",
        help="bottom-top for every pair of frozen bottom and top layers, or axes with ranges, steps and lists: "
        "bottom=0..12/3,top=0..4; also strategy=, lr=, epochs=, batch-size=, max-length=, seed=; repeatable. "
        "Default: bottom-top.",
    ),
]
BesideGrid = Annotated[
    list[str] | None, what("--strategy", "-s", help="A strategy to run beside the cells of the grid; repeatable.")
]
Tolerance = Annotated[
    str | None,
    what(help="How far below full fine-tuning a score may be, such as 1% of it, and still count as good. Default: 1%."),
]
Seed = Annotated[
    list[int] | None, what("--seed", help="Seeds head initialisation and data order; repeatable. Default: 42.")
]
Seeds = Annotated[int | None, what(help="Run with this many seeds: 42, 43, …")]
InitSeed = Annotated[int | None, what(help="Seeds the head's initial weights alone.")]
DataSeed = Annotated[int | None, what(help="Seeds data order and dropout alone.")]
Config = Annotated[
    str | None,
    what(
        "--config",
        "-c",
        help="A study: a file (TOML) with any of these options, or the name of one that ships with the program (see "
        "alue-bench list studies); an option given here wins.",
    ),
]
Recipe = Annotated[
    str | None,
    how(
        help="Settings that a publication recommends: alue, devlin, mosbach or sun (see alue-bench list recipes). "
        "Other options win over it."
    ),
]
Epochs = Annotated[int | None, how(help="Passes over the train split.")]
BatchSize = Annotated[int | None, how(help="Examples in a step.")]
Lr = Annotated[float | None, how(help="Peak learning rate.")]
Llrd = Annotated[
    float | None, how(help="Rate of each layer as a part of that of the layer above it, such as 0.95; 1: all the same.")
]
MaxLength = Annotated[int | None, how(help="Tokens of an example; longer ones are cut.")]
Warmup = Annotated[float | None, how(help="Part of all steps in which the rate rises, 0 to 1.")]
WeightDecay = Annotated[float | None, how(help="Decay of weight matrices.")]
Clip = Annotated[float | None, how(help="Largest gradient norm; 0 for no clipping.")]
ClipBy = Annotated[
    str | None, how(help="Whose norm: global, of all gradients together, or component, of each parameter's.")
]
Select = Annotated[str | None, how(help="Which epoch is tested: best (by dev score) or last.")]
Precision = Annotated[str | None, how(help="auto, fp32, bf16 or fp16.")]
Device = Annotated[str | None, how(help="auto, cpu or cuda.")]
CudaGraphs = Annotated[
    bool | None, how("--cuda-graphs", help="On a GPU, record training steps and replay them (BERT family).")
]
KeepHead = Annotated[
    bool | None,
    how(
        "--keep-head",
        help="Start from the fine-tuned head of a checkpoint, whose labels must be the task's, in the same order; "
        "otherwise a fresh one is drawn from the seed.",
    ),
]
DataDir = Annotated[Path | None, which(help="Folder with the official files; also the variable ALUE_BENCH_DATA.")]
Sample = Annotated[bool | None, which("--sample", help="Use the embedded sample data.")]
LimitTrain = Annotated[int | None, which(help="Train on this many rows (a fixed random subset).")]
LimitEval = Annotated[int | None, which(help="Score on this many dev and test rows.")]
SkipMissing = Annotated[
    bool | None,
    which("--skip-missing", help="Leave out, with a reason, named tasks and models whose files are not to be had."),
]
DropBad = Annotated[bool | None, which("--drop-bad", help="Go on without malformed rows, and record how many.")]
Experiment = Annotated[str | None, where(help="MLflow experiment. Default: alue-bench.")]
TrackingUri = Annotated[
    str | None, where(help="MLflow store. Default: MLFLOW_TRACKING_URI, else sqlite below mlruns/.")
]
AllowPickles = Annotated[
    bool | None,
    how(
        "--allow-pickles", help="Read pickled weights where a checkpoint has no others: only if you trust its authors."
    ),
]
CacheSize = Annotated[
    str | None,
    control(
        help="The most that outputs of frozen layers, computed once and kept, may take on disk, such as 50GB; "
        "0 to compute them at every step. Default: 20GB."
    ),
]
Executor = Annotated[
    str | None,
    control(
        help="Where runs are done: local (in this process, or with --jobs in worker processes), ray (on a Ray "
        "cluster), or one that a plugin adds. Default: local."
    ),
]
Jobs = Annotated[
    int | None,
    control(
        "--jobs",
        "-j",
        help="Runs under way at once. local spreads them over this machine's GPUs, or over its cores. Default: 1 for "
        "local, what the cluster has room for with ray.",
    ),
]
GpusPerRun = Annotated[
    float | None, control(help="With ray: GPUs, or the part of one, that a run takes. Default: 1 where it needs one.")
]
CheckpointEvery = Annotated[
    float | None,
    control(
        help="Minutes between two checkpoints of a training: one that is cut off goes on from the last, with the same "
        "result. Default: none are written."
    ),
]
Rerun = Annotated[bool | None, control("--rerun", help="Do finished runs again.")]
FailFast = Annotated[bool | None, control("--fail-fast", help="Stop at the first run that fails.")]
DryRun = Annotated[bool, control("--dry-run", help="Show the plan, what it would cost here, and stop.")]
Yes = Annotated[bool, control("--yes", "-y", help="Do not ask before a long plan.")]
AsJson = Annotated[bool, control("--json", help="Print one JSON document on stdout, all else on stderr.")]


def options_given(context: typer.Context) -> dict[str, Any]:
    """Return the options that stand on the command line, by their names there, for a command that repeats them."""
    return {
        max(parameter.opts, key=len).removeprefix("--"): context.params[str(parameter.name)]
        for parameter in context.command.params
        if parameter.param_type_name == "option" and _stands_on_the_command_line(context, str(parameter.name))
    }


def _stands_on_the_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
