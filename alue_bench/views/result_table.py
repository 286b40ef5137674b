"""The view of the results of `run`: a table of scores, changes, verdicts and costs, with a sentence on each strategy.

Changes and verdicts are computed by `reporting.comparison`, so that `alue-bench compare` shows the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table

from alue_bench.evaluation.intervals import LEVEL, estimate
from alue_bench.evaluation.yardstick import yardstick_name
from alue_bench.executors.outcome import Outcome
from alue_bench.planning.tuning import EXAMPLE
from alue_bench.planning.variation import Settings, labelled, settings_of, varied_names_of_specs
from alue_bench.reporting.comparison import Comparison, ComparisonBlock, StrategyResult, describe_conditions
from alue_bench.reporting.comparison_table import (
    change_text,
    collapsed_text,
    difference_text,
    explain_verdicts,
    loss_text,
    score_text,
    verdict_text,
)
from alue_bench.reporting.numbers import MISSING, decimal, percent
from alue_bench.reporting.statements import statements
from alue_bench.reporting.training_times import session_mark, train_mark
from alue_bench.reporting.untuned import untuned_text
from alue_bench.views.console import styled
from alue_bench.views.tables import SAMPLE_NOTE
from alue_bench.views.wide_tables import Fitted

MAX_SENTENCES = 12
"""The largest number of sets of comparable runs whose results are also stated in sentences below the table."""
NOT_COMPARED_WARNING = "The tracking store does not have all of these runs, so changes and verdicts are missing."


@dataclass(frozen=True)
class _Line:
    """A line of the table: the runs of one task, model, strategy and combination of varied hyper-parameters."""

    strategy: str
    settings: Settings
    outcomes: Sequence[Outcome]
    block: ComparisonBlock | None = None
    """The set of comparable runs to which these runs belong; None if the comparison has none of these runs."""
    row: StrategyResult | None = None
    """The result of the strategy in `block`; None if all runs failed or are not in the MLflow store."""

    @property
    def task_and_model(self) -> tuple[str, str]:
        """The task and the model."""
        return self.outcomes[0].spec.task, self.outcomes[0].spec.model

    @property
    def finished(self) -> list[Outcome]:
        """The runs that did not fail."""
        return [outcome for outcome in self.outcomes if outcome.status != "failed"]


def result_view(
    outcomes: Sequence[Outcome], comparison: Comparison | None, problems: Sequence[str] = ()
) -> RenderableType:
    """Return the view of results: means over seeds or folds, changes against full fine-tuning, and verdicts.

    There is a row for each task, model, strategy and combination of varied hyper-parameters. The heading of each task
    shows the score of a baseline without a model, and the line below it shows the score of a linear model on
    TF-IDF features. Values that all rows share are in the title, so that the table fits a narrow terminal.

    Args:
        outcomes: The outcomes of the runs.
        comparison: The comparison of the runs that did not fail; None if it could not be made.
        problems: Sentences with the reasons why the comparison could not be made.
    """
    names = varied_names_of_specs(outcome.spec for outcome in outcomes)
    lines = _lines(outcomes, names, comparison)
    varying: dict[str, Callable[[_Line], str]] = {
        "data": lambda line: _joined(o.spec.data.source for o in line.outcomes),
        "model": lambda line: line.task_and_model[1],
        "status": lambda line: _joined(o.status for o in line.outcomes),
        "conditions": lambda line: describe_conditions(line.block) if line.block else "",
    }
    values = {name: {read(line) for line in lines} for name, read in varying.items()}
    # Hyper-parameters that vary have columns; other conditions, such as hardware, can differ only for reused runs.
    shown = [name for name in varying if len(values[name]) > 1 and (name != "conditions" or _is_split(lines))]
    constant = [next(iter(values[name])) for name in ("data", "model", "status") if len(values[name]) == 1]
    table = Table(title=f"Test scores ({', '.join([*constant, _mean_of(outcomes)])})", title_justify="left")
    table.title_style = "bold"
    table.add_column("task: metric, strategy", no_wrap=True)
    for name in (*names, *shown):
        table.add_column(name)
    columns = [column for column in COLUMNS if column[0] not in OPTIONAL or any(column[1](line) for line in lines)]
    for name, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    blank = [""] * (len(names) + len(shown))
    previous = None
    for line in lines:
        if previous != line.task_and_model:
            previous = line.task_and_model
            table.add_section()
            heading = styled(line.task_and_model[0], "bold") + styled(
                f": {line.outcomes[0].planned.inputs.task.primary}"
            )
            trivial = [styled(f"{_trivial(line)} trivial", "dim") if name == "score" else "" for name, _ in columns]
            table.add_row(heading, *blank, *trivial)
            if (tfidf := _tfidf(line)) is not None:
                linear = [styled(f"{decimal(tfidf)} TF-IDF", "dim") if name == "score" else "" for name, _ in columns]
                table.add_row("", *blank, *linear)
        described = [str(value) for _, value in line.settings] + [varying[name](line) for name in shown]
        numbers = [read(line) for _, read in columns] if line.finished else [MISSING] * len(columns)
        table.add_row(f"  {line.strategy}", *described, *numbers, style=None if line.finished else "red")
    return Group(Fitted(table), *_notes(outcomes, lines, comparison, problems, names))


def _lines(outcomes: Sequence[Outcome], names: Sequence[str], comparison: Comparison | None) -> list[_Line]:
    """Return the lines of the table, sorted by task and model, settings, set of comparable runs, and strategy.

    Runs with the same settings may be divided among several lines if some of them were reused from earlier commands and
    are not comparable with the new runs, for example because they ran on different hardware.

    Args:
        outcomes: The outcomes of the runs.
        names: The names of the hyper-parameters that vary between the runs.
        comparison: The comparison of the runs that did not fail; None if it could not be made.
    """
    groups: dict[tuple[str, str, str, Settings], list[Outcome]] = {}
    for outcome in outcomes:
        spec = outcome.spec
        groups.setdefault((spec.task, spec.model, spec.strategy, settings_of(spec.hyper, names)), []).append(outcome)
    # The plan alternates the order of strategies; the table lists them in the same order for all settings.
    order = list(dict.fromkeys(outcome.spec.strategy for outcome in outcomes))
    places = list(dict.fromkeys((task, model) for task, model, _, _ in groups))
    settings_order = list(dict.fromkeys(settings for *_, settings in groups))
    compared = {
        run_id: (block, row)
        for block in (comparison.blocks if comparison else ())
        for row in block.rows
        for run_id in row.run_ids
    }
    blocks = {id(block): number for number, block in enumerate(comparison.blocks if comparison else ())}
    lines = []
    for (_, _, strategy, settings), group in groups.items():
        parts: dict[tuple[int, ...], list[Outcome]] = {}
        for outcome in group:
            at = compared.get(outcome.run_id)
            # A failed run is shown with the other runs of its strategy.
            key = () if at is None else (blocks[id(at[0])],)
            parts.setdefault(key, []).append(outcome)
        failed = [one for one in parts.get((), []) if one.status == "failed"]
        if failed and len(parts) > 1:
            parts[()] = [one for one in parts[()] if one.status != "failed"]
            first = next(key for key in parts if key)
            parts[first] = [*parts[first], *failed]
        for part in parts.values():
            if part:
                at = next((compared[one.run_id] for one in part if one.run_id in compared), None)
                lines.append(_Line(strategy, settings, part, *(at or ())))
    return sorted(
        lines,
        key=lambda line: (
            places.index(line.task_and_model),
            settings_order.index(line.settings),
            -1 if line.block is None else blocks[id(line.block)],
            order.index(line.strategy),
        ),
    )


def _is_split(lines: Sequence[_Line]) -> bool:
    """Return whether runs with the same task, model and settings belong to several sets of comparable runs."""
    blocks: dict[tuple[object, ...], set[int]] = {}
    for line in lines:
        if line.block is not None:
            blocks.setdefault((line.task_and_model, line.settings), set()).add(id(line.block))
    return any(len(ids) > 1 for ids in blocks.values())


def _mean_of(outcomes: Sequence[Outcome]) -> str:
    seeds = len({outcome.spec.seed for outcome in outcomes})
    folds = len({outcome.spec.fold for outcome in outcomes} - {None})
    if folds:
        return f"mean of {folds} folds ± corrected {100 * LEVEL:.0f} % interval"
    return f"mean of {seeds} seeds ± {100 * LEVEL:.0f} % t-interval" if seeds > 1 else "one seed"


COLUMNS: Sequence[tuple[str, Callable[[_Line], str]]] = (
    ("score", lambda line: score_text(line.row.score) if line.row else _score(line.finished)),
    ("collapsed", lambda line: collapsed_text(line.row) if line.row else ""),
    ("Δ full", lambda line: difference_text(line.row.difference) if line.row else ""),
    ("loss up to", lambda line: loss_text(line.row.difference) if line.row else ""),
    ("verdict", lambda line: verdict_text(line.row) if line.row else ""),
    ("train s", lambda line: _train(line)),
    ("Δ time", lambda line: change_text(line.row.time_change) + session_mark(line.row.times) if line.row else ""),
    ("trained", lambda line: percent(_mean(line.finished, "params/trainable_share"))),
    ("FLOPs", lambda line: percent(_mean(line.finished, "flops/train_vs_full"))),
)
"""The names of the columns with results, each with the function that returns the entry for a line of the table."""
OPTIONAL = ("collapsed", "loss up to", "verdict")
"""The columns that are left out if all their entries are empty."""


def _score(finished: Sequence[Outcome]) -> str:
    return score_text(estimate(_values(finished, "test/score")))


def _train(line: _Line) -> str:
    if line.row is not None:
        return decimal(line.row.train_s.mean if line.row.train_s else None, 1) + train_mark(line.row.times)
    return decimal(_mean(line.finished, "runtime/train_s"), 1)


def _trivial(line: _Line) -> str:
    recorded = line.block.trivial_score if line.block else None
    return decimal(recorded if recorded is not None else next(iter(_values(line.finished, "test/trivial_score")), None))


def _tfidf(line: _Line) -> float | None:
    """Return the test score of the linear model on TF-IDF features; None if it was not recorded."""
    recorded = line.block.tfidf_score if line.block else None
    return recorded if recorded is not None else _mean(line.finished, "test/tfidf_score")


def _values(outcomes: Iterable[Outcome], metric: str) -> list[float]:
    return [outcome.metrics[metric] for outcome in outcomes if metric in outcome.metrics]


def _mean(outcomes: Iterable[Outcome], metric: str) -> float | None:
    average = estimate(_values(outcomes, metric))
    return average.mean if average else None


def _joined(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _notes(
    outcomes: Sequence[Outcome],
    lines: Sequence[_Line],
    comparison: Comparison | None,
    problems: Sequence[str],
    names: Sequence[str],
) -> list[RenderableType]:
    """Return the elements shown below the table: warnings, a sentence on each strategy, the legend, and failed runs."""
    notes: list[RenderableType] = []
    if any(outcome.spec.data.source == "sample" for outcome in outcomes):
        notes.append(styled(SAMPLE_NOTE, "yellow"))
    yardsticks = {yardstick_name(o.planned.inputs.task.primary) for o in outcomes if "test/tfidf_score" in o.metrics}
    if yardsticks:
        notes.append(styled(f"TF-IDF: {' or '.join(sorted(yardsticks))} on the same rows, without an encoder.", "dim"))
    notes += [styled(problem, "yellow") for problem in problems]
    if not problems and any(line.finished and line.row is None for line in lines):
        notes.append(styled(NOT_COMPARED_WARNING, "yellow"))
    seeds = {outcome.spec.seed for outcome in outcomes}
    single = len(seeds) == 1 and not any(outcome.spec.fold for outcome in outcomes)
    if single and len({(line.task_and_model, line.strategy, line.settings) for line in lines}) > 1:
        notes.append(
            styled("One seed: a difference may be due to chance. Use --seeds 5 for intervals and tests.", "dim")
        )
    if len({line.strategy for line in lines}) > 1 and "lr" not in names:
        rates = sorted({untuned_text(outcome.spec.hyper.lr) for outcome in outcomes})
        remark = f"{' or '.join(rates)}; --tune {EXAMPLE} tunes each strategy on dev."
        notes.append(styled(remark[0].upper() + remark[1:], "dim"))
    blocks = comparison.blocks if comparison else ()
    for block in blocks[:MAX_SENTENCES]:
        where = ", ".join(filter(None, (f"{block.task}/{block.model}", describe_conditions(block))))
        if block.baseline_row is not None and (block.unlearnt is not None or not single):
            style = "yellow" if block.unlearnt is not None else ""
            notes += [styled(f"{where}: {sentence}", style) for sentence in (*statements(block), *block.notes)]
    if len(blocks) > MAX_SENTENCES:
        notes.append(styled(f"sentences on {len(blocks) - MAX_SENTENCES} more: alue-bench compare", "dim"))
    if comparison is not None:
        notes += [styled(line, "dim") for line in explain_verdicts(comparison)]
    for outcome in outcomes:
        if outcome.status == "failed":
            label = labelled(outcome.spec, names)
            notes.append(styled(f"failed {label}: {outcome.cause} (run {outcome.run_id})", "red"))
    return notes
