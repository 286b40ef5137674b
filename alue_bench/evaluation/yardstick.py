"""The yardstick: a linear model on TF-IDF features, which needs no pre-trained encoder and hardly any time.

An encoder that does not score above the yardstick gains nothing from its pre-training on this task. The yardstick is
trained on the train rows of a run and scored on the run's dev and test rows by the task's primary metric. Class weights
and other hyper-parameters of the run play no part. Its model is

    a logistic regression                      if an example has one label
    a logistic regression for each label       if an example has several labels
    a ridge regression                         if the target is a number

The features are character n-grams within words (2 to 5 characters) and word n-grams (1 and 2 words). A pair of texts
has four groups of features: the features of the first text, the features of the second text, their absolute
differences, and their products. The products represent what both texts have in common. The strength of the
regularisation is selected by the dev score. Tasks that tag words or find spans have no yardstick.

The results depend only on the rows, the labels and the version of scikit-learn. They are therefore computed once for
each set of rows and cached in the cache folder for the runs of all strategies, seeds and processes.
"""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.spec import digest_of
from alue_bench.contract.task import METRICS, TargetKind, Task
from alue_bench.contract.transfer import transferred_logits
from alue_bench.data.cache_folder import cache_folder
from alue_bench.data.splits import SplitRows, TaskRows
from alue_bench.data.tokenization import encode_targets
from alue_bench.evaluation.metrics import metrics
from alue_bench.evaluation.predictions import decide

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

FORMAT = 1
"""The version of the cached results. Increase it when features or models change."""
INVERSE_STRENGTHS = (1.0, 10.0)
"""The values of C (inverse strength of regularisation; 1 / alpha of a ridge regression) from which the one with the
best dev score is selected. In case of a tie, the first value is selected, which regularises more."""
EXACT_WORK = 1e7
"""The largest number of non-zero feature values times outputs with which a logistic regression is fitted to its optimum
(by L-BFGS). With a larger number, it is fitted by averaged stochastic gradient descent: on the 41,600 rows and 26
classes of MADAR in 5 s instead of 69 s, with a dev score lower by 0.003."""
PASSES, EXAMPLES = 3, 100_000
"""The smallest number of passes of stochastic gradient descent over the train rows, and the smallest number of examples
in all passes together."""
MANY_TEXTS = 1000
"""The number of train texts above which n-grams that occur in only one of these texts are left out."""
MIN_PROBABILITY = 1e-12
"""The smallest predicted probability, which classes without train rows get."""
LOCK_TIMEOUT_S = 300.0
"""The seconds that a process waits for another process that computes the same yardstick. After this time, the waiting
process computes the yardstick, too."""
S_PER_CHARACTER, S_EXACT, S_DESCENT = 5e-6, 7e-7, 5e-8
"""The measured seconds, on a Xeon core, for computing features (per character), and for fits by L-BFGS and by
stochastic gradient descent (per non-zero feature value and output)."""


@dataclass(frozen=True)
class Yardstick:
    """The scores of the yardstick (a linear model on TF-IDF features), and how they were obtained."""

    dev_score: float
    """The dev score by the primary metric of the task that trained the yardstick."""
    test_score: float
    """The test score by the primary metric of the tested task."""
    strength: float
    """The selected value of C."""
    seconds: float
    """The seconds that computing features, fits and scores took."""


_known_results: dict[str, Yardstick] = {}
"""The results that this process has computed or read, by key."""


def yardstick_name(metric: str) -> str:
    """Return the name of the yardstick (the linear model on TF-IDF features) of a task with this metric.

    Args:
        metric: The name of a primary metric; it may begin with "test/".
    """
    regression = metric.removeprefix("test/") in METRICS[TargetKind.REGRESSION]
    return f"TF-IDF + {'ridge' if regression else 'logistic'} regression"


def has_yardstick(task: Task) -> bool:
    """Return whether a linear model on TF-IDF features can be trained: not if the task tags words or finds spans."""
    return not task.labels.reads_tokens


def yardstick(task: Task, rows: TaskRows, train_task: Task, train_rows: TaskRows) -> Yardstick:
    """Return the scores of the yardstick, a linear model on TF-IDF features; from the cache if it has them.

    Args:
        task: The tested task.
        rows: The rows of `task`; the model is scored on the test split.
        train_task: The task that trains the model; usually `task`.
        train_rows: The rows of `train_task`; the splits train and dev are used.
    """
    key = _key(task, rows, train_task, train_rows)
    if key not in _known_results:
        _known_results[key] = _cached_or_computed(key, (task, rows, train_task, train_rows))
    return _known_results[key]


def expected_seconds(train_task: Task, train_rows: TaskRows) -> float:
    """Return roughly the seconds that a linear model on TF-IDF features takes for these rows, without the cache."""
    examples = train_rows.splits["train"].examples
    characters = sum(len(example.text) + len(example.text_pair or "") for example in examples)
    pairs = examples[0].text_pair is not None
    # A text has about four times as many n-grams of 2 to 5 characters as it has characters; see `text_features`.
    stored = (8.0 if pairs else 4.0) * characters * train_task.labels.outputs
    return S_PER_CHARACTER * characters + (S_EXACT if stored <= EXACT_WORK else S_DESCENT) * stored


def compute_yardstick(task: Task, rows: TaskRows, train_task: Task, train_rows: TaskRows) -> Yardstick:
    """Fit the linear model with each strength in `INVERSE_STRENGTHS`, and score the best one on test.

    The best model is the one with the highest dev score.

    The arguments are those of `yardstick`.
    """
    started = time.perf_counter()
    splits = {name: train_rows.splits[name] for name in ("train", "dev")} | {"test": rows.splits["test"]}
    features = text_features(splits)
    gold = {name: encode_targets(splits[name], train_task.labels).numpy() for name in ("train", "dev")}
    gold["test"] = encode_targets(splits["test"], task.labels).numpy()
    best = Yardstick(-math.inf, math.nan, math.nan, 0.0)
    for strength in INVERSE_STRENGTHS:
        model = _fitted(features["train"], gold["train"], train_task, strength)
        dev = _score(_logits(model, features["dev"], train_task), gold["dev"], train_task)
        if dev > best.dev_score:
            test = transferred_logits(_logits(model, features["test"], train_task), task, train_task)
            best = Yardstick(dev, _score(test, gold["test"], task), strength, 0.0)
    return Yardstick(best.dev_score, best.test_score, best.strength, time.perf_counter() - started)


def text_features(splits: Mapping[str, SplitRows]) -> dict[str, Any]:
    """Return the sparse TF-IDF features of each split; the vocabulary comes from the train rows.

    Returns:
        The features by split. For single texts `[examples, ngrams]`; for text pairs `[examples, 4 * ngrams]`: the
        features of the first text and of the second text, their absolute difference and their product.
    """
    import numpy as np
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    columns = {name: _texts(rows) for name, rows in splits.items()}
    of_train = [text for column in columns["train"] for text in column]
    # Most n-grams of large data occur once. They take time and do not help to predict.
    common = {"sublinear_tf": True, "dtype": np.float32, "min_df": 2 if len(of_train) > MANY_TEXTS else 1}
    vectorizers = [
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), **common),
        TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), **common),
    ]
    usable = [vectorizer for vectorizer in vectorizers if _fit_vocabulary(vectorizer, of_train)]
    features = {}
    for name, texts in columns.items():
        vectors = [hstack([vectorizer.transform(column) for vectorizer in usable], format="csr") for column in texts]
        if len(vectors) == 2:
            first, second = vectors
            vectors += [abs(first - second), first.multiply(second)]
        features[name] = hstack(vectors, format="csr")
    return features


def _fit_vocabulary(vectorizer: Any, texts: Sequence[str]) -> bool:
    """Fit the vocabulary of a vectorizer; return False if the texts have no n-gram that it would count."""
    try:
        vectorizer.fit(texts)
    except ValueError as error:
        if "vocabulary" in str(error) or "no terms remain" in str(error).lower():
            return False
        raise
    return True


def _texts(rows: SplitRows) -> list[list[str]]:
    """Return the split's texts as one list, or as two lists (first and second texts) for a task of text pairs."""
    columns = [[example.text for example in rows.examples]]
    if rows.examples[0].text_pair is not None:
        columns.append([example.text_pair or "" for example in rows.examples])
    return columns


def _fitted(features: Any, targets: Array, task: Task, strength: float) -> Any:
    """Fit a linear model that suits the labels of the task.

    Args:
        features: The features, `[examples, features]`.
        targets: The targets of the examples, in the form that `evaluation.metrics.metrics` takes.
        task: The task.
        strength: The value of C.
    """
    import numpy as np
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
    from sklearn.multiclass import OneVsRestClassifier

    if task.labels.kind is TargetKind.REGRESSION:
        estimator: Any = Ridge(alpha=1 / strength)
    elif features.nnz * task.labels.outputs <= EXACT_WORK:
        estimator = LogisticRegression(C=strength, max_iter=1000, tol=1e-3)
    else:
        alpha = 1 / (strength * features.shape[0])
        passes = max(PASSES, math.ceil(EXAMPLES / features.shape[0]))
        estimator = SGDClassifier(loss="log_loss", alpha=alpha, max_iter=passes, tol=None, average=True, random_state=0)
    if task.labels.kind is TargetKind.MULTILABEL:
        estimator = OneVsRestClassifier(estimator)
    elif task.labels.kind is not TargetKind.REGRESSION and len(np.unique(targets)) == 1:  # few rows, of one class
        estimator = DummyClassifier(strategy="most_frequent")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Label .* is present in all training examples")
        return estimator.fit(features, targets)


def _logits(model: Any, features: Any, task: Task) -> Array:
    """Return the linear model's predictions as logits, [examples, outputs], in the same form as an encoder's logits."""
    import numpy as np
    from scipy.special import logit

    if task.labels.kind is TargetKind.REGRESSION:
        return np.asarray(model.predict(features)).reshape(-1, 1)
    shares = np.clip(model.predict_proba(features), MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    if task.labels.kind is TargetKind.MULTILABEL:
        return np.asarray(logit(shares))
    logits = np.full((features.shape[0], task.labels.outputs), math.log(MIN_PROBABILITY))
    logits[:, model.classes_] = np.log(shares)
    return logits


def _score(logits: Array, gold: Array, task: Task) -> float:
    """Return the task's primary metric; 0 if it is undefined, such as the correlation of constant predictions."""
    value = float(metrics(gold, decide(logits, task.labels), task.labels)[task.primary])
    return value if math.isfinite(value) else 0.0


# Cache -------------------------------------------------------------------------------------------------------------


def _key(task: Task, rows: TaskRows, train_task: Task, train_rows: TaskRows) -> str:
    """Return a digest of everything that determines the scores of a linear model on TF-IDF features."""
    digests = [train_rows.splits["train"].digest, train_rows.splits["dev"].digest, rows.splits["test"].digest]
    labels = [[each.labels.kind, each.labels.names, each.labels.threshold, each.primary] for each in (train_task, task)]
    return digest_of([FORMAT, version("scikit-learn"), digests, labels, dict(task.label_map)])


def _cached_or_computed(key: str, inputs: tuple[Task, TaskRows, Task, TaskRows]) -> Yardstick:
    """Read the result from the cache folder, or compute it and write it there.

    Processes that need the same result at the same time wait until the first process has computed it. If the cache
    folder is not usable, each process computes the result itself.
    """
    from filelock import FileLock, Timeout

    path = cache_folder() / "yardsticks" / f"{key}.json"
    if (kept := _read(path)) is not None:
        return kept
    lock = FileLock(path.with_suffix(".lock"), timeout=LOCK_TIMEOUT_S)
    held = False
    with suppress(OSError, Timeout):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        held = True
    try:
        result = _read(path) or compute_yardstick(*inputs)
        with suppress(OSError):
            draft = path.with_suffix(f".{os.getpid()}.draft")
            draft.write_text(json.dumps(asdict(result)))
            os.replace(draft, path)
        return result
    finally:
        if held:
            lock.release()


def _read(path: Path) -> Yardstick | None:
    """Return the result in a file of the cache; None if the file does not exist or is damaged."""
    try:
        return Yardstick(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
