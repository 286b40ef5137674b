"""`alue-bench compare`: scores and costs of strategies relative to a baseline, with tests and verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from alue_bench.cli import reading_options as reading
from alue_bench.contract.errors import UsageError
from alue_bench.tracking.connection import DEFAULT_EXPERIMENT
from alue_bench.views.standard_output import reserve_stdout_for_documents

if TYPE_CHECKING:
    from alue_bench.reporting.out_of_domain import OutOfDomain

FORMATS = ("table", "markdown", "csv", "json", "latex")


def compare(
    task: reading.Tasks = None,
    model: reading.Models = None,
    strategy: reading.Strategies = None,
    experiment: reading.Experiment = DEFAULT_EXPERIMENT,
    parent: reading.Parent = None,
    data_source: reading.DataSource = None,
    tracking_uri: reading.TrackingUri = None,
    baseline: Annotated[str, typer.Option(help="Strategy that the others are compared with.")] = "full",
    metric: Annotated[
        str | None, typer.Option(help="Metric, such as f1_micro. Default: the primary metric of each task.")
    ] = None,
    margin: reading.Margin = reading.DEFAULT_MARGIN,
    sort: Annotated[
        str,
        typer.Option(help="Sort by strategy, score, delta, time, speed-up, trainable, flops, memory or energy."),
    ] = "strategy",
    format_: Annotated[
        str, typer.Option("--format", help="Output format: table, markdown, csv, json or latex.")
    ] = "table",
    across: Annotated[
        bool,
        typer.Option("--across", help="Only the results across tasks: mean change, performance profile, speed-up."),
    ] = False,
    out_of_domain: Annotated[
        bool,
        typer.Option("--out-of-domain", help="Only the changes in and out of domain (runs with --also-test)."),
    ] = False,
    tuned: Annotated[
        bool,
        typer.Option(
            "--tuned",
            help="Only the strategies tuned by alue-bench run --tune, each with its chosen values: scores, verdicts, "
            "and what tuning cost.",
        ),
    ] = False,
    resamples: Annotated[
        int,
        typer.Option(
            min=0,
            help="Also run a bootstrap test over test examples only, with this many resamples. It holds for these "
            "trained models, not for other seeds. Shown in csv and json.",
        ),
    ] = 0,
) -> None:
    """Compare strategies: score, change, verdict, runtime, parameters, FLOPs, memory, energy.

    Each strategy is better than the baseline, or worse, or within the margin of it, or inconclusive. Inconclusive means
    that a loss of score up to the stated bound is not excluded. A verdict needs three seeds.

    Prints one table for each task, model and set of conditions: runs with different hardware, data or settings are
    never compared in one table. With three tasks or more, tables of the results across tasks follow. For models that
    were scored on other tasks too (--also-test), a table of the changes in and out of domain follows.

    `alue-bench compare`  (everything in the store)

    `alue-bench compare -t anger --sort score --format markdown`

    `alue-bench compare --margin "1pt,pearson=5% of learnt"`
    """
    from alue_bench.evaluation.margins import parse_margins
    from alue_bench.reporting import across_table, comparison_table
    from alue_bench.reporting.across_tasks import across_tasks
    from alue_bench.reporting.comparison import DEFAULT_MARGIN
    from alue_bench.reporting.comparison import compare as compare_runs
    from alue_bench.reporting.matched_compute import with_requests
    from alue_bench.reporting.out_of_domain import out_of_domain as compare_domains
    from alue_bench.reporting.out_of_domain_table import out_of_domain_records
    from alue_bench.tracking.reading import count_sentences, read_targets, read_targets_elsewhere
    from alue_bench.views.console import print_exactly, remarks
    from alue_bench.views.console import results as shown

    if format_ not in FORMATS:
        raise UsageError(f"--format is {format_!r}; it must be one of {', '.join(FORMATS)}")
    keys = (comparison_table.DEFAULT_SORT, *comparison_table.SORT_KEYS)
    if sort not in keys:
        raise UsageError(f"--sort is {sort!r}; it must be one of {', '.join(keys)}")
    margins = parse_margins(margin, DEFAULT_MARGIN)
    reserve_stdout_for_documents(format_ != "table")
    selection = {
        "task": task, "model": model, "strategy": strategy, "experiment": experiment, "parent": parent,
        "data_source": data_source, "tracking_uri": tracking_uri,
    }  # fmt: skip
    results = reading.open_results(selection, baseline=baseline)
    reading.require_runs(results)
    if tuned:
        from alue_bench.reporting import tuning

        refused = {"--across": across, "--out-of-domain": out_of_domain, "--format csv": format_ == "csv"}
        for option in (name for name, given in refused.items() if given):
            raise UsageError(f"--tuned shows nothing for {option}; leave out one of them")
        compared = tuning.compare_tuned(
            results,
            partial(read_targets, results),
            baseline=baseline,
            metric=metric,
            margins=margins,
        )
        tables = [tuning.tuned_table(one) for one in compared]
        if format_ == "table":
            from alue_bench.views.tuning_view import tuned_view

            shown().print(tuned_view(compared))
        elif format_ == "json":
            print_exactly(json.dumps({"tuned": tuning.tuned_records(compared)}, ensure_ascii=False, indent=2) + "\n")
        else:
            write_tables = comparison_table.markdown_tables if format_ == "markdown" else comparison_table.latex_tables
            print_exactly(write_tables(tables, []))
        return
    comparison = compare_runs(
        results.frame,
        partial(read_targets, results),
        baseline=baseline,
        metric=metric,
        margins=margins,
        resamples=resamples,
    )
    comparison = with_requests(comparison, results)
    elsewhere = compare_domains(
        comparison.blocks,
        results.frame,
        partial(read_targets, results),
        partial(read_targets_elsewhere, results),
    )
    if out_of_domain:
        print_out_of_domain(elsewhere, format_)
        return
    over_tasks = across_tasks(comparison.blocks, results.frame)
    if across and not over_tasks:
        raise UsageError(f"--across: {across_table.NO_RESULTS}")
    if format_ == "table":
        from alue_bench.views.across_view import across_view
        from alue_bench.views.tables import comparison_view

        if not across:
            shown().print(comparison_view(comparison, sort=sort))
        if over_tasks:
            shown().print(across_view(over_tasks))
        if elsewhere and not across:
            print_out_of_domain(elsewhere, format_)
    elif format_ in ("markdown", "latex"):
        write = comparison_table.as_markdown if format_ == "markdown" else comparison_table.as_latex
        write_across = across_table.across_as_markdown if format_ == "markdown" else across_table.across_as_latex
        parts = [] if across else [write(comparison, sort=sort)]
        print_exactly("\n".join([*parts, *([write_across(over_tasks)] if over_tasks else [])]))
        if elsewhere and not across:
            print_out_of_domain(elsewhere, format_)
    elif format_ == "csv":
        print_exactly(across_table.across_as_csv(over_tasks) if across else comparison_table.as_csv(comparison))
    elif across:
        print_exactly(across_table.across_as_json(over_tasks) + "\n")
    else:
        records = (across_table.across_records(over_tasks), out_of_domain_records(elsewhere))
        print_exactly(comparison_table.as_json(comparison, *records) + "\n")
    for sentence in count_sentences(results.counts):
        remarks().print(sentence)


def print_out_of_domain(results: Sequence[OutOfDomain], format_: str) -> None:
    """Print the score changes in domain and out of domain. Raise UsageError if no run was scored on another task."""
    from alue_bench.reporting import out_of_domain_table
    from alue_bench.views.console import print_exactly
    from alue_bench.views.console import results as shown
    from alue_bench.views.out_of_domain_view import out_of_domain_view

    if not results:
        raise UsageError(f"--out-of-domain: {out_of_domain_table.NO_RESULTS}")
    if format_ == "table":
        shown().print(out_of_domain_view(results))
        return
    writers = {
        "markdown": out_of_domain_table.out_of_domain_as_markdown,
        "latex": out_of_domain_table.out_of_domain_as_latex,
        "csv": out_of_domain_table.out_of_domain_as_csv,
        "json": out_of_domain_table.out_of_domain_as_json,
    }
    print_exactly(writers[format_](results))
