"""The keyword arguments of the functions of the Python API, derived from the options of the commands.

`run`, `sweep` and `search` accept the options of the commands with these names, with underscores instead of hyphens,
and `config`, the path or name of a study file (a TOML file with options). Options that concern only the command line,
such as `--json`, are not accepted. `compare` and `report` accept the options that select recorded runs. The plural
names `tasks`, `models`, `strategies` and `maps` are accepted too.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from alue_bench.api.frames import is_frame, store_frame
from alue_bench.contract.errors import UsageError
from alue_bench.contract.options import Option, options_of
from alue_bench.studies.options import OutputOptions, options_of_command
from alue_bench.studies.selection import RunSelection

Function = TypeVar("Function", bound=Callable[..., Any])


def options_of_function(name: str) -> Mapping[str, Option]:
    """Return the options that a function of the Python API accepts as keyword arguments, by their names.

    Args:
        name: The function's name: "run", "sweep" or "search"; or "select" for the options with which `compare` and
            `report` select runs.
    """
    if name == "select":
        return options_of(RunSelection)
    ours = options_of(OutputOptions)
    return {key: option for key, option in options_of_command(name).items() if key not in ours}


def checked_arguments(function: str, options: Mapping[str, Option], given: Mapping[str, object]) -> dict[str, Any]:
    """Check the keyword arguments of a function of the Python API, and return their values by option name.

    Args:
        function: The function's name, for messages.
        options: The options that the function accepts.
        given: The keyword arguments. Arguments with the value None are ignored.

    Returns:
        The values, in the form that they would have in a study file: a list for each repeatable option.

    Raises:
        UsageError: An argument is not an option of the function, an option is given twice (by its singular and its
            plural name), or a value has a wrong type or is out of bounds.
    """
    values: dict[str, Any] = {}
    by_name = {**_plural_names(options), **{name: name for name in options}}
    for word, value in given.items():
        if word not in by_name:
            near = difflib.get_close_matches(word, list(by_name), n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else f"; it takes {', '.join(options)}"
            raise UsageError(f"{function}() has no option {word!r}{hint}")
        if value is None:
            continue
        name = by_name[word]
        if name in values:
            raise UsageError(f"{function}() is given {name!r} twice, as {name} and as {word}")
        values[name] = _as_study_value(value, options[name])
        if problem := options[name].problem(values[name]):
            raise UsageError(f"{function}(): {word} {problem}")
        if options[name].many and not isinstance(values[name], list):
            values[name] = [values[name]]
    return values


def with_options(name: str) -> Callable[[Function], Function]:
    """Return a decorator that adds options to a function's signature, for `help()` and completion in notebooks.

    The decorated function must accept the options as `**options`.

    Args:
        name: The argument of `options_of_function` that selects the options.
    """

    def decorated(function: Function) -> Function:
        options = options_of_function(name)
        shown = {option: plural for plural, option in _plural_names(options).items()}
        own = [one for one in inspect.signature(function).parameters.values() if one.kind is not one.VAR_KEYWORD]
        taken = {one.name for one in own}
        named = [
            inspect.Parameter(word, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_type_hint(option))
            for key, option in options.items()
            if key not in taken and (word := shown.get(key, key)) not in taken
        ]
        returned = inspect.signature(function).return_annotation
        function.__signature__ = inspect.Signature([*own, *named], return_annotation=returned)  # type: ignore[attr-defined]
        return function

    return decorated


def _plural_names(options: Mapping[str, Option]) -> dict[str, str]:
    """Return the option that each plural name stands for, such as "task" for "tasks".

    A plural name that is also the name of an option (such as "seeds") is left out.
    """
    return {option.field: name for name, option in options.items() if option.field not in options}


def _type_hint(option: Option) -> Any:
    """Return the type hint for an option in a function's signature."""
    return list[option.kind] | option.kind | None if option.many else option.kind | None  # type: ignore[name-defined]


def _as_study_value(value: object, option: Option) -> Any:
    """Convert the value of a keyword argument to the type that it would have in a study file (TOML).

    A path becomes a string if the option is a string, and a NumPy value becomes a Python value. A data frame is written
    to a file, and the path of this file is returned.
    """
    if is_frame(value):
        value = store_frame(value)
    if isinstance(value, list | tuple | set | frozenset | range) or hasattr(value, "tolist"):
        listed = value.tolist() if hasattr(value, "tolist") else list(value)  # type: ignore[call-overload]
        if isinstance(listed, list):
            return [_as_study_value(one, option) for one in listed] if option.many else listed
        value = listed
    return str(value) if isinstance(value, Path) and option.kind is str else value
