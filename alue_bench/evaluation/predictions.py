"""From logits to what the model says, in label names."""

from __future__ import annotations

import math
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
    """Logits [n, outputs] to class indices [n], marks of 0 and 1 [n, labels], or numbers [n]."""
    import numpy as np
    from scipy.special import expit

    if labels.kind is TargetKind.REGRESSION:
        return np.asarray(logits[:, 0])
    if labels.kind is TargetKind.MULTILABEL:
        return np.asarray(expit(logits) > labels.threshold, dtype="int64")
    return np.asarray(logits.argmax(axis=1))


def probabilities(logits: np.ndarray[Any, Any], labels: Labels) -> np.ndarray[Any, Any]:
    """Probability of each label [n, labels]; for a regression the number itself [n, 1]."""
    from scipy.special import expit, softmax

    if labels.kind is TargetKind.REGRESSION:
        return logits
    if labels.kind is TargetKind.MULTILABEL:
        return expit(logits)  # type: ignore[no-any-return]
    return softmax(logits, axis=1)  # type: ignore[no-any-return]


def predictions_table(
    ids: list[str], gold: np.ndarray[Any, Any] | None, logits: np.ndarray[Any, Any], labels: Labels
) -> Predictions:
    """Gold (where there is any) and predicted labels by name, and scores, example by example."""
    return Predictions(
        ids=ids,
        gold=[""] * len(ids) if gold is None else [_named(value, labels) for value in gold],
        predicted=[_named(value, labels) for value in decide(logits, labels)],
        scores=probabilities(logits, labels),
        columns=labels.names or ("value",),
    )


@dataclass(frozen=True)
class Targets:
    """A table of predictions as arrays, in the form that `evaluation.metrics.metrics` takes."""

    ids: np.ndarray[Any, Any]
    gold: np.ndarray[Any, Any]
    predicted: np.ndarray[Any, Any]
    labels: Labels


def targets_of(table: pd.DataFrame, *, multilabel: bool = False) -> Targets:
    """The way back from `predictions_table`, or from a file that it was written to.

    table: columns id, gold, prediction, and score_LABEL for each label. multilabel: a cell holds several label names,
    as `label_cells` joins them.
    Raises DataError where a cell names a label that has no score column, or cannot be taken apart.
    """
    import numpy as np

    names = tuple(name.removeprefix("score_") for name in table.columns if name.startswith("score_"))
    ids = np.asarray(table["id"], dtype=object)
    if names == ("value",):
        gold, predicted = (np.asarray(table[side], dtype="float64") for side in ("gold", "prediction"))
        return Targets(ids, gold, predicted, Labels.regression(-math.inf, math.inf))
    read = _marks if multilabel else _places
    gold, predicted = (read(table[side], names) for side in ("gold", "prediction"))
    return Targets(ids, gold, predicted, Labels.multilabel(*names) if multilabel else Labels.multiclass(*names))


def _places(cells: Any, names: tuple[str, ...]) -> np.ndarray[Any, Any]:
    import numpy as np

    index = {name: place for place, name in enumerate(names)}
    try:
        return np.array([index[cell] for cell in cells.tolist()], dtype="int64")
    except KeyError as error:
        raise DataError(f"the predictions name a label {error.args[0]!r} that is none of {', '.join(names)}") from error


def _marks(cells: Any, names: tuple[str, ...]) -> np.ndarray[Any, Any]:
    import numpy as np

    index = {name: place for place, name in enumerate(names)}
    marks = np.zeros((len(cells), len(index)), dtype="int64")
    for row, cell in enumerate(cells.tolist()):
        try:
            marked = split_labels(cell)
        except ValueError as error:
            raise DataError(f"the predictions' cell {cell!r:.60} cannot be taken apart: {error}") from error
        for name in marked:
            if name not in index:
                raise DataError(f"the predictions name a label {name!r} that is none of {', '.join(names)}")
            marks[row, index[name]] = 1
    return marks


def _named(value: Any, labels: Labels) -> Any:
    if labels.kind is TargetKind.REGRESSION:
        return float(value)
    if labels.kind is TargetKind.MULTILABEL:
        return join_labels(name for name, mark in zip(labels.names, value, strict=True) if mark)
    return labels.names[int(value)]
