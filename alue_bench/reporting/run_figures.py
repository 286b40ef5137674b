"""Figures made from the artifacts of individual runs: learning curves, layer scores, predictions pooled over the seeds.

Reading these files is slow and the figures are large, so a page shows them for only a few subjects (a task with a
model) and strategies, and says how many it leaves out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alue_bench.contract.errors import UnavailableError
from alue_bench.evaluation.label_cells import split_labels
from alue_bench.evaluation.predictions import SPAN, has_answers, hits_of_tags, tags_of
from alue_bench.reporting.charts import layer_scores, learning_curves, predicted_against_gold
from alue_bench.reporting.content import (
    Cell,
    Column,
    Folded,
    Gallery,
    Item,
    Matrices,
    Matrix,
    Paragraph,
    ReportTable,
    Row,
    RowGroup,
)
from alue_bench.reporting.drawing import Picture
from alue_bench.reporting.numbers import several
from alue_bench.reporting.subjects import Subject
from alue_bench.tracking.reading import Results, read_curves, read_layer_scores, read_predictions
from alue_bench.tracking.reproduction import other_settings

if TYPE_CHECKING:
    import pandas as pd

HITS = [Column("true positives"), Column("false negatives"), Column("false positives")]
"""The columns of the counts for each label or type of entity."""
SCATTERED = 300
"""The largest number of points in a scatter plot. If there are more, every n-th point is drawn."""
JACCARD = "test/jaccard_samples"
"""A metric that identifies the runs of multi-label tasks, because no other runs have it."""
LARGE = 12
"""The largest number of labels for which a confusion matrix is always visible. A larger matrix is hidden until the
reader unfolds it."""


@dataclass(frozen=True, kw_only=True)
class FigureLimits:
    """The largest numbers of subjects (tasks with models), strategies and seeds for which a page shows figures."""

    subjects: int = 12
    """The largest number of subjects (tasks with models)."""
    strategies: int = 4
    """The largest number of strategies for each task and model, beginning with the baseline `full`."""
    seeds: int = 10
    """The largest number of seeds (runs) for each strategy."""


def learning(results: Results, subjects: Sequence[Subject], shown: FigureLimits, prefix: str) -> list[Item]:
    """Return plots of the dev score by epoch, one for each subject whose runs were evaluated on dev several times.

    Args:
        results: The results that hold the runs.
        subjects: The results to show. A subject is the comparison of strategies for one task and model under one set of
            conditions.
        shown: The largest numbers of subjects, strategies and seeds to show.
        prefix: The text with which the names of the pictures begin, so that they are unique on the page.
    """
    drawn = []
    for number, subject in enumerate(subjects[: shown.subjects], start=1):
        curves: dict[str, list[list[tuple[float, float]]]] = {}
        for strategy in subject.strategies[: shown.strategies]:
            for run_id in subject.run_ids(strategy)[: shown.seeds]:
                curve = read_curves(results, run_id, [f"dev/{subject.metric}"])
                points = _dev_scores(curve, _steps_per_epoch(subject.runs, run_id))
                if points:
                    curves.setdefault(strategy, []).append(points)
        if any(len(points) > 1 for seeds in curves.values() for points in seeds):
            name = f"{prefix}-{number}"
            drawn.append(learning_curves(curves, name=name, metric=subject.metric, of=subject.label))
    return [Gallery(drawn), *_left_out(subjects, shown)] if drawn else []


def _dev_scores(curve: pd.DataFrame, steps_per_epoch: int | None) -> list[tuple[float, float]]:
    """Return the finite dev scores of a run, as pairs of (epoch, dev score); an epoch may be fractional.

    Args:
        curve: A curve of dev scores by step, from `read_curves`.
        steps_per_epoch: The number of steps in an epoch; None if the run was evaluated only at the end of each epoch.
    """
    points = enumerate(curve[["step", "value"]].itertuples(index=False, name=None), 1)
    return [
        (float(number) if steps_per_epoch is None else step / steps_per_epoch, float(value))
        for number, (step, value) in points
        if math.isfinite(value)
    ]


def _steps_per_epoch(runs: pd.DataFrame, run_id: str) -> int | None:
    """Return the number of steps in an epoch if the run was also evaluated within epochs; otherwise None."""
    run = runs[runs["run_id"] == run_id].iloc[0]
    if "eval_every" not in other_settings(run["other_hyper"]) or not run.get("data/train_rows", math.nan) > 0:
        return None
    return math.ceil(float(run["data/train_rows"]) / int(run["batch_size"]))


def choices(results: Results, subjects: Sequence[Subject], shown: FigureLimits, prefix: str) -> list[Item]:
    """Return a chart of layer scores for each subject and strategy that chose its layers by a probe.

    Args:
        results: The results that hold the runs.
        subjects: The results to show. A subject is the comparison of strategies for one task and model under one set of
            conditions.
        shown: The largest numbers of subjects and seeds to show; all strategies that chose are shown.
        prefix: The text with which the names of the pictures begin, so that they are unique on the page.
    """
    choosing = [subject for subject in subjects if subject.runs["chosen_layers"].notna().any()]
    drawn, unread = [], 0
    for number, subject in enumerate(choosing[: shown.subjects], start=1):
        chose = set(subject.runs.loc[subject.runs["chosen_layers"].notna(), "strategy"])
        for place, strategy in enumerate(subject.strategies, start=1):
            if strategy not in chose:
                continue
            seeds = []
            for run_id in subject.run_ids(strategy)[: shown.seeds]:
                try:
                    scores = read_layer_scores(results, run_id)
                except UnavailableError:
                    scores = []
                seeds += [scores] if scores else []
                unread += not scores
            if seeds:
                name = f"{prefix}-{number}-{place}"
                drawn.append(layer_scores(seeds, name=name, strategy=strategy, of=subject.label))
    said = [f"The layer scores of {several(unread, 'run')} could not be read and are left out."] if unread else []
    if len(choosing) > shown.subjects:
        said.append(f"Shown: {shown.subjects} of {len(choosing)} tasks and models. Use --task and --model to choose.")
    return [*([Gallery(drawn)] if drawn else []), *(Paragraph(sentence, warning=True) for sentence in said)]


def confusion(results: Results, subjects: Sequence[Subject], shown: FigureLimits, prefix: str) -> list[Item]:
    """Return figures of each strategy's test predictions, pooled over seeds; empty if there are no predictions.

    Single-label tasks have confusion matrices, multi-label tasks have counts for each label, regressions have scatter
    plots, and span extraction has counts of wrong, partly right and right answers.

    Args:
        results: The results that hold the runs.
        subjects: The results to show. A subject is the comparison of strategies for one task and model under one set of
            conditions.
        shown: The largest numbers of subjects, strategies and seeds to show.
        prefix: The text with which the names of the pictures begin, so that they are unique on the page.
    """
    items: list[Item] = []
    for number, subject in enumerate(subjects[: shown.subjects], start=1):
        figures = []
        for place, strategy in enumerate(subject.strategies[: shown.strategies], start=1):
            run_ids = subject.run_ids(strategy)[: shown.seeds]
            name = f"{prefix}-{number}-{place}"
            one = _predictions(results, run_ids, f"{subject.label} · {strategy}", name)
            figures += [one] if one is not None else []
        items += _arranged(figures, subject.label)
    return [*items, *_left_out(subjects, shown)] if items else []


def _arranged(figures: Sequence[Matrix | ReportTable | Picture], label: str) -> list[Item]:
    """Group the figures for one task and model by kind, for a report page.

    Tables and large matrices are hidden until the reader unfolds them.
    """
    small = [one for one in figures if isinstance(one, Matrix) and len(one.labels) <= LARGE]
    large = [one for one in figures if isinstance(one, Matrix) and len(one.labels) > LARGE]
    drawn = [one for one in figures if isinstance(one, Picture)]
    tables = [one for one in figures if isinstance(one, ReportTable)]
    items: list[Item] = []
    if small:
        items.append(Matrices(small))
    if drawn:
        items.append(Gallery(drawn))
    if tables:
        items.append(Folded(f"{label}: counts per label", tables))
    if large:
        labels = several(len(large[0].labels), "label")
        items.append(Folded(f"{label}: confusion matrix of {labels}", [Matrices(large)]))
    return items


def _left_out(subjects: Sequence[Subject], shown: FigureLimits) -> list[Item]:
    most = max((len(subject.strategies) for subject in subjects), default=0)
    parts = []
    if len(subjects) > shown.subjects:
        parts.append(f"{shown.subjects} of {several(len(subjects), 'task and model', 'tasks and models')}")
    if most > shown.strategies:
        parts.append(f"at most {shown.strategies} of up to {most} strategies each")
    text = f"Shown: {', '.join(parts)}. Use --task, --model and --strategy to choose others."
    return [Paragraph(text, warning=True)] if parts else []


def _predictions(
    results: Results, run_ids: Sequence[str], label: str, name: str
) -> Matrix | ReportTable | Picture | None:
    import pandas as pd

    tables, multilabel = [], _are_multilabel(results, run_ids)
    for run_id in run_ids:
        try:
            table = read_predictions(results, run_id)
            if multilabel:
                table = table.assign(**{side: table[side].map(split_labels) for side in ("gold", "prediction")})
        except (UnavailableError, ValueError):  # missing or damaged
            continue
        tables.append(table)
    if not tables:
        return None
    caption = f"{label}, {'1 seed' if len(tables) == 1 else f'{len(tables)} seeds together'}"
    everything = pd.concat(tables, ignore_index=True)
    labels = [column.removeprefix("score_") for column in everything.columns if column.startswith("score_")]
    if (tags := tags_of(everything.columns)) is not None:
        counts = zip(*hits_of_tags(list(everything["gold"]), list(everything["prediction"]), tags), strict=True)
        rows = [Row(name, [Cell(str(n)) for n in row]) for name, row in zip(tags.types, counts, strict=True)]
        return ReportTable(caption, "entity type" if tags.scheme else "tag", HITS, [RowGroup("", rows)])
    if has_answers(everything.columns):
        return _answers(everything, caption)
    if pd.api.types.is_float_dtype(everything["gold"]):
        return _scatter(everything, name, caption)
    if not multilabel:
        pairs = Counter(zip(everything["gold"], everything["prediction"], strict=True))
        return Matrix(caption, labels, [[pairs[gold, predicted] for predicted in labels] for gold in labels])
    return _hits(everything, labels, caption)


def _answers(everything: pd.DataFrame, caption: str) -> ReportTable:
    """Return the numbers of right, partly right and wrong answers, compared after the normalisation of Arabic."""
    equal, f1 = (everything[f"{SPAN}{name}_arabic"].astype("float64") for name in ("exact_match", "f1"))
    counts = {
        "exact match": int((equal == 1).sum()),
        "some words in common": int(((equal < 1) & (f1 > 0)).sum()),
        "no word in common": int((f1 == 0).sum()),
    }
    rows = [Row(name, [Cell(str(count))]) for name, count in counts.items()]
    return ReportTable(caption, "answer, after normalisation of Arabic", [Column("questions")], [RowGroup("", rows)])


def _are_multilabel(results: Results, run_ids: Sequence[str]) -> bool:
    """Return whether the runs belong to a multi-label task."""
    of_runs = results.frame[results.frame["run_id"].isin(list(run_ids))]
    return JACCARD in of_runs.columns and bool(of_runs[JACCARD].notna().any())


def _scatter(everything: pd.DataFrame, name: str, caption: str) -> Picture | None:
    finite = everything[["gold", "prediction"]].astype("float64").dropna()
    if finite.empty:
        return None
    thinned = finite.iloc[:: -(-len(finite) // SCATTERED)]
    return predicted_against_gold(list(thinned.itertuples(index=False, name=None)), name=name, of=caption)


def _hits(everything: pd.DataFrame, labels: Sequence[str], caption: str) -> ReportTable:
    both = list(zip(everything["gold"], everything["prediction"], strict=True))

    def count(label: str) -> Row:
        right = sum(label in g and label in p for g, p in both)
        missed = sum(label in g and label not in p for g, p in both)
        invented = sum(label not in g and label in p for g, p in both)
        return Row(label, [Cell(str(right)), Cell(str(missed)), Cell(str(invented))])

    return ReportTable(caption, "label", HITS, [RowGroup("", [count(label) for label in labels])])
