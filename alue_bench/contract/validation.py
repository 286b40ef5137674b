"""Checks of the objects that plugins declare (tasks, models, ...), made when such an object is created.

Python does not check the types of dataclass fields. Without these checks, an object with a field of a wrong type would
cause an error only later, perhaps after hours of other runs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

Kind = type | tuple[type, ...]
"""The permitted type of a field, or its permitted types."""

LANGUAGE = re.compile(r"(?i)[a-z]{2,3}(-[a-z0-9]{1,8})*")
"""The form of a BCP 47 code, such as "ar" or "ar-EG"."""


def check_types(owner: str, fields: Mapping[str, object], kinds: Mapping[str, Kind]) -> None:
    """Raise TypeError for the first field whose value has a wrong type.

    A bool does not count as an int: it is accepted only if the permitted types of the field include bool.

    Args:
        owner: The beginning of the error message, which names the declaration, such as "task 'mdd'".
        fields: The values of the fields by name.
        kinds: The permitted type, or types, of each field to check.
    """
    for name, kind in kinds.items():
        value, allowed = fields[name], kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            wanted = " or ".join("nothing" if one is type(None) else one.__name__ for one in allowed)
            raise TypeError(f"{owner}: {name} is {value!r:.60}; it must be of type {wanted}")


def check_texts(owner: str, fields: Mapping[str, object], names: tuple[str, ...]) -> None:
    """Raise an error for the first of the named fields that is not a tuple or list of distinct, non-blank strings.

    A single string is refused, because iterating over it would give its letters. For `owner` and `fields`, see
    `check_types`.

    Raises:
        TypeError: A field is not a tuple or list of strings.
        ValueError: A string is blank, or occurs twice.
    """
    for name in names:
        value = fields[name]
        if not isinstance(value, tuple | list) or not all(isinstance(item, str) for item in value):
            raise TypeError(f"{owner}: {name} is {value!r:.60}; it must be a tuple of strings")
        if not all(item.strip() for item in value):
            raise ValueError(f"{owner}: {name} is {value!r:.60}; none of its strings may be empty")
        if twice := next((item for index, item in enumerate(value) if item in value[:index]), None):
            raise ValueError(f"{owner}: {name} holds {twice!r} twice; name it once")


def check_mapping(owner: str, fields: Mapping[str, object], name: str, values: type = str) -> None:
    """Raise TypeError if the field `name` is not a mapping from strings to objects of the type `values`."""
    value = fields[name]
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and isinstance(item, values) for key, item in value.items()
    ):
        kind = "strings" if values is str else "values"
        raise TypeError(f"{owner}: {name} is {value!r:.60}; it must be a mapping from strings to {kind}")


def check_stated(owner: str, fields: Mapping[str, object], names: tuple[str, ...]) -> None:
    """Raise ValueError for the first of the named fields that is empty or a blank string."""
    for name in names:
        value = fields[name]
        if not value or (isinstance(value, str) and not value.strip()):
            raise ValueError(f"{owner} does not state its {name}")


def check_languages(owner: str, languages: Sequence[str]) -> None:
    """Raise ValueError for the first of `languages` that does not have the form of a BCP 47 code, such as "ar"."""
    for code in languages:
        if not LANGUAGE.fullmatch(code):
            raise ValueError(f"{owner}: {code!r} in languages is not a BCP 47 code; write it like 'ar' or 'ar-EG'")


def check_callable(owner: str, name: str, value: object) -> None:
    """Raise TypeError if the value of the field `name` cannot be called."""
    if not callable(value):
        raise TypeError(f"{owner}: {name} is {value!r:.60}; it must be a function")


def breaks_lines(text: str) -> bool:
    """Return whether a text has a character that would damage a line of a file or a cell of a table.

    Such characters are tabs, line ends, other control characters, and unpaired surrogates.
    """
    return any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)
