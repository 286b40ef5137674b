"""Checking the types of what a plugin declares, where it declares it: Python itself does not.

A declaration that holds something of a wrong type would be accepted, and fail in the middle of somebody's plan.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

Kind = type | tuple[type, ...]

LANGUAGE = re.compile(r"(?i)[a-z]{2,3}(-[a-z0-9]{1,8})*")
"""The form of a BCP 47 code, such as "ar" or "ar-EG"."""


def check_types(owner: str, fields: Mapping[str, object], kinds: Mapping[str, Kind]) -> None:
    """Raises TypeError, naming owner and field, for the first field that is not of its kind.

    A bool, which is an int to Python, is taken only where the kind says bool.
    """
    for name, kind in kinds.items():
        value, allowed = fields[name], kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            wanted = " or ".join("nothing" if one is type(None) else one.__name__ for one in allowed)
            raise TypeError(f"{owner}: {name} is {value!r:.60}; it must be of type {wanted}")


def check_texts(owner: str, fields: Mapping[str, object], names: tuple[str, ...]) -> None:
    """Raises TypeError for the first field that is not a tuple or list of texts. One text alone is not: it would be
    taken for its letters. Raises ValueError where a text is blank, or occurs twice."""
    for name in names:
        value = fields[name]
        if not isinstance(value, tuple | list) or not all(isinstance(item, str) for item in value):
            raise TypeError(f"{owner}: {name} is {value!r:.60}; it must be a tuple of texts")
        if not all(item.strip() for item in value):
            raise ValueError(f"{owner}: {name} is {value!r:.60}; none of its texts may be empty")
        if twice := next((item for place, item in enumerate(value) if item in value[:place]), None):
            raise ValueError(f"{owner}: {name} holds {twice!r} twice; name it once")


def check_mapping(owner: str, fields: Mapping[str, object], name: str, values: type = str) -> None:
    """Raises TypeError where the field is not a mapping from texts to `values`."""
    value = fields[name]
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and isinstance(item, values) for key, item in value.items()
    ):
        kind = "texts" if values is str else "values"
        raise TypeError(f"{owner}: {name} is {value!r:.60}; it must be a mapping from texts to {kind}")


def check_stated(owner: str, fields: Mapping[str, object], names: tuple[str, ...]) -> None:
    """Raises ValueError for the first field that is empty or blank."""
    for name in names:
        value = fields[name]
        if not value or (isinstance(value, str) and not value.strip()):
            raise ValueError(f"{owner} does not state its {name}")


def check_languages(owner: str, languages: Sequence[str]) -> None:
    """Raises ValueError for the first text that has not the form of a BCP 47 code."""
    for code in languages:
        if not LANGUAGE.fullmatch(code):
            raise ValueError(f"{owner}: {code!r} in languages is not a BCP 47 code; write it like 'ar' or 'ar-EG'")


def check_callable(owner: str, name: str, value: object) -> None:
    """Raises TypeError where the value cannot be called."""
    if not callable(value):
        raise TypeError(f"{owner}: {name} is {value!r:.60}; it must be a function")


def breaks_lines(text: str) -> bool:
    """Whether a text holds a character that cannot stand in a cell of a table: a tab, the end of a line, another
    control character, or half a surrogate pair."""
    return any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)
