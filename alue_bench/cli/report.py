"""`alue-bench report`: the answer on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alue_bench.cli import options
from alue_bench.errors import UsageError

FORMATS = (".html", ".htm", ".md", ".markdown")


def report(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write: .html, or .md with its figures beside it.")
    ] = Path("report.html"),
    parent: Annotated[
        str | None, options.what("--parent", help="Only the runs of this plan: the id of its parent run.")
    ] = None,
    task: Annotated[list[str] | None, options.what("--task", "-t", help="Only this task; repeatable.")] = None,
    model: Annotated[list[str] | None, options.what("--model", "-m", help="Only this model; repeatable.")] = None,
    strategy: Annotated[
        list[str] | None, options.what("--strategy", "-s", help="Only this strategy; repeatable.")
    ] = None,
    metric: Annotated[
        str | None,
        options.what(help="Compare by this metric, such as f1_micro. Default: each task's primary one."),
    ] = None,
    experiment: options.Experiment = None,
    tracking_uri: options.TrackingUri = None,
) -> None:
    """Write the results as one page: a sentence for each task, tables, figures, and the paper's numbers beside ours.

    The HTML page holds everything it shows; nothing is fetched when it is opened.

    `alue-bench report`  (everything in the store, as report.html)

    `alue-bench report --parent RUN --metric f1_micro --output answer.md`
    """
    if output.suffix.lower() not in FORMATS:
        raise UsageError(f"--output {output}: the name must end in .html or .md, which says what to write")
    from alue_bench.cli.invocation import DEFAULT_EXPERIMENT
    from alue_bench.report.page import PageRequest, build_page
    from alue_bench.report.rendering import write_page
    from alue_bench.tracking.connection import open_store
    from alue_bench.tracking.connection import tracking_uri as resolve_uri
    from alue_bench.tracking.reading import read_results

    results = read_results(
        open_store(resolve_uri(tracking_uri), experiment or DEFAULT_EXPERIMENT),
        parent_id=parent,
        tasks=task or (),
        models=model or (),
        strategies=strategy or (),
    )
    page = build_page(results, PageRequest(metric=metric))
    write_page(page, output)
    typer.echo(f"{output}: {page.lead}", err=True)
