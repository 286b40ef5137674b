"""Scores by scikit-learn and scipy. Every variant of F1 is logged, since published tables often do not say which.

Where a quotient is 0/0:

- F1 of a class that neither the gold labels nor the predictions have is undefined. It is not among the metrics, and the
  macro average is the mean over the other classes: scikit-learn's convention for `f1_score` without `labels`, by which
  shared tasks and leaderboards score. Where an example may have several labels, scikit-learn counts such a label as 0;
  here it is left out too.
- F1 over no class at all (several labels, none of them gold or predicted anywhere) is nan, and so is the correlation of
  a constant.
- Matthews' coefficient is 0 where gold labels or predictions are of one class, as in scikit-learn.
- The Jaccard index of an example without labels, predicted without any, is 1.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from alue_bench.contract.task import METRICS, Labels, TargetKind

if TYPE_CHECKING:
    import numpy as np


def metrics(gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], labels: Labels) -> dict[str, float]:
    """Return all metrics of a kind of task, by name.

    They are those of `METRICS` in `alue_bench.contract.task`, and f1_class_* for each label that the gold labels or the
    predictions have.

    `gold` and `predicted` are class indices [n], marks [n, labels], or numbers [n]. A metric that is undefined is nan;
    see the module for which.
    """
    if labels.kind is TargetKind.REGRESSION:
        return _correlations(gold, predicted)
    import numpy as np
    from sklearn.metrics import accuracy_score, f1_score, jaccard_score, matthews_corrcoef

    classes = list(range(len(labels.names)))
    found: dict[str, float] = {"accuracy": accuracy_score(gold, predicted)}
    for average in ("macro", "micro", "weighted"):
        # scikit-learn leaves a nan out of the average, and has no other 0/0 in F1 than that of an absent class.
        found[f"f1_{average}"] = f1_score(gold, predicted, labels=classes, average=average, zero_division=np.nan)
    per_class = f1_score(gold, predicted, labels=classes, average=None, zero_division=np.nan)
    for name, value in zip(labels.names, per_class, strict=True):
        if not math.isnan(value):
            found[f"f1_class_{name}"] = value
    if labels.kind is TargetKind.MULTILABEL:
        # An example without any label, predicted without any, is right: SemEval-2018 task 1 counts it as 1.
        found["jaccard_samples"] = jaccard_score(gold, predicted, average="samples", zero_division=1.0)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one class alone, whose coefficient is 0
            found["mcc"] = matthews_corrcoef(gold, predicted)
    return {name: float(value) for name, value in found.items()}


def trivial_metrics(train: np.ndarray[Any, Any], gold: np.ndarray[Any, Any], labels: Labels) -> dict[str, float]:
    """The same metrics for a predictor that does not look at the text: the most frequent label; the mean for a
    regression; for a multi-label task each label whose share of the train examples is above the task's threshold, which
    is what a model decides that has learnt how frequent labels are and nothing else."""
    predicted = trivial_predictions(train, len(gold), labels)
    if labels.kind is TargetKind.REGRESSION:  # a constant has no correlation with anything: it explains nothing
        return dict.fromkeys(METRICS[labels.kind], 0.0)
    return metrics(gold, predicted.astype(gold.dtype), labels)


def trivial_predictions(train: np.ndarray[Any, Any], count: int, labels: Labels) -> np.ndarray[Any, Any]:
    """Return that predictor's answers to `count` examples, in the form of the targets."""
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
        warnings.simplefilter("ignore")  # constant input gives nan, which is the answer
        return {
            "pearson": float(pearsonr(gold, predicted).statistic),
            "spearman": float(spearmanr(gold, predicted).statistic),
        }
