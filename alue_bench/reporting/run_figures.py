"""Figures and tables made from files that single runs logged: learning curves, layer scores, pooled test predictions.

Reading the files of many runs is slow, and the figures are large. A report page therefore shows them for a few tasks,
models and strategies only, and states how many it leaves out.
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
from alue_bench.reporting.numbers import number_with_noun
from alue_bench.reporting.subjects import Subject
from alue_bench.tracking.reading import Results, read_curves, read_layer_scores, read_predictions
from alue_bench.tracking.reproduction import other_settings

if TYPE_CHECKING:
    import pandas as pd

HITS_COLUMNS = [Column("true positives"), Column("false negatives"), Column("false positives")]
"""The columns of a table that counts right, missed and wrong predictions for each label, tag or entity type."""
MAX_SCATTER_POINTS = 300
"""The largest number of points in a scatter plot. If there are more, every n-th point is drawn."""
JACCARD = "test/jaccard_samples"
"""A metric that identifies the runs of multi-label tasks, because no other runs have it."""
LARGE_MATRIX = 12
"""The largest number of labels for which a confusion matrix is always visible. A larger matrix is hidden until the
reader unfolds it."""


@dataclass(frozen=True, kw_only=True)
class FigureLimits:
    """The limits on the figures that a report page shows: the largest numbers of subjects, strategies and seeds."""

    subjects: int = 12
    """The largest number of subjects, that is, comparisons of strategies for one task and model."""
    strategies: int = 4
    """The largest number of strategies for each subject. The baseline `full` is the first of them."""
    seeds: int = 10
    """The largest number of seeds (runs) for each strategy."""


def learning(results: Results, subjects: Sequence[Subject], shown: FigureLimits, prefix: str) -> list[Item]:
    """Return plots of the dev score by epoch, one for each subject of which a run was evaluated on dev more than once.

    If strategies or subjects were left out, a notice follows. The result is empty if there is no plot.

    Args:
        results: The runs, with the connection to the MLflow store that holds their files.
        subjects: The subjects to show. A subject is the comparison of strategies for one task and model under one set
            of conditions, with its runs.
        shown: The largest numbers of subjects, strategies and seeds to show.
        prefix: The text with which the names of the pictures begin; it makes the names unique on the page.
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
            drawn.append(learning_curves(curves, name=name, metric=subject.metric, figure_title=subject.label))
    return [Gallery(drawn), *_left_out(subjects, shown)] if drawn else []


def _dev_scores(curve: pd.DataFrame, steps_per_epoch: int | None) -> list[tuple[float, float]]:
    """Return the finite dev scores of a run, as pairs of (epoch, dev score); an epoch may be fractional.

    Args:
        curve: A curve of dev scores by step, from `read_curves`.
        steps_per_epoch: The number of steps in an epoch; None if the run was evaluated once at the end of each epoch.
    """
    points = enumerate(curve[["step", "value"]].itertuples(index=False, name=None), 1)
    return [
        (float(number) if steps_per_epoch is None else step / steps_per_epoch, float(value))
        for number, (step, value) in points
        if math.isfinite(value)
    ]


def _steps_per_epoch(runs: pd.DataFrame, run_id: str) -> int | None:
    """Return the number of steps in an epoch.

    Return None if the run was evaluated at the end of epochs only, or did not record its number of train rows.
    """
    run = runs[runs["run_id"] == run_id].iloc[0]
    if "eval_every" not in other_settings(run["other_hyper"]) or not run.get("data/train_rows", math.nan) > 0:
        return None
    return math.ceil(float(run["data/train_rows"]) / int(run["batch_size"]))


def choices(results: Results, subjects: Sequence[Subject], shown: FigureLimits, prefix: str) -> list[Item]:
    """Return a chart of layer scores for each subject and each strategy that chose its layers by a probe.

    A probe computes a score for each layer before training. Warnings follow if layer scores could not be read, or if
    subjects were left out.

    Args:
        results: The runs, with the connection to the MLflow store that holds their files.
        subjects: The subjects to show. A subject is the comparison of strategies for one task and model under one set
            of conditions, with its runs.
        shown: The largest numbers of subjects and seeds to show. All strategies that choose their layers are shown.
        prefix: The text with which the names of the pictures begin; it makes the names unique on the page.
    """
    choosing = [subject for subject in subjects if subject.runs["chosen_layers"].notna().any()]
    drawn, unread = [], 0
    for number, subject in enumerate(choosing[: shown.subjects], start=1):
        choosing_strategies = set(subject.runs.loc[subject.runs["chosen_layers"].notna(), "strategy"])
        for position, strategy in enumerate(subject.strategies, start=1):
            if strategy not in choosing_strategies:
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
                name = f"{prefix}-{number}-{position}"
                drawn.append(layer_scores(seeds, name=name, strategy=strategy, figure_title=subject.label))
    warnings = (
        [f"The layer scores of {number_with_noun(unread, 'run')} could not be read and are left out."] if unread else []
    )
    if len(choosing) > shown.subjects:
        warnings.append(
            f"Shown: {shown.subjects} of {len(choosing)} tasks and models. Use --task and --model to choose."
        )
    return [*([Gallery(drawn)] if drawn else []), *(Paragraph(sentence, warning=True) for sentence in warnings)]


def confusion(results: Results, subjects: Sequence[Subject], shown: FigureLimits, prefix: str) -> list[Item]:
    """Return figures or tables of each strategy's test predictions, pooled over seeds; empty without predictions.

    The form depends on the task: a confusion matrix for single-label classification; counts for each label, for each
    entity type or for each tag, for multi-label classification and tagging; a scatter plot for regression; and counts
    of right, partly right and wrong answers for span extraction.

    Args:
        results: The runs, with the connection to the MLflow store that holds their files.
        subjects: The subjects to show. A subject is the comparison of strategies for one task and model under one set
            of conditions, with its runs.
        shown: The largest numbers of subjects, strategies and seeds to show.
        prefix: The text with which the names of the pictures begin; it makes the names unique on the page.
    """
    items: list[Item] = []
    for number, subject in enumerate(subjects[: shown.subjects], start=1):
        figures = []
        for position, strategy in enumerate(subject.strategies[: shown.strategies], start=1):
            run_ids = subject.run_ids(strategy)[: shown.seeds]
            name = f"{prefix}-{number}-{position}"
            figure = _predictions(results, run_ids, f"{subject.label} · {strategy}", name)
            figures += [figure] if figure is not None else []
        items += _arranged(figures, subject.label)
    return [*items, *_left_out(subjects, shown)] if items else []


def _arranged(figures: Sequence[Matrix | ReportTable | Picture], label: str) -> list[Item]:
    """Group the figures for one task and model by kind, for a report page.

    Tables and large matrices are hidden until the reader unfolds them.

    Args:
        figures: The figures, usually one for each strategy.
        label: The names of the task and the model, with which the titles of hidden parts begin.
    """
    small = [figure for figure in figures if isinstance(figure, Matrix) and len(figure.labels) <= LARGE_MATRIX]
    large = [figure for figure in figures if isinstance(figure, Matrix) and len(figure.labels) > LARGE_MATRIX]
    drawn = [figure for figure in figures if isinstance(figure, Picture)]
    tables = [figure for figure in figures if isinstance(figure, ReportTable)]
    items: list[Item] = []
    if small:
        items.append(Matrices(small))
    if drawn:
        items.append(Gallery(drawn))
    if tables:
        items.append(Folded(f"{label}: counts per label", tables))
    if large:
        labels = number_with_noun(len(large[0].labels), "label")
        items.append(Folded(f"{label}: confusion matrix of {labels}", [Matrices(large)]))
    return items


def _left_out(subjects: Sequence[Subject], shown: FigureLimits) -> list[Item]:
    most = max((len(subject.strategies) for subject in subjects), default=0)
    parts = []
    if len(subjects) > shown.subjects:
        parts.append(f"{shown.subjects} of {number_with_noun(len(subjects), 'task and model', 'tasks and models')}")
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
        except (UnavailableError, ValueError):  # the file of predictions is missing or damaged
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
        return ReportTable(caption, "entity type" if tags.scheme else "tag", HITS_COLUMNS, [RowGroup("", rows)])
    if has_answers(everything.columns):
        return _answers(everything, caption)
    if pd.api.types.is_float_dtype(everything["gold"]):
        return _scatter(everything, name, caption)
    if not multilabel:
        pairs = Counter(zip(everything["gold"], everything["prediction"], strict=True))
        return Matrix(caption, labels, [[pairs[gold, predicted] for predicted in labels] for gold in labels])
    return _hits(everything, labels, caption)


def _answers(everything: pd.DataFrame, caption: str) -> ReportTable:
    """Return a table that counts right, partly right and wrong answers. Answers are normalised for Arabic first."""
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
    rows = results.frame[results.frame["run_id"].isin(list(run_ids))]
    return JACCARD in rows.columns and bool(rows[JACCARD].notna().any())


def _scatter(everything: pd.DataFrame, name: str, caption: str) -> Picture | None:
    finite = everything[["gold", "prediction"]].astype("float64").dropna()
    if finite.empty:
        return None
    thinned = finite.iloc[:: -(-len(finite) // MAX_SCATTER_POINTS)]
    return predicted_against_gold(list(thinned.itertuples(index=False, name=None)), name=name, figure_title=caption)


def _hits(everything: pd.DataFrame, labels: Sequence[str], caption: str) -> ReportTable:
    pairs = list(zip(everything["gold"], everything["prediction"], strict=True))

    def count(label: str) -> Row:
        right = sum(label in g and label in p for g, p in pairs)
        missed = sum(label in g and label not in p for g, p in pairs)
        invented = sum(label not in g and label in p for g, p in pairs)
        return Row(label, [Cell(str(right)), Cell(str(missed)), Cell(str(invented))])

    return ReportTable(caption, "label", HITS_COLUMNS, [RowGroup("", [count(label) for label in labels])])
