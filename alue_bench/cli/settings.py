"""What a command was told: options over a study file, turned into a request for a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.cli.options import HYPER_OPTIONS
from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import shown
from alue_bench.contract.registry import Registry
from alue_bench.messages.suggestion import command_line
from alue_bench.planning.recipes import recipe

if TYPE_CHECKING:
    from alue_bench.planning.build import PlanRequest

SWEEP_KEYS = ("grid", "tolerance")
"""Keys of a study that say nothing to other commands."""
SEARCH_KEYS = ("margin", "level", "budget", "short_runs")
"""Those that only a search takes."""
MOST_SEEDS = 10_000
"""More is a slip of the finger, and its plan alone would fill the memory."""

Overrides = tuple[tuple[str, Mapping[str, object]], ...]
"""Hyper-parameters by origin, weakest first."""

RECIPE_ORIGIN = "recipe "
"""What origins begin with that are recipes."""

NOT_SETTINGS = ("config", "dry_run", "yes", "as_json")
"""Parameters of commands that say nothing about the runs; a study file may not hold them."""


def given_options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a command's parameters that were given and are settings."""
    return {
        name: value for name, value in parameters.items() if name not in NOT_SETTINGS and value not in (None, (), [])
    }


def merge_study(
    given: dict[str, Any], config: str | None, registry: Registry, *, command: str = "run"
) -> tuple[dict[str, Any], Overrides]:
    """Settings from options and study, options first; hyper-parameters apart, with where they come from, those of a
    recipe before both.

    Raises UsageError where `command` is not the one that the study is for.
    """
    from alue_bench.cli.study import find_study, read_study

    study = read_study(find_study(config, registry)) if config else {}
    meant_for = study.pop("command", command)
    if meant_for != command:
        raise UsageError(f"--config {config} is a study for: {command_line(meant_for, options={'config': config})}")
    study.pop("title", None)
    if command == "run" and (only := next((key for key in SWEEP_KEYS if key in study), None)):
        raise UsageError(f"--config {config}: {only} is an option of: alue-bench sweep")
    if command != "search" and (only := next((key for key in SEARCH_KEYS if key in study), None)):
        raise UsageError(f"--config {config}: {only} is an option of: alue-bench search")
    if "seed" in given or "seeds" in given:  # two ways to say the same thing: one from the file gives way
        study.pop("seed", None)
        study.pop("seeds", None)
    merged = {**study, **given}
    if "seed" in merged and "seeds" in merged:
        raise UsageError("--seed and --seeds both say which seeds to run; give one of them")

    def hyper(values: Mapping[str, Any]) -> dict[str, object]:
        return {name: values[name] for name in HYPER_OPTIONS if name in values}

    preset = merged.pop("recipe", None)
    overrides = (
        *([(f"{RECIPE_ORIGIN}{preset}", recipe(preset).values)] if preset else []),
        (f"study {config}", hyper(study)),
        ("command line", hyper(given)),
    )
    return {name: value for name, value in merged.items() if name not in HYPER_OPTIONS}, overrides


def plan_request(settings: Mapping[str, Any], overrides: Overrides) -> PlanRequest:
    """Raises UsageError where a number of seeds makes no sense."""
    from alue_bench.planning.build import DEFAULT_SEED, PlanRequest
    from alue_bench.training.prefix.store import DEFAULT_LIMIT

    number = settings.get("seeds")
    if number is not None and not 1 <= number <= MOST_SEEDS:
        raise UsageError(f"--seeds is {number}; it must be at least 1 and at most {MOST_SEEDS}")
    seeds = range(DEFAULT_SEED, DEFAULT_SEED + number) if number else settings.get("seed", (DEFAULT_SEED,))
    return PlanRequest(
        tasks=tuple(settings.get("task", ())),
        models=tuple(settings.get("model", ())),
        strategies=tuple(settings.get("strategy", ())),
        seeds=tuple(dict.fromkeys(seeds)),
        init_seed=settings.get("init_seed"),
        data_seed=settings.get("data_seed"),
        overrides=overrides,
        device=settings.get("device", "auto"),
        precision=settings.get("precision", "auto"),
        cuda_graphs=settings.get("cuda_graphs", False),
        limit_train=settings.get("limit_train"),
        limit_eval=settings.get("limit_eval"),
        drop_bad=settings.get("drop_bad", False),
        skip_missing=settings.get("skip_missing", False),
        data_dir=Path(settings["data_dir"]) if "data_dir" in settings else None,
        sample=settings.get("sample", False),
        cache_size=settings.get("cache_size", DEFAULT_LIMIT),
        allow_pickles=settings.get("allow_pickles", False),
        keep_head=settings.get("keep_head", False),
        checkpoint_every=settings.get("checkpoint_every"),
    )


def parse_tolerance(given: str | None) -> float:
    """Part of a score, of a text such as 1%.

    Raises UsageError where it is none.
    """
    from alue_bench.report.grid import DEFAULT_TOLERANCE

    if given is None:
        return DEFAULT_TOLERANCE
    match = re.fullmatch(r"\s*(\d{1,2}(?:\.\d{1,9})?)\s*%\s*", given, re.ASCII)
    if match is None:
        raise UsageError(f"--tolerance {shown(given)} is no part of full fine-tuning's score; say it as 1%")
    return float(match[1]) / 100
