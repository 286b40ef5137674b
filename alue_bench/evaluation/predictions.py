"""The conversion of logits into predictions with label names, and of tables of predictions into arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import DataError
from alue_bench.contract.spec import Predictions
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.data.words import as_rows
from alue_bench.evaluation.label_cells import join_labels, split_labels
from alue_bench.evaluation.tagging import tag_counts

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


TAGS = {None: "tag_", "IOB2": "iob2_"}
"""The beginning of the columns of a table of predictions that count the words with each predicted tag, by scheme."""


def decide(
    logits: np.ndarray[Any, Any], labels: Labels, words: np.ndarray[Any, Any] | None = None
) -> np.ndarray[Any, Any]:
    """Convert logits into predictions: class indices, 0 and 1 for each label, numbers, or tags.

    Args:
        logits: The logits of n examples, [n, outputs]; of all words in a task that tags words, [words, outputs].
        labels: The label space.
        words: The number of words of each sentence, int64 [n]; only for a task that tags words.

    Returns:
        The class indices, [n]; for a multi-label task 0 or 1 for each label, [n, labels]; for a regression numbers,
        [n]; for tags of words rows of tags, [n, longest], see `data.words.as_rows`.
    """
    import numpy as np
    from scipy.special import expit

    if labels.kind is TargetKind.REGRESSION:
        return np.asarray(logits[:, 0])
    if labels.kind is TargetKind.MULTILABEL:
        return np.asarray(expit(logits) > labels.threshold, dtype="int64")
    best = np.asarray(logits.argmax(axis=1))
    return best if words is None else as_rows(best, words)


def probabilities(logits: np.ndarray[Any, Any], labels: Labels) -> np.ndarray[Any, Any]:
    """Return each label's probability for n examples, [n, labels]; for a regression the predicted number, [n, 1]."""
    from scipy.special import expit, softmax

    if labels.kind is TargetKind.REGRESSION:
        return logits
    if labels.kind is TargetKind.MULTILABEL:
        return expit(logits)  # type: ignore[no-any-return]
    return softmax(logits, axis=1)  # type: ignore[no-any-return]


def predictions_table(
    ids: list[str], gold: np.ndarray[Any, Any] | None, logits: np.ndarray[Any, Any], labels: Labels
) -> Predictions:
    """Return a table of predictions, with the names of gold and predicted labels and a score for each label.

    In a task that tags words, a cell holds the tags of a sentence, separated by spaces, and instead of scores the table
    counts the words with each predicted tag.

    Args:
        ids: The identifiers of the n examples.
        gold: The gold targets, in the form that `decide` returns; None if there are no gold labels.
        logits: The logits, in the form that `decide` takes.
        labels: The label space.
    """
    if labels.tags_words:
        assert gold is not None  # a task that tags words has no submission
        return _table_of_tags(ids, gold, decide(logits, labels, (gold >= 0).sum(axis=1)), labels)
    return Predictions(
        ids=ids,
        gold=[""] * len(ids) if gold is None else [_named(value, labels) for value in gold],
        predicted=[_named(value, labels) for value in decide(logits, labels)],
        scores=probabilities(logits, labels),
        columns=labels.names or ("value",),
    )


def _table_of_tags(
    ids: list[str], gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], labels: Labels
) -> Predictions:
    import numpy as np

    counts = np.stack([(predicted == place).sum(axis=1) for place in range(len(labels.names))], axis=1)
    given, found = (
        [" ".join(labels.names[tag] for tag in row if tag >= 0) for row in rows] for rows in (gold, predicted)
    )
    return Predictions(
        ids=ids, gold=given, predicted=found, scores=counts, columns=labels.names, prefix=TAGS[labels.scheme]
    )


@dataclass(frozen=True)
class Targets:
    """The gold and predicted labels in a table of predictions, as arrays that `evaluation.metrics.metrics` takes."""

    ids: np.ndarray[Any, Any]
    gold: np.ndarray[Any, Any]
    predicted: np.ndarray[Any, Any]
    labels: Labels


def targets_of(table: pd.DataFrame, *, multilabel: bool = False) -> Targets:
    """Convert a recorded table of predictions into arrays of gold and predicted labels.

    Args:
        table: A table with the columns id, gold, prediction, and score_LABEL for each label (or, for each tag of words,
            the columns in `TAGS`).
        multilabel: Whether a cell holds several label names, joined as in `label_cells`.

    Raises:
        DataError: A gold or predicted label has no column score_LABEL, or a cell cannot be divided into label names.
    """
    import numpy as np

    names = tuple(name.removeprefix("score_") for name in table.columns if name.startswith("score_"))
    ids = np.asarray(table["id"], dtype=object)
    if names == ("value",):
        gold, predicted = (np.asarray(table[side], dtype="float64") for side in ("gold", "prediction"))
        return Targets(ids, gold, predicted, Labels.regression(-math.inf, math.inf))
    if not names and (tags := tags_of(table)) is not None:
        gold, predicted = (_tag_rows(table[side], tags) for side in ("gold", "prediction"))
        if gold.shape != predicted.shape or ((gold < 0) != (predicted < 0)).any():
            raise DataError("the predictions hold a sentence whose gold and predicted tags differ in number")
        return Targets(ids, gold, predicted, tags)
    read = _marks if multilabel else _places
    gold, predicted = (read(table[side], names) for side in ("gold", "prediction"))
    return Targets(ids, gold, predicted, Labels.multilabel(*names) if multilabel else Labels.multiclass(*names))


def tags_of(table: pd.DataFrame) -> Labels | None:
    """Return the tags of a recorded table of predictions; None if its task does not tag words."""
    for scheme, prefix in TAGS.items():
        names = [name.removeprefix(prefix) for name in table.columns if name.startswith(prefix)]
        if len(names) > 1:
            return Labels.tokens(*names, scheme=scheme)  # type: ignore[arg-type]
    return None


def _tag_rows(cells: Any, labels: Labels) -> np.ndarray[Any, Any]:
    """Return the rows of tags in the cells of a table, each of which holds the tags of a sentence."""
    import numpy as np

    index = {name: place for place, name in enumerate(labels.names)}
    sentences = [cell.split(" ") for cell in cells.tolist()]
    try:
        tags = np.array([index[tag] for sentence in sentences for tag in sentence], dtype="int64")
    except KeyError as error:
        raise DataError(f"the predictions contain the tag {error.args[0]!r}, which is none of the task's") from error
    return as_rows(tags, np.array([len(sentence) for sentence in sentences], dtype="int64"))


def hits_of_tags(gold: Sequence[str], predicted: Sequence[str], labels: Labels) -> tuple[list[int], ...]:
    """Return how many entities (or words, without a scheme) of each type were found, missed and invented.

    Args:
        gold: The gold tags of each sentence, as in a table of predictions.
        predicted: The predicted tags.
        labels: The tags.
    """
    import numpy as np

    rows = [_tag_rows(np.array(cells, dtype=object), labels) for cells in (gold, predicted)]
    counts = tag_counts(rows[0], rows[1], labels).sum(axis=0).astype("int64")
    right, found, true = np.split(counts, 3)
    return right.tolist(), (true - right).tolist(), (found - right).tolist()


def _places(cells: Any, names: tuple[str, ...]) -> np.ndarray[Any, Any]:
    import numpy as np

    index = {name: place for place, name in enumerate(names)}
    try:
        return np.array([index[cell] for cell in cells.tolist()], dtype="int64")
    except KeyError as error:
        raise DataError(
            f"the predictions contain the label {error.args[0]!r}, which is not one of {', '.join(names)}"
        ) from error


def _marks(cells: Any, names: tuple[str, ...]) -> np.ndarray[Any, Any]:
    import numpy as np

    index = {name: place for place, name in enumerate(names)}
    marks = np.zeros((len(cells), len(index)), dtype="int64")
    for row, cell in enumerate(cells.tolist()):
        try:
            marked = split_labels(cell)
        except ValueError as error:
            raise DataError(f"the predictions' cell {cell!r:.60} cannot be parsed: {error}") from error
        for name in marked:
            if name not in index:
                raise DataError(f"the predictions contain the label {name!r}, which is not one of {', '.join(names)}")
            marks[row, index[name]] = 1
    return marks


def _named(value: Any, labels: Labels) -> Any:
    if labels.kind is TargetKind.REGRESSION:
        return float(value)
    if labels.kind is TargetKind.MULTILABEL:
        return join_labels(name for name, mark in zip(labels.names, value, strict=True) if mark)
    return labels.names[int(value)]
