"""Checking the types of what a plugin declares, where it declares it: Python itself does not.

A declaration that holds something of a wrong type would be accepted, and fail in the middle of somebody's plan.
"""

from __future__ import annotations

from collections.abc import Mapping

Kind = type | tuple[type, ...]


def check_types(owner: str, fields: Mapping[str, object], kinds: Mapping[str, Kind]) -> None:
    """Raises TypeError, naming owner and field, for the first field that is not of its kind."""
    for name, kind in kinds.items():
        value = fields[name]
        if not isinstance(value, kind):
            wanted = " or ".join(
                "nothing" if k is type(None) else k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,))
            )
            raise TypeError(f"{owner}: {name} is {value!r:.60}; it must be of type {wanted}")


def check_texts(owner: str, fields: Mapping[str, object], names: tuple[str, ...]) -> None:
    """Raises TypeError for the first field that is not a tuple or list of texts. One text alone is not: it would be
    taken for its letters."""
    for name in names:
        value = fields[name]
        if not isinstance(value, tuple | list) or not all(isinstance(item, str) for item in value):
            raise TypeError(f"{owner}: {name} is {value!r:.60}; it must be a tuple of texts")


def check_callable(owner: str, name: str, value: object) -> None:
    """Raises TypeError where the value cannot be called."""
    if not callable(value):
        raise TypeError(f"{owner}: {name} is {value!r:.60}; it must be a function")
