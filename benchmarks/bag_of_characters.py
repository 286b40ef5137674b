"""The yardstick: a linear model on TF-IDF of character n-grams, which knows nothing but the task's own train rows.

An encoder that does not beat it has brought nothing from pre-training that surface patterns do not give. It sees
exactly the rows that a planned run sees and is scored by the same metric.

Notation: n examples, v character n-grams.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alue_bench.contract.task import Labels, TargetKind
from alue_bench.data.splits import SplitRows
from alue_bench.running.inputs import RunInputs

STRENGTHS = (1.0, 10.0)
"""Values of C (inverse regularisation; for Ridge 1 / alpha) to choose from by the dev score."""


@dataclass(frozen=True)
class Yardstick:
    """What can be had on a task without an encoder, by the task's primary metric on its test rows."""

    trivial: float
    """Of the best predictor that does not read the text."""
    score: float
    dev_score: float
    strength: float
    seconds: float
    """Features, both fits and scoring together."""


def yardstick(inputs: RunInputs) -> Yardstick:
    """Fit on the train rows once for each strength, keep the one with the best dev score, score the test rows."""
    from alue_bench.data.tokenisation import encode_targets
    from alue_bench.evaluation.metrics import metrics, trivial_metrics

    started = time.perf_counter()
    labels, primary = inputs.task.labels, inputs.task.primary
    trained_on, scored_on = inputs.train_rows.splits, inputs.rows.splits
    splits = {"train": trained_on["train"], "dev": trained_on["dev"], "test": scored_on["test"]}
    gold = {name: encode_targets(rows, labels).numpy() for name, rows in splits.items()}
    features = character_features(splits)
    models = {c: fitted(features["train"], gold["train"], labels, strength=c) for c in STRENGTHS}

    def score(strength: float, split: str) -> float:
        return defined(metrics(gold[split], decided(models[strength], features[split], labels), labels)[primary])

    best = max(STRENGTHS, key=lambda strength: score(strength, "dev"))  # the first, stronger one of equals
    return Yardstick(
        trivial=trivial_metrics(gold["train"], gold["test"], labels)[primary],
        score=score(best, "test"),
        dev_score=score(best, "dev"),
        strength=best,
        seconds=time.perf_counter() - started,
    )


def character_features(splits: Mapping[str, SplitRows]) -> dict[str, Any]:
    """Sparse features by split: [n, v], or for pairs [n, 4 v], both texts, their absolute difference and product."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    columns = {name: _texts(rows) for name, rows in splits.items()}
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    vectorizer.fit([text for column in columns["train"] for text in column])
    found = {}
    for name, texts in columns.items():
        vectors = [vectorizer.transform(column) for column in texts]
        if len(vectors) == 2:
            first, second = vectors
            vectors += [abs(first - second), first.multiply(second)]
        found[name] = hstack(vectors, format="csr")
    return found


def fitted(features: Any, targets: Any, labels: Labels, *, strength: float) -> Any:
    """Ridge for numbers, one logistic regression a label for several labels at once, one for all classes otherwise."""
    import numpy as np
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    logistic = LogisticRegression(C=strength, max_iter=1000)
    if labels.kind is TargetKind.REGRESSION:
        estimator: Any = Ridge(alpha=1 / strength)
    elif labels.kind is TargetKind.MULTILABEL:
        estimator = OneVsRestClassifier(logistic)
    elif len(np.unique(targets)) == 1:  # a few rows of a rare label
        estimator = DummyClassifier(strategy="most_frequent")
    else:
        estimator = logistic
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Label .* is present in all training examples")
        return estimator.fit(features, targets)


def decided(estimator: Any, features: Any, labels: Labels) -> Any:
    """Class indices [n], marks [n, labels] by the task's own threshold, or numbers [n]: as encoders are decided."""
    if labels.kind is TargetKind.MULTILABEL:
        return (estimator.predict_proba(features) > labels.threshold).astype("int64")
    return estimator.predict(features)


def defined(score: float) -> float:
    """A correlation with a constant is undefined; as for the trivial predictor, it counts as none."""
    return score if math.isfinite(score) else 0.0


def _texts(rows: SplitRows) -> list[list[str]]:
    """One column of texts, or two for pairs."""
    columns = [[example.text for example in rows.examples]]
    if rows.examples[0].text_pair is not None:
        columns.append([example.text_pair or "" for example in rows.examples])
    return columns
