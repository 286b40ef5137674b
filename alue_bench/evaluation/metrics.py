"""The metrics of predictions, with the values that scikit-learn and scipy give.

Those of labels come from one table of counts: scikit-learn counts anew for each average, and its checks of arguments
take longer than a small dev split.

All variants of F1 are logged, because published tables often do not say which one they report. Quotients of the form
0/0 are treated as follows:

- F1 of a class that occurs neither in the gold labels nor in the predictions is undefined. It is left out of the
  metrics, and macro-F1 is the mean over the other classes. scikit-learn's `f1_score` does the same if `labels` is not
  given, and so do shared tasks and leaderboards. In multi-label tasks scikit-learn counts such a label as 0; here it is
  left out too.
- The mean F1 of a multi-label split without any gold or predicted label is nan. The correlation is nan if all gold
  values, or all predictions, are equal.
- Matthews correlation coefficient is 0 if all gold labels, or all predictions, are of one class, as in scikit-learn.
- The Jaccard index of an example without gold and predicted labels is 1.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from alue_bench.contract.task import METRICS, Labels, TargetKind
from alue_bench.evaluation.answers import scores

if TYPE_CHECKING:
    import numpy as np


def metrics(gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], labels: Labels) -> dict[str, float]:
    """Return all metrics that suit the kind of task (such as multi-label classification), by name.

    Args:
        gold: The gold targets: class indices [n]; for a multi-label task 0 or 1 for each label, [n, labels]; for a
            regression numbers, [n]; for tags of words rows of tags, [n, longest], see `data.words.as_rows`. For span
            extraction the texts of the gold answers, [n] tuples, and of the predicted answer, [n], as objects.
        predicted: The predicted targets, in the same form.
        labels: The label space.

    Returns:
        The metrics that are listed in `alue_bench.contract.task.METRICS`, and f1_class_NAME for each label that occurs
        in the gold labels or the predictions (of tags with a scheme, f1_class_TYPE for each type of entity). Undefined
        metrics are nan.
    """
    if labels.kind is TargetKind.REGRESSION:
        return _correlations(gold, predicted)
    if labels.tags_words:
        return _of_tags(gold, predicted, labels)
    if labels.extracts_spans:
        return {name: float(scores(name, gold, predicted).mean()) for name in METRICS[labels.kind]}
    several = labels.kind is TargetKind.MULTILABEL
    right, claimed, true = _label_counts(gold, predicted) if several else _class_counts(gold, predicted, labels)
    per_class = _f1(right, claimed, true)
    values = {
        "accuracy": float((gold == predicted).all(axis=1).mean() if several else (gold == predicted).mean()),
        "f1_macro": _macro(per_class),
        "f1_micro": float(_f1(right.sum(), claimed.sum(), true.sum())),
        "f1_weighted": _weighted(per_class, true),
        **{
            f"f1_class_{name}": float(value)
            for name, value in zip(labels.names, per_class, strict=True)
            if not math.isnan(value)
        },
    }
    if several:
        return {**values, "jaccard_samples": _jaccard(gold, predicted)}
    return {**values, "mcc": _mcc(right, claimed, true)}


def _class_counts(
    gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], labels: Labels
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return how often each class was predicted rightly, how often at all, and how often it is gold, each [classes]."""
    import numpy as np

    number = len(labels.names)
    pairs = np.asarray(gold, dtype="int64") * number + predicted
    counted = np.bincount(pairs, minlength=number * number).reshape(number, number)
    return counted.diagonal(), counted.sum(axis=0), counted.sum(axis=1)


def _label_counts(
    gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the counts of `_class_counts` for the labels of a multi-label task, each [labels]."""
    return ((gold != 0) & (predicted != 0)).sum(axis=0), (predicted != 0).sum(axis=0), (gold != 0).sum(axis=0)


def _f1(right: Any, claimed: Any, true: Any) -> Any:
    """Return F1 from the number of right predictions, of all predictions and of gold labels; nan if it is 0/0."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        return 2.0 * right / (true + claimed)


def _macro(per_class: np.ndarray[Any, Any]) -> float:
    import numpy as np

    return math.nan if np.isnan(per_class).all() else float(np.nanmean(per_class))


def _weighted(per_class: np.ndarray[Any, Any], true: np.ndarray[Any, Any]) -> float:
    """Return the mean of F1 over the classes, weighted by the number of their gold labels; without any, unweighted."""
    import numpy as np

    if not true.any():
        return _macro(per_class)
    occurs = ~np.isnan(per_class)
    return float(np.average(per_class[occurs], weights=true[occurs]))


def _jaccard(gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]) -> float:
    """Return the mean Jaccard index of the examples.

    No gold and no predicted label is a right answer, which SemEval-2018 task 1 counts as 1.
    """
    import numpy as np

    shared, either = ((gold != 0) & (predicted != 0)).sum(axis=1), ((gold != 0) | (predicted != 0)).sum(axis=1)
    return float(np.where(either == 0, 1.0, shared / np.maximum(either, 1)).mean())


def _mcc(right: np.ndarray[Any, Any], claimed: np.ndarray[Any, Any], true: np.ndarray[Any, Any]) -> float:
    """Return the Matthews correlation coefficient of several classes (Gorodkin 2004), from the counts of each class."""
    import numpy as np

    examples, gold, predicted = float(true.sum()), true.astype(float), claimed.astype(float)
    spread = (examples**2 - np.dot(predicted, predicted)) * (examples**2 - np.dot(gold, gold))
    return float((right.sum() * examples - np.dot(gold, predicted)) / np.sqrt(spread)) if spread else 0.0


def _of_tags(gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], labels: Labels) -> dict[str, float]:
    """Return F1 of entities (or of tags, without a scheme) and the share of words with the right tag."""
    from alue_bench.evaluation.additive import additive

    values = {}
    for name in (*METRICS[labels.kind], *(f"f1_class_{kind}" for kind in labels.types)):
        sums = additive(name, gold, predicted, labels)
        assert sums is not None
        if not math.isnan(sums.score) or name in METRICS[labels.kind]:
            values[name] = sums.score
    return values


def trivial_metrics(train: np.ndarray[Any, Any], gold: np.ndarray[Any, Any], labels: Labels) -> dict[str, float]:
    """Return the metrics of a baseline that ignores the text, such as the majority class; see `trivial_predictions`.

    In a regression the baseline predicts a constant. Its correlations are undefined and are returned as 0.

    Args:
        train: The targets of the train split, in the form that `metrics` takes.
        gold: The targets of the split that is scored, in the same form.
        labels: The label space.
    """
    predicted = trivial_predictions(train, len(gold), labels)
    if labels.kind is TargetKind.REGRESSION:
        return dict.fromkeys(METRICS[labels.kind], 0.0)
    return metrics(gold, predicted.astype(gold.dtype), labels)


def trivial_predictions(train: np.ndarray[Any, Any], count: int, labels: Labels) -> np.ndarray[Any, Any]:
    """Return the predictions of a baseline that ignores the text (majority class or mean).

    The prediction is the most frequent label of the train split, or in a regression the mean. In a multi-label task it
    is every label whose relative frequency in the train split is above the task's decision threshold for probabilities.

    Args:
        train: The targets of the train split, in the form that `metrics` takes.
        count: The number of predictions.
        labels: The label space.
    """
    import numpy as np

    if labels.kind is TargetKind.REGRESSION:
        return np.full(count, train.mean())
    if labels.kind is TargetKind.MULTILABEL:
        return np.tile((train.mean(0) > labels.threshold).astype(train.dtype), (count, 1))
    return np.full(count, np.bincount(train, minlength=len(labels.names)).argmax())


def _correlations(gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr

    if len(gold) < 2:
        return {"pearson": math.nan, "spearman": math.nan}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the correlation of a constant is nan, with a warning
        return {
            "pearson": float(pearsonr(gold, predicted).statistic),
            "spearman": float(spearmanr(gold, predicted).statistic),
        }
