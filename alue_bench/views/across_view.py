"""The terminal view of results that are combined over tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from alue_bench.views.console import styled
from alue_bench.views.text_tables import text_table_view

if TYPE_CHECKING:
    from alue_bench.reporting.across_tasks import AcrossTasks


def across_view(results: Sequence[AcrossTasks]) -> RenderableType:
    """Return the view of results that are combined over tasks: tables with notes for each model, then a legend."""
    from alue_bench.reporting.across_table import across_legend, across_tables

    parts: list[RenderableType] = []
    for shown in across_tables(results):
        parts += [*text_table_view(shown), styled("")]
    return Group(*parts, *(styled(line, "dim") for line in across_legend(results)))
