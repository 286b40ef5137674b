"""The notation of several label names in one cell of a table, for multi-label tasks.

Names are separated by spaces, so that tables are easy to read. If a name is empty, contains white space or begins with
"[", the cell is a JSON list instead:

    joy optimism
    ["very angry", "sad"]
"""

from __future__ import annotations

import json
from collections.abc import Iterable


def join_labels(names: Iterable[str]) -> str:
    """Return label names as one table cell; an empty string if there are no names.

    The names are separated by spaces. If a name is empty, contains white space or begins with "[", the cell is a JSON
    list.
    """
    listed = list(names)
    if all(name.split() == [name] and not name.startswith("[") for name in listed):
        return " ".join(listed)
    return json.dumps(listed, ensure_ascii=False)


def split_labels(cell: str) -> tuple[str, ...]:
    """Return the label names in a table cell that `join_labels` made.

    Raises:
        ValueError: The cell begins with "[" but is not a JSON list of strings.
    """
    if not cell.startswith("["):
        return tuple(cell.split())
    listed = json.loads(cell)
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise ValueError(f"{cell:.60} is not a list of label names")
    return tuple(listed)
