"""Several label names in one cell of a table, and back.

Names are set apart by blanks where none of them can be mistaken then, so that such tables stay easy to read; else the
cell is a JSON list:

    joy optimism
    ["very angry", "sad"]
"""

from __future__ import annotations

import json
from collections.abc import Iterable


def join_labels(names: Iterable[str]) -> str:
    """The cell of these names; empty for none."""
    listed = list(names)
    if all(name.split() == [name] and not name.startswith("[") for name in listed):
        return " ".join(listed)
    return json.dumps(listed, ensure_ascii=False)


def split_labels(cell: str) -> tuple[str, ...]:
    """The names in a cell that `join_labels` made.

    Raises ValueError where a cell that begins as a list is none of texts.
    """
    if not cell.startswith("["):
        return tuple(cell.split())
    listed = json.loads(cell)
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise ValueError(f"{cell:.60} is no list of label names")
    return tuple(listed)
