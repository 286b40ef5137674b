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
control = partial(typer.Option, rich_help_panel="How the plan is executed")

Task = Annotated[list[str] | None, what("--task", "-t", help="Task; repeatable. Default: every available task.")]
Model = Annotated[
    list[str] | None,
    what(
        "--model",
        "-m",
        help="Model name, local folder, or hub/id@revision; repeatable. Default: every model on this machine.",
    ),
]
Strategy = Annotated[
    list[str] | None,
    what(
        "--strategy",
        "-s",
        help="Strategy: full, bottomN, topM, bottomNtopM, head-only, …; repeatable. Default: full and bottom3top4.",
    ),
]
GridOption = Annotated[
    list[str] | None,
    what(
        "--grid",
        "-g",
        help="Settings to run: bottom-top for every pair of frozen bottom and top layers, or axes with ranges, steps "
        "and lists, such as bottom=0..12/3,top=0..4. Further axes: strategy=, lr=, epochs=, batch-size=, max-length=, "
        "seed=. Repeatable. Default: bottom-top.",
    ),
]
BesideGrid = Annotated[
    list[str] | None, what("--strategy", "-s", help="Strategy to run in addition to the grid; repeatable.")
]
Tolerance = Annotated[
    str | None,
    what(help="Largest accepted loss of score relative to full fine-tuning, such as 1%. Default: 1%."),
]
Seed = Annotated[
    list[int] | None,
    what("--seed", help="Random seed for head initialisation, data order and dropout; repeatable. Default: 42."),
]
Seeds = Annotated[int | None, what(help="Number of seeds to run: 42, 43, …")]
InitSeed = Annotated[int | None, what(help="Random seed for the head's initial weights alone.")]
DataSeed = Annotated[int | None, what(help="Random seed for data order and dropout alone.")]
Config = Annotated[
    str | None,
    what(
        "--config",
        "-c",
        help="Study: a TOML file with any of these options, or the name of a built-in study (see alue-bench list "
        "studies). Options on the command line override it.",
    ),
]
Recipe = Annotated[
    str | None,
    how(
        help="Published hyper-parameters: alue, devlin, mosbach or sun (see alue-bench list recipes). Other options "
        "override them."
    ),
]
Epochs = Annotated[int | None, how(help="Number of passes over the train split.")]
BatchSize = Annotated[int | None, how(help="Examples per training step.")]
Lr = Annotated[float | None, how(help="Peak learning rate.")]
Llrd = Annotated[
    float | None,
    how(
        help="Layer-wise learning-rate decay: rate of a layer divided by that of the layer above, such as 0.95; 1: off."
    ),
]
MaxLength = Annotated[int | None, how(help="Maximum number of tokens per example; longer ones are truncated.")]
Warmup = Annotated[float | None, how(help="Share of all steps over which the learning rate rises, 0 to 1.")]
WeightDecay = Annotated[float | None, how(help="Weight decay, applied to weight matrices.")]
Clip = Annotated[float | None, how(help="Maximum gradient norm; 0 disables clipping.")]
ClipBy = Annotated[
    str | None, how(help="Norm to clip: global (all gradients together) or component (each parameter separately).")
]
Select = Annotated[str | None, how(help="Epoch to test: best (by dev score) or last.")]
Precision = Annotated[str | None, how(help="Number format: auto, fp32, bf16 or fp16.")]
Device = Annotated[str | None, how(help="Device: auto, cpu or cuda.")]
CudaGraphs = Annotated[
    bool | None,
    how("--cuda-graphs", help="On a GPU, record training steps as CUDA graphs and replay them (BERT family)."),
]
KeepHead = Annotated[
    bool | None,
    how(
        "--keep-head",
        help="Start from the checkpoint's fine-tuned head, whose labels must be the task's, in the same order. "
        "Otherwise a new head is drawn from the seed.",
    ),
]
DataDir = Annotated[Path | None, which(help="Folder with the official files; also ALUE_BENCH_DATA.")]
Sample = Annotated[bool | None, which("--sample", help="Use the embedded sample data.")]
LimitTrain = Annotated[int | None, which(help="Train on at most this many rows (a fixed random subset).")]
LimitEval = Annotated[int | None, which(help="Score on at most this many dev rows and test rows.")]
SkipMissing = Annotated[
    bool | None,
    which("--skip-missing", help="Leave out named tasks and models whose files are not available, and say why."),
]
DropBad = Annotated[bool | None, which("--drop-bad", help="Leave out malformed rows, and record how many.")]
Experiment = Annotated[str | None, where(help="MLflow experiment. Default: alue-bench.")]
TrackingUri = Annotated[
    str | None, where(help="MLflow tracking store. Default: MLFLOW_TRACKING_URI, else a sqlite file under mlruns/.")
]
AllowPickles = Annotated[
    bool | None,
    how(
        "--allow-pickles", help="Read pickled weights if a checkpoint has no others; use only if you trust its authors."
    ),
]
CacheSize = Annotated[
    str | None,
    control(
        help="Disk space for cached outputs of frozen layers, such as 50GB; 0 to compute them at every step. "
        "Default: 20GB."
    ),
]
Executor = Annotated[
    str | None,
    control(
        help="Where runs are executed: local (this process, or worker processes with --jobs), ray (a Ray cluster), "
        "or an executor from a plugin. Default: local."
    ),
]
Jobs = Annotated[
    int | None,
    control(
        "--jobs",
        "-j",
        help="Number of runs at once. local spreads them over this machine's GPUs or cores. Default: 1 for local, as "
        "many as the cluster has room for with ray.",
    ),
]
GpusPerRun = Annotated[
    float | None, control(help="With ray: GPUs per run, which may be a fraction. Default: 1 if a run needs one.")
]
CheckpointEvery = Annotated[
    float | None,
    control(
        help="Minutes between checkpoints of a training. An interrupted training continues from the last one, with the "
        "same result. Default: no checkpoints."
    ),
]
Rerun = Annotated[bool | None, control("--rerun", help="Repeat finished runs.")]
FailFast = Annotated[bool | None, control("--fail-fast", help="Stop at the first run that fails.")]
DryRun = Annotated[bool, control("--dry-run", help="Show the plan and its estimated cost on this machine, and stop.")]
Yes = Annotated[bool, control("--yes", "-y", help="Start a long plan without asking.")]
AsJson = Annotated[bool, control("--json", help="Print one JSON document on stdout, everything else on stderr.")]


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
