"""The metrics, computed by scikit-learn and scipy.

All variants of F1 are logged, because published tables often do not say which one they report. Quotients of the form
0/0 are treated as follows:

- F1 of a class that occurs neither in the gold labels nor in the predictions is undefined. It is not among the metrics,
  and the macro average is the mean over the other classes. This is scikit-learn's convention for `f1_score` without
  `labels`, by which shared tasks and leaderboards score. In multi-label tasks scikit-learn counts such a label as 0;
  here it is left out too.
- F1 over no class at all (a multi-label split without any gold or predicted label) is nan, and so is the correlation of
  a constant.
- Matthews correlation coefficient is 0 if all gold labels, or all predictions, are of one class, as in scikit-learn.
- The Jaccard index of an example without gold and predicted labels is 1.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from alue_bench.contract.task import METRICS, Labels, TargetKind

if TYPE_CHECKING:
    import numpy as np


def metrics(gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], labels: Labels) -> dict[str, float]:
    """Compute all metrics for the kind of task, such as multi-label; return them by name.

    Args:
        gold: The gold targets: class indices [n], 0 and 1 for each label of a multi-label task [n, labels], or numbers
            of a regression [n].
        predicted: The predicted targets, in the same form.
        labels: The label space.

    Returns:
        The metrics of `METRICS` in `alue_bench.contract.task`, and f1_class_* for each label that occurs in the gold
        labels or the predictions. Undefined metrics are nan; see the module's docstring.
    """
    if labels.kind is TargetKind.REGRESSION:
        return _correlations(gold, predicted)
    import numpy as np
    from sklearn.metrics import accuracy_score, f1_score, jaccard_score, matthews_corrcoef

    classes = list(range(len(labels.names)))
    values: dict[str, float] = {"accuracy": accuracy_score(gold, predicted)}
    for average in ("macro", "micro", "weighted"):
        # scikit-learn leaves nan out of the average; F1 is 0/0 only for an absent class.
        values[f"f1_{average}"] = f1_score(gold, predicted, labels=classes, average=average, zero_division=np.nan)
    per_class = f1_score(gold, predicted, labels=classes, average=None, zero_division=np.nan)
    for name, value in zip(labels.names, per_class, strict=True):
        if not math.isnan(value):
            values[f"f1_class_{name}"] = value
    if labels.kind is TargetKind.MULTILABEL:
        # No gold and no predicted label is a right answer, which SemEval-2018 task 1 counts as 1.
        values["jaccard_samples"] = jaccard_score(gold, predicted, average="samples", zero_division=1.0)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # if all labels are of one class, the coefficient is 0, with a warning
            values["mcc"] = matthews_corrcoef(gold, predicted)
    return {name: float(value) for name, value in values.items()}


def trivial_metrics(train: np.ndarray[Any, Any], gold: np.ndarray[Any, Any], labels: Labels) -> dict[str, float]:
    """Return the metrics of a baseline that ignores the text; see `trivial_predictions`.

    The baseline of a regression is a constant, which explains nothing; its correlations count as 0.

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

    It predicts the most frequent label of the train split; for a regression the mean; for a multi-label task each label
    whose share of the train examples is above the task's threshold, as a model decides that has learnt only the
    frequencies of labels.

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
