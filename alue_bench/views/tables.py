"""The views of plans (lists of runs to execute) and of results, for terminals and notebooks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table

from alue_bench.contract.options import options_of
from alue_bench.contract.spec import Fold, HyperParameters, Resolved
from alue_bench.evaluation.intervals import LEVEL, Estimate, estimate
from alue_bench.evaluation.learning import REMEDY, Learning, learning
from alue_bench.evaluation.resampled import estimate_over_folds
from alue_bench.evaluation.yardstick import yardstick_name
from alue_bench.executors.outcome import Outcome
from alue_bench.planning.build import Plan, PlannedRun
from alue_bench.planning.variation import Settings, labelled, reading_order, settings_of, varied_by_specs
from alue_bench.reporting.numbers import NONE, percent, plain, several, signed, signed_percent
from alue_bench.reporting.training_times import ACROSS_SESSIONS
from alue_bench.reporting.untuned import untuned_text
from alue_bench.views.console import PlainConsole, styled
from alue_bench.views.wide_tables import Fitted

if TYPE_CHECKING:
    from alue_bench.reporting.comparison import Comparison

BASELINE = "full"
FOLDS_NOTE = (
    "Folds share train rows: ± is that of the corrected resampled t-test (Nadeau & Bengio 2003); alue-bench compare "
    "gives verdicts."
)
SESSIONS_NOTE = (
    f"{ACROSS_SESSIONS} not both measured by this command. alue-bench compare shows whether one earlier command "
    "measured both; --rerun measures all again."
)
SAMPLE_NOTE = (
    "sample: embedded data written for demonstration; these scores say nothing about the real tasks. "
    "Add real files with: alue-bench data add TASK PATH"
)


def plan_view(plan: Plan) -> RenderableType:
    """Return the view of a plan, which is the list of runs that a command is about to execute.

    It shows the runs, their settings, and the combinations of tasks, models and strategies that are skipped, with the
    reasons.
    """
    table = Table(title=f"Plan: {several(len(plan.runs), 'run')}", title_justify="left", title_style="bold")
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
    for told, tasks in folds.items():
        if told:
            parts.append(styled(f"folds ({', '.join(dict.fromkeys(tasks))}): {told}"))
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
    """Return a text that describes the cross-validation to which the runs belong; empty if there is none."""
    repeats = {run.spec.fold.repeat for run in runs if run.spec.fold}
    if not repeats:
        return ""
    again = f", {len(repeats)} times" if len(repeats) > 1 else ""
    return "; ".join([f"{runs[0].spec.data.protocol}{again}", *runs[0].inputs.rows.notes])


def _in_reading_order(plan: Plan) -> list[PlannedRun]:
    """Return the planned runs in the order in which to show them.

    This is the order of execution, unless that was mixed to make the measured times comparable; then the runs are
    sorted.
    """
    if not plan.order_matters:
        return plan.runs
    place = reading_order([run.spec for run in plan.runs])
    return sorted(plan.runs, key=lambda run: place[run.spec.fingerprint])


def describe_settings(resolved: Sequence[Resolved]) -> str:
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


def result_view(outcomes: Sequence[Outcome]) -> RenderableType:
    """Return the view of results: means over seeds, and the changes against full fine-tuning.

    Changes are computed against runs of full fine-tuning with the same hyper-parameters.

    In a cross-validation, means and changes are taken over folds, with the confidence intervals of the corrected
    resampled t-test.

    There is a row for each task, model, strategy and combination of varied hyper-parameters. The heading of each task
    shows the score of a baseline that ignores the text. Values that all rows share are in the title, so that the table
    fits a narrow terminal.
    """
    names = varied_by_specs(outcome.spec for outcome in outcomes)
    groups: dict[tuple[str, str, str, Settings], list[Outcome]] = {}
    for outcome in sorted(outcomes, key=_first_of_block(outcomes)):
        spec = outcome.spec
        groups.setdefault((spec.task, spec.model, spec.strategy, settings_of(spec.hyper, names)), []).append(outcome)
    # The plan alternates strategies; the table has them in the same order for all settings.
    order = list(dict.fromkeys(outcome.spec.strategy for outcome in outcomes))
    first: dict[tuple[str, str, Settings], int] = {}
    for task, model, _, settings in groups:
        first.setdefault((task, model, settings), len(first))
    groups = dict(
        sorted(groups.items(), key=lambda one: (first[one[0][0], one[0][1], one[0][3]], order.index(one[0][2])))
    )
    varying: dict[str, Callable[[Outcome], str]] = {
        "data": lambda o: o.spec.data.source,
        "model": lambda o: o.spec.model,
        "status": lambda o: o.status,
    }
    constant = [{read(o) for o in outcomes}.pop() for read in varying.values() if len({read(o) for o in outcomes}) == 1]
    varying = {name: read for name, read in varying.items() if len({read(o) for o in outcomes}) > 1}
    seeds = len({outcome.spec.seed for outcome in outcomes})
    folds = len({outcome.spec.fold for outcome in outcomes} - {None})
    if folds:
        constant.append(f"mean of {folds} folds ± corrected {100 * LEVEL:.0f} % interval")
    else:
        constant.append(f"mean of {seeds} seeds ± {100 * LEVEL:.0f} % t-interval" if seeds > 1 else "one seed")
    table = Table(title=f"Test scores ({', '.join(constant)})", title_justify="left", title_style="bold")
    table.add_column("task: metric, strategy", no_wrap=True)
    for name in (*names, *varying):
        table.add_column(name)
    for column in ("score", "Δ full", "train s", "Δ time", "trained", "FLOPs"):
        table.add_column(column, justify="right", no_wrap=True)
    previous, sessions = None, False
    for (task, model, strategy, settings), group in groups.items():
        finished = _finished(group)
        if previous != (task, model):
            previous = (task, model)
            table.add_section()
            trivial = _score(_values(finished, "test/trivial_score")[:1])
            heading = styled(task, "bold") + styled(f": {group[0].planned.inputs.task.primary}")
            table.add_row(heading, *[""] * (len(names) + len(varying)), styled(f"{trivial} trivial", "dim"))
            if tfidf := _values(finished, "test/tfidf_score"):
                title = styled(f"  {yardstick_name(group[0].planned.inputs.task.primary)}", "dim")
                score = statistics.fmean(tfidf) if folds else tfidf[0]
                table.add_row(title, *[""] * (len(names) + len(varying)), styled(plain(score), "dim"))
        described = [str(value) for _, value in settings]
        described += [", ".join(dict.fromkeys(read(outcome) for outcome in group)) for read in varying.values()]
        reference = _finished(groups.get((task, model, "full", settings), [])) if strategy != "full" else []
        numbers = _measured(finished, reference) if finished else [NONE] * 6
        table.add_row(f"  {strategy}", *described, *numbers, style=None if finished else "red")
        sessions = sessions or numbers[3].endswith(ACROSS_SESSIONS)
    notes: list[RenderableType] = [Fitted(table), *([styled(SESSIONS_NOTE, "dim")] if sessions else [])]
    if any(outcome.spec.data.source == "sample" for outcome in outcomes):
        notes.append(styled(SAMPLE_NOTE, "yellow"))
    if folds:
        notes.append(styled(FOLDS_NOTE, "dim"))
    elif seeds == 1 and len(groups) > 1:
        notes.append(
            styled("One seed: a difference may be due to chance. Use --seeds 5 for intervals and tests.", "dim")
        )
    if len(order) > 1 and "lr" not in names:
        rates = {outcome.spec.hyper.lr for outcome in outcomes}
        if said := " or ".join(sorted({untuned_text(lr) for lr in rates})):
            notes.append(styled(f"{said}; --tune lr=1e-5..1e-3/log5 tunes each strategy on dev.".capitalize(), "dim"))
    for (task, model, strategy, settings), group in groups.items():
        learnt = _learning(_finished(group)) if strategy == BASELINE else None
        if learnt is not None and not learnt.shown:
            where = ", ".join([f"{task}/{model}", *(f"{name} {value}" for name, value in settings)])
            said = f"{where}: {learnt.sentence(strategy, 'test')}; {REMEDY}. Changes relative to it are meaningless."
            notes.append(styled(said, "yellow"))
    for outcome in outcomes:
        if outcome.status == "failed":
            label = labelled(outcome.spec, names)
            notes.append(styled(f"failed {label}: {outcome.cause} (run {outcome.run_id})", "red"))
    return Group(*notes)


def _first_of_block(outcomes: Sequence[Outcome]) -> Callable[[Outcome], int]:
    """Return a sort key, a function that groups outcomes by task and model in the order of first appearance."""
    first: dict[tuple[str, str], int] = {}
    for index, outcome in enumerate(outcomes):
        first.setdefault((outcome.spec.task, outcome.spec.model), index)
    return lambda outcome: first[(outcome.spec.task, outcome.spec.model)]


def _finished(group: Iterable[Outcome]) -> list[Outcome]:
    return [outcome for outcome in group if outcome.status != "failed"]


def _measured(finished: list[Outcome], reference: list[Outcome]) -> list[str]:
    # Where runs failed, changes are over the seeds and folds that both still have.
    by_seed = {_replicate(outcome): outcome for outcome in reference}
    pairs = [(one, by_seed[key]) for one in finished if (key := _replicate(one)) in by_seed]
    return [
        _fold_scores(finished) if finished[0].spec.fold else _score(_values(finished, "test/score")),
        _difference(pairs),
        plain(_mean(finished, "runtime/train_s"), 1),
        _time_change(pairs),
        percent(_mean(finished, "params/trainable_share")),
        percent(_mean(finished, "flops/train_vs_full")),
    ]


def _learning(finished: Sequence[Outcome]) -> Learning | None:
    """Compare the scores of runs with the score of a baseline that ignores the text.

    Return None if no run recorded the baseline's score.
    """
    columns = ("test/score", "test/trivial_score", "test/above_trivial_error")
    return learning(*([outcome.metrics.get(name, math.nan) for outcome in finished] for name in columns))


def _replicate(outcome: Outcome) -> tuple[int, int, Fold | None]:
    return outcome.spec.init_seed, outcome.spec.data_seed, outcome.spec.fold


def comparison_view(comparison: Comparison, *, sort: str) -> RenderableType:
    """Return the view of a comparison of strategies: a table with notes for each task and model, then a legend.

    Args:
        comparison: The comparison.
        sort: The key by which the rows are sorted, as in `comparison_table.text_tables`.
    """
    from alue_bench.reporting.comparison_table import explain, text_tables

    parts: list[RenderableType] = []
    for block, shown in zip(comparison.blocks, text_tables(comparison, sort=sort), strict=True):
        title = styled(f"{shown.title}\n", "bold") + styled(shown.subtitle, "dim")
        table = Table(title=title, title_justify="left", title_style="")
        for place, column in enumerate(shown.columns):
            table.add_column(column, justify="right" if place else "left", no_wrap=True)
        for row in shown.rows:
            table.add_row(*row)
        parts += [Fitted(table), *(styled(f"  {note}", "dim") for note in shown.notes)]
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


def _values(outcomes: Iterable[Outcome], metric: str) -> list[float]:
    return [outcome.metrics[metric] for outcome in outcomes if metric in outcome.metrics]


def _score(values: list[float]) -> str:
    from alue_bench.reporting.comparison_table import score_text

    return score_text(estimate(values))


def _mean(outcomes: Iterable[Outcome], metric: str) -> float:
    return statistics.fmean(_values(outcomes, metric))


def _difference(pairs: Iterable[tuple[Outcome, Outcome]]) -> str:
    """Return, as text, the mean difference of scores between the two runs of each pair; empty if there are no pairs.

    In a cross-validation the confidence interval is added.
    """
    pairs = list(pairs)
    if pairs and pairs[0][0].spec.fold:
        ours, base = (_by_fold([pair[side] for pair in pairs]) for side in (0, 1))
        common = [ours[fold] - base[fold] for fold in ours if math.isfinite(ours[fold] - base[fold])]
        over_folds = estimate_over_folds(common, _test_share([one for one, _ in pairs]))
        return _with_interval(over_folds) if over_folds else ""
    changes = [a.metrics["test/score"] - b.metrics["test/score"] for a, b in pairs]
    change = estimate(changes)
    return signed(change.mean) if change else ""


def _fold_scores(finished: Sequence[Outcome]) -> str:
    """Return, as text, the mean score over the folds of a cross-validation with its confidence interval."""
    from alue_bench.reporting.comparison_table import score_text

    return score_text(estimate_over_folds([*_by_fold(finished).values()], _test_share(finished)))


def _with_interval(change: Estimate) -> str:
    return signed(change.mean) + (f" ± {plain(change.half_width)}" if change.half_width is not None else "")


def _by_fold(outcomes: Iterable[Outcome]) -> dict[Fold | None, float]:
    """Return the mean score of each fold over its seeds; nan for a fold without a finite score."""
    by_fold: dict[Fold | None, list[float]] = {}
    for outcome in outcomes:
        score = outcome.metrics.get("test/score", math.nan)
        by_fold.setdefault(outcome.spec.fold, []).extend([score] if math.isfinite(score) else [])
    return {fold: statistics.fmean(scores) if scores else math.nan for fold, scores in by_fold.items()}


def _test_share(outcomes: Sequence[Outcome]) -> float:
    """Return the total number of test examples in all folds, divided by the total number of train examples."""
    test, train = (sum(_values(outcomes, f"data/{split}_rows")) for split in ("test", "train"))
    return test / train


def _time_change(pairs: Iterable[tuple[Outcome, Outcome]]) -> str:
    """Return, as text, the mean relative change of training time between the two runs of each pair.

    It has no confidence interval. Pairs of runs that this command executed are preferred; without such a pair, the text
    has a mark. `alue-bench compare` also recognises pairs that one earlier command executed.
    """
    from alue_bench.reporting.comparison import mean_change

    metric, pairs = "runtime/train_s", list(pairs)
    same = [(ours, base) for ours, base in pairs if ours.status == base.status == "finished"]
    change = mean_change((ours.metrics.get(metric), base.metrics.get(metric)) for ours, base in same or pairs)
    return f"{signed_percent(change.mean)}{'' if same else f' {ACROSS_SESSIONS}'}" if change else ""
