"""`alue-bench keep`: save the trained model of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alue_bench.cli import arguments
from alue_bench.cli.stopping import stoppable
from alue_bench.contract.registry import Registry
from alue_bench.views.standard_output import reserve_stdout_for_documents

if TYPE_CHECKING:
    from alue_bench.deployment.logged_models import LoggedModel
    from alue_bench.tracking.connection import Connection
    from alue_bench.views.console import PlainConsole


def keep(
    context: typer.Context,
    run_id: Annotated[str, typer.Argument(help="Id of a finished run.")],
    folder: Annotated[
        Path | None, typer.Argument(help="New folder for the model. Without it, the model is kept with its run only.")
    ] = None,
    register: Annotated[
        str | None, typer.Option(help="Register the model as a new version of this name in MLflow's model registry.")
    ] = None,
    data_dir: Annotated[Path | None, arguments.run_option("data_dir")] = None,
    allow_pickles: Annotated[bool, arguments.run_option("allow_pickles")] = False,
    tracking_uri: Annotated[str | None, arguments.run_option("tracking_uri")] = None,
    as_json: Annotated[bool, arguments.run_option("json")] = False,
) -> None:
    """Keep the model of a finished run, for transformers, MLflow and `alue-bench predict`.

    Trains the run again from its record, unless its model was kept already, and checks that the test predictions equal
    the recorded ones. Writes the model as an MLflow model of the run, and into FOLDER if it is given.

    `alue-bench keep RUN_ID complaints-model`
    """
    from alue_bench.deployment.logged_models import (
        check_new,
        check_registered_name,
        connection_of_run,
        copy_model,
        folder_of,
        model_of_run,
    )
    from alue_bench.deployment.logged_models import register as register_model

    reserve_stdout_for_documents(as_json)
    if folder is not None:
        check_new(folder)
    if register is not None:
        check_registered_name(register)
    with stoppable():
        from alue_bench.views.streams import Streams

        streams = Streams.of_command(as_json=as_json)
        streams.warn_of_plugins(context.obj)
        connection = connection_of_run(run_id, tracking_uri)
        model = model_of_run(connection, run_id)
        conditions = {"data_dir": data_dir, "allow_pickles": allow_pickles}
        if model is None:
            model = _train_again_and_log(connection, run_id, folder, conditions, context.obj, streams.stderr)
        else:
            streams.stderr.print(f"run {run_id} has kept its model already")
            if folder is not None:
                copy_model(folder_of(f"models:/{model.model_id}", connection.uri), folder)
        name = register_model(connection, model, register) if register else ""
        _print_location(streams.stderr, connection, folder, name, run_id)
        streams.document(
            {"run_id": run_id, "model_id": model.model_id, "registered": name, "folder": str(folder or "")}
        )


def _train_again_and_log(
    connection: Connection,
    run_id: str,
    folder: Path | None,
    conditions: dict[str, Any],
    registry: Registry,
    stderr: PlainConsole,
) -> LoggedModel:
    """Train a recorded run again, log its model with the run in MLflow, and copy the model to `folder` if given."""
    from alue_bench.deployment.keeping import keep_retrained_model
    from alue_bench.deployment.repeating import Conditions, plan_again, recorded_run, train_again

    recorded = recorded_run(connection, run_id)
    planned = plan_again(recorded, Conditions(**conditions), registry)
    stderr.print(f"training {recorded.label} again")
    with _progress_bar(stderr) as on_step:
        finished = train_again(recorded, planned, on_step)
    stderr.print("the test predictions equal the recorded ones")

    return keep_retrained_model(
        connection, finished, folder=folder, on_problem=lambda problem: stderr.print(problem, style="yellow")
    )


def _progress_bar(stderr: PlainConsole) -> Any:
    """Return a context manager that shows the training progress on a terminal, and yields the function `on_step`."""
    from contextlib import contextmanager

    from rich.progress import BarColumn, Progress, TimeRemainingColumn

    from alue_bench.executors.termination import raise_if_terminated
    from alue_bench.views.console import PlainColumn

    @contextmanager
    def shown() -> Any:
        with Progress(
            PlainColumn("step {task.completed} of {task.total}"), BarColumn(), TimeRemainingColumn(), console=stderr,
            transient=True, disable=not stderr.is_terminal,
        ) as progress:  # fmt: skip
            bar = progress.add_task("training", total=None)

            def on_step(done: int, total: int) -> None:
                raise_if_terminated()
                progress.update(bar, completed=done, total=total)

            yield on_step

    return shown()


def _print_location(stderr: PlainConsole, connection: Connection, folder: Path | None, name: str, run_id: str) -> None:
    """Print where the model is kept, and a command that predicts with it."""
    from alue_bench.messages.suggestion import command_line
    from alue_bench.tracking.connection import where_options

    where = {} if folder is not None else {"tracking_uri": where_options(connection.uri)["tracking_uri"]}
    model = folder if folder is not None else name or run_id
    predict = command_line("predict", model, "new.csv", "--text", "COLUMN", "-o", "out.csv", options=where)
    stderr.print(
        f"kept the model{f' as {name}' if name else ''}{f' in {folder}' if folder else ''}; predict with: {predict}"
    )
