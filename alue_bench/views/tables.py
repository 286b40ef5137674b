"""The views of plans (lists of runs to execute) and of results, for terminals and notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from alue_bench.contract.options import options_of
from alue_bench.contract.spec import HyperParameters, ResolvedHyperParameters
from alue_bench.planning.build import Plan, PlannedRun
from alue_bench.planning.variation import reading_order
from alue_bench.reporting.numbers import number_with_noun
from alue_bench.views.console import PlainConsole, styled
from alue_bench.views.text_tables import text_table_view
from alue_bench.views.wide_tables import Fitted

if TYPE_CHECKING:
    from alue_bench.reporting.comparison import Comparison

SAMPLE_NOTE = (
    "sample: embedded data written for demonstration; these scores say nothing about the real tasks. "
    "Add real files with: alue-bench data add TASK PATH"
)


def plan_view(plan: Plan) -> RenderableType:
    """Return the view of a plan, which is the list of runs that a command is about to execute.

    It shows the runs, their settings, and the combinations of tasks, models and strategies that are skipped, with the
    reasons.
    """
    table = Table(title=f"Plan: {number_with_noun(len(plan.runs), 'run')}", title_justify="left", title_style="bold")
    for column in ("task", "data", "rows train/dev/test", "model", "strategies", "seeds"):
        table.add_column(column)
    groups: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in _in_reading_order(plan):
        groups.setdefault((run.spec.task, run.spec.model), []).append(run)
    settings: dict[str, list[str]] = {}
    folds: dict[str, list[str]] = {}
    for (task, model), runs in groups.items():
        inputs = runs[0].inputs
        splits, own = inputs.train_rows.splits, inputs.rows.splits
        rows = "/".join(str(len(part.examples)) for part in (splits["train"], splits["dev"], own["test"]))
        strategies = list(dict.fromkeys(run.spec.strategy for run in runs))
        seeds = sorted({run.spec.seed for run in runs})
        folds.setdefault(_folds(runs), []).append(task)
        shown = task if inputs.task is inputs.train_task else f"{task} (trained on {inputs.train_task.name})"
        table.add_row(shown, runs[0].spec.data.source, rows, model, _strategies(strategies), _seeds(seeds))
        settings.setdefault(describe_settings([run.hyper for run in runs]), []).append(f"{task}/{model}")
    parts: list[RenderableType] = [Fitted(table)]
    for description, used_by in settings.items():
        who = "" if len(settings) == 1 else f" ({', '.join(used_by)})"
        parts.append(styled(f"settings{who}: {description}"))
    for description_of_folds, tasks in folds.items():
        if description_of_folds:
            parts.append(styled(f"folds ({', '.join(dict.fromkeys(tasks))}): {description_of_folds}"))
    if plan.runs:
        spec = plan.runs[0].spec
        parts.append(styled(f"device: {spec.device}, precision: {spec.precision}"))
    if any(run.spec.data.source == "sample" for run in plan.runs):
        parts.append(styled(SAMPLE_NOTE, "yellow"))
    parts += [styled(f"note: {note}", "yellow") for note in plan.notes]
    for skipped in plan.skipped:
        what = "/".join(part for part in (skipped.task, skipped.model, skipped.strategy) if part != "*")
        parts.append(styled(f"skipped {what}: {skipped.reason}", "dim"))
    return Group(*parts)


def _folds(runs: Sequence[PlannedRun]) -> str:
    """Return a description of the cross-validation to which the runs belong; an empty string if there is none."""
    repeats = {run.spec.fold.repeat for run in runs if run.spec.fold}
    if not repeats:
        return ""
    again = f", {len(repeats)} times" if len(repeats) > 1 else ""
    return "; ".join([f"{runs[0].spec.data.protocol}{again}", *runs[0].inputs.rows.notes])


def _in_reading_order(plan: Plan) -> list[PlannedRun]:
    """Return the planned runs in the order in which to show them.

    It is the order of execution, unless the plan has mixed the runs to make measured times comparable. In that case, it
    is the order of `reading_order`.
    """
    if not plan.order_matters:
        return plan.runs
    rank = reading_order([run.spec for run in plan.runs])
    return sorted(plan.runs, key=lambda run: rank[run.spec.fingerprint])


def describe_settings(resolved: Sequence[ResolvedHyperParameters]) -> str:
    """Return the hyper-parameters of runs as text.

    Each value is followed by its origin, such as the command line, unless it is the general default. If runs differ,
    all values are listed. A hyper-parameter that is switched off by default is only mentioned if it is switched on.
    """
    shown = []
    general, declared = HyperParameters(), options_of(HyperParameters)
    for name in vars(resolved[0].values):
        values = sorted({getattr(hyper.values, name) for hyper in resolved})
        if declared[name].default_is_implied and values == [getattr(general, name)]:
            continue
        origin = ", ".join(dict.fromkeys(hyper.origins[name] for hyper in resolved))
        shown.append(f"{name}={' or '.join(map(str, values))}" + (f" [{origin}]" if origin != "default" else ""))
    return ", ".join(shown)


def comparison_view(comparison: Comparison, *, sort: str) -> RenderableType:
    """Return the view of a comparison of strategies: a table with notes for each task and model, then a legend.

    Args:
        comparison: The comparison, as `reporting.comparison.compare` returns it.
        sort: The order of the rows, as in `comparison_table.text_tables`.
    """
    from alue_bench.reporting.comparison_table import explain, text_tables

    parts: list[RenderableType] = []
    for block, shown in zip(comparison.blocks, text_tables(comparison, sort=sort), strict=True):
        parts += text_table_view(shown)
        if block.sample:
            parts.append(styled(SAMPLE_NOTE, "yellow"))
        parts.append(styled(""))
    return Group(*parts, *(styled(line, "dim") for line in explain(comparison)))


def print_table(
    console: PlainConsole, columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None
) -> None:
    """Print a table of texts, such as the list of tasks that `alue-bench list tasks` prints."""
    table = Table(*columns, title=title, title_justify="left", title_style="bold")
    for row in rows:
        table.add_row(*row)
    console.print(Fitted(table))


def _strategies(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 20 else f"{', '.join(names[:6])}, … ({len(names)})"


def _seeds(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds)) if len(seeds) <= 5 else f"{seeds[0]} … {seeds[-1]} ({len(seeds)})"
