"""The conversion of logits into predictions with label names, and of tables of predictions into arrays."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import DataError
from alue_bench.contract.spec import Predictions
from alue_bench.contract.task import METRICS, Labels, TargetKind
from alue_bench.data.spans import GoldAnswers, SpanPositions
from alue_bench.data.words import as_rows
from alue_bench.evaluation.answers import scores
from alue_bench.evaluation.label_cells import join_labels, split_labels
from alue_bench.evaluation.spans import best_answers
from alue_bench.evaluation.tagging import tag_counts

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


TAGS = {None: "tag_", "IOB2": "iob2_"}
"""The prefix, by scheme, of the columns that count the words with each predicted tag in a table of predictions."""
SPAN, CONTEXT = "answer_", "context"
"""The parts of column names in a table of predicted answers: a column named `SPAN` + METRIC holds the score of each
answer by a metric, and the column named `SPAN` + `CONTEXT` holds the number of each question's context."""
MAX_CELLS = 1 << 16
"""The largest number of distinct table cells whose parsed labels are cached, for each label space of a multi-label
task."""


def decide(
    logits: np.ndarray[Any, Any], labels: Labels, decoding: np.ndarray[Any, Any] | SpanPositions | None = None
) -> np.ndarray[Any, Any]:
    """Convert logits into predictions: class indices, 0 and 1 for each label, numbers, tags, or answers.

    Args:
        logits: The logits of n examples, [n, outputs]; in a task that tags words or extracts spans, the logits that
            `training.inference.predict_logits` returns.
        labels: The label space.
        decoding: In a task that tags words, the number of words of each sentence, int64 [n]; in span extraction, the
            words of the contexts; None for every other task. See `TokenizedSplit.decoding`.

    Returns:
        The class indices, [n]; for a multi-label task 0 or 1 for each label, [n, labels]; for a regression numbers,
        [n]; for tags of words rows of tags, [n, longest], see `data.words.as_rows`; for span extraction the texts of
        the answers, objects [n].
    """
    import numpy as np
    from scipy.special import expit

    if labels.kind is TargetKind.REGRESSION:
        return np.asarray(logits[:, 0])
    if labels.kind is TargetKind.MULTILABEL:
        return np.asarray(expit(logits) > labels.threshold, dtype="int64")
    if isinstance(decoding, SpanPositions):
        return best_answers(logits, decoding, no_answer=labels.no_answer)
    best = np.asarray(logits.argmax(axis=1))
    return best if decoding is None else as_rows(best, decoding)


def probabilities(logits: np.ndarray[Any, Any], labels: Labels) -> np.ndarray[Any, Any]:
    """Return each label's probability for n examples, [n, labels]; for a regression the predicted number, [n, 1]."""
    from scipy.special import expit, softmax

    if labels.kind is TargetKind.REGRESSION:
        return logits
    if labels.kind is TargetKind.MULTILABEL:
        return expit(logits)  # type: ignore[no-any-return]
    return softmax(logits, axis=1)  # type: ignore[no-any-return]


def predictions_table(
    ids: list[str],
    gold: np.ndarray[Any, Any] | None,
    logits: np.ndarray[Any, Any],
    labels: Labels,
    decoding: np.ndarray[Any, Any] | SpanPositions | None = None,
) -> Predictions:
    """Return a table of predictions, with the names of gold and predicted labels and a score for each label.

    In a task that tags words, a cell holds the tags of a sentence, separated by spaces, and instead of scores the table
    counts the words with each predicted tag. In span extraction, the gold answers are a list in JSON, and instead of
    scores the table has the value of each metric and the number of the context.

    Args:
        ids: The identifiers of the n examples.
        gold: The gold targets, in the form that `metrics` takes; None if there are no gold labels.
        logits: The logits, in the form that `decide` takes.
        labels: The label space.
        decoding: See `decide`.
    """
    if labels.reads_tokens:
        assert gold is not None  # a task that tags words or extracts spans has no submission
        table = _table_of_tags if labels.tags_words else _table_of_answers
        return table(ids, gold, decide(logits, labels, decoding), labels)
    return Predictions(
        ids=ids,
        gold=[""] * len(ids) if gold is None else [_as_label_name(value, labels) for value in gold],
        predicted=[_as_label_name(value, labels) for value in decide(logits, labels)],
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


def _table_of_answers(
    ids: list[str], gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], labels: Labels
) -> Predictions:
    import numpy as np

    texts, names = [one.texts for one in gold], METRICS[labels.kind]
    values = [scores(name, texts, predicted) for name in names]
    return Predictions(
        ids=ids,
        gold=[json.dumps(one, ensure_ascii=False) for one in texts],
        predicted=predicted.tolist(),
        scores=np.stack([*values, np.array([one.context for one in gold], dtype="float64")], axis=1),
        columns=(*names, CONTEXT),
        prefix=SPAN,
    )


@dataclass(frozen=True)
class GoldAndPredicted:
    """The gold and predicted labels in a table of predictions, as arrays that `evaluation.metrics.metrics` takes."""

    ids: Any
    """The ids of the examples, an Arrow array: two such arrays are compared much faster than two lists of strings."""
    gold: np.ndarray[Any, Any]
    predicted: np.ndarray[Any, Any]
    labels: Labels


def targets_of(table: pd.DataFrame, *, multilabel: bool = False) -> GoldAndPredicted:
    """Convert a recorded table of predictions into arrays of gold and predicted labels.

    Args:
        table: A table with the columns id, gold, prediction, and score_LABEL for each label (or, for tags of words and
            for answers, the columns in `TAGS` and `SPAN`).
        multilabel: Whether a cell holds several label names, joined as in `label_cells`.

    Raises:
        DataError: A gold or predicted label has no column score_LABEL, or a cell cannot be parsed; see
            `targets_of_columns`.
    """
    import pyarrow as pa

    labels = labels_of_columns(tuple(table.columns), multilabel=multilabel)
    label = pa.float64() if labels.kind is TargetKind.REGRESSION else pa.string()
    types = {"id": pa.string(), "gold": label, "prediction": label}
    ids, gold, predicted = (pa.array(table[column].tolist(), kind) for column, kind in types.items())
    contexts = pa.array(table[SPAN + CONTEXT].tolist(), pa.int64()) if labels.extracts_spans else None
    return targets_of_columns(ids, gold, predicted, labels, contexts)


@functools.lru_cache(maxsize=64)  # the runs of a task have the same columns
def labels_of_columns(columns: tuple[str, ...], *, multilabel: bool) -> Labels:
    """Return the label space of a recorded table of predictions.

    Args:
        columns: The names of the table's columns.
        multilabel: Whether a cell holds several label names.
    """
    names = tuple(name.removeprefix("score_") for name in columns if name.startswith("score_"))
    if names == ("value",):
        return Labels.regression(-math.inf, math.inf)
    if not names and (tags := tags_of(columns)) is not None:
        return tags
    if not names and has_answers(columns):
        return Labels.span(no_answer=True)  # not recorded in the table; no metric depends on it
    return Labels.multilabel(*names) if multilabel else Labels.multiclass(*names)


def has_answers(columns: Sequence[str]) -> bool:
    """Return whether a recorded table of predictions with these columns belongs to a task of span extraction."""
    return SPAN + CONTEXT in columns


def targets_of_columns(ids: Any, gold: Any, predicted: Any, labels: Labels, contexts: Any = None) -> GoldAndPredicted:
    """Convert the columns of a recorded table of predictions into arrays of gold and predicted labels.

    Args:
        ids: The ids of the examples, an Arrow array.
        gold: The gold labels, an Arrow array of strings, or of numbers for a regression. It may be dictionary-encoded.
        predicted: The predicted labels, of the same type.
        labels: The label space, as `labels_of_columns` returns it.
        contexts: In span extraction, the number of each question's context, an Arrow array; otherwise None.

    Raises:
        DataError: A gold or predicted label is not among the labels, a cell cannot be divided into label names, the
            gold and the predicted tags of a sentence differ in number, or gold answers are not a list in JSON.
    """
    import numpy as np

    if labels.kind is TargetKind.REGRESSION:
        numbers = [np.asarray(side.to_numpy(zero_copy_only=False), dtype="float64") for side in (gold, predicted)]
        return GoldAndPredicted(ids, numbers[0], numbers[1], labels)
    if labels.tags_words:
        rows = [_tag_rows(side.to_pylist(), labels) for side in (gold, predicted)]
        if rows[0].shape != rows[1].shape or ((rows[0] < 0) != (rows[1] < 0)).any():
            raise DataError("the predictions hold a sentence whose gold and predicted tags differ in number")
        return GoldAndPredicted(ids, rows[0], rows[1], labels)
    if labels.extracts_spans:
        return GoldAndPredicted(ids, _gold_answers(gold, contexts), _objects(predicted.to_pylist()), labels)
    read = _label_flags if labels.kind is TargetKind.MULTILABEL else _label_indices
    return GoldAndPredicted(ids, _by_cell(gold, labels.names, read), _by_cell(predicted, labels.names, read), labels)


def tags_of(columns: Sequence[str]) -> Labels | None:
    """Return the tags of a recorded table of predictions with these columns; None if its task does not tag words."""
    for scheme, prefix in TAGS.items():
        names = [name.removeprefix(prefix) for name in columns if name.startswith(prefix)]
        if len(names) > 1:
            return Labels.tokens(*names, scheme=scheme)  # type: ignore[arg-type]
    return None


def hits_of_tags(gold: Sequence[str], predicted: Sequence[str], labels: Labels) -> tuple[list[int], ...]:
    """Return the numbers of correct, missed and wrongly predicted entities (or words, without a scheme) of each type.

    Args:
        gold: The gold tags of each sentence, as in a table of predictions.
        predicted: The predicted tags.
        labels: The tags.
    """
    import numpy as np

    counts = tag_counts(_tag_rows(gold, labels), _tag_rows(predicted, labels), labels).sum(axis=0).astype("int64")
    right, found, true = np.split(counts, 3)
    return right.tolist(), (true - right).tolist(), (found - right).tolist()


def _tag_rows(cells: Sequence[str], labels: Labels) -> np.ndarray[Any, Any]:
    """Return rows of tags from the cells of a table; each cell holds the tags of one sentence."""
    import numpy as np

    index = {name: place for place, name in enumerate(labels.names)}
    sentences = [cell.split(" ") for cell in cells]
    try:
        tags = np.array([index[tag] for sentence in sentences for tag in sentence], dtype="int64")
    except KeyError as error:
        raise DataError(f"the predictions contain the tag {error.args[0]!r}, which is none of the task's") from error
    return as_rows(tags, np.array([len(sentence) for sentence in sentences], dtype="int64"))


def _gold_answers(cells: Any, contexts: Any) -> np.ndarray[Any, Any]:
    """Return the gold answers in the cells of a table, each of which holds a list in JSON: objects [n]."""
    try:
        texts = [tuple(json.loads(cell)) for cell in cells.to_pylist()]
    except (ValueError, TypeError) as error:
        raise DataError(f"the predictions hold gold answers that are not a list in JSON: {error}") from error
    return _objects([GoldAnswers(*pair) for pair in zip(texts, contexts.to_pylist(), strict=True)])


def _objects(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _by_cell(
    cells: Any, names: tuple[str, ...], read: Callable[[list[str], tuple[str, ...]], np.ndarray[Any, Any]]
) -> np.ndarray[Any, Any]:
    """Apply `read` once to the distinct values of a column, and return its result for every row.

    Args:
        cells: The column, an Arrow array of strings, which may be dictionary-encoded.
        names: The label names.
        read: A function that takes distinct cells and the label names, and returns an array with a row for each cell.
    """
    import numpy as np
    import pyarrow as pa

    encoded = cells if pa.types.is_dictionary(cells.type) else cells.dictionary_encode()
    of_different = read(encoded.dictionary.to_pylist(), names)
    return np.asarray(of_different[encoded.indices.to_numpy(zero_copy_only=False)])


def _label_indices(cells: list[str], names: tuple[str, ...]) -> np.ndarray[Any, Any]:
    import numpy as np

    index = {name: place for place, name in enumerate(names)}
    try:
        return np.array([index[cell] for cell in cells], dtype="int64")
    except KeyError as error:
        raise DataError(
            f"the predictions contain the label {error.args[0]!r}, which is not one of {', '.join(names)}"
        ) from error


def _label_flags(cells: list[str], names: tuple[str, ...]) -> np.ndarray[Any, Any]:
    import numpy as np

    marks = np.zeros((len(cells), len(names)), dtype="int64")
    marked = [*map(_label_indices_by_cell(names).__getitem__, cells)]
    rows = np.repeat(np.arange(len(cells)), [len(places) for places in marked])
    marks[rows, np.fromiter(itertools.chain.from_iterable(marked), dtype="int64")] = 1
    return marks


class _LabelIndicesByCell(dict[str, tuple[int, ...]]):
    """A cache of the positions, among the label names, of the labels in each table cell."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, cell: str) -> tuple[int, ...]:
        if len(self) == MAX_CELLS:
            self.clear()
        places = self[cell] = _indices_in_cell(cell, self._names)
        return places


@functools.lru_cache(maxsize=8)  # the runs of a task share most of their cells
def _label_indices_by_cell(names: tuple[str, ...]) -> _LabelIndicesByCell:
    return _LabelIndicesByCell(names)


def _indices_in_cell(cell: str, names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the positions, among the label names, of the labels in a table cell."""
    try:
        marked = split_labels(cell)
    except ValueError as error:
        raise DataError(f"the predictions' cell {cell!r:.60} cannot be parsed: {error}") from error
    for name in marked:
        if name not in names:
            raise DataError(f"the predictions contain the label {name!r}, which is not one of {', '.join(names)}")
    return tuple(map(names.index, marked))


def _as_label_name(value: Any, labels: Labels) -> Any:
    if labels.kind is TargetKind.REGRESSION:
        return float(value)
    if labels.kind is TargetKind.MULTILABEL:
        return join_labels(name for name, mark in zip(labels.names, value, strict=True) if mark)
    return labels.names[int(value)]
