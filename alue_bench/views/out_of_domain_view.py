"""The view of the changes in and out of domain, for terminals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from alue_bench.views.console import styled
from alue_bench.views.wide_tables import Fitted

if TYPE_CHECKING:
    from alue_bench.reporting.out_of_domain import OutOfDomain


def out_of_domain_view(results: Sequence[OutOfDomain]) -> RenderableType:
    """Return the view of the changes in and out of domain: tables with notes, then a legend."""
    from alue_bench.reporting.out_of_domain_table import out_of_domain_legend, out_of_domain_tables

    parts: list[RenderableType] = []
    for shown in out_of_domain_tables(results):
        title = styled(f"{shown.title}\n", "bold") + styled(shown.subtitle, "dim")
        table = Table(title=title, title_justify="left", title_style="")
        for place, column in enumerate(shown.columns):
            table.add_column(column, justify="right" if place else "left", no_wrap=True)
        for row in shown.rows:
            table.add_row(*row)
        parts += [Fitted(table), *(styled(f"  {note}", "dim") for note in shown.notes), styled("")]
    return Group(*parts, *(styled(line, "dim") for line in out_of_domain_legend(results)))
