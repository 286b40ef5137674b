"""Figures of scores and training times: a scatter plot for each task, and bar charts of means over tasks.

The bar charts correspond to figure 2 of the paper by Betka et al. If the tasks have different metrics, a mean score
over tasks only shows a tendency. For a conclusion over tasks, see the module `across_section`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from alue_bench.reporting import comparison
from alue_bench.reporting.charts import Point, averages, pareto
from alue_bench.reporting.content import Gallery, Item, Paragraph
from alue_bench.reporting.grid import pareto_front
from alue_bench.reporting.numbers import number_with_noun
from alue_bench.reporting.subjects import Subject

if TYPE_CHECKING:
    import pandas as pd

MAX_BARS = 16
"""The largest number of strategies in a bar chart."""


def score_time_plots(subjects: Sequence[Subject], limit: int, prefix: str) -> list[Item]:
    """Return scatter plots of score against training time, for each subject with more than one strategy.

    Args:
        subjects: The subjects to show. A subject is the comparison of strategies for one task and model under one set
            of conditions, with its runs.
        limit: The largest number of plots to return.
        prefix: The text with which the names of the pictures begin; it makes the names unique on the page.
    """
    several_strategies = [subject for subject in subjects if len(_measured(subject)) > 1]
    drawn = []
    for number, subject in enumerate(several_strategies[:limit], start=1):
        points = _measured(subject)
        front = pareto_front(_as_cells(points), "test_score")["strategy"]
        drawn.append(
            pareto(points, list(front), name=f"{prefix}-{number}", metric=subject.metric, figure_title=subject.label)
        )
    items: list[Item] = [Gallery(drawn)] if drawn else []
    if len(several_strategies) > limit:
        items.append(
            Paragraph(
                f"Shown: {limit} of {number_with_noun(len(several_strategies), 'task and model', 'tasks and models')}. "
                "Use --task and --model to choose others.",
                warning=True,
            )
        )
    return items


def _measured(subject: Subject) -> list[Point]:
    return [
        Point(row.strategy, row.score.mean, row.train_s.mean, row.score.half_width, row.train_s.half_width)
        for row in subject.compared.rows
        if row.score is not None and row.train_s is not None
    ]


def _as_cells(points: Sequence[Point]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        [(point.name, point.score, point.time) for point in points], columns=["strategy", "test_score", "train_s"]
    )


def figure_2(subjects: Sequence[Subject], prefix: str) -> list[Item]:
    """Return figure 2 of the paper by Betka et al. from our runs: bars of mean scores and training times over tasks.

    For each model, the tasks with runs of the baseline and of at least one other strategy are combined. Bar charts are
    drawn if there are at least two such tasks, and if a strategy besides the baseline ran on all of them.

    Args:
        subjects: The subjects to show. A subject is the comparison of strategies for one task and model under one set
            of conditions, with its runs.
        prefix: The text with which the names of the pictures begin; it makes the names unique on the page.
    """
    items: list[Item] = []
    for number, model in enumerate(dict.fromkeys(subject.model for subject in subjects), start=1):
        of_model = [subject for subject in subjects if subject.model == model]
        chosen = _one_each(of_model)
        left_out = len(of_model) - len(chosen)
        by_task = {
            subject.task: {row.strategy: row for row in subject.compared.rows if row.score and row.train_s}
            for subject in chosen
        }
        with_baseline = {task: rows for task, rows in by_task.items() if comparison.BASELINE in rows and len(rows) > 1}
        if len(with_baseline) < 2:
            continue
        common = [
            strategy
            for strategy in next(iter(with_baseline.values()))
            if all(strategy in rows for rows in with_baseline.values())
        ]
        if len(common) > 1:
            items += _averaged(
                model, {t: [rows[s] for s in common] for t, rows in with_baseline.items()}, f"{prefix}-{number}"
            )
            metrics = dict.fromkeys(subject.metric for subject in chosen if subject.task in with_baseline)
            items.append(
                Paragraph(
                    f"The paper's figure 2 from our runs of {model}: mean over {', '.join(with_baseline)}, each "
                    f"scored by {' or '.join(metrics)}"
                    + (
                        ", its primary metric; a mean of different metrics only shows a tendency."
                        if len(metrics) > 1
                        else "."
                    )
                    + " Tasks that train longer weigh more in the mean time."
                    + _unlearnt_sentence(chosen, with_baseline)
                    + (f" Shown: {MAX_BARS} of {len(common)} strategies." if len(common) > MAX_BARS else "")
                    + (
                        f" {number_with_noun(left_out, 'set')} of runs with other settings are left out."
                        if left_out
                        else ""
                    )
                )
            )
    return items


def _unlearnt_sentence(subjects: Sequence[Subject], tasks: Collection[str]) -> str:
    """Return a sentence that names the tasks on which the baseline strategy learnt nothing; empty without such tasks.

    Args:
        subjects: The results of one model.
        tasks: The tasks to consider.
    """
    unlearnt = [s.task for s in subjects if s.task in tasks and s.compared.unlearnt is not None]
    if not unlearnt:
        return ""
    names = ", ".join(unlearnt)
    return f" On {names}, {comparison.BASELINE} did not learn, so every strategy seems to keep its score."


def _averaged(model: str, by_task: dict[str, list[comparison.StrategyResult]], name: str) -> list[Item]:
    tasks = len(by_task)
    strategies = [row.strategy for row in next(iter(by_task.values()))][:MAX_BARS]
    score, time = [], []
    for position, strategy in enumerate(strategies):
        rows = [rows[position] for rows in by_task.values()]
        score.append((strategy, sum(row.score.mean for row in rows if row.score) / tasks))
        time.append((strategy, sum(row.train_s.mean for row in rows if row.train_s) / tasks))
    of = f"{model}, {number_with_noun(tasks, 'task')}"
    return [
        Gallery(
            [
                averages(score, name=f"{name}-score", figure_title=of, unit="mean test score", digits=3),
                averages(time, name=f"{name}-time", figure_title=of, unit="mean training time in seconds", digits=1),
            ]
        )
    ]


def _one_each(subjects: Sequence[Subject]) -> list[Subject]:
    """Return one subject for each task, so that no task counts twice in a mean.

    If a task has several subjects, because runs differ in conditions such as hyper-parameters, the one with the most
    strategies is chosen.
    """
    best: dict[str, Subject] = {}
    for subject in subjects:
        if subject.task not in best or len(subject.strategies) > len(best[subject.task].strategies):
            best[subject.task] = subject
    return list(best.values())
