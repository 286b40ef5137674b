"""Metrics as functions of sums over examples, so that a resampled metric needs only a matrix product.

Accuracy, every F1 and the Matthews correlation coefficient depend on the confusion counts alone; Pearson's correlation
depends on five sums. Each example is therefore represented by a short row of numbers. Rows are added or subtracted if
an example is left out, is drawn twice, or has its predictions exchanged between two systems. The function
`Additive.value` computes the metric from sums of rows, for any number of resamples at once. In a task that tags words,
an example is a sentence here; in span extraction, it is a context with all its questions.

In the shapes of arrays, n is the number of examples, p the length of a row, k the number of labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.task import METRICS, Labels, TargetKind
from alue_bench.evaluation.answers import scores
from alue_bench.evaluation.tagging import correct_words, tag_counts

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Additive:
    """The results of one system on a test set, as a row of numbers for each example.

    One metric can be computed from the sum of the rows.
    """

    rows: Array
    """One row of numbers for each group of examples, [groups, numbers]. All examples of a group have the same row."""
    value: Callable[[Array], Array]
    """The function that computes the metric from the sum of the rows. It takes an array [..., numbers] of one or more
    sums, and returns an array [...]."""
    groups: Array | None = None
    """The group of each example, an array of shape [examples]; None if each example is a group of its own. With two
    labels there are only four groups, so that the metric need not be computed for each example."""

    @property
    def parts(self) -> Array:
        """The row of each example, [examples, numbers]."""
        import numpy as np

        return self.rows if self.groups is None else np.asarray(self.rows[self.groups])

    @property
    def score(self) -> float:
        """The metric on the whole test set."""
        return float(self.value(self._total))

    @property
    def _total(self) -> Array:
        import numpy as np

        if self.groups is None:
            return np.asarray(self.rows.sum(axis=0))
        return np.asarray(np.bincount(self.groups, minlength=len(self.rows)) @ self.rows)

    def pseudo_values(self) -> Array:
        """Return the jackknife pseudo-value of each example, [examples]: the example's contribution to the metric.

        For a metric that is a mean, such as accuracy, it is exactly the example's own score (Tukey 1958; Efron &
        Tibshirani 1993, chapter 11).
        """
        import numpy as np

        count = len(self.rows if self.groups is None else self.groups)
        total = self._total
        left_out = self.value(total - self.rows)
        values: Array = count * self.value(total) - (count - 1) * left_out
        return values if self.groups is None else np.asarray(values[self.groups])


def additive(metric: str, gold: Array, predicted: Array, labels: Labels) -> Additive | None:
    """Return, for each example, the quantities whose sums over the examples determine a metric.

    Args:
        metric: The name of a metric of `evaluation.metrics.metrics`.
        gold: The gold targets, in the form that `evaluation.metrics.metrics` takes.
        predicted: The predicted targets, in the same form.
        labels: The label space.

    Returns:
        The quantities; None for "spearman", which is not a function of such sums.
    """
    if labels.kind is TargetKind.REGRESSION:
        return Additive(_products(gold, predicted), _pearson) if metric == "pearson" else None
    if labels.tags_words:
        return _additive_of_tags(metric, gold, predicted, labels)
    if labels.extracts_spans:
        return _additive_of_answers(metric, gold, predicted) if metric in METRICS[labels.kind] else None
    if metric == "accuracy":
        right = gold == predicted
        return _mean(right.all(axis=1) if right.ndim == 2 else right)
    if metric == "jaccard_samples":
        return _mean(_jaccard(gold, predicted))
    counts, groups = _confusion(gold, predicted, len(labels.names))
    return _additive_of_counts(metric, counts, labels, groups)


def _additive_of_tags(metric: str, gold: Array, predicted: Array, labels: Labels) -> Additive | None:
    """Return the results of a system that tags words, with a row for each sentence.

    The arguments are those of `additive`.
    """
    if metric == "accuracy":
        return Additive(correct_words(gold, predicted), lambda sums: _ratio(sums[..., 0], sums[..., 1]))
    return _additive_of_counts(metric, tag_counts(gold, predicted, labels), labels)


def _additive_of_answers(metric: str, gold: Array, predicted: Array) -> Additive:
    """Return the results of a system that extracts spans: the metric is the mean score of the questions.

    All questions about a context have one row together, because they are dependent. The arguments are those of
    `additive`.
    """
    import numpy as np

    values = scores(metric, [one.texts for one in gold], predicted)
    _, context = np.unique(np.array([one.context for one in gold], dtype="int64"), return_inverse=True)
    rows = np.stack([np.bincount(context, values), np.bincount(context).astype("float64")], axis=1)
    return Additive(rows, lambda sums: _ratio(sums[..., 0], sums[..., 1]))


def _additive_of_counts(metric: str, counts: Array, labels: Labels, groups: Array | None = None) -> Additive | None:
    """Return a metric as a function of counts of correct, predicted and gold labels (or entities).

    The result is None if no metric with this name is computed from these counts.

    Args:
        metric: The name of the metric.
        counts: The counts for each group of examples, [groups, 3 k], in the form of `_confusion`.
        labels: The label space, with k labels or types of entities.
        groups: The group of each example; None if each example is a group of its own.
    """
    k = len(labels.types)
    if metric.startswith("f1_class_"):
        index = labels.types.index(metric.removeprefix("f1_class_"))
        return Additive(counts, lambda sums: _f1(sums, k)[..., index], groups)
    by_name = {
        "f1_macro": lambda sums: _mean_of_defined(_f1(sums, k)),
        "f1_weighted": lambda sums: _weighted(sums, k),
        "f1_micro": lambda sums: _micro(sums, k),
        "mcc": lambda sums: _mcc(sums, k),
    }
    return Additive(counts, by_name[metric], groups) if metric in by_name else None


def _mean(values: Array) -> Additive:
    import numpy as np

    rows = np.stack([np.asarray(values, dtype="float64"), np.ones(len(values))], axis=1)
    return Additive(rows, lambda sums: sums[..., 0] / sums[..., 1])


def _jaccard(gold: Array, predicted: Array) -> Array:
    import numpy as np

    both = (gold.astype(bool) & predicted.astype(bool)).sum(axis=1)
    either = (gold.astype(bool) | predicted.astype(bool)).sum(axis=1)
    # An example without gold and predicted labels counts as 1; see evaluation.metrics.
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def _confusion(gold: Array, predicted: Array, k: int) -> tuple[Array, Array | None]:
    """Return a row of 3 k values, 0 or 1, for each group of examples, [groups, 3 k], and the group of each example.

    For each of the k labels, three values tell whether it is correctly predicted, predicted, and gold. The examples of
    a group have the same gold and the same predicted label. If examples have several labels, each example is a group of
    its own, and the second value is None.
    """
    import numpy as np

    groups = None
    if gold.ndim == 1:
        places = gold * k + predicted
        is_there = np.bincount(places, minlength=k * k) > 0  # np.unique would sort the examples
        pairs, groups = np.flatnonzero(is_there), (np.cumsum(is_there) - 1)[places]
        marks = np.eye(k)
        gold, predicted = marks[pairs // k], marks[pairs % k]
    return np.concatenate([gold * predicted, predicted, gold], axis=1).astype("float64"), groups


def _f1(sums: Array, k: int) -> Array:
    """Return the F1 of each label, [..., k], from sums of the rows that `_confusion` returns.

    The F1 of a label that is neither gold nor predicted in any example is nan.
    """
    import numpy as np

    return _ratio(2 * sums[..., :k], sums[..., k : 2 * k] + sums[..., 2 * k :], undefined=np.nan)


def _mean_of_defined(values: Array) -> Array:
    """Return the mean over the last axis of the values that are not nan; nan if all are nan."""
    import numpy as np

    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1), undefined=np.nan)


def _weighted(sums: Array, k: int) -> Array:
    """Return the mean F1 over labels, weighted by the number of examples that have the label in gold.

    If no example has a gold label, the result is 0 if a label is predicted, and nan otherwise.
    """
    import numpy as np

    support, f1 = sums[..., 2 * k :], _f1(sums, k)
    weighted = _ratio((np.where(support > 0, f1, 0.0) * support).sum(axis=-1), support.sum(axis=-1))
    return np.where(np.isnan(f1).all(axis=-1), np.nan, weighted)


def _micro(sums: Array, k: int) -> Array:
    import numpy as np

    return _ratio(2 * sums[..., :k].sum(axis=-1), sums[..., k:].sum(axis=-1), undefined=np.nan)


def _mcc(sums: Array, k: int) -> Array:
    """Return the Matthews correlation coefficient from sums of the rows that `_confusion` returns.

    It is generalised to k classes (Gorodkin 2004) as in scikit-learn.
    """
    import numpy as np

    right, predicted, gold = sums[..., :k].sum(axis=-1), sums[..., k : 2 * k], sums[..., 2 * k :]
    count = gold.sum(axis=-1)
    covariance = right * count - (predicted * gold).sum(axis=-1)
    spread = (count**2 - (predicted**2).sum(axis=-1)) * (count**2 - (gold**2).sum(axis=-1))
    return _ratio(covariance, np.sqrt(np.maximum(spread, 0)))


def _products(gold: Array, predicted: Array) -> Array:
    """Return the row (1, x, y, x², y², xy) for each example, [n, 6].

    x and y are the gold and the predicted value, both centred to reduce rounding errors.
    """
    import numpy as np

    x, y = gold - gold.mean(), predicted - predicted.mean()
    return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)


def _pearson(sums: Array) -> Array:
    import numpy as np

    count, x, y, xx, yy, xy = (sums[..., place] for place in range(6))
    spread = np.maximum(count * xx - x * x, 0) * np.maximum(count * yy - y * y, 0)
    # The correlation is undefined if one side is constant; differences from it are then nan, too.
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation: Array = np.where(spread > 0, (count * xy - x * y) / np.sqrt(spread), np.nan)
    return correlation


def _ratio(numerator: Array, denominator: Array, undefined: float = 0.0) -> Array:
    """Return numerator / denominator elementwise; where `denominator` is 0, the value is `undefined`."""
    import numpy as np

    out = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), undefined)
    ratio: Array = np.divide(numerator, denominator, out=out, where=denominator > 0)
    return ratio
