"""The reference model: a linear model over TF-IDF of character n-grams, trained on the task's train rows only.

If an encoder does not score above this model, its pre-training gives nothing beyond surface patterns. The reference
model uses exactly the rows of a planned run and is scored by the same metric.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alue_bench.contract.errors import UsageError
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.data.splits import SplitRows
from alue_bench.running.inputs import RunInputs
from alue_bench.searching.observations import defined

STRENGTHS = (1.0, 10.0)
"""The values of C (inverse strength of regularisation; 1 / alpha for Ridge) from which the best dev score selects."""


@dataclass(frozen=True)
class Yardstick:
    """The scores on a task that are reached without an encoder, by the task's primary metric."""

    trivial: float
    """The test score of the best trivial predictor, which ignores the text."""
    score: float
    """The test score of the linear model."""
    dev_score: float
    strength: float
    """The selected value of C."""
    seconds: float
    """The total seconds for computing features, all fits and scoring."""


def yardstick(inputs: RunInputs) -> Yardstick:
    """Fit the linear model for each value of C, select one by the dev score, and score it on the test rows."""
    from alue_bench.data.tokenization import encode_targets
    from alue_bench.evaluation.metrics import metrics, trivial_metrics

    if inputs.task.labels.tags_words:
        raise UsageError(f"task {inputs.task.name!r} tags words; the linear model classifies texts only, choose others")
    started = time.perf_counter()
    labels, primary = inputs.task.labels, inputs.task.primary
    trained_on, scored_on = inputs.train_rows.splits, inputs.rows.splits
    splits = {"train": trained_on["train"], "dev": trained_on["dev"], "test": scored_on["test"]}
    gold = {name: encode_targets(rows, labels).numpy() for name, rows in splits.items()}
    features = character_features(splits)
    models = {c: fitted(features["train"], gold["train"], labels, strength=c) for c in STRENGTHS}

    def score(strength: float, split: str) -> float:
        return defined(metrics(gold[split], decided(models[strength], features[split], labels), labels)[primary])

    best = max(STRENGTHS, key=lambda strength: score(strength, "dev"))  # of equals the first: more regularisation
    return Yardstick(
        trivial=trivial_metrics(gold["train"], gold["test"], labels)[primary],
        score=score(best, "test"),
        dev_score=score(best, "dev"),
        strength=best,
        seconds=time.perf_counter() - started,
    )


def character_features(splits: Mapping[str, SplitRows]) -> dict[str, Any]:
    """Return the sparse TF-IDF features of each split.

    Returns:
        The features by split. For single texts `[examples, ngrams]`; for text pairs `[examples, 4 * ngrams]`: the
        features of the first text and of the second text, their absolute difference and their product.
    """
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    columns = {name: _texts(rows) for name, rows in splits.items()}
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    vectorizer.fit([text for column in columns["train"] for text in column])
    features = {}
    for name, texts in columns.items():
        vectors = [vectorizer.transform(column) for column in texts]
        if len(vectors) == 2:
            first, second = vectors
            vectors += [abs(first - second), first.multiply(second)]
        features[name] = hstack(vectors, format="csr")
    return features


def fitted(features: Any, targets: Any, labels: Labels, *, strength: float) -> Any:
    """Fit a linear model that suits the labels.

    The model is a ridge regression if targets are numbers, one logistic regression per label if an example can have
    several labels, and otherwise a single logistic regression.

    Args:
        features: The features, `[examples, features]`.
        targets: The encoded targets of the examples.
        labels: The labels of the task.
        strength: The value of C.
    """
    import numpy as np
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    logistic = LogisticRegression(C=strength, max_iter=1000)
    if labels.kind is TargetKind.REGRESSION:
        estimator: Any = Ridge(alpha=1 / strength)
    elif labels.kind is TargetKind.MULTILABEL:
        estimator = OneVsRestClassifier(logistic)
    elif len(np.unique(targets)) == 1:  # few rows, without the rarer label
        estimator = DummyClassifier(strategy="most_frequent")
    else:
        estimator = logistic
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Label .* is present in all training examples")
        return estimator.fit(features, targets)


def decided(estimator: Any, features: Any, labels: Labels) -> Any:
    """Return the linear model's predictions in the same form as an encoder's predictions.

    Returns:
        For classes: class indices `[examples]`. For several labels at once: 0 or 1 by the task's threshold,
        `[examples, labels]`. For regression: numbers `[examples]`.
    """
    if labels.kind is TargetKind.MULTILABEL:
        return (estimator.predict_proba(features) > labels.threshold).astype("int64")
    return estimator.predict(features)


def _texts(rows: SplitRows) -> list[list[str]]:
    """Return the split's texts as one list, or as two lists (first and second texts) for a task of text pairs."""
    columns = [[example.text for example in rows.examples]]
    if rows.examples[0].text_pair is not None:
        columns.append([example.text_pair or "" for example in rows.examples])
    return columns
