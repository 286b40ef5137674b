"""The terminal view of a text table (`reporting.comparison_table.TextTable`): its title, its rows and its notes."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table

from alue_bench.views.console import styled
from alue_bench.views.wide_tables import Fitted

if TYPE_CHECKING:
    from alue_bench.reporting.comparison_table import TextTable


def text_table_view(
    shown: TextTable, *, left: Container[int] = (0,), wrapped: Container[int] = ()
) -> list[RenderableType]:
    """Return a table and, below it, a line for each of its notes.

    Args:
        shown: The table.
        left: The positions of the columns that are aligned on the left; all other columns are aligned on the right.
        wrapped: The positions of the columns whose texts may be broken over several lines.
    """
    title = styled(f"{shown.title}\n", "bold") + styled(shown.subtitle, "dim")
    table = Table(title=title, title_justify="left", title_style="")
    for place, column in enumerate(shown.columns):
        table.add_column(column, justify="left" if place in left else "right", no_wrap=place not in wrapped)
    for row in shown.rows:
        table.add_row(*row)
    return [Fitted(table), *(styled(f"  {note}", "dim") for note in shown.notes)]
