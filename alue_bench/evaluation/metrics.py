"""Scores by scikit-learn and scipy. Every variant of F1 is logged, since published tables often do not say which."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from alue_bench.task import Labels, TargetKind

if TYPE_CHECKING:
    import numpy as np


def metrics(gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], labels: Labels) -> dict[str, float]:
    """All metrics of a kind of task, by name; see `METRICS` in `alue_bench.task`, and f1_class_* for each label.

    `gold` and `predicted` are class indices [n], marks [n, labels], or numbers [n]. Where a correlation is undefined,
    because one side is constant or there is but one example, it is nan.
    """
    if labels.kind is TargetKind.REGRESSION:
        return _correlations(gold, predicted)
    from sklearn.metrics import accuracy_score, f1_score, jaccard_score, matthews_corrcoef

    classes = list(range(len(labels.names)))
    found: dict[str, float] = {"accuracy": accuracy_score(gold, predicted)}
    for average in ("macro", "micro", "weighted"):
        found[f"f1_{average}"] = f1_score(gold, predicted, labels=classes, average=average, zero_division=0.0)
    per_class = f1_score(gold, predicted, labels=classes, average=None, zero_division=0.0)
    for name, value in zip(labels.names, per_class, strict=True):
        found[f"f1_class_{name}"] = value
    if labels.kind is TargetKind.MULTILABEL:
        # An example without any label, predicted without any, is right: SemEval-2018 task 1 counts it as 1.
        found["jaccard_samples"] = jaccard_score(gold, predicted, average="samples", zero_division=1.0)
    else:
        found["mcc"] = matthews_corrcoef(gold, predicted)
    return {name: float(value) for name, value in found.items()}


def trivial_metrics(train: np.ndarray[Any, Any], gold: np.ndarray[Any, Any], labels: Labels) -> dict[str, float]:
    """The same metrics for a predictor that does not look at the text: the most frequent label; the mean for a
    regression; for a multi-label task each label whose share of the train examples is above the task's threshold, which
    is what a model decides that has learnt how frequent labels are and nothing else."""
    import numpy as np
    from sklearn.dummy import DummyClassifier, DummyRegressor

    if labels.kind is TargetKind.MULTILABEL:
        frequent = (train.mean(0) > labels.threshold).astype(gold.dtype)
        return metrics(gold, np.tile(frequent, (len(gold), 1)), labels)
    nothing = np.zeros((len(train), 1))
    regression = labels.kind is TargetKind.REGRESSION
    dummy = DummyRegressor(strategy="mean") if regression else DummyClassifier(strategy="most_frequent")
    predicted = dummy.fit(nothing, train).predict(np.zeros((len(gold), 1)))
    found = metrics(gold, predicted, labels)
    if regression:  # a constant has no correlation with anything: it explains nothing
        found = dict.fromkeys(found, 0.0)
    return found


def _correlations(gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr

    if len(gold) < 2:
        return {"pearson": math.nan, "spearman": math.nan}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant input gives nan, which is the answer
        return {
            "pearson": float(pearsonr(gold, predicted).statistic),
            "spearman": float(spearmanr(gold, predicted).statistic),
        }
