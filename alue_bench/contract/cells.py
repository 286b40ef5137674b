"""The names of strategies that freeze so many bottom layers and so many top layers from the first step to the last.

Grids, searches and reports are about such pairs of numbers, the cells. Their names are therefore part of the contract:
the harness asks the plugins for `bottom3top4` as for any other strategy, and knows nothing of it but what it freezes.
"""

from __future__ import annotations

import re

Cell = tuple[int, int]
"""The numbers of frozen layers at the bottom, with the embeddings, and at the top."""

_NAME = re.compile(r"(?:bottom(\d{1,4}))?(?:top(\d{1,4}))?")


def cell_name(cell: Cell) -> str:
    """Return the name of the strategy that freezes the cell's layers: "bottom3top4", "top4", "full" for none."""
    bottom, top = cell
    return (f"bottom{bottom}" if bottom else "") + (f"top{top}" if top else "") or "full"


def read_cell(name: str) -> Cell | None:
    """Return the cell that a name means, also in another spelling ("bottom03" for "bottom3"); None if there is none."""
    if name == "full":
        return 0, 0
    match = _NAME.fullmatch(name)
    if match is None or not name:
        return None
    return int(match[1] or 0), int(match[2] or 0)


def cell_of(name: str) -> Cell | None:
    """Return the cell that has exactly this name; None if no cell has it."""
    cell = read_cell(name)
    return cell if cell is not None and cell_name(cell) == name else None
