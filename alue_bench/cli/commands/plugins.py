"""`alue-bench plugins`: the installed plugins, what they provide, and which failed to load."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from alue_bench.contract.registry import PluginReport, Registry
from alue_bench.views.standard_output import reserve_stdout_for_documents


def plugins(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List plugins: distribution, version, entry point, what each provides, and what failed with its cause."""
    from alue_bench.views.console import print_document, results
    from alue_bench.views.tables import print_table

    reserve_stdout_for_documents(as_json)
    registry: Registry = context.obj
    if as_json:
        print_document([asdict(report) for report in registry.reports])
        return
    console = results()
    rows = [
        (
            report.origin.distribution,
            report.origin.version,
            f"{report.origin.entry_point} = {report.origin.module}",
            report.status,
            _provides(report),
        )
        for report in registry.reports
    ]
    print_table(console, ("distribution", "version", "entry point", "status", "provides"), rows)
    for report in registry.failures():
        for problem in report.problems:
            console.print(f"failed: {report.origin}: {problem}", style="red")


DECLARATIONS = (
    "alue_bench_tasks",
    "alue_bench_models",
    "alue_bench_strategies",
    "alue_bench_studies",
    "alue_bench_executors",
)
"""The hooks whose declarations are listed by name; of every other hook, only the hook's name is listed."""


def _provides(report: PluginReport) -> str:
    others = [hook.removeprefix("alue_bench_") for hook in report.hooks if hook not in DECLARATIONS]
    kinds = (
        ("tasks", report.tasks),
        ("models", report.models),
        ("strategies", report.strategies),
        ("studies", report.studies),
        ("executors", report.executors),
        ("hooks", others),
    )
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds if names) or "–"
