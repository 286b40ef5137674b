"""`alue-bench sync`: send results again that the tracking store could not accept earlier."""

from __future__ import annotations

from typing import Annotated

import typer

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.messages.suggestion import command_line


def sync(
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow tracking store, as for run.")] = None,
) -> None:
    """Write results that are kept on this machine to the tracking store, and remove them here.

    If the store is unreachable, locked or full, results are kept on this machine, in the state folder. Running sync
    twice, or in two processes at once, writes no result twice. Exit code 1 if a result could not be written.
    """
    from alue_bench.studies.invocation import show_sent_results
    from alue_bench.tracking.connection import connect, store_name
    from alue_bench.tracking.connection import tracking_uri as resolve_uri
    from alue_bench.tracking.recording import Recorder
    from alue_bench.tracking.spool import all_spools, damaged_entries, spool_folder
    from alue_bench.views.console import remarks

    stderr = remarks()
    uri = resolve_uri(tracking_uri)
    store = store_name(uri)
    problems: list[str] = []
    spools = all_spools()
    left = 0
    for spool in (spool for spool in spools if spool.store == store):
        try:
            connection = connect(uri, spool.experiment)
        except UsageError as error:  # the experiment was deleted; results of other experiments are still sent
            count = len(spool.entries())
            left += count
            stderr.print(
                f"{count} results are still kept in {spool.folder}: {str(error).partition(';')[0]}; restore it in "
                "MLflow, and run the same command again",
                style="yellow",
            )
            continue
        messages: list[str] = []
        recorder = Recorder(connection, on_problem=messages.append)
        show_sent_results(recorder.send_spooled(), stderr)
        if recorder.unavailable is not None:
            problems += messages
        else:
            for sentence in messages:
                stderr.print(sentence, style="yellow")
        left += len(recorder.spool.entries())
    if problems:
        raise UnavailableError(
            f"{problems[0].partition(';')[0]}; {left} results are still kept in {spool_folder()}: run the same "
            "command again once the store answers"
        )
    for other in sorted({spool.store for spool in spools} - {store}):
        count = sum(len(spool.entries()) for spool in spools if spool.store == other)
        stderr.print(
            f"{count} results for another store are kept on this machine; write them there with: "
            f"{command_line('sync', options={'tracking_uri': other})}"
        )
    damaged = damaged_entries()
    for path in damaged:
        stderr.print(f"{path} is damaged and cannot be written anywhere", style="red")
    if not spools and not damaged:
        stderr.print("No results are waiting on this machine: every result is in its store")
    raise typer.Exit(1 if left or damaged else 0)
