"""What people see: the plan before, the results after."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from alue_bench.cli.fitting import Fitted
from alue_bench.evaluation.intervals import LEVEL, estimate
from alue_bench.evaluation.learning import REMEDY, Learning, learning
from alue_bench.executors.local import Outcome
from alue_bench.plan import Plan
from alue_bench.report.numbers import NONE, percent, plain, several, signed, signed_percent
from alue_bench.spec import Resolved

if TYPE_CHECKING:
    from alue_bench.report.comparison import Comparison

BASELINE = "full"
SAMPLE_NOTE = (
    "sample: embedded data written for demonstration; these scores say nothing about the real tasks. "
    "Add real files with: alue-bench data add TASK PATH"
)


def plan_view(plan: Plan) -> RenderableType:
    """What will run, with which settings, and what is left out and why."""
    table = Table(title=f"Plan: {several(len(plan.runs), 'run')}", title_justify="left", title_style="bold")
    for column in ("task", "data", "rows train/dev/test", "model", "strategies", "seeds"):
        table.add_column(column)
    groups: dict[tuple[str, str], list[int]] = {}
    for index, run in enumerate(plan.runs):
        groups.setdefault((run.spec.task, run.spec.model), []).append(index)
    settings: dict[str, list[str]] = {}
    for (task, model), indices in groups.items():
        runs = [plan.runs[index] for index in indices]
        inputs = runs[0].inputs
        splits, own = inputs.train_rows.splits, inputs.rows.splits
        rows = "/".join(str(len(part.examples)) for part in (splits["train"], splits["dev"], own["test"]))
        strategies = list(dict.fromkeys(run.spec.strategy for run in runs))
        seeds = sorted({run.spec.seed for run in runs})
        shown = task if inputs.task is inputs.train_task else f"{task} (trained on {inputs.train_task.name})"
        table.add_row(shown, runs[0].spec.data.source, rows, model, _strategies(strategies), _seeds(seeds))
        settings.setdefault(describe_settings(runs[0].hyper), []).append(f"{task}/{model}")
    parts: list[RenderableType] = [Fitted(table)]
    for description, used_by in settings.items():
        who = "" if len(settings) == 1 else f" ({', '.join(used_by)})"
        parts.append(Text(f"settings{who}: {description}"))
    if plan.runs:
        spec = plan.runs[0].spec
        parts.append(Text(f"device: {spec.device}, precision: {spec.precision}"))
    if any(run.spec.data.source == "sample" for run in plan.runs):
        parts.append(Text(SAMPLE_NOTE, style="yellow"))
    for skipped in plan.skipped:
        what = "/".join(part for part in (skipped.task, skipped.model, skipped.strategy) if part != "*")
        parts.append(Text(f"skipped {what}: {skipped.reason}", style="dim"))
    return Group(*parts)


def describe_settings(hyper: Resolved) -> str:
    """Resolved hyper-parameters, each with where it comes from where that is not the general default."""
    shown = []
    for name, value in vars(hyper.values).items():
        origin = hyper.origins[name]
        shown.append(f"{name}={value}" + (f" [{origin}]" if origin != "default" else ""))
    return ", ".join(shown)


def result_view(outcomes: Sequence[Outcome]) -> RenderableType:
    """One row per task, model and strategy: mean over seeds, and the change against `full` where it was run.

    Above each task's rows stands what a predictor gets that does not read the text. What is the same in every row
    stands in the title, so that the table fits a narrow terminal.
    """
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in sorted(outcomes, key=_first_of_block(outcomes)):
        groups.setdefault((outcome.spec.task, outcome.spec.model, outcome.spec.strategy), []).append(outcome)
    varying: dict[str, Callable[[Outcome], str]] = {
        "data": lambda o: o.spec.data.source,
        "model": lambda o: o.spec.model,
        "status": lambda o: o.status,
    }
    constant = [{read(o) for o in outcomes}.pop() for read in varying.values() if len({read(o) for o in outcomes}) == 1]
    varying = {name: read for name, read in varying.items() if len({read(o) for o in outcomes}) > 1}
    seeds = len({outcome.spec.seed for outcome in outcomes})
    constant.append(f"mean of {seeds} seeds ± {100 * LEVEL:.0f} % t-interval" if seeds > 1 else "one seed")
    table = Table(title=f"Test scores ({', '.join(constant)})", title_justify="left", title_style="bold")
    table.add_column("task: metric, strategy", no_wrap=True)
    for name in varying:
        table.add_column(name)
    for column in ("score", "Δ full", "train s", "Δ time", "trained", "FLOPs"):
        table.add_column(column, justify="right", no_wrap=True)
    previous = None
    for (task, model, strategy), group in groups.items():
        good = _good(group)
        if previous != (task, model):
            previous = (task, model)
            table.add_section()
            trivial = _score(_values(good, "test/trivial_score")[:1])
            heading = f"[bold]{task}[/]: {group[0].planned.inputs.task.primary}"
            table.add_row(heading, *[""] * len(varying), f"[dim]{trivial} trivial[/]")
        described = [", ".join(dict.fromkeys(read(outcome) for outcome in group)) for read in varying.values()]
        reference = _good(groups.get((task, model, "full"), [])) if strategy != "full" else []
        numbers = _measured(good, reference) if good else [NONE] * 6
        table.add_row(f"  {strategy}", *described, *numbers, style=None if good else "red")
    notes: list[RenderableType] = [Fitted(table)]
    if any(outcome.spec.data.source == "sample" for outcome in outcomes):
        notes.append(Text(SAMPLE_NOTE, style="yellow"))
    if seeds == 1 and len(groups) > 1:
        notes.append(Text("One seed: a difference may be chance. --seeds 5 tells more.", style="dim"))
    for (task, model, strategy), group in groups.items():
        learnt = _learning(_good(group)) if strategy == BASELINE else None
        if learnt is not None and not learnt.shown:
            said = f"{task}/{model}: {learnt.sentence(strategy, 'test')}; {REMEDY}. A change from it means nothing."
            notes.append(Text(said, style="yellow"))
    for outcome in outcomes:
        if outcome.status == "failed":
            notes.append(Text(f"failed {outcome.spec.label}: {outcome.cause} (run {outcome.run_id})", style="red"))
    return Group(*notes)


def _first_of_block(outcomes: Sequence[Outcome]) -> Callable[[Outcome], int]:
    """Keeps tasks and models in their order, and brings what belongs to one of each together."""
    first: dict[tuple[str, str], int] = {}
    for index, outcome in enumerate(outcomes):
        first.setdefault((outcome.spec.task, outcome.spec.model), index)
    return lambda outcome: first[(outcome.spec.task, outcome.spec.model)]


def _good(group: Iterable[Outcome]) -> list[Outcome]:
    return [outcome for outcome in group if outcome.status != "failed"]


def _measured(good: list[Outcome], reference: list[Outcome]) -> list[str]:
    # Where runs failed, changes are over the seeds that both still have.
    by_seed = {_seeds_of(outcome): outcome for outcome in reference}
    pairs = [(one, by_seed[seeds]) for one in good if (seeds := _seeds_of(one)) in by_seed]
    return [
        _score(_values(good, "test/score")),
        _difference(pairs),
        plain(_mean(good, "runtime/train_s"), 1),
        _time_change(pairs),
        percent(_mean(good, "params/trainable_share")),
        percent(_mean(good, "flops/train_vs_full")),
    ]


def _learning(good: Sequence[Outcome]) -> Learning | None:
    """Judge finished runs against the trivial score; None where none recorded it."""
    columns = ("test/score", "test/trivial_score", "test/above_trivial_error")
    return learning(*([outcome.metrics.get(name, math.nan) for outcome in good] for name in columns))


def _seeds_of(outcome: Outcome) -> tuple[int, int]:
    return outcome.spec.init_seed, outcome.spec.data_seed


def comparison_view(comparison: Comparison, *, sort: str) -> RenderableType:
    """A table a block, what must be known of its rows below it, and at the end what the signs mean."""
    from alue_bench.report.comparison_table import explain, text_tables

    parts: list[RenderableType] = []
    for block, shown in zip(comparison.blocks, text_tables(comparison, sort=sort), strict=True):
        title = Text(f"{shown.title}\n", style="bold") + Text(shown.subtitle, style="dim")
        table = Table(title=title, title_justify="left", title_style="")
        for place, column in enumerate(shown.columns):
            table.add_column(column, justify="right" if place else "left", no_wrap=True)
        for row in shown.rows:
            table.add_row(*(Text(cell) for cell in row))
        parts += [Fitted(table), *(Text(f"  {note}", style="dim") for note in shown.notes)]
        if block.sample:
            parts.append(Text(SAMPLE_NOTE, style="yellow"))
        parts.append(Text(""))
    return Group(*parts, *(Text(line, style="dim") for line in explain(comparison)))


def log_width(stream: TextIO) -> int | None:
    """Logs and pipes have no width of their own; in 120 characters most tables stay in one piece."""
    return None if stream.isatty() else 120


def print_table(
    console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None
) -> None:
    """A plain table for the listing commands."""
    table = Table(*columns, title=title, title_justify="left", title_style="bold")
    for row in rows:
        table.add_row(*row)
    console.print(Fitted(table))


def _strategies(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 20 else f"{', '.join(names[:6])}, … ({len(names)})"


def _seeds(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds)) if len(seeds) <= 5 else f"{seeds[0]} … {seeds[-1]} ({len(seeds)})"


def _values(outcomes: Iterable[Outcome], metric: str) -> list[float]:
    return [outcome.metrics[metric] for outcome in outcomes if metric in outcome.metrics]


def _score(values: list[float]) -> str:
    from alue_bench.report.comparison_table import score_text

    return score_text(estimate(values))


def _mean(outcomes: Iterable[Outcome], metric: str) -> float:
    return statistics.fmean(_values(outcomes, metric))


def _difference(pairs: Iterable[tuple[Outcome, Outcome]]) -> str:
    """Empty where nothing can be subtracted."""
    changes = [a.metrics["test/score"] - b.metrics["test/score"] for a, b in pairs]
    found = estimate(changes)
    return signed(found.mean) if found else ""


def _time_change(pairs: Iterable[tuple[Outcome, Outcome]]) -> str:
    """As `alue-bench compare` has it, without the interval. Empty for the baseline."""
    from alue_bench.report.comparison import mean_change

    metric = "runtime/train_s"
    found = mean_change((ours.metrics.get(metric), base.metrics.get(metric)) for ours, base in pairs)
    return signed_percent(found.mean) if found else ""
