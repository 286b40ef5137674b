"""The results of conformance checks: violations, which become one error, and remarks, which become warnings."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from alue_bench.contract.errors import UsageError
from alue_bench.contract.executor import Executor
from alue_bench.contract.model import Model
from alue_bench.contract.strategy import StrategyFamily
from alue_bench.contract.task import Task
from alue_bench.contract.validation import LANGUAGE

MAX_SHOWN = 3
"""The largest number of violations of the same kind that a check lists."""

PLACEHOLDER = re.compile(r"(?i)\W*(todo|tbd|fixme|xxx|\?+|n/?a|none)?\W*")
"""A pattern for strings that state nothing, such as "TODO", "n/a" or an empty string."""

Declaration = TypeVar("Declaration", Task, Model, StrategyFamily, Executor)
Check = Callable[[Declaration], Iterable[str]]
"""A conformance check: a function that takes a declaration and yields a sentence (str) for each violation, and a
`Remark` for each warning."""


class ConformanceError(AssertionError):
    """An error: a declaration breaks the plugin contract. The message has one line for each violation."""

    def __init__(self, violations: Iterable[str]) -> None:
        """Create the error.

        Args:
            violations: One sentence for each violation.
        """
        self.violations = tuple(violations)
        """One sentence for each violation."""
        super().__init__("\n".join(self.violations))


class ConformanceWarning(UserWarning):
    """A warning: a part of a declaration could not be checked, or only its author can judge it."""


class Remark(str):
    """A sentence that a check yields to issue a ConformanceWarning instead of reporting a violation."""


def raise_if_any(declaration: Declaration, kind: type[Declaration], checks: Iterable[Check[Declaration]]) -> None:
    """Run checks on a declaration, issue a warning for each remark, and raise an error if there is a violation.

    Only public functions such as `check_task` may call this function, because the warnings show the line that called
    the public function (`stacklevel=3`).

    Args:
        declaration: The value to check.
        kind: The type that the value must have.
        checks: The checks, which run in this order.

    Raises:
        ConformanceError: The value is not of the type `kind`, or a check yields a violation. The message lists all
            violations.
    """
    if not isinstance(declaration, kind):
        raise ConformanceError(
            [f"{declaration!r:.80} is not a {kind.__name__}; pass the check a value that the plugin's hook returns"]
        )
    sentences = dict.fromkeys(sentence for check in checks for sentence in check(declaration))
    for sentence in sentences:
        if isinstance(sentence, Remark):
            warnings.warn(str(sentence), ConformanceWarning, stacklevel=3)
    violations = [sentence for sentence in sentences if not isinstance(sentence, Remark)]
    if violations:
        raise ConformanceError(violations)


def cause(error: BaseException) -> str:
    """Format an exception as its type and the first line of its message."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".removesuffix(": ")


def outcome_phrase(outcome: object) -> str:
    """Return the outcome of a function call (result or exception) as a verb phrase: "returns …" or "raises …"."""
    return f"raises {cause(outcome)}" if isinstance(outcome, Exception) else f"returns {outcome!r:.60}"


def incomplete(subject: str, declaration: object, fields: Iterable[str]) -> Iterator[str]:
    """Yield a violation for each of the named fields that is empty or a placeholder such as "TODO".

    Args:
        subject: The beginning of a message about the declaration.
        declaration: The object that has the fields.
        fields: The names of the fields, whose values are strings.
    """
    for field in fields:
        value = getattr(declaration, field)
        if isinstance(value, str) and PLACEHOLDER.fullmatch(value):
            yield f"{subject} does not state its {field} ({value!r}); write 'not stated' if it is not known"


def bad_languages(subject: str, languages: object) -> Iterator[str]:
    """Yield a violation if `languages` is empty or not a tuple, and for each language that is not a BCP 47 code."""
    if not isinstance(languages, tuple) or not languages:
        yield f"{subject} does not state its languages; give a tuple of BCP 47 codes, such as languages=('ar',)"
        return
    for code in languages:
        if not isinstance(code, str) or not LANGUAGE.fullmatch(code):
            yield f"{subject}: {code!r} in languages is not a BCP 47 code; write it like 'ar' or 'ar-EG'"


def bad_defaults(subject: str, defaults: Mapping[str, object]) -> Iterator[str]:
    """Yield a violation if the `defaults` of a task or model have an unknown hyper-parameter or an invalid value."""
    from alue_bench.contract.spec import resolve_hyper_parameters

    try:
        resolve_hyper_parameters([("defaults", defaults)])
    except UsageError as error:
        yield f"{subject}: {error}; correct or remove that entry of defaults"


def bad_folder(subject: str, field: str, folder: object) -> Iterator[str]:
    """Yield a violation if a folder is a relative path, because its meaning depends on the working directory.

    Args:
        subject: The beginning of a message about the declaration.
        field: The name of the declaration's field.
        folder: The value of the field. Only paths are checked.
    """
    if isinstance(folder, Path) and not folder.is_absolute():
        yield (
            f"{subject}: {field}={str(folder)!r} is relative to the folder in which alue-bench is called; write "
            f"Path(__file__).parent / {folder.name!r}"
        )
