"""The settings of a command, merged from its options, a study file (TOML) and a recipe (a set of hyper-parameters).

The settings are converted to a `PlanRequest`, the specification of the runs to plan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import excerpt
from alue_bench.contract.options import build_options
from alue_bench.contract.registry import Registry
from alue_bench.data.file_task.given import given_tasks
from alue_bench.data.file_task.options import FileOptions
from alue_bench.evaluation.margins import Margins, parse_margins
from alue_bench.messages.suggestion import command_line
from alue_bench.planning.recipes import recipe
from alue_bench.planning.request import DEFAULT_SEED, Overrides, PlanRequest
from alue_bench.studies.options import (
    CHOSEN_BY_SEARCH,
    COMMANDS,
    HYPER_OPTIONS,
    ExecutionOptions,
    ShorthandOptions,
    options_of_command,
    study_options,
)
from alue_bench.studies.selection import VerdictOptions

RECIPE_ORIGIN = "recipe "
"""The prefix of the origin of hyper-parameters that come from a recipe; the recipe's name follows."""

COMMAND_LINE = "command line"
"""The origin of hyper-parameters that come from the command line."""


@dataclass(frozen=True)
class Study:
    """The settings of a command (`run`, `sweep` or `search`), with the plugins' tasks, models and strategies."""

    registry: Registry
    settings: Mapping[str, Any]
    """The values of the options, by option name."""
    overrides: Overrides
    """Pairs of an origin, such as "command line", and its hyper-parameters; later origins override earlier ones."""

    @property
    def execution(self) -> ExecutionOptions:
        """The options for the execution of runs and the recording of results."""
        return build_options(ExecutionOptions, self.settings)

    @property
    def margins(self) -> Margins:
        """The value of `--margin`: the largest acceptable loss of score, for each metric.

        Raises:
            UsageError: The value is invalid.
        """
        from alue_bench.reporting.comparison import DEFAULT_MARGIN

        return parse_margins(build_options(VerdictOptions, self.settings).margin, DEFAULT_MARGIN)


def study_of(command: str, given: Mapping[str, Any], registry: Registry, *, origin: str = COMMAND_LINE) -> Study:
    """Return the settings of a command: its options, merged with a study file if the option `config` names one.

    Args:
        command: `run`, `sweep` or `search`.
        given: The values of the options that the user gave, by name.
        registry: The plugins' declarations, such as tasks, models and study files.
        origin: The origin to show in messages for the hyper-parameters among these options.
    """
    settings, overrides = merge_study(given, given.get("config"), registry, command=command, origin=origin)
    return Study(registry, settings, overrides)


def merge_study(
    given: Mapping[str, Any],
    config: str | None,
    registry: Registry,
    *,
    command: str = "run",
    origin: str = COMMAND_LINE,
) -> tuple[dict[str, Any], Overrides]:
    """Merge the options of a command line with those of a study file and a recipe.

    Args:
        given: The values of the options on the command line, by name. Options that a study file cannot set are ignored.
        config: The path or name of a study file; None if there is none.
        registry: The plugins' declarations, such as tasks, models and study files.
        command: `run`, `sweep` or `search`.
        origin: The origin to show in messages for the hyper-parameters among the options in `given`.

    Returns:
        The settings by option name, and pairs of an origin and its hyper-parameters; later origins override earlier
        ones. Options on the command line override the study file. The pairs have the hyper-parameters with one value.
        Hyper-parameters with several values, which a sweep varies in its grid, are in the settings.

    Raises:
        UsageError: The study file is for another command, or has an option that `command` does not take.
    """
    options = options_of_command(command)
    given = {
        name: value
        for name, value in given.items()
        if name in study_options() and (name not in options or options[name].in_studies)
    }
    study = _study_for(command, config, registry) if config else {}
    if "seed" in given or "seeds" in given:  # either option replaces both in the study file
        study.pop("seed", None)
        study.pop("seeds", None)
    merged = {**study, **given}
    if "seed" in merged and "seeds" in merged:
        raise UsageError("--seed and --seeds both set the seeds; give only one of them")
    preset = merged.pop("recipe", None)
    overrides = (
        *([(f"{RECIPE_ORIGIN}{preset}", recipe(preset).values)] if preset else []),
        (f"study {config}", _single_hyper_parameters(study)),
        (origin, _single_hyper_parameters(given)),
    )
    single = _single_hyper_parameters(merged)
    return {name: value for name, value in merged.items() if name not in single}, overrides


def _study_for(command: str, config: str, registry: Registry) -> dict[str, Any]:
    """Return the options in a study file.

    Raise UsageError if the file is for a command other than `command`, or has an option that `command` does not take.
    """
    from alue_bench.studies.files import NOT_OPTIONS, OWN_SETTINGS, find_study, read_study

    study = read_study(find_study(config, registry))
    meant_for = study.get("command", command)
    if meant_for != command:
        raise UsageError(f"--config {config} is a study for: {command_line(meant_for, options={'config': config})}")
    options = options_of_command(command)
    taken = {}
    for name, value in study.items():
        if name in NOT_OPTIONS:
            continue
        if name == OWN_SETTINGS:
            taken[name] = value
            continue
        if name not in options or not options[name].in_studies:
            raise UsageError(_not_accepted_message(name, config, command))
        if isinstance(value, list) and not options[name].many:
            if len(value) != 1:
                raise UsageError(f"--config {config}: {name} has {len(value)} values; alue-bench {command} takes one")
            (value,) = value
        taken[name] = value
    return taken


def _not_accepted_message(name: str, config: str, command: str) -> str:
    """Return the error message for an option that is in a study file, but is not an option of the command."""
    if command == "search" and name in CHOSEN_BY_SEARCH:
        return f"the study sets {name}, but a search chooses seeds itself; leave it out"
    owner = next(
        other for other in COMMANDS if (option := options_of_command(other).get(name)) is not None and option.in_studies
    )
    return f"--config {config}: {name} is an option of: alue-bench {owner}"


def _single_hyper_parameters(values: Mapping[str, Any]) -> dict[str, object]:
    """Return the hyper-parameters that have a single value; a list with one value is replaced by the value."""
    hyper = {name: values[name] for name in HYPER_OPTIONS if name in values}
    lists = {name: value if isinstance(value, list | tuple) else [value] for name, value in hyper.items()}
    return {name: value[0] for name, value in lists.items() if len(value) == 1}


def plan_request(settings: Mapping[str, Any], overrides: Overrides) -> PlanRequest:
    """Convert settings to a `PlanRequest`, the specification of the runs to plan.

    Raise UsageError if a value is out of its bounds.
    """
    number = build_options(ShorthandOptions, settings).seeds
    counted = {"seed": [*range(DEFAULT_SEED, DEFAULT_SEED + number)]} if number else {}
    tasks, given = given_tasks(settings.get("task") or (), build_options(FileOptions, settings))
    also_test, more = given_tasks(settings.get("also_test") or (), FileOptions(), flag="--also-test", beside=given)
    chosen: dict[str, Any] = {"tasks": tasks, "also_test": also_test, "given": (*given, *more)}
    chosen["strategy_settings"] = settings.get("strategy_settings") or {}
    request = build_options(PlanRequest, {**settings, **counted}, overrides=overrides, **chosen)
    return replace(request, seeds=tuple(dict.fromkeys(request.seeds)))


def parse_tolerance(given: str) -> float:
    """Convert a percentage such as 1% to a fraction such as 0.01. Raise UsageError if the text is not a percentage."""
    match = re.fullmatch(r"\s*(\d{1,2}(?:\.\d{1,9})?)\s*%\s*", given, re.ASCII)
    if match is None:
        raise UsageError(f"--tolerance {excerpt(given)} is not a share of full fine-tuning's score; write it as 1%")
    return float(match[1]) / 100
