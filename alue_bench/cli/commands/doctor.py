"""`alue-bench doctor`: check this machine for problems that runs would have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from alue_bench.contract.errors import AlueBenchError
from alue_bench.contract.registry import Registry
from alue_bench.tracking.connection import DEFAULT_EXPERIMENT

Finding = tuple[str, str, str]
"""The result of a check: what was checked; "ok", "note" or "problem"; details."""


def doctor(
    context: typer.Context,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow tracking store, as for run.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the official files.")] = None,
) -> None:
    """Check versions, device, plugins, data, models and the tracking store. Exit code 1 if something is wrong."""
    from rich.table import Table

    from alue_bench.views.console import results, styled
    from alue_bench.views.wide_tables import Fitted

    styles = {"ok": "green", "note": "yellow", "problem": "red"}
    table = Table("what", "state", "details")
    findings = list(_findings(context.obj, tracking_uri, data_dir))
    for what, state, details in findings:
        table.add_row(what, styled(state, styles[state]), details)
    results().print(Fitted(table))
    raise typer.Exit(1 if any(state == "problem" for _, state, _ in findings) else 0)


def _findings(registry: Registry, uri: str | None, data_dir: Path | None) -> Iterator[Finding]:
    from alue_bench.measure.environment import environment
    from alue_bench.training.device.selection import device_remarks, resolve_device, resolve_precision

    device = resolve_device("auto")
    description = environment(device)
    libraries = ", ".join(f"{name} {version}" for name, version in description["libraries"].items())
    yield "versions", "ok", f"Python {description['python']}, {libraries}"
    hardware = description["hardware"]
    yield "device", "ok", f"{device}: {hardware.get('accelerator') or hardware['processor']}"
    for remark in device_remarks("auto", device):
        yield "device", "note", remark
    precision = resolve_precision("auto", device)
    yield "precision", "ok", f"--precision auto selects {precision} here"
    threads, cores = hardware["threads"], description["cpu_affinity"]
    state = "note" if threads > cores else "ok"
    yield "threads", state, f"torch uses {threads} threads on {cores} cores; OMP_NUM_THREADS changes it"
    for report in registry.reports:
        state = "problem" if report.status == "failed" else "note" if report.status == "disabled" else "ok"
        yield "plugin", state, f"{report.origin}: {'; '.join(report.problems) or report.status}"
    yield _data_findings(registry, data_dir)
    yield from _model_findings(registry)
    yield _tracking_finding(uri)


def _run_check(name: str, check: Callable[[], str]) -> Finding:
    try:
        return name, "ok", check()
    except AlueBenchError as error:
        return name, "problem", str(error)


def _data_findings(registry: Registry, data_dir: Path | None) -> Finding:
    def check() -> str:
        from alue_bench.data.location import given_data_folder, has_files, user_data_folder

        folder = given_data_folder(data_dir) or user_data_folder()
        present = [name for name, declared in sorted(registry.tasks.items()) if has_files(declared.value, folder)]
        rest = "nothing: every task uses its embedded sample" if not present else ", ".join(present)
        return f"{folder} holds {rest}"

    return _run_check("data", check)


def _model_findings(registry: Registry) -> Iterator[Finding]:
    from alue_bench.training.pretrained.loading import locate_checkpoint

    for name, declared in sorted(registry.models.items()):
        try:
            checkpoint = locate_checkpoint(declared.value, download=False)
            pickled = " (pickled weights only)" if checkpoint.pickled else ""
            yield f"model {name}", "ok", f"on this machine{pickled}"
        except AlueBenchError as error:
            yield f"model {name}", "note", str(error)


def _tracking_finding(option: str | None) -> Finding:
    def check() -> str:
        from alue_bench.tracking.connection import connect, sqlite_path, tracking_uri, without_credentials

        uri = tracking_uri(option)
        if uri.startswith("sqlite:") and not sqlite_path(uri).is_file():
            folder = sqlite_path(uri).parent
            existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
            if not os.access(existing, os.W_OK):
                from alue_bench.contract.errors import UnavailableError

                raise UnavailableError(f"{existing} is not writable; choose another store with --tracking-uri")
            return f"{without_credentials(uri)} will be created by the first run"
        connect(uri, DEFAULT_EXPERIMENT)
        return f"{without_credentials(uri)} answers"

    return _run_check("tracking", check)
