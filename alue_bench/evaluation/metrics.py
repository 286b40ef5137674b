"""The metrics of predictions, computed by scikit-learn and scipy.

All variants of F1 are logged, because published tables often do not say which one they report. Quotients of the form
0/0 are treated as follows:

- The F1 of a class that occurs neither in the gold labels nor in the predictions is undefined. It is left out of the
  metrics, and macro-F1 is the mean over the other classes. scikit-learn's `f1_score` does the same if `labels` is not
  given, and so do shared tasks and leaderboards. In multi-label tasks scikit-learn counts such a label as 0; here it is
  left out too.
- The mean F1 of a multi-label split without any gold or predicted label is nan. The correlation is nan if all gold
  values, or all predictions, are equal.
- The Matthews correlation coefficient is 0 if all gold labels, or all predictions, are of one class, as in
  scikit-learn.
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
            regression numbers, [n]; for tags of words rows of tags, [n, longest], see `data.words.as_rows`; for span
            extraction the gold answers, objects [n] of type `data.spans.GoldAnswers`.
        predicted: The predicted targets, in the same form; for span extraction the answers, strings [n].
        labels: The label space.

    Returns:
        The metrics that are listed in `alue_bench.contract.task.METRICS`, and f1_class_NAME for each label that occurs
        in the gold labels or the predictions (of tags with a scheme, f1_class_TYPE for each type of entity). Undefined
        metrics are nan.
    """
    if labels.kind is TargetKind.REGRESSION:
        return _correlations(gold, predicted)
    if labels.tags_words:
        return _metrics_of_tags(gold, predicted, labels)
    if labels.extracts_spans:
        texts = [one.texts for one in gold]
        return {name: float(scores(name, texts, predicted).mean()) for name in METRICS[labels.kind]}
    import numpy as np
    from sklearn.metrics import accuracy_score, f1_score, jaccard_score, matthews_corrcoef

    classes = list(range(len(labels.names)))
    values: dict[str, float] = {"accuracy": accuracy_score(gold, predicted)}
    for average in ("macro", "micro", "weighted"):
        # scikit-learn leaves nan out of the average. F1 is nan only for a class without gold labels and predictions.
        values[f"f1_{average}"] = f1_score(gold, predicted, labels=classes, average=average, zero_division=np.nan)
    per_class = f1_score(gold, predicted, labels=classes, average=None, zero_division=np.nan)
    for name, value in zip(labels.names, per_class, strict=True):
        if not math.isnan(value):
            values[f"f1_class_{name}"] = value
    if labels.kind is TargetKind.MULTILABEL:
        # An example without gold and predicted labels counts as 1, as in SemEval-2018 task 1.
        values["jaccard_samples"] = jaccard_score(gold, predicted, average="samples", zero_division=1.0)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # if all labels are of one class, the coefficient is 0, with a warning
            values["mcc"] = matthews_corrcoef(gold, predicted)
    return {name: float(value) for name, value in values.items()}


def _metrics_of_tags(gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], labels: Labels) -> dict[str, float]:
    """Return the F1 of entities (or of tags, if they have no scheme) and the share of words with the correct tag."""
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
