"""The options of the commands that read results, and the results that they name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from alue_bench.contract.errors import UsageError

if TYPE_CHECKING:
    from alue_bench.tracking.reading import Results

which = partial(typer.Option, rich_help_panel="Which runs")

SOURCES = ("real", "sample")

Tasks = Annotated[list[str] | None, which("--task", "-t", help="Task; repeatable. Default: all.")]
Models = Annotated[list[str] | None, which("--model", "-m", help="Model; repeatable. Default: all.")]
Strategies = Annotated[list[str] | None, which("--strategy", "-s", help="Strategy; repeatable. Default: all.")]
Experiment = Annotated[str, which(help="MLflow experiment.")]
Parent = Annotated[
    str | None,
    which(
        help="Run id of a plan's parent run: only use the runs of this plan, including finished runs that it reused."
    ),
]
DataSource = Annotated[str | None, which(help="Data source: real or sample. Default: both, kept separate.")]
TrackingUri = Annotated[
    str | None, which(help="MLflow tracking store. Default: MLFLOW_TRACKING_URI, else a sqlite file under mlruns/.")
]


def open_results(
    *,
    tracking_uri: str | None,
    experiment: str,
    parent: str | None = None,
    tasks: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    strategies: Sequence[str] | None = None,
    data_source: str | None = None,
    baseline: str | None = None,
) -> Results:
    """Return the runs that the options name.

    A name that no run has is reported on stderr, unless there are no runs at all.

    Args:
        tracking_uri: the store; None for the default one.
        experiment: the MLflow experiment.
        parent: the run id of a plan whose runs are meant.
        tasks: the tasks; None for all.
        models: the models; None for all.
        strategies: the strategies; None for all.
        data_source: "real" or "sample"; None for both.
        baseline: a strategy to return besides those that are named.

    Raises:
        UsageError: there is no such store, experiment or parent.
    """
    from alue_bench.cli.views.console import remarks
    from alue_bench.tracking.connection import open_store
    from alue_bench.tracking.connection import tracking_uri as resolve_uri
    from alue_bench.tracking.reading import read_results

    if data_source is not None and data_source not in SOURCES:
        raise UsageError(f"--data-source is {data_source!r}; it must be real or sample")
    connection = open_store(resolve_uri(tracking_uri), experiment)
    results = read_results(
        connection,
        parent_id=parent,
        tasks=tasks or (),
        models=models or (),
        strategies=[*strategies, *([baseline] if baseline else [])] if strategies else (),
        data_source=data_source,
    )
    for option, names in (("task", tasks), ("model", models), ("strategy", strategies)):
        there = set(results.frame[option]) or set(names or ())
        for name in dict.fromkeys(names or ()):
            if name not in there:
                remarks().print(f"--{option} {name}: none of the selected finished runs uses it")
    return results


def require_runs(results: Results, experiment: str) -> None:
    """Do nothing if there are runs; otherwise say on stderr what there is instead, and end the command.

    Raises:
        typer.Exit: there is no finished run; the exit code is 1.
    """
    if not results.frame.empty:
        return
    from alue_bench.cli.views.console import remarks
    from alue_bench.messages.suggestion import command_line
    from alue_bench.tracking.connection import where_options
    from alue_bench.tracking.reading import say_counts

    others = "".join(f"; {sentence}" for sentence in say_counts(results.counts))
    run = command_line("run", options=where_options(results.connection.uri, experiment))
    remarks().print(
        f"alue-bench: experiment '{experiment}' has no finished run that fits the options{others}. Start some with: "
        f"{run}"
    )
    raise typer.Exit(1)
