"""The options of the commands `run`, `sweep` and `search`.

They are declared by the fields of `PlanRequest`, `HyperParameters` and the dataclasses below. The command line
(`cli/arguments.py`), the keys of study files (`files.py`) and the keyword arguments of the functions in Python
(`api/calls.py`) are derived from these declarations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Literal

from alue_bench.contract.options import CheckedOptions, Group, Option, option, options_of
from alue_bench.contract.spec import HyperParameters
from alue_bench.data.file_task.options import FileOptions
from alue_bench.planning.grid import DEFAULT_TOLERANCE, SETTING_AXES
from alue_bench.planning.recipes import RECIPES
from alue_bench.planning.request import DEFAULT_SEED, LARGEST_SEED, PlanRequest
from alue_bench.studies.selection import VerdictOptions
from alue_bench.tracking.connection import DEFAULT_EXPERIMENT

AXES = [f"{name.replace('_', '-')}=" for name in SETTING_AXES]
"""The hyper-parameters that the option `--grid` can vary, each written as in this option, such as "lr="."""
MAX_CONFIRMING = 100
"""The largest value of `--confirm`."""
MAX_SEEDS = 10_000
"""The largest value of `--seeds`. A larger value is most likely a typing error, and its list of runs would fill the
memory."""


@dataclass(frozen=True, kw_only=True)
class ConfirmationOptions(CheckedOptions):
    """The option for the number of fresh seeds with which a chosen setting is confirmed."""

    confirm: int = option(
        3,
        help="Number of fresh seeds, for the chosen setting and for full fine-tuning, whose runs estimate the loss "
        "without bias; 0 for none. Default: 3.",
        group=Group.QUESTION,
        at_least=0,
        at_most=MAX_CONFIRMING,
    )


@dataclass(frozen=True, kw_only=True)
class SweepOptions(CheckedOptions):
    """The options of `sweep` that `run` does not have, or has with another default or meaning."""

    grid: tuple[str, ...] = option(
        (),
        short="-g",
        help="Settings to run: bottom-top for every pair of frozen bottom and top layers, or axes with ranges, steps "
        "and lists, such as bottom=0..12/3,top=0..4. Further axes: strategy=, "
        f"{', '.join(AXES)}, seed=. Repeatable. "
        "Default: bottom-top.",
        group=Group.QUESTION,
    )
    tolerance: str = option(
        f"{DEFAULT_TOLERANCE:.0%}",
        help=f"Largest accepted loss of score relative to full fine-tuning. Default: {DEFAULT_TOLERANCE:.0%}.",
        group=Group.QUESTION,
    )
    margin: str | None = option(
        None,
        help="Largest acceptable loss of score in the confirmation, written as for alue-bench compare. Default: the "
        "tolerance.",
        group=Group.QUESTION,
    )
    strategy: tuple[str, ...] = option(
        (), short="-s", help="Strategy to run in addition to the grid; repeatable.", group=Group.QUESTION
    )


@dataclass(frozen=True, kw_only=True)
class SearchOptions(ConfirmationOptions):
    """The options of `search` that `run` does not have, or has with another default or meaning."""

    tolerance: str = option(
        f"{DEFAULT_TOLERANCE:.0%}",
        help="Accepted loss of score: relative to full fine-tuning (1%), or absolute (0.01). "
        f"Default: {DEFAULT_TOLERANCE:.0%}.",
        group=Group.QUESTION,
    )
    margin: str = option(
        "2%",
        help="Margin beyond the tolerance for the upper bound of the loss. A smaller margin needs more seeds. "
        "Default: 2%.",
        group=Group.QUESTION,
    )
    level: float = option(
        0.1,
        help="Highest accepted probability of returning a setting that loses more than tolerance + margin. "
        "Default: 0.1.",
        group=Group.QUESTION,
        above=0,
        below=0.5,
        remark="such as 0.1",
    )
    budget: str = option(
        "25%",
        help="Largest cost of the search, as a share of running every cell once. Default: 25%.",
        group=Group.QUESTION,
    )
    grid: tuple[str, ...] = option(
        (),
        short="-g",
        help="Settings to search: bottom-top for every pair of frozen bottom and top layers, or ranges such as "
        "bottom=0..9,top=0..4; see alue-bench sweep. Further axes: strategy=, lr=. Default: bottom-top.",
        group=Group.QUESTION,
    )
    strategy: tuple[str, ...] = option(
        (),
        short="-s",
        help="Strategy to choose from, in addition to the grid, such as lora-r8; repeatable.",
        group=Group.QUESTION,
    )
    short_runs: bool = option(
        True,
        can_be_denied=True,
        help="Begin with low-fidelity runs: a few settings with a third of the epochs. Default: yes.",
        group=Group.QUESTION,
    )
    seed: int = option(
        DEFAULT_SEED,
        help=f"First seed; further seeds count up from it. Default: {DEFAULT_SEED}.",
        group=Group.QUESTION,
        at_least=0,
        at_most=LARGEST_SEED,
    )
    folds: int | None = option(
        None,
        help="Not supported by search: it compares settings on one fixed set of dev rows, and each fold has different "
        "dev rows. Use alue-bench sweep.",
        group=Group.DATA,
    )
    dry_run: bool = option(
        False,
        in_studies=False,
        help="Show the settings to search and the largest cost in FLOPs and time on this machine, and stop.",
        group=Group.EXECUTION,
    )


@dataclass(frozen=True, kw_only=True)
class TuningOptions(CheckedOptions):
    """The options of `run` that tune the hyper-parameters of every strategy before it is compared."""

    tune: tuple[str, ...] = option(
        (),
        help="Hyper-parameter to tune for every strategy, with the values to try: lr=1e-5..1e-3/log5 (five values at "
        "equal logarithmic distances), or a list such as epochs=2,3; repeatable. The values with the best dev score "
        "are chosen, and --seeds counts from seeds that took no part in the choice.",
        group=Group.TRAINING,
    )
    tune_seeds: int = option(
        1,
        help="With --tune: number of seeds of each combination of values. Default: 1.",
        group=Group.TRAINING,
        at_least=1,
        at_most=MAX_SEEDS,
    )


@dataclass(frozen=True, kw_only=True)
class PresetOptions(CheckedOptions):
    """The option that names a recipe, that is, a predefined set of hyper-parameters."""

    recipe: str | None = option(
        None,
        help=f"Published hyper-parameters: {', '.join(RECIPES)} (see alue-bench list recipes). Other options "
        "override them.",
        group=Group.TRAINING,
    )


@dataclass(frozen=True, kw_only=True)
class ShorthandOptions(CheckedOptions):
    """The options that are short forms of other options."""

    seeds: int | None = option(
        None,
        help=f"Number of seeds to run: {DEFAULT_SEED}, {DEFAULT_SEED + 1}, …",
        group=Group.QUESTION,
        at_least=1,
        at_most=MAX_SEEDS,
    )
    config: str | None = option(
        None,
        short="-c",
        in_studies=False,
        help="Study: a TOML file with any of these options, or the name of a built-in study (see alue-bench list "
        "studies). Options on the command line override it.",
        group=Group.QUESTION,
    )


@dataclass(frozen=True, kw_only=True)
class ExecutionOptions(CheckedOptions):
    """The options for the execution of runs and the recording of results."""

    experiment: str = option(
        DEFAULT_EXPERIMENT, help=f"MLflow experiment. Default: {DEFAULT_EXPERIMENT}.", group=Group.RESULTS
    )
    tracking_uri: str | None = option(
        None,
        help="MLflow tracking store. Default: MLFLOW_TRACKING_URI, else a sqlite file under mlruns/.",
        group=Group.RESULTS,
    )
    keep: Literal["best", "all"] | None = option(
        None,
        help="Keep trained models, as MLflow models of their runs: best (for each task and model, the model with "
        "the best dev score of all strategies and seeds) or all. Low-fidelity runs of a search are never "
        "kept. Default: none.",
        group=Group.RESULTS,
    )
    register: str | None = option(
        None,
        help="With --keep: register each kept model as a new version of this name in MLflow's model registry.",
        group=Group.RESULTS,
    )
    executor: str | None = option(
        None,
        help="Where runs are executed: local (this process, or worker processes with --jobs), ray (a Ray cluster), "
        "or an executor from a plugin. Default: local.",
        group=Group.EXECUTION,
    )
    jobs: int | None = option(
        None,
        short="-j",
        help="Number of concurrent runs. The executor local distributes them over this machine's cores or GPUs, "
        "with as many on a GPU as fit into its memory. Default: 1 for local; for ray, as many as fit into the "
        "cluster.",
        group=Group.EXECUTION,
        at_least=1,
    )
    gpus_per_run: float | None = option(
        None,
        help="With ray: GPUs per run, which may be a fraction. Default: 1 if a run needs one.",
        group=Group.EXECUTION,
        above=0,
    )
    rerun: bool = option(False, help="Repeat finished runs.", group=Group.EXECUTION)
    fail_fast: bool = option(False, help="Stop at the first run that fails.", group=Group.EXECUTION)


@dataclass(frozen=True, kw_only=True)
class OutputOptions(CheckedOptions):
    """The options that concern a single call of a command and are therefore not allowed in study files."""

    dry_run: bool = option(
        False,
        in_studies=False,
        help="Show the plan and its estimated cost on this machine, and stop.",
        group=Group.EXECUTION,
    )
    yes: bool = option(
        False, short="-y", in_studies=False, help="Start a long plan without asking.", group=Group.EXECUTION
    )
    json: bool = option(
        False,
        in_studies=False,
        help="Print one JSON document on stdout, everything else on stderr.",
        group=Group.EXECUTION,
    )


RUN_OPTION_CLASSES = (
    PresetOptions,
    HyperParameters,
    FileOptions,
    PlanRequest,
    ShorthandOptions,
    ExecutionOptions,
    OutputOptions,
)
"""The dataclasses whose fields are options of `run` and, with some exceptions, of `sweep` and `search`. Each group of a
help page lists its options in this order."""
MARGIN_OF_RUN = (
    "Largest acceptable loss of score, for the verdicts on strategies: 1pt, 1% (of full's score) or 5% of learnt; see "
    f"alue-bench compare. --dry-run estimates the number of seeds for it. Default: {VerdictOptions().margin}."
)
COMMANDS = ("run", "sweep", "search")
HYPER_OPTIONS = tuple(options_of(HyperParameters))
CHOSEN_BY_SEARCH = ("seeds", "init_seed", "data_seed")
"""The options of `run` that `search` does not have, because a search chooses their values itself."""

SCORED_ELSEWHERE = ("also_test", "map")
"""The options of `run` that `search` does not have, because most runs of a search only serve to find a setting. The
setting that is found can be scored on other tasks by `run`."""


@cache
def options_of_command(command: str) -> Mapping[str, Option]:
    """Return the options of `run`, `sweep` or `search`, by name, in the order of its help page."""
    if command == "sweep":
        return _sorted_by_group({**options_of(SweepOptions), **options_of(ConfirmationOptions), **_axes()})
    if command == "search":
        own = {**options_of(SearchOptions), "lr": _axes()["lr"]}
        own["confirm"] = own.pop("confirm")  # list it after the options that define the search
        return _sorted_by_group(own, without=(*CHOSEN_BY_SEARCH, *SCORED_ELSEWHERE, "repeats", "yes"))
    margin = replace(options_of(VerdictOptions)["margin"], help=MARGIN_OF_RUN)
    return _sorted_by_group({}, last={**options_of(TuningOptions), "margin": margin})


def _axes() -> dict[str, Option]:
    """Return the hyper-parameter options of `sweep`, which accept several values and become axes of the grid."""
    return {
        name: replace(declared, many=True, help=f"{declared.help.removesuffix('.')}; repeatable.")
        for name, declared in options_of(HyperParameters).items()
        if name in SETTING_AXES
    }


def _sorted_by_group(
    own_options: Mapping[str, Option], without: Collection[str] = (), last: Mapping[str, Option] = MappingProxyType({})
) -> Mapping[str, Option]:
    """Return all options of a command, by name, sorted by the groups of its help page.

    Args:
        own_options: The options that only this command has, or that differ for it. They replace shared options of the
            same name.
        without: The names of the shared options that the command does not have.
        last: Further options that only this command has. They are listed after the shared options of their group.
    """
    shared = {
        name: declared
        for one in RUN_OPTION_CLASSES
        for name, declared in options_of(one).items()
        if name not in without
    }
    first = {name: declared for name, declared in own_options.items() if name not in shared}
    groups = list(Group)
    return dict(
        sorted({**first, **shared, **own_options, **last}.items(), key=lambda item: groups.index(item[1].group))
    )


@cache
def study_options() -> Mapping[str, Option]:
    """Return the options that a study file may set, by key.

    If commands have different options of the same name, the one that accepts several values is returned.
    """
    options: dict[str, Option] = {}
    for command in COMMANDS:
        for name, declared in options_of_command(command).items():
            if declared.in_studies and (name not in options or declared.many):
                options[name] = declared
    return options
