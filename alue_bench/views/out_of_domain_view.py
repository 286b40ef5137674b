"""The terminal view of how strategies change the score in domain and out of domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from alue_bench.views.console import styled
from alue_bench.views.text_tables import text_table_view

if TYPE_CHECKING:
    from alue_bench.reporting.out_of_domain import OutOfDomain


def out_of_domain_view(results: Sequence[OutOfDomain]) -> RenderableType:
    """Return the view of score changes in domain and out of domain: tables with notes, then a legend."""
    from alue_bench.reporting.out_of_domain_table import out_of_domain_legend, out_of_domain_tables

    parts: list[RenderableType] = []
    for shown in out_of_domain_tables(results):
        parts += [*text_table_view(shown), styled("")]
    return Group(*parts, *(styled(line, "dim") for line in out_of_domain_legend(results)))
