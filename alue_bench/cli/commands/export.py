"""`alue-bench export`: write files with all results, for a paper's appendix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alue_bench.cli import reading_options as reading
from alue_bench.contract.errors import UsageError
from alue_bench.tracking.connection import DEFAULT_EXPERIMENT

FORMATS = ("csv", "parquet")


def export(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; created if missing.")],
    task: reading.Tasks = None,
    model: reading.Models = None,
    strategy: reading.Strategies = None,
    experiment: reading.Experiment = DEFAULT_EXPERIMENT,
    parent: reading.Parent = None,
    data_source: reading.DataSource = None,
    tracking_uri: reading.TrackingUri = None,
    margin: reading.Margin = reading.DEFAULT_MARGIN,
    format_: Annotated[str, typer.Option("--format", help="Format of the tables: csv or parquet.")] = "csv",
) -> None:
    """Write results as tidy tables, JSON with environments, and a reproducibility checklist.

    Writes runs (one row per run), metrics (one row per run and metric), comparison (one row per strategy, with
    verdicts), across_tasks (one row per strategy, with three tasks or more), comparison.md, results.json and
    checklist.md.

    `alue-bench export appendix --data-source real`
    """
    from alue_bench.evaluation.margins import parse_margins
    from alue_bench.reporting.comparison import BASELINE, DEFAULT_MARGIN
    from alue_bench.reporting.export import export as write
    from alue_bench.tracking.reading import count_sentences
    from alue_bench.views.console import remarks
    from alue_bench.views.console import results as shown

    if format_ not in FORMATS:
        raise UsageError(f"--format is {format_!r}; it must be csv or parquet")
    margins = parse_margins(margin, DEFAULT_MARGIN)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder to write to")
    selection = {
        "task": task, "model": model, "strategy": strategy, "experiment": experiment, "parent": parent,
        "data_source": data_source, "tracking_uri": tracking_uri,
    }  # fmt: skip
    results = reading.open_results(selection, baseline=BASELINE)
    reading.require_runs(results)
    for path in write(results, folder, table_format=format_, margins=margins):
        shown().print(str(path))
    for sentence in count_sentences(results.counts):
        remarks().print(sentence)
