"""`alue-bench report`: write a report on recorded runs as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alue_bench.cli import reading_options as reading
from alue_bench.tracking.connection import DEFAULT_EXPERIMENT


def report(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File to write: .html, or .md with its figures in a folder beside it."),
    ] = Path("report.html"),
    task: reading.Tasks = None,
    model: reading.Models = None,
    strategy: reading.Strategies = None,
    experiment: reading.Experiment = DEFAULT_EXPERIMENT,
    parent: reading.Parent = None,
    data_source: reading.DataSource = None,
    tracking_uri: reading.TrackingUri = None,
    metric: Annotated[
        str | None, typer.Option(help="Metric, such as f1_micro. Default: the primary metric of each task.")
    ] = None,
    margin: reading.Margin = reading.DEFAULT_MARGIN,
) -> None:
    """Write the results as one page: findings for each task, tables, figures, and a comparison with published numbers.

    The HTML page is self-contained: nothing is fetched when it is opened.

    `alue-bench report`  (everything in the store, as report.html)

    `alue-bench report --parent RUN --metric f1_micro --output answer.md`
    """
    from alue_bench.evaluation.margins import parse_margins
    from alue_bench.reporting.comparison import BASELINE, DEFAULT_MARGIN
    from alue_bench.reporting.page import PageRequest, build_page
    from alue_bench.reporting.rendering import check_ending, write_page
    from alue_bench.views.console import remarks

    check_ending(output, "--output")
    margins = parse_margins(margin, DEFAULT_MARGIN)
    selection = {
        "task": task, "model": model, "strategy": strategy, "experiment": experiment, "parent": parent,
        "data_source": data_source, "tracking_uri": tracking_uri,
    }  # fmt: skip
    results = reading.open_results(selection, baseline=BASELINE)
    page = build_page(results, PageRequest(metric=metric, margins=margins))
    write_page(page, output)
    remarks().print(f"{output}: {page.lead}")
