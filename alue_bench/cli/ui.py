"""`alue-bench ui`: MLflow's user interface on the store that `run` writes to."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from alue_bench.errors import UsageError

COMPARISON_COLUMNS = "freeze.bottom, freeze.top, test/score, test/f1_macro, runtime/train_s, flops/train_vs_full"


def ui(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    experiment: Annotated[str, typer.Option(help="The experiment to link to.")] = "alue-bench",
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store; as for run.")] = None,
) -> None:
    """Open the MLflow comparison of all runs in the browser."""
    from alue_bench.tracking.connection import connect, sqlite_path
    from alue_bench.tracking.connection import tracking_uri as resolve_uri

    uri = resolve_uri(tracking_uri)
    if uri.startswith("sqlite:") and not sqlite_path(uri).is_file():
        raise UsageError(f"there is no store at {uri} yet; alue-bench run creates one")
    connection = connect(uri, experiment)
    served = uri if uri.startswith("http") else f"http://{host}:{port}"
    typer.echo(f"{served}/#/experiments/{connection.experiment_id}", err=True)
    typer.echo(f"Select runs, then Compare. Columns worth showing: {COMPARISON_COLUMNS}", err=True)
    if uri.startswith("http"):
        typer.echo("This store is a server already: open the address above.", err=True)
        return
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", host, "--port", str(port), "--workers", "1"]
    try:
        code = subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        code = 0
    raise typer.Exit(1 if code not in (0, -2) else 0)
