"""The command line of `run`, `sweep` and `search`, derived from declared options.

Each command's options are those of a few dataclasses: `PlanRequest` and `HyperParameters`, and below what only the
command line has. Typer reads a command's options from the signature of its function, so `takes` gives the function one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial, wraps
from typing import Annotated, Any, Literal

import typer

from alue_bench.contract.options import CheckedOptions, Group, Option, option, options_of
from alue_bench.contract.spec import HyperParameters
from alue_bench.data.file_task.options import FileOptions
from alue_bench.planning.grid import DEFAULT_TOLERANCE, SETTINGS
from alue_bench.planning.recipes import RECIPES
from alue_bench.planning.request import DEFAULT_SEED, LARGEST_SEED, PlanRequest
from alue_bench.tracking.connection import DEFAULT_EXPERIMENT

AXES = [f"{name.replace('_', '-')}=" for name in SETTINGS]
"""The axes of a grid that are hyper-parameters, as --grid takes them."""
MOST_SEEDS = 10_000
"""The largest number for --seeds: more is a slip of the finger, and its plan alone would fill the memory."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions(CheckedOptions):
    """The options that `sweep` has in addition to those of `run`, or declares anew."""

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
    strategy: tuple[str, ...] = option(
        (), short="-s", help="Strategy to run in addition to the grid; repeatable.", group=Group.QUESTION
    )


@dataclass(frozen=True, kw_only=True)
class SearchOptions(CheckedOptions):
    """The options that `search` has in addition to those of `run`, or declares anew."""

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
        "bottom=0..9,top=0..4; see alue-bench sweep. Default: bottom-top.",
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
        help="Not for a search, which compares settings on the same dev rows: each fold has others. Use "
        "alue-bench sweep.",
        group=Group.DATA,
    )
    dry_run: bool = option(
        False,
        in_studies=False,
        help="Show the settings to search and the largest cost in FLOPs and time on this machine, and stop.",
        group=Group.EXECUTION,
    )


@dataclass(frozen=True, kw_only=True)
class PresetOptions(CheckedOptions):
    """Hyper-parameters that belong together, by name."""

    recipe: str | None = option(
        None,
        help=f"Published hyper-parameters: {', '.join(RECIPES)} (see alue-bench list recipes). Other options "
        "override them.",
        group=Group.TRAINING,
    )


@dataclass(frozen=True, kw_only=True)
class ShorthandOptions(CheckedOptions):
    """Options that stand for others."""

    seeds: int | None = option(
        None,
        help=f"Number of seeds to run: {DEFAULT_SEED}, {DEFAULT_SEED + 1}, …",
        group=Group.QUESTION,
        at_least=1,
        at_most=MOST_SEEDS,
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
    """The options that say where runs are executed, and where results are recorded."""

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
        help="Keep trained models, as MLflow models of their runs: best (for each task and model, that of the best dev "
        "score, whatever its strategy and seed) or all. Short runs of a search are never kept. Default: none.",
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
        help="Number of runs at once. local spreads them over this machine's GPUs or cores. Default: 1 for local, as "
        "many as the cluster has room for with ray.",
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
    """The options about one call of a command, which do not belong in a study."""

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


SHARED = (PresetOptions, HyperParameters, FileOptions, PlanRequest, ShorthandOptions, ExecutionOptions, OutputOptions)
"""The dataclasses whose options `run` has; each group of its help page lists them in this order."""
COMMANDS = ("run", "sweep", "search")
HYPER_OPTIONS = tuple(options_of(HyperParameters))
CHOSEN_BY_SEARCH = ("strategy", "seeds", "init_seed", "data_seed")
"""The options of `run` that a search sets itself."""


@cache
def options_of_command(command: str) -> Mapping[str, Option]:
    """Return the options of `run`, `sweep` or `search`, by name, in the order of its help page."""
    if command == "sweep":
        return _arranged({**options_of(SweepOptions), **_axes()})
    if command == "search":
        return _arranged(options_of(SearchOptions), without=(*CHOSEN_BY_SEARCH, "repeats", "yes"))
    return _arranged({})


def _axes() -> dict[str, Option]:
    """Return the options that may be an axis of a sweep's grid, which takes several values: --lr 2e-5 --lr 5e-5."""
    return {
        name: replace(declared, many=True, help=f"{declared.help.removesuffix('.')}; repeatable.")
        for name, declared in options_of(HyperParameters).items()
        if name in SETTINGS
    }


def _arranged(own: Mapping[str, Option], without: Collection[str] = ()) -> Mapping[str, Option]:
    """Return a command's own options and the shared ones, group by group; of two of one name, the command's own."""
    shared = {name: declared for one in SHARED for name, declared in options_of(one).items() if name not in without}
    first = {name: declared for name, declared in own.items() if name not in shared}
    groups = list(Group)
    return dict(sorted({**first, **shared, **own}.items(), key=lambda item: groups.index(item[1].group)))


@cache
def study_options() -> Mapping[str, Option]:
    """Return the options that a study file may set, by key; where commands differ, the one that takes a list."""
    options: dict[str, Option] = {}
    for command in COMMANDS:
        for name, declared in options_of_command(command).items():
            if declared.in_studies and (name not in options or declared.many):
                options[name] = declared
    return options


Given = dict[str, Any]
"""The options that stand on the command line, by name."""


def takes(command: str) -> Callable[[Callable[[typer.Context, Given], None]], Callable[..., None]]:
    """Return a decorator that gives a function the options of `run`, `sweep` or `search`.

    The decorated function is called with Typer's context and the options that stand on the command line.
    """

    def decorated(function: Callable[[typer.Context, Given], None]) -> Callable[..., None]:
        @wraps(function)
        def call(context: typer.Context, **values: Any) -> None:
            function(context, {name: value for name, value in values.items() if value not in (None, (), [])})

        options = options_of_command(command)
        annotations: dict[str, Any] = {name: _annotation(declared) for name, declared in options.items()}
        parameters = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in annotations.items()
        ]
        context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        call.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
        call.__annotations__ = {"context": typer.Context, **annotations}
        return call

    return decorated


def describes_file(without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds the options that describe a data file to those of a command.

    The decorated function is called with its own parameters, and with the given options by name as `described`.
    """

    def decorated(function: Callable[..., None]) -> Callable[..., None]:
        described = {name: one for name, one in options_of(FileOptions).items() if name not in without}

        @wraps(function)
        def call(**values: Any) -> None:
            given = {name: values.pop(name) for name in described}
            function(**values, described={name: one for name, one in given.items() if one not in (None, (), [])})

        own = inspect.signature(function, eval_str=True).parameters.values()
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(one))
            for name, one in described.items()
        ]
        parameters = [*(one for one in own if one.name != "described"), *added]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {one.name: one.annotation for one in parameters}
        return call

    return decorated


def declared(name: str) -> Any:
    """Return an option of `run` for the annotation of another command's parameter of the same meaning."""
    return _typer_option(options_of_command("run")[name])


def _annotation(option: Option) -> Any:
    """Return the annotation that Typer reads an option from; None, the default, means "not given"."""
    one: Any = option.kind
    return Annotated[(list[one] if option.many else one) | None, _typer_option(option)]


def _typer_option(option: Option) -> Any:
    """Return an option as Typer declares it. The long form is spelt out, as Typer gives each flag a denial else."""
    long = f"{option.flag}/--no-{option.flag.removeprefix('--')}" if option.can_be_denied else option.flag
    names = [long, option.short] if option.short else [long]
    return typer.Option(*names, help=option.help, rich_help_panel=option.group.value)


what = partial(typer.Option, rich_help_panel=Group.QUESTION.value)
which = partial(typer.Option, rich_help_panel=Group.DATA.value)


def options_given(context: typer.Context) -> dict[str, Any]:
    """Return the options that stand on the command line, by their names there, for a command that repeats them."""
    return {
        max(parameter.opts, key=len).removeprefix("--"): context.params[str(parameter.name)]
        for parameter in context.command.params
        if parameter.param_type_name == "option" and _stands_on_the_command_line(context, str(parameter.name))
    }


def _stands_on_the_command_line(context: typer.Context, name: str) -> bool:
    """Return whether a parameter was given, rather than left at its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
