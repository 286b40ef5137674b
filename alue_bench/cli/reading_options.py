"""Options of the commands that read recorded results, and the selection of the results by these options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alue_bench.cli.arguments import typer_option
from alue_bench.contract.options import build_options, options_of
from alue_bench.studies.selection import RunSelection, VerdictOptions, none_selected, select_runs

if TYPE_CHECKING:
    from alue_bench.tracking.reading import Results

_OPTIONS = options_of(RunSelection)

Tasks = Annotated[list[str] | None, typer_option(_OPTIONS["task"])]
Models = Annotated[list[str] | None, typer_option(_OPTIONS["model"])]
Strategies = Annotated[list[str] | None, typer_option(_OPTIONS["strategy"])]
Experiment = Annotated[str, typer_option(_OPTIONS["experiment"])]
Parent = Annotated[str | None, typer_option(_OPTIONS["parent"])]
DataSource = Annotated[str | None, typer_option(_OPTIONS["data_source"])]
TrackingUri = Annotated[str | None, typer_option(_OPTIONS["tracking_uri"])]
Margin = Annotated[str, typer_option(options_of(VerdictOptions)["margin"])]
DEFAULT_MARGIN = VerdictOptions().margin


def open_results(selection: Mapping[str, Any], *, baseline: str | None = None) -> Results:
    """Return the finished runs that the options select.

    For each given task, model or strategy that none of these runs uses, a remark is printed on stderr. There are no
    remarks if no run is selected at all.

    Args:
        selection: The values of the options of `RunSelection`, by name.
        baseline: A strategy to select in addition to the strategies that the options name; None for none. If the
            options name no strategy, all are selected anyway.

    Raises:
        UsageError: An option has a wrong value, or the MLflow store, experiment or parent run does not exist.
    """
    from alue_bench.views.console import remarks

    results, sentences = select_runs(build_options(RunSelection, selection), baseline=baseline)
    for remark in sentences:
        remarks().print(remark)
    return results


def require_runs(results: Results) -> None:
    """End the command with a message on stderr if no finished run fits the options.

    Raises:
        typer.Exit: No finished run fits the options; the exit code is 1.
    """
    if not results.frame.empty:
        return
    from alue_bench.views.console import remarks

    remarks().print(f"alue-bench: {none_selected(results)}")
    raise typer.Exit(1)
