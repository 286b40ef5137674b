"""The names of strategies that freeze a fixed number of bottom layers and of top layers throughout training.

The pair of these two numbers is called a cell, because it is one cell of a grid over both numbers. The names of these
strategies are part of the contract between alue-bench and its plugins: `alue-bench search` and the reports form names
such as `bottom3top4`, and a plugin must provide the strategies with these names.
"""

from __future__ import annotations

import re

Cell = tuple[int, int]
"""The pair (number of frozen bottom layers, number of frozen top layers): one cell of a grid over both numbers. If
bottom layers are frozen, the embeddings are frozen too."""

_NAME = re.compile(r"(?:bottom(\d{1,4}))?(?:top(\d{1,4}))?")


def cell_name(cell: Cell) -> str:
    """Return the name of the strategy that freezes these numbers of bottom and top layers.

    Examples are "bottom3top4" for (3, 4), "top4" for (0, 4), and "full" (full fine-tuning) for (0, 0).

    Args:
        cell: The number of frozen bottom layers and the number of frozen top layers.
    """
    bottom, top = cell
    return (f"bottom{bottom}" if bottom else "") + (f"top{top}" if top else "") or "full"


def read_cell(name: str) -> Cell | None:
    """Return the numbers of frozen bottom and top layers that a strategy's name states.

    The result is (3, 4) for "bottom3top4" and "bottom03top04", (0, 4) for "top4", (0, 0) for "full", and None for a
    name of any other form.
    """
    if name == "full":
        return 0, 0
    match = _NAME.fullmatch(name)
    if match is None or not name:
        return None
    return int(match[1] or 0), int(match[2] or 0)


def cell_of(name: str) -> Cell | None:
    """Return the numbers of frozen bottom and top layers that a strategy's canonical name states.

    The result is None for a name that `cell_name` never returns, such as "last-quarter", or "bottom03" with its leading
    zero.
    """
    cell = read_cell(name)
    return cell if cell is not None and cell_name(cell) == name else None
