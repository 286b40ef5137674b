"""The names of strategies that freeze a fixed number of bottom layers and of top layers during the whole training.

The pair of these two numbers is called a cell. Grids, searches and reports are about cells, so that the names of the
strategies are part of the contract: the harness asks the plugins for `bottom3top4` like for any other strategy.
"""

from __future__ import annotations

import re

Cell = tuple[int, int]
"""The number of frozen layers at the bottom and the number at the top. If layers at the bottom are frozen, the
embeddings are frozen too."""

_NAME = re.compile(r"(?:bottom(\d{1,4}))?(?:top(\d{1,4}))?")


def cell_name(cell: Cell) -> str:
    """Return the name of the strategy that freezes a cell's layers, such as "bottom3top4"; "full" if none is frozen."""
    bottom, top = cell
    return (f"bottom{bottom}" if bottom else "") + (f"top{top}" if top else "") or "full"


def read_cell(name: str) -> Cell | None:
    """Return the cell of a strategy's name, which may have leading zeros ("bottom03"); None if the name has no cell."""
    if name == "full":
        return 0, 0
    match = _NAME.fullmatch(name)
    if match is None or not name:
        return None
    return int(match[1] or 0), int(match[2] or 0)


def cell_of(name: str) -> Cell | None:
    """Return the cell whose `cell_name` is exactly this name; None if there is no such cell."""
    cell = read_cell(name)
    return cell if cell is not None and cell_name(cell) == name else None
