"""The declaration of options of commands and study files: each is a dataclass field with a help text and bounds.

    @dataclass(frozen=True, kw_only=True)
    class HyperParameters:
        epochs: int = option(10, help="Number of passes over the train split.", group=Group.TRAINING, at_least=1)

An option is declared only once. The option of the command line and its help text, the key in a study file, the keyword
argument in Python, the check of every value, and the settings that worker processes receive are derived from the
declaration.
"""

from __future__ import annotations

import math
import re
import sys
import types
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import excerpt

T = TypeVar("T")

_KEY = "option"
"""The key of the `Option` in the metadata of a dataclass field."""


class Group(StrEnum):
    """The headings that group the options on a command's help page, in the order in which they are shown."""

    QUESTION = "What to compare"
    TRAINING = "How to train"
    DATA = "Which data"
    FILE = "A data file of your own"
    RESULTS = "Where results go"
    EXECUTION = "How the plan is executed"
    RUNS = "Which runs"


@dataclass(frozen=True, kw_only=True)
class Option:
    """The declaration of a command-line option, which can also be a key of study files."""

    help: str
    """The help text: a phrase with a full stop."""
    group: Group
    name: str = ""
    """The key in a study file. On the command line, hyphens replace its underscores."""
    field: str = ""
    """The name of the dataclass field, which may differ from `name`: the field `tasks`, for example, holds the values
    of the repeatable option `--task`."""
    kind: type = str
    """The type of the value; for a repeatable option, the type of each value."""
    many: bool = False
    """True if the option can be repeated on the command line and given as a list in a study file."""
    choices: tuple[str, ...] = ()
    """The permitted values of a string option; empty if every string is permitted."""
    pattern: str = ""
    """A regular expression; strings that match it are permitted in addition to `choices`. Empty if there are none."""
    short: str = ""
    """The short form on the command line, such as "-t"; empty if there is none."""
    can_be_denied: bool = False
    """True if the command line also accepts `--no-NAME`."""
    in_studies: bool = True
    """True if a study file may set the option."""
    is_axis: bool = False
    """True if a sweep may vary the option (`--grid`). MLflow records the value under the option's name."""
    default_is_implied: bool = False
    """True if all runs that were recorded before the option existed were executed as if it had its default value. A
    run's fingerprint (a digest of its settings) then does not include the default value, so that the fingerprints of
    the older runs stay valid."""
    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    remark: str = ""
    """An explanation, such as "0 turns clipping off", that is added in brackets to the error message for a value out of
    bounds; empty if there is none."""

    @property
    def flag(self) -> str:
        """The long form of the option on the command line, such as "--batch-size"."""
        return f"--{self.name.replace('_', '-')}"

    def problem(self, value: object) -> str | None:
        """Return what is wrong with a value, as the end of an error message after the option's name.

        Args:
            value: One value; for a repeatable option, one value or a list of values.

        Returns:
            A string such as "is 0; it must be at least 1"; None if the value is valid.
        """
        if self.many and isinstance(value, list | tuple):
            return next((problem for one in value if (problem := self._problem_of_one(one))), None)
        return self._problem_of_one(value)

    def converted(self, value: object) -> Any:
        """Convert a valid value to the type of the option's field, and return it.

        An integer becomes a float if the field is a float, and a string becomes a path if the field is a path. For a
        repeatable option, the result is a tuple, even if `value` is a single value.
        """
        if self.many:
            return tuple(self.kind(one) for one in (value if isinstance(value, list | tuple) else (value,)))
        return self.kind(value)

    def _problem_of_one(self, value: object) -> str | None:
        accepted = {float: (float, int), Path: (Path, str)}.get(self.kind, (self.kind,))
        wanted = ""
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.kind is not bool):
            wanted = f"of type {self.kind.__name__}"
        elif self.choices and value not in self.choices and not self._matches(value):
            wanted = _alternatives(self.choices)
        elif isinstance(value, int | float) and not self._is_within(value):
            wanted = self._bounds() + (f" ({self.remark})" if self.remark else "")
            value = self.kind(value) if abs(value) < sys.float_info.max else value
        return f"is {excerpt(repr(value), quote=False)}; it must be {wanted}" if wanted else None

    def _matches(self, value: object) -> bool:
        return bool(self.pattern) and re.fullmatch(self.pattern, str(value)) is not None

    def _is_within(self, value: float) -> bool:
        """Return whether a number is finite and within the bounds of the option."""
        return self.at_least <= value <= self.at_most and self.above < value < self.below

    def _bounds(self) -> str:
        """Return the bounds of the option in words, such as "above 0 and finite"."""
        words = [
            f"{word} {bound}"
            for word, bound in (
                ("at least", self.at_least),
                ("above", self.above),
                ("at most", self.at_most),
                ("below", self.below),
            )
            if math.isfinite(bound)
        ]
        has_upper_bound = math.isfinite(min(self.at_most, self.below))
        return " and ".join(words if has_upper_bound or self.kind is not float else [*words, "finite"])


def option(default: T, *, help: str, group: Group, **more: Any) -> T:
    """Return the dataclass field that declares an option.

    Args:
        default: The value of the option if it is not given.
        help: The text on the help page: a phrase with a full stop.
        group: The heading under which the help page shows the option.
        **more: Further fields of `Option`, such as `name` if the option's name differs from the field's name.

    Returns:
        A dataclass field. Type checkers see the type of `default`, as with `dataclasses.field`.
    """
    return field(default=default, metadata={_KEY: Option(help=help, group=group, **more)})


@cache
def options_of(options_class: type[Any]) -> Mapping[str, Option]:
    """Return the options that the fields of a dataclass declare, by option name, in the order of the fields.

    Fields that were not made by `option` are left out.
    """
    hints = get_type_hints(options_class)
    declared = (_completed(one, hints[one.name]) for one in fields(options_class) if _KEY in one.metadata)
    return {option.name: option for option in declared}


def _completed(declared: Field[Any], hint: Any) -> Option:
    """Return the option of a dataclass field, with the name, type and choices that follow from the field.

    Args:
        declared: The dataclass field, whose metadata holds the option.
        hint: The type hint of the field.
    """
    option: Option = declared.metadata[_KEY]
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (one for one in get_args(hint) if one is not type(None))
    many = get_origin(hint) is tuple
    if many:
        hint = get_args(hint)[0]
    choices = tuple(get_args(hint)) if get_origin(hint) is Literal else ()
    return replace(
        option,
        name=option.name or declared.name,
        field=declared.name,
        kind=str if choices else hint,
        many=many,
        choices=choices or option.choices,
    )


def problem_in(values: Any) -> tuple[Option, str] | None:
    """Return the first option with an invalid value and what is wrong with it; None if all values are valid.

    Args:
        values: An instance of a dataclass that declares options. A value of None means "not given" and is valid.
    """
    for option in options_of(type(values)).values():  # type: ignore[arg-type]  # a class is hashable
        value = getattr(values, option.field)
        if value is not None and (problem := option.problem(value)):
            return option, problem
    return None


@dataclass(frozen=True, kw_only=True)
class CheckedOptions:
    """A base class for dataclasses whose fields are options: their values are checked when an instance is created."""

    def __post_init__(self) -> None:
        """Raise UsageError for the first option with an invalid value."""
        if wrong := problem_in(self):
            option, problem = wrong
            raise UsageError(f"{option.flag} {problem}")


def build_options(options_class: type[T], values: Mapping[str, Any], **others: Any) -> T:
    """Return an instance of a dataclass of options, filled with the given values.

    Args:
        options_class: The dataclass.
        values: The values by option name; None means "not given". Names that are not options of this dataclass are
            ignored.
        **others: The values of fields by field name, including fields that are not options. They override `values`.
    """
    known = options_of(options_class)  # type: ignore[arg-type]  # a class is hashable
    given = {
        option.field: option.converted(values[name])
        for name, option in known.items()
        if values.get(name) is not None and option.field not in others
    }
    return options_class(**(given | others))


def _alternatives(choices: tuple[str, ...]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last
