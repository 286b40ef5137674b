"""The comparison of tuned strategies, each with the hyper-parameters that gave its best dev score.

`alue-bench run --tune` records in its parent run which values it tried, which it chose, and the cost of tuning. This
module compares the runs with the chosen values as if they had the same hyper-parameters, because every strategy had the
same budget for tuning.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UnavailableError
from alue_bench.evaluation.margins import Margins
from alue_bench.messages.figure_text import shorten_names, shorten_title
from alue_bench.planning.tuning import EXAMPLE
from alue_bench.reporting.comparison import ComparisonBlock, LoadTargets, StrategyResult, compare
from alue_bench.reporting.comparison_table import (
    TextTable,
    difference_text,
    loss_text,
    margin_text,
    score_text,
    verdict_text,
)
from alue_bench.reporting.content import Cell, Column, Gallery, Item, Paragraph, ReportTable, Row, RowGroup
from alue_bench.reporting.drawing import Picture, line_styles, new_figure, style, to_svg
from alue_bench.reporting.numbers import decimal, number_with_noun, seconds
from alue_bench.reporting.statements import statements
from alue_bench.tracking.reading import Results, read_plan_results
from alue_bench.tracking.recording import TUNING
from alue_bench.tracking.reproduction import without_setting

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("epochs", "batch_size", "lr", "max_length")
"""The hyper-parameters with a column in the frame of runs. All other ones are in the column `other_hyper`."""
NO_TUNING = (
    "no tuning is recorded here; to tune every strategy on dev, run: alue-bench run --strategy full --strategy "
    f"bottom3top4 --tune {EXAMPLE} --seeds 5"
)


@dataclass(frozen=True)
class Tuning:
    """The tuning of all strategies for one task and model."""

    task: str
    model: str
    axes: Mapping[str, Sequence[float]]
    """The values that were tried, for each hyper-parameter that was tuned."""
    tune_seeds: Sequence[int]
    strategies: Mapping[str, Mapping[str, Any]]
    """The tuning of each strategy, as `studies.tuning.TunedStrategy.as_dict` returns it."""


@dataclass(frozen=True)
class TunedComparison:
    """The comparison of tuned strategies for one task and model."""

    tuning: Tuning
    block: ComparisonBlock


def read_tunings(results: Results) -> list[Tuning]:
    """Return the newest tuning of each task and model in the experiment.

    If the results were limited to the runs of one parent run (`Results.parent_id`), only its tunings are returned.
    """
    connection = results.connection
    if results.parent_id is not None:
        parents = [results.parent_id]
    else:
        parent_runs = connection.client.search_runs(
            [connection.experiment_id], f"tags.{TUNING} = 'yes'", order_by=["attributes.start_time DESC"]
        )
        parents = [run.info.run_id for run in parent_runs]
    tunings: dict[tuple[str, str], Tuning] = {}
    for parent in parents:
        document = (read_plan_results(results, parent) or {}).get("tuning")
        if not document:
            continue
        for pair in dict.fromkeys((entry["task"], entry["model"]) for entry in document["strategies"]):
            of_pair = {s["strategy"]: s for s in document["strategies"] if (s["task"], s["model"]) == pair}
            if any(entry["fingerprints"] for entry in of_pair.values()):  # none are recorded if tuning was interrupted
                tunings.setdefault(pair, Tuning(*pair, document["axes"], document["tune_seeds"], of_pair))
    return [tunings[pair] for pair in sorted(tunings)]


def compare_tuned(
    results: Results, load: LoadTargets, *, baseline: str, metric: str | None = None, margins: Margins | None = None
) -> list[TunedComparison]:
    """Compare the tuned strategies with the tuned baseline, for each task and model that was tuned.

    Args:
        results: The finished runs.
        load: The function that reads a run's test predictions.
        baseline: The strategy with which all other strategies are compared.
        metric: The metric; None for each task's primary metric.
        margins: The margin (largest acceptable loss of score) for each metric; None for the default.

    Raises:
        UnavailableError: No tuning is recorded, or the results contain no run with the values that a tuning chose.
        UsageError: No run has the metric, or a metric that `margins` names.
    """
    tunings = read_tunings(results)
    frames = [_with_equal_settings(results.frame, tuning) for tuning in tunings]
    chosen = [(tuning, frame) for tuning, frame in zip(tunings, frames, strict=True) if len(frame)]
    if not chosen:
        raise UnavailableError(NO_TUNING)
    import pandas as pd

    # One call, so that p-values are corrected for the tests of all tasks.
    compared = compare(
        pd.concat([frame for _, frame in chosen]), load, baseline=baseline, metric=metric, margins=margins
    )
    by_pair = {(tuning.task, tuning.model): tuning for tuning, _ in chosen}
    return [TunedComparison(by_pair[block.task, block.model], block) for block in compared.blocks]


def _with_equal_settings(frame: pd.DataFrame, tuning: Tuning) -> pd.DataFrame:
    """Return the runs with the values that the tuning chose, as comparable runs.

    The values of the tuned hyper-parameters are removed, since runs whose hyper-parameters differ are not compared.
    """
    import pandas as pd

    fingerprints = {fingerprint for strategy in tuning.strategies.values() for fingerprint in strategy["fingerprints"]}
    runs = frame[frame["fingerprint"].isin(fingerprints)].copy()
    for name in tuning.axes:
        if name in COLUMNS:
            runs[name] = pd.Series(math.nan, index=runs.index, dtype=runs[name].dtype)
        else:
            runs["other_hyper"] = runs["other_hyper"].map(partial(without_setting, name=name))
    return runs


def chosen_text(tuning: Mapping[str, Any]) -> str:
    """Format the chosen values of a strategy, such as "lr 0.0001, epochs 3".

    The mark `EDGE_MARK` follows a value that is the smallest or largest of those that were tried. If no value could be
    chosen, the result states that no run has a dev score.
    """
    if tuning["chosen"] is None:
        return "no run has a dev score"
    edges = tuning["at_edge"]
    return ", ".join(
        f"{name} {value:g}{EDGE_MARK if name in edges else ''}" for name, value in tuning["chosen"].items()
    )


EDGE_MARK = "°"
"""The mark of a chosen value that is the smallest or largest of those that were tried."""


def cost_text(tuning: Mapping[str, Any]) -> str:
    """Format the cost of a strategy's tuning, such as "5 runs, 2.1e+13 FLOPs, 40 s".

    If tuning needed no runs, the result states that the values come from a study file.
    """
    cost = tuning["cost"]
    if not cost["runs"]:
        return "values of a study file"
    failed = f" ({cost['failed']} failed)" if cost["failed"] else ""
    return f"{number_with_noun(cost['runs'], 'run')}{failed}, {cost['flops']:.2g} FLOPs, {seconds(cost['train_s'])}"


def edge_remarks(tunings: Sequence[Tuning]) -> list[str]:
    """Return a sentence for each task and model in which a chosen value lies at the edge of the values tried."""
    sentences = []
    for tuning in tunings:
        edges: dict[str, list[str]] = {}
        for name, strategy_tuning in tuning.strategies.items():
            for axis in strategy_tuning["at_edge"]:
                edges.setdefault(f"{axis} {strategy_tuning['chosen'][axis]:g}", []).append(name)
        if edges:
            where = "; ".join(f"{', '.join(strategies)} ({value})" for value, strategies in edges.items())
            sentences.append(
                f"{EDGE_MARK} {tuning.task}, {tuning.model}: the best value is at the edge of the values tried for "
                f"{where}; extend the range of --tune"
            )
    return sentences


def tuned_table(compared: TunedComparison) -> TextTable:
    """Return the table of tuned strategies: chosen values, score, change, verdict, and the cost of tuning."""
    tuning, block = compared.tuning, compared.block
    rows = tuple(
        (
            row.strategy,
            chosen_text(tuning.strategies[row.strategy]),
            str(len(row.seeds)),
            score_text(row.score),
            difference_text(row.difference),
            loss_text(row.difference),
            verdict_text(row),
            cost_text(tuning.strategies[row.strategy]),
        )
        for row in block.rows
    )
    tuned = any(strategy_tuning["trials"] for strategy_tuning in tuning.strategies.values())
    how = f"tuned on dev over {_axes_text(tuning)}" if tuned else "hyper-parameters of a study file"
    facts = [how, f"{block.conditions['data_source'] or 'unknown'} data"]
    if any(row.difference and row.difference.loss_bound is not None for row in block.rows):
        facts.append(margin_text(block))
    return TextTable(
        title=f"{block.task}, {block.model}, tuned: {block.metric.removeprefix('test/')}",
        subtitle="; ".join(facts),
        columns=("strategy", "chosen", "seeds", "score", f"Δ {block.baseline}", "loss up to", "verdict", "tuning cost"),
        rows=rows,
        notes=(*block.notes, *statements(block), *edge_remarks([tuning]), *([budget_line(tuning)] if tuned else [])),
    )


def _axes_text(tuning: Tuning) -> str:
    axes = "; ".join(f"{name} {', '.join(f'{v:g}' for v in tried)}" for name, tried in tuning.axes.items())
    return f"{axes}, {number_with_noun(len(tuning.tune_seeds), 'seed')}, for every strategy"


def budget_line(tuning: Tuning) -> str:
    """Return a sentence with the expected best dev score of each strategy after one, half and all of its trials."""
    parts = []
    for name, strategy_tuning in tuning.strategies.items():
        curve = strategy_tuning["expected_best_dev"]
        if curve:
            shown = sorted({1, (len(curve) + 1) // 2, len(curve)})
            parts.append(f"{name} " + ", ".join(f"{decimal(curve[k - 1])} after {k}" for k in shown))
    return f"expected best dev score by the number of trials: {'; '.join(parts)}" if parts else "no trial has a score"


def tuned_records(compared: Sequence[TunedComparison]) -> list[dict[str, Any]]:
    """Return a dict for JSON for each tuned task and model: the values tried and chosen, scores, verdicts, costs."""
    from alue_bench.reporting.comparison_table import block_records

    return [
        {
            "task": tuned.tuning.task,
            "model": tuned.tuning.model,
            "axes": tuned.tuning.axes,
            "tune_seeds": list(tuned.tuning.tune_seeds),
            "rows": [
                {**_without_conditions(record), "tuning": tuned.tuning.strategies[record["strategy"]]}
                for record in block_records(tuned.block)
            ],
        }
        for tuned in compared
    ]


def _without_conditions(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a strategy's record without hyper-parameters, since the record of its tuning has them."""
    return {name: value for name, value in record.items() if name not in COLUMNS}


# Report page -------------------------------------------------------------------------------------------------------


def section_items(compared: Sequence[TunedComparison], limit: int, prefix: str) -> list[Item]:
    """Return the table of tuned strategies, and figures of the best dev score to expect by the number of trials.

    Args:
        compared: The comparisons of tuned strategies.
        limit: The largest number of figures.
        prefix: The text with which the names of the figures begin; it makes the names unique on the page.
    """
    if not compared:
        return []
    columns = [
        Column("chosen", number=False, explained=f"{EDGE_MARK}: at the edge of the values tried"),
        Column("score", explained="test score, mean over seeds that took no part in the tuning"),
        Column("Δ score", explained="change against the tuned baseline"),
        Column("verdict", number=False),
        Column("tuning cost", number=False),
    ]
    groups = [
        RowGroup(
            f"{tuned.tuning.task}, {tuned.tuning.model}",
            [_row(row, tuned) for row in tuned.block.rows],
            _axes_text(tuned.tuning),
        )
        for tuned in compared
    ]
    drawn = [tuned.tuning for tuned in compared if any(s["trials"] for s in tuned.tuning.strategies.values())]
    pictures = [budget_curves(tuning, f"{prefix}-{number}") for number, tuning in enumerate(drawn[:limit], start=1)]
    remarks = [
        Paragraph(f"{sentence}.", warning=True) for sentence in edge_remarks([tuned.tuning for tuned in compared])
    ]
    return [ReportTable("Tuned strategies", "task and model, strategy", columns, groups), *remarks, Gallery(pictures)]


def _row(row: StrategyResult, tuned: TunedComparison) -> Row:
    tuning = tuned.tuning.strategies[row.strategy]
    verdict = "baseline" if row.strategy == tuned.block.baseline else verdict_text(row) or "no verdict"
    texts = (chosen_text(tuning), score_text(row.score), difference_text(row.difference), verdict, cost_text(tuning))
    return Row(row.strategy, [Cell(text) for text in texts])


def budget_curves(tuning: Tuning, name: str) -> Picture:
    """Draw the expected best dev score after k trials for each strategy, as in figure 1 of Dodge et al. 2019."""
    from matplotlib.ticker import MaxNLocator

    curves = {strategy: strategy_tuning["expected_best_dev"] for strategy, strategy_tuning in tuning.strategies.items()}
    curves = {strategy: curve for strategy, curve in curves.items() if curve}
    with style():
        figure = new_figure(4.3, 3.0)
        axes = figure.add_subplot()
        lines = [
            axes.plot(range(1, len(curve) + 1), curve, label=label, linewidth=1.6, markersize=4.5, **look)[0]
            for (curve, look), label in zip(
                zip(curves.values(), line_styles(list(curves)).values(), strict=True),
                shorten_names(list(curves)),
                strict=True,
            )
        ]
        axes.set(xlabel="trials", ylabel="expected best dev score")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(shorten_title(f"{tuning.task}, {tuning.model}"))
        if lines:
            axes.legend(lines, [str(line.get_label()) for line in lines], loc="best")
        svg = to_svg(figure, name)
    curves_text = "; ".join(
        f"{strategy} {curve[0]:.3f} after 1, {curve[-1]:.3f} after {len(curve)}" for strategy, curve in curves.items()
    )
    return Picture(
        name, svg, alt=f"Expected best dev score by number of trials, {tuning.task}, {tuning.model}: {curves_text}."
    )


def tuned_blocks(results: Results, load: LoadTargets, baseline: str, margins: Margins | None) -> list[TunedComparison]:
    """Return the comparisons of tuned strategies; empty if nothing was tuned."""
    if results.frame.empty:
        return []
    try:
        return compare_tuned(results, load, baseline=baseline, margins=margins)
    except UnavailableError:
        return []
