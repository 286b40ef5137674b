"""`alue-bench ui`: MLflow's user interface on the store that `run` writes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, urlencode

import typer

from alue_bench.cli.options import DEFAULT_EXPERIMENT
from alue_bench.errors import UsageError

if TYPE_CHECKING:
    from alue_bench.tracking.connection import Connection

MOST_COMPARED = 100
"""MLflow's plots break beyond this (its issue 21841)."""

COMPARISON_COLUMNS = "freeze.bottom, freeze.top, test/score, test/f1_macro, runtime/train_s, flops/train_vs_full"


def ui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    experiment: Annotated[str, typer.Option(help="The experiment to link to.")] = DEFAULT_EXPERIMENT,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store; as for run.")] = None,
) -> None:
    """Open the MLflow comparison of all runs in the browser."""
    from alue_bench.cli.console import remarks
    from alue_bench.tracking.connection import connect, mlflow_uri, public, sqlite_path
    from alue_bench.tracking.connection import tracking_uri as resolve_uri

    uri = resolve_uri(tracking_uri)
    if uri.startswith("sqlite:") and not sqlite_path(uri).is_file():
        raise UsageError(f"there is no store at {public(uri)} yet; alue-bench run creates one")
    connection = connect(uri, experiment)
    served = public(uri).rstrip("/") if uri.startswith("http") else f"http://{host}:{port}"
    remarks().print(f"All runs:         {runs_page(served, connection)}")
    if newest := comparison_page(served, connection):
        remarks().print(f"The newest plan:  {newest}")
    remarks().print(f"Columns and axes worth showing: {COMPARISON_COLUMNS}")
    if uri.startswith("http"):
        remarks().print("This store is a server already: open an address above.")
        return
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    try:
        # Not as an argument: every user of the machine sees those.
        environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": mlflow_uri(uri)}
        code = subprocess.run(command, check=False, env=environment).returncode
    except KeyboardInterrupt:
        code = 0
    raise typer.Exit(1 if code not in (0, -2) else 0)


def runs_page(served: str, connection: Connection) -> str:
    """The list of runs, flat: MLflow hides a plan's runs behind their parent when sorted by time."""
    query = {
        "searchFilter": "tags.kind = 'run'",
        "orderByKey": "params.`task`",
        "orderByAsc": "true",
        "workflowType": "machine_learning",
    }
    return f"{served}/#/experiments/{connection.experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def comparison_page(served: str, connection: Connection) -> str | None:
    """The comparison of the runs of the newest plan; None where there is none, or too many for the page."""
    found = connection.client.search_runs([connection.experiment_id], "tags.kind = 'plan'", max_results=1)
    if not found:
        return None
    children = connection.client.search_runs(
        [connection.experiment_id],
        f"tags.mlflow.parentRunId = '{found[0].info.run_id}' and attributes.status = 'FINISHED'",
        max_results=MOST_COMPARED + 1,
    )
    if not 1 < len(children) <= MOST_COMPARED:
        return None
    ids = json.dumps([run.info.run_id for run in children], separators=(",", ":"))
    query = {"runs": ids, "experiments": json.dumps([connection.experiment_id])}
    return f"{served}/#/compare-runs?{urlencode(query, quote_via=quote)}"
