"""`alue-bench ui`: MLflow's user interface on the store that `run` writes to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, urlencode

import typer

from alue_bench.cli.arguments import options_given
from alue_bench.contract.errors import UnavailableError
from alue_bench.executors.termination import Terminated, exit_code_of_interruption, stop_on_sigterm
from alue_bench.tracking.connection import DEFAULT_EXPERIMENT

if TYPE_CHECKING:
    from alue_bench.tracking.connection import Connection

MAX_COMPARED = 100
"""The largest number of runs to compare. With more, MLflow's plots break (its issue 21841)."""

COMPARISON_COLUMNS = "freeze.bottom, freeze.top, test/score, test/f1_macro, runtime/train_s, flops/train_vs_full"
"""The columns that the user is advised to show on MLflow's pages."""


def ui(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    experiment: Annotated[str, typer.Option(help="Experiment to link to.")] = DEFAULT_EXPERIMENT,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow tracking store, as for run.")] = None,
) -> None:
    """Open the MLflow comparison of all runs in the browser.

    Serves the store until Ctrl-C, and prints the URLs to open once MLflow's server answers.
    """
    from alue_bench.cli.mlflow_server import MlflowServer, check_address
    from alue_bench.tracking.connection import open_store, without_credentials
    from alue_bench.tracking.connection import tracking_uri as resolve_uri
    from alue_bench.views.console import remarks

    uri = resolve_uri(tracking_uri)
    connection = open_store(uri, experiment)
    if uri.startswith("http"):
        _show_pages(without_credentials(uri).rstrip("/"), connection)
        remarks().print("This store is already a server: open a URL above.")
        return
    check_address(host, port, options_given(context))
    with stop_on_sigterm():
        try:
            with MlflowServer(uri, host, port) as server:
                remarks().print("Starting MLflow's server ...")
                server.wait_until_ready()
                _show_pages(server.address, connection)
                remarks().print("Ctrl-C ends the server.")
                code = server.wait()
        except KeyboardInterrupt as stop:
            raise typer.Exit(exit_code_of_interruption(stop) if isinstance(stop, Terminated) else 0) from None
    raise UnavailableError(f"MLflow's server ended with exit code {code}; its own messages are above")


def _show_pages(served: str, connection: Connection) -> None:
    from alue_bench.views.console import remarks

    remarks().print(f"All runs:         {runs_page(served, connection)}")
    if newest := comparison_page(served, connection):
        remarks().print(f"The newest plan:  {newest}")
    remarks().print(f"Columns and axes worth showing: {COMPARISON_COLUMNS}")


def runs_page(served: str, connection: Connection) -> str:
    """Return the URL of the MLflow page that lists all runs without grouping them.

    The runs are sorted by task. If they were sorted by time, MLflow would hide the runs of a plan under their parent
    run.

    Args:
        served: The URL of MLflow's server.
        connection: The open store.
    """
    query = {
        "searchFilter": "tags.kind = 'run'",
        "orderByKey": "params.`task`",
        "orderByAsc": "true",
        "workflowType": "machine_learning",
    }
    return f"{served}/#/experiments/{connection.experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def comparison_page(served: str, connection: Connection) -> str | None:
    """Return the URL of the MLflow page that compares the finished runs of the newest plan.

    Return None if there are fewer than two runs or more than MAX_COMPARED, since the page does not work for them.
    """
    plans = connection.client.search_runs([connection.experiment_id], "tags.kind = 'plan'", max_results=1)
    if not plans:
        return None
    children = connection.client.search_runs(
        [connection.experiment_id],
        f"tags.mlflow.parentRunId = '{plans[0].info.run_id}' and attributes.status = 'FINISHED'",
        max_results=MAX_COMPARED + 1,
    )
    if not 1 < len(children) <= MAX_COMPARED:
        return None
    ids = json.dumps([run.info.run_id for run in children], separators=(",", ":"))
    query = {"runs": ids, "experiments": json.dumps([connection.experiment_id])}
    return f"{served}/#/compare-runs?{urlencode(query, quote_via=quote)}"
