"""The conversion of logits into predictions with label names, and of tables of predictions into arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import DataError
from alue_bench.contract.spec import Predictions
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.evaluation.label_cells import join_labels, split_labels

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def decide(logits: np.ndarray[Any, Any], labels: Labels) -> np.ndarray[Any, Any]:
    """Convert logits into predictions: class indices, 0 and 1 for each label, or numbers.

    Args:
        logits: The logits of n examples, [n, outputs].
        labels: The label space.

    Returns:
        The class indices, [n]; for a multi-label task 0 or 1 for each label, [n, labels]; for a regression numbers,
        [n].
    """
    import numpy as np
    from scipy.special import expit

    if labels.kind is TargetKind.REGRESSION:
        return np.asarray(logits[:, 0])
    if labels.kind is TargetKind.MULTILABEL:
        return np.asarray(expit(logits) > labels.threshold, dtype="int64")
    return np.asarray(logits.argmax(axis=1))


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

    Args:
        ids: The identifiers of the n examples.
        gold: The gold targets, in the form that `decide` returns; None if there are no gold labels.
        logits: The logits, [n, outputs].
        labels: The label space.
    """
    return Predictions(
        ids=ids,
        gold=[""] * len(ids) if gold is None else [_named(value, labels) for value in gold],
        predicted=[_named(value, labels) for value in decide(logits, labels)],
        scores=probabilities(logits, labels),
        columns=labels.names or ("value",),
    )


@dataclass(frozen=True)
class Targets:
    """The gold and predicted labels in a table of predictions, as arrays that `evaluation.metrics.metrics` takes."""

    ids: Any
    """The ids of the examples, an Arrow array: two of them are compared much faster than lists of texts."""
    gold: np.ndarray[Any, Any]
    predicted: np.ndarray[Any, Any]
    labels: Labels


def targets_of(table: pd.DataFrame, *, multilabel: bool = False) -> Targets:
    """Convert a recorded table of predictions into arrays of gold and predicted labels.

    Args:
        table: A table with the columns id, gold, prediction, and score_LABEL for each label.
        multilabel: Whether a cell holds several label names, joined as in `label_cells`.

    Raises:
        DataError: A gold or predicted label has no column score_LABEL, or a cell cannot be divided into label names.
    """
    import pyarrow as pa

    names = tuple(name.removeprefix("score_") for name in table.columns if name.startswith("score_"))
    label = pa.float64() if names == ("value",) else pa.string()
    types = {"id": pa.string(), "gold": label, "prediction": label}
    columns = [pa.array(table[column].tolist(), kind) for column, kind in types.items()]
    return targets_of_columns(*columns, names=names, multilabel=multilabel)


def targets_of_columns(ids: Any, gold: Any, predicted: Any, *, names: tuple[str, ...], multilabel: bool) -> Targets:
    """Convert the columns of a recorded table of predictions into arrays of gold and predicted labels.

    Args:
        ids: The ids of the examples, an Arrow array.
        gold: The gold labels, an Arrow array of texts, or of numbers for a regression. It may be dictionary-encoded.
        predicted: The predicted labels, of the same type.
        names: The names of the labels; ("value",) for a regression.
        multilabel: Whether a cell holds several label names, joined as in `label_cells`.

    Raises:
        DataError: A gold or predicted label is not among `names`, or a cell cannot be divided into label names.
    """
    import numpy as np

    if names == ("value",):
        numbers = [np.asarray(side.to_numpy(zero_copy_only=False), dtype="float64") for side in (gold, predicted)]
        return Targets(ids, numbers[0], numbers[1], Labels.regression(-math.inf, math.inf))
    read = _marks if multilabel else _places
    labels = Labels.multilabel(*names) if multilabel else Labels.multiclass(*names)
    return Targets(ids, _by_cell(gold, names, read), _by_cell(predicted, names, read), labels)


def _by_cell(
    cells: Any, names: tuple[str, ...], read: Callable[[list[str], tuple[str, ...]], np.ndarray[Any, Any]]
) -> np.ndarray[Any, Any]:
    """Apply a function to the different cells of a column, and return the value of each cell."""
    import numpy as np
    import pyarrow as pa

    encoded = cells if pa.types.is_dictionary(cells.type) else cells.dictionary_encode()
    of_different = read(encoded.dictionary.to_pylist(), names)
    return np.asarray(of_different[encoded.indices.to_numpy(zero_copy_only=False)])


def _places(cells: list[str], names: tuple[str, ...]) -> np.ndarray[Any, Any]:
    import numpy as np

    index = {name: place for place, name in enumerate(names)}
    try:
        return np.array([index[cell] for cell in cells], dtype="int64")
    except KeyError as error:
        raise DataError(
            f"the predictions contain the label {error.args[0]!r}, which is not one of {', '.join(names)}"
        ) from error


def _marks(cells: list[str], names: tuple[str, ...]) -> np.ndarray[Any, Any]:
    import numpy as np

    index = {name: place for place, name in enumerate(names)}
    marks = np.zeros((len(cells), len(index)), dtype="int64")
    for row, cell in enumerate(cells):
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
