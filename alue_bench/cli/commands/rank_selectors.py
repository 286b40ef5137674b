"""`alue-bench rank-selectors`: rank strategies that choose their layers, by comparison with the grid of a sweep."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from alue_bench.cli import reading_options as reading
from alue_bench.contract.errors import UsageError
from alue_bench.tracking.connection import DEFAULT_EXPERIMENT
from alue_bench.views.standard_output import reserve_stdout_for_documents

FORMATS = ("table", "markdown", "csv", "json")


def rank_selectors(
    context: typer.Context,
    task: reading.Tasks = None,
    model: reading.Models = None,
    experiment: reading.Experiment = DEFAULT_EXPERIMENT,
    data_source: reading.DataSource = None,
    tracking_uri: reading.TrackingUri = None,
    control: Annotated[
        str, typer.Option(help="Family of the strategies that choose at random, without the number of layers.")
    ] = "random",
    figure: Annotated[Path | None, typer.Option(help="File to write the figure to, ending in .svg.")] = None,
    format_: Annotated[str, typer.Option("--format", help="Output format: table, markdown, csv or json.")] = "table",
) -> None:
    """Rank strategies that choose their layers by a probe, against the grid of a finished sweep.

    For each selector: the regret against the best cell of the grid that needs no more FLOPs than the selector, the
    advantage over a random choice, the rank correlation of its scores with the measured effect of freezing each layer,
    and the cost of choosing. With three tasks or more, these values have intervals over tasks and seeds.

    The runs of a sweep and of the selectors must be under the same conditions. If the selectors did not run, the
    message names the command that runs them.

    `alue-bench rank-selectors`  (every sweep in the store)

    `alue-bench rank-selectors -m mini --format markdown --figure regret.svg`
    """
    from alue_bench.reporting.selector_chart import regrets
    from alue_bench.reporting.selector_ranking import rank_selectors as rank
    from alue_bench.reporting.selector_table import (
        ranking_as_csv,
        ranking_as_json,
        ranking_as_markdown,
        ranking_legend,
        ranking_tables,
    )
    from alue_bench.reporting.swept_tasks import swept_tasks
    from alue_bench.studies.missing_runs import selectors_to_run, sweep_to_run
    from alue_bench.tracking.reading import read_layer_scores
    from alue_bench.views.console import print_exactly, remarks, styled
    from alue_bench.views.console import results as shown
    from alue_bench.views.text_tables import text_table_view

    if format_ not in FORMATS:
        raise UsageError(f"--format is {format_!r}; it must be one of {', '.join(FORMATS)}")
    if figure is not None and figure.suffix != ".svg":
        raise UsageError(f"--figure {figure}: the file's name must end in .svg")
    reserve_stdout_for_documents(format_ != "table")
    selection = {
        "task": task, "model": model, "experiment": experiment, "data_source": data_source,
        "tracking_uri": tracking_uri,
    }  # fmt: skip
    results = reading.open_results(selection)
    reading.require_runs(results)
    sweeps, notes = swept_tasks(results.frame)
    for note in notes:
        remarks().print(note)
    if not sweeps:
        raise UsageError(sweep_to_run(results))
    rankings = rank(sweeps, partial(read_layer_scores, results), control=control)
    if not rankings:
        raise UsageError(selectors_to_run(sweeps, context.obj))
    if figure is not None:
        if len(rankings) > 1:
            models = ", ".join(one.model for one in rankings)
            raise UsageError(f"--figure shows one model, and there are several: {models}; choose one with --model")
        figure.write_text(regrets(rankings[0], name=figure.stem).standalone, encoding="utf-8")
        remarks().print(f"{figure}: regret of each selector")
    if format_ == "table":
        for table in ranking_tables(rankings):
            for part in (*text_table_view(table), styled("")):
                shown().print(part)
        for line in ranking_legend(rankings):
            shown().print(styled(line, "dim"))
        return
    write = {"markdown": ranking_as_markdown, "csv": ranking_as_csv, "json": ranking_as_json}[format_]
    print_exactly(write(rankings).rstrip("\n") + "\n")
