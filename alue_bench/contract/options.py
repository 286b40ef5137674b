"""The declaration of an option: a field of a dataclass with its help text, its bounds and its group.

    @dataclass(frozen=True, kw_only=True)
    class HyperParameters:
        epochs: int = option(10, help="Number of passes over the train split.", group=Group.TRAINING, at_least=1)

Everything else is derived from this one declaration: the command line and its help page, the keys of a study file, the
check of every value wherever it comes from, and what is sent to a worker.
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
from alue_bench.contract.formats import shown

T = TypeVar("T")

_KEY = "option"
"""The key under which the metadata of a dataclass field hold its `Option`."""


class Group(StrEnum):
    """The headings of a help page, in their order."""

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
    group: Group
    name: str = ""
    """The key in a study file. On the command line, hyphens replace its underscores."""
    field: str = ""
    """The name of the dataclass field, which may differ from `name`: the field `tasks` holds the values of the
    repeatable option `--task`."""
    kind: type = str
    """The type of a value, or of each value of a repeatable option."""
    many: bool = False
    """A flag: the option is repeatable, and takes a list in a study file."""
    choices: tuple[str, ...] = ()
    """The permitted values of a string option; empty if every string is permitted."""
    pattern: str = ""
    """A regular expression; a string that matches it is permitted in addition to `choices`."""
    short: str = ""
    """The short form on the command line, such as "-t"."""
    can_be_denied: bool = False
    """A flag: the command line also accepts `--no-NAME`."""
    in_studies: bool = True
    """A flag: a study file may set the option."""
    is_axis: bool = False
    """A flag: a sweep may vary the option (`--grid`), and MLflow records its value under the option's own name."""
    default_is_implied: bool = False
    """A flag: every run that was recorded before the option existed was executed as if the option had its default. The
    fingerprint of a run (a digest of its settings) then leaves the default out, so that the fingerprints of those older
    runs stay valid."""
    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    remark: str = ""
    """A remark that the error message for a value out of bounds adds in brackets."""

    @property
    def flag(self) -> str:
        """The long form of the option on the command line, such as "--batch-size"."""
        return f"--{self.name.replace('_', '-')}"

    def problem(self, value: object) -> str | None:
        """Return the problem with a value, as the end of a message after the option's name; None if the value is valid.

        Args:
            value: One value; for a repeatable option, one value or a list of values.

        Returns:
            A string such as "is 0; it must be at least 1".
        """
        if self.many and isinstance(value, list | tuple):
            return next((problem for one in value if (problem := self._problem_of_one(one))), None)
        return self._problem_of_one(value)

    def converted(self, value: object) -> Any:
        """Convert a value that `problem` accepts to the type of the option's field.

        An integer becomes a float and a string a path if the field has that type. For a repeatable option, a single
        value becomes a tuple.
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
            wanted = _either(self.choices)
        elif isinstance(value, int | float) and not self._is_within(value):
            wanted = self._bounds() + (f" ({self.remark})" if self.remark else "")
            value = self.kind(value) if abs(value) < sys.float_info.max else value
        return f"is {shown(repr(value), quote=False)}; it must be {wanted}" if wanted else None

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
        group: The heading on the help page.
        **more: Further fields of `Option`, such as `name` if the option's name differs from that of the field.

    Returns:
        A dataclass field. For the type checker it has the type of its value, like the result of `dataclasses.field`.
    """
    return field(default=default, metadata={_KEY: Option(help=help, group=group, **more)})


@cache
def options_of(declaring: type[Any]) -> Mapping[str, Option]:
    """Return the options that a dataclass declares, by option name, in the order of its fields.

    Fields that are not options are left out.
    """
    hints = get_type_hints(declaring)
    declared = (_completed(one, hints[one.name]) for one in fields(declaring) if _KEY in one.metadata)
    return {option.name: option for option in declared}


def _completed(declared: Field[Any], hint: Any) -> Option:
    """Return a field's option, completed with the name, type, choices and repeatability.

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
    """Return the first option with a wrong value and the problem with it; None if all values are valid.

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
    """A base class for dataclasses of options; it checks the options' values when an instance is created."""

    def __post_init__(self) -> None:
        """Raise UsageError for the first option whose value is wrong."""
        if wrong := problem_in(self):
            option, problem = wrong
            raise UsageError(f"{option.flag} {problem}")


def filled(declaring: type[T], values: Mapping[str, Any], **others: Any) -> T:
    """Return an instance of a dataclass of options, filled with the given values.

    Args:
        declaring: The dataclass.
        values: The values by option name; None means "not given". Options of other dataclasses are ignored.
        **others: The values of fields by field name, also of fields that are no options. They override `values`.
    """
    known = options_of(declaring)  # type: ignore[arg-type]  # a class is hashable
    given = {
        option.field: option.converted(values[name])
        for name, option in known.items()
        if values.get(name) is not None and option.field not in others
    }
    return declaring(**(given | others))


def _either(choices: tuple[str, ...]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last
