"""``python -m tools.sampledata.learnability``: check that the sample can be learnt but is not trivial.

The program compares a linear model over character and word n-grams with a baseline that ignores the text. A sample that
a linear model solves, or cannot learn at all, could not show a difference between two fine-tuning strategies.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, matthews_corrcoef
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer

from tools.sampledata.__main__ import DEFAULT_OUTPUT
from tools.sampledata.affect import EMOTIONS

Rows = list[list[str]]
Figures = tuple[str, str, float, float]
"""A task, a metric, the score of a baseline that ignores the text, and the score of a model."""


def _tsv(path: Path, *, header: bool = False) -> Rows:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines[header:]]


def _csv(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def _bag() -> Any:
    return make_union(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True),
        TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True),
    )


def _classifier() -> Any:
    # Without balanced class weights, the model would always predict the majority label, as hateful tweets are few.
    return make_pipeline(_bag(), LogisticRegression(C=10, max_iter=2000, class_weight="balanced"))


def _macro_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    return float(f1_score(gold, predicted, average="macro"))


def _compare(
    train: tuple[Sequence[Any], Sequence[str]], held_out: tuple[Sequence[Any], Sequence[str]], classifier: Any
) -> tuple[float, float]:
    """Return the macro-F1 on held-out texts of two models: a majority baseline, and a classifier that reads the texts.

    Args:
        train: The train texts (or pairs of texts) and their labels.
        held_out: The held-out texts (or pairs of texts) and their labels.
        classifier: The untrained classifier, a scikit-learn estimator.
    """
    majority = DummyClassifier().fit(*train)
    texts, gold = held_out
    return _macro_f1(gold, majority.predict(texts)), _macro_f1(gold, classifier.fit(*train).predict(texts))


def _overlap(pairs: Sequence[tuple[str, str]]) -> np.ndarray[Any, Any]:
    """Return three features of each text pair: overlap of words, overlap of character trigrams, length difference.

    Returns:
        The features, float `[pairs, 3]`. An overlap is the Jaccard index of both sets.
    """
    features = []
    for pair in pairs:
        words = [set(text.strip('؟." ').split()) for text in pair]
        trigrams = [{text[at : at + 3] for at in range(len(text) - 2)} for text in pair]
        shares = [len(one & other) / max(1, len(one | other)) for one, other in (words, trigrams)]
        features.append([*shares, abs(len(pair[0]) - len(pair[1])) / 10])
    return np.array(features)


def _overlap_classifier() -> Any:
    return make_pipeline(FunctionTransformer(_overlap), GradientBoostingClassifier(n_estimators=60, random_state=0))


def _columns(rows: Rows, text: int, label: int) -> tuple[list[str], list[str]]:
    return [row[text] for row in rows], [row[label] for row in rows]


def _dialects(data: Path) -> list[Figures]:
    train, test = (_columns(_tsv(data / f"madar/MADAR-Corpus-26-{split}.tsv"), 0, 1) for split in ("train", "test"))
    two = [
        ([text for text, label in zip(*split, strict=True) if label in ("ALG", "AMM")],
         [label for label in split[1] if label in ("ALG", "AMM")])
        for split in (train, test)
    ]  # fmt: skip
    return [
        ("mdd, test", "macro-F1", *_compare(train, test, _classifier())),
        ("mdd-algiers-amman, test", "macro-F1", *_compare(two[0], two[1], _classifier())),
    ]


def _offence(data: Path) -> list[Figures]:
    train, dev = (_tsv(data / f"osact4/OSACT2020-sharedTask-{split}.txt") for split in ("train", "dev"))
    return [
        (
            f"{task}, dev",
            "macro-F1",
            *_compare(_columns(train, 0, column), _columns(dev, 0, column), _classifier()),
        )
        for task, column in (("oold", 1), ("ohsd", 2))
    ]


def _irony(data: Path) -> list[Figures]:
    train, test = (_columns(_csv(data / f"idat/IDAT_{split}_text.csv"), 1, 2) for split in ("training", "test"))
    return [("fid, test", "macro-F1", *_compare(train, test, _classifier()))]


def _affect(data: Path) -> list[Figures]:
    def read(kind: str, split: str) -> Rows:
        return _tsv(data / f"semeval2018/2018-{kind}-Ar-{split}.txt", header=True)

    train, test = read("E-c", "train"), read("E-c", "test-gold")
    anger = _compare(_columns(train, 1, 2), _columns(test, 1, 2), _classifier())
    gold, majority, predicted = (np.zeros((len(test), len(EMOTIONS)), int) for _ in range(3))
    for at in range(len(EMOTIONS)):
        texts, labels = _columns(train, 1, 2 + at)
        gold[:, at] = [int(row[2 + at]) for row in test]
        majority[:, at] = int(max("01", key=labels.count))
        predicted[:, at] = _classifier().fit(texts, labels).predict([row[1] for row in test]).astype(int)

    valence_train, valence_test = read("Valence-reg", "train"), read("Valence-reg", "test-gold")
    ridge = make_pipeline(_bag(), Ridge()).fit(
        [row[1] for row in valence_train], [float(row[3]) for row in valence_train]
    )
    scores = ridge.predict([row[1] for row in valence_test])
    pearson = float(np.corrcoef(scores, [float(row[3]) for row in valence_test])[0, 1])
    # The correlation of a constant prediction, such as the mean, is undefined; 0 is reported instead.
    return [
        ("sec, test", "Jaccard", _jaccard(gold, majority), _jaccard(gold, predicted)),
        (
            "sec, test", "micro-F1", float(f1_score(gold, majority, average="micro")),
            float(f1_score(gold, predicted, average="micro")),
        ),
        ("anger, test", "macro-F1", *anger),
        ("svreg, test", "Pearson", 0.0, pearson),
    ]  # fmt: skip


def _jaccard(gold: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any]) -> float:
    """Return the mean Jaccard index of the gold and predicted label sets; the index of two empty sets is 1.

    Args:
        gold: 1 for each label of a tweet, 0 otherwise, int `[tweets, labels]`.
        predicted: The same for the predicted labels.
    """
    union = (gold | predicted).sum(axis=1)
    return float(np.mean(np.where(union == 0, 1.0, (gold & predicted).sum(axis=1) / np.maximum(union, 1))))


def _questions(data: Path) -> list[Figures]:
    """Return the scores on the task MQ2Q, from four-fold cross-validation on train, since test has no gold labels."""
    rows = _csv(data / "mq2q/train.csv")
    labels = [row[2] for row in rows]
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    pairs = [(row[0], row[1]) for row in rows]
    majority = _macro_f1(labels, [max("01", key=labels.count)] * len(labels))

    def score(classifier: Any, inputs: Sequence[Any]) -> float:
        return _macro_f1(labels, list(cross_val_predict(classifier, np.array(inputs), labels, cv=folds)))

    return [
        (
            "mq2q, 4 folds, both texts as one", "macro-F1", majority,
            score(_classifier(), [" ".join(pair) for pair in pairs]),
        ),
        ("mq2q, 4 folds, overlap", "macro-F1", majority, score(_overlap_classifier(), pairs)),
    ]  # fmt: skip


def _inference(data: Path) -> list[Figures]:
    train, dev = _tsv(data / "xnli/test-ar.tsv"), _tsv(data / "xnli/dev-ar.tsv")
    diagnostic = [row[1:] for row in _tsv(data / "diagnostic/diagnostic.tsv", header=True)]

    def score(classifier: Any, inputs: Callable[[list[str]], Any], rows: Rows) -> tuple[float, float]:
        seen, held_out = ([inputs(row) for row in part] for part in (train, rows))
        gold_train, gold = ([row[2] for row in part] for part in (train, rows))
        return _compare((seen, gold_train), (held_out, gold), classifier)

    def hypothesis(row: list[str]) -> str:
        return row[1]

    return [
        (
            "xnli, dev, both texts as one",
            "macro-F1",
            *score(_classifier(), lambda row: f"{row[0]} {row[1]}", dev),
        ),
        ("xnli, dev, hypothesis only", "macro-F1", *score(_classifier(), hypothesis, dev)),
        (
            "xnli, dev, overlap",
            "macro-F1",
            *score(_overlap_classifier(), lambda row: (row[0], row[1]), dev),
        ),
        ("diagnostic, both texts as one", "Matthews", 0.0, _matthews(train, diagnostic)),
    ]


def _matthews(train: Rows, held_out: Rows) -> float:
    (seen, seen_gold), (texts, gold) = (
        ([f"{row[0]} {row[1]}" for row in part], [row[2] for row in part]) for part in (train, held_out)
    )
    return float(matthews_corrcoef(gold, _classifier().fit(seen, seen_gold).predict(texts)))


def main() -> None:
    """Run the command line: print the scores on the compared tasks as a Markdown table.

    Some tasks, such as named entity recognition and reading comprehension, are not compared.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.sampledata.learnability", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_OUTPUT, help="folder of the sample (%(default)s)")
    data = parser.parse_args().data
    print("| task | metric | ignoring the text | TF-IDF and linear model (or as named) |")
    print("| --- | --- | --- | --- |")
    for family in (_dialects, _questions, _offence, _affect, _inference, _irony):
        for task, metric, without_text, score in family(data):
            print(f"| {task} | {metric} | {without_text:.3f} | {score:.3f} |")


if __name__ == "__main__":
    main()
