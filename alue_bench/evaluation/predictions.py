"""From logits to what the model says, in label names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alue_bench.spec import Predictions
from alue_bench.task import Labels, TargetKind

if TYPE_CHECKING:
    import numpy as np


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


def _named(value: Any, labels: Labels) -> Any:
    if labels.kind is TargetKind.REGRESSION:
        return float(value)
    if labels.kind is TargetKind.MULTILABEL:
        return " ".join(name for name, mark in zip(labels.names, value, strict=True) if mark)
    return labels.names[int(value)]
