"""Study files: TOML files with options of the command `run`, `sweep` or `search`, found by their path or name.

    title = "Dialects, five seeds"
    task = ["mdd", "oold"]
    model = "mini"
    strategy = ["full", "bottom3top4"]
    seeds = 5
    epochs = 3

Instead of a list, `strategy` may have a table for each strategy, with hyper-parameters for this strategy alone:

    [strategy.full]
    [strategy.bottom3top4]
    lr = 1e-4

Every key except `title` and `command` is an option of the command, with `_` in place of `-`. An option on the command
line overrides the file. Plugins provide study files by the hook `alue_bench_studies`. The name of such a study is its
file name without the ending.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import excerpt
from alue_bench.contract.options import options_of
from alue_bench.contract.registry import Registry
from alue_bench.contract.spec import HyperParameters
from alue_bench.studies.options import COMMANDS, study_options

NOT_OPTIONS = ("title", "command")
"""The keys of a study file that are not options of a command."""


OWN_SETTINGS = "strategy_settings"
"""The key under which `read_study` returns the hyper-parameters of single strategies (a dict by strategy name)."""


def study_keys() -> tuple[str, ...]:
    """Return the keys that a study file may hold."""
    return (*study_options(), *NOT_OPTIONS)


PLUGIN_STUDY_PREFIX = "study:"
"""The prefix of a `--config` value that names a plugin's study file, even if there is a local file of the same name."""


def find_study(given: str, registry: Registry) -> Path:
    """Return the study file for a value of `--config`, which is a path or the name of a plugin's study file.

    Raise UsageError if the value is neither a path nor a name, or if it is both.
    """
    if given.startswith(PLUGIN_STUDY_PREFIX):
        return registry.study(given.removeprefix(PLUGIN_STUDY_PREFIX))
    path = Path(given)
    is_name = given in registry.studies
    if is_name and path.is_file():
        raise UsageError(
            f"--config {given} is the name of a study and of a file in this folder; write ./{given} for the file, "
            f"{PLUGIN_STUDY_PREFIX}{given} for the study"
        )
    if is_name:
        return registry.studies[given].value
    if path.suffix == ".toml" or path.name != given or path.exists():
        return path
    try:
        return registry.study(given)
    except UsageError as error:
        raise UsageError(f"--config: {error}, or give the path of a study file of your own") from None


def read_study(path: Path) -> dict[str, Any]:
    """Read a study file, and check its keys and values.

    Args:
        path: The TOML file.

    Returns:
        The values by key. The value is a list if the option accepts several values.

    Raises:
        UsageError: The file cannot be read, a key is unknown, or a value has the wrong type or is out of its bounds.
            The message names the file, the line and the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--config: {path} cannot be read: {error}") from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise UsageError(f"{path}:{line.group(1) if line else 1}: not valid TOML: {error}") from error
    except (ValueError, RecursionError) as error:  # an integer with thousands of digits, or deeply nested brackets
        raise UsageError(f"{path}: cannot be read as TOML: {error}") from error
    options = study_options()
    for key, value in content.items():
        if problem := _problem(key, value):
            raise UsageError(f"{path}:{_line_of(key, text)}: {problem}")
    own = {}
    if isinstance(content.get("strategy"), dict):
        own = {OWN_SETTINGS: {name: dict(values) for name, values in content["strategy"].items()}}
        content["strategy"] = list(content["strategy"])
    return own | {
        key: [value] if key in options and options[key].many and not isinstance(value, list) else value
        for key, value in content.items()
    }


def _problem(key: str, value: object) -> str | None:
    """Return a description of the error in a key of a study file or in its value; None if both are valid."""
    if key in NOT_OPTIONS:
        wanted = " or ".join(COMMANDS) if key == "command" else "a string"
        fits = value in COMMANDS if key == "command" else isinstance(value, str)
        return None if fits else f"{key} is {excerpt(repr(value), quote=False)}; it must be {wanted}"
    if key == "strategy" and isinstance(value, dict):
        return next(
            (problem for name, table in value.items() if (problem := _problem_of_strategy_table(name, table))), None
        )
    if key not in study_options():
        return f"unknown key {excerpt(key)}; known are {', '.join(study_keys())}"
    problem = study_options()[key].problem(value)
    return f"{key} {problem}" if problem else None


def _problem_of_strategy_table(name: str, table: object) -> str | None:
    """Return a description of the error in the TOML table `[strategy.NAME]` of a study file; None if it is valid.

    Args:
        name: The NAME.
        table: The value that was read, which is not a table if the file is invalid.
    """
    if not isinstance(table, dict):
        return f"strategy.{name} is {excerpt(repr(table), quote=False)}; it must be a table: [strategy.{name}]"
    known = options_of(HyperParameters)
    for key, value in table.items():
        if key not in known:
            return f"unknown hyper-parameter {excerpt(key)} in [strategy.{name}]; known are {', '.join(known)}"
        if problem := known[key].problem(value):
            return f"{key} in [strategy.{name}] {problem}"
    return None


def _line_of(key: str, text: str) -> int:
    """Return the number of the line that sets a key, counted from 1; 1 if the line is not found."""
    where = re.search(rf"^\s*\[*{re.escape(key)}\b", text, flags=re.MULTILINE)
    return text.count("\n", 0, where.start()) + 1 if where else 1
