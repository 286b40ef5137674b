"""Entities in sequences of tags, and the counts per sentence from which the metrics of a tagging task are computed.

An entity is a stretch of words: it begins at a B- tag, or at an I- tag that follows O, the beginning of the sentence or
a tag of another type; it ends before the next beginning and before O. This is the definition of CoNLL's evaluation
script `conlleval` (Tjong Kim Sang & De Meulder 2003) and the default of seqeval. A predicted entity is correct if a
gold entity has the same type, first word and last word.

Every metric is computed from the sums of these counts over sentences, so that sentences can be resampled (`additive`).
Rows of tags have the form of `data.words.as_rows`: int64 [n, longest], padded with -1 after the last word of a
sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.formats import Example
from alue_bench.contract.task import OUTSIDE, Labels
from alue_bench.data.words import as_rows, outside_index, word_counts

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Entities:
    """The entities in some sentences; each entity is one entry in each of the four arrays [entities]."""

    sentence: Array
    """The position of the entity's sentence."""
    first: Array
    """The position of the entity's first word in the sentence."""
    last: Array
    """The position of the entity's last word in the sentence."""
    type: Array
    """The position of the entity's type in `Labels.types`."""


def entities(tags: Array, labels: Labels) -> Entities:
    """Return the entities in rows of tags.

    Args:
        tags: The rows of tags, int64 [n, longest].
        labels: The tags, with a scheme.
    """
    import numpy as np

    position = {name: place for place, name in enumerate(labels.types)}
    # The last entry is for the tag -1, after the end of a sentence.
    type_of = np.array([position.get(name[2:], -1) if name != OUTSIDE else -1 for name in (*labels.names, OUTSIDE)])
    is_beginning = np.array([name.startswith("B-") for name in (*labels.names, OUTSIDE)])
    types = np.pad(type_of[tags], ((0, 0), (1, 1)), constant_values=-1)
    inside = types[:, 1:-1] >= 0
    first = inside & (is_beginning[tags] | (types[:, 1:-1] != types[:, :-2]))
    begins_next = np.pad(first[:, 1:], ((0, 0), (0, 1)), constant_values=False)
    last = inside & ((types[:, 2:] < 0) | begins_next)
    sentence, firsts = np.nonzero(first)
    return Entities(sentence, firsts, np.nonzero(last)[1], types[:, 1:-1][sentence, firsts])


def tag_counts(gold: Array, predicted: Array, labels: Labels) -> Array:
    """Count the correct, the predicted and the gold entities of each of the k types in each sentence, [n, 3 k].

    Without a scheme, words with each of the k tags are counted instead.

    Args:
        gold: The rows of gold tags, int64 [n, longest].
        predicted: The rows of predicted tags, of the same shape.
        labels: The tags.
    """
    import numpy as np

    count, k = len(gold), len(labels.types)

    def counted(sentence: Array, kind: Array) -> Array:
        return np.bincount(sentence * k + kind, minlength=count * k).reshape(count, k)

    if labels.scheme is None:
        words = gold >= 0
        sentence = np.nonzero(words)[0]
        same = gold[words] == predicted[words]
        parts = [
            counted(sentence[same], gold[words][same]),
            counted(sentence, predicted[words]),
            counted(sentence, gold[words]),
        ]
    else:
        true, guessed = entities(gold, labels), entities(predicted, labels)
        width = gold.shape[1] + 1
        keys = [((e.sentence * width + e.first) * width + e.last) * k + e.type for e in (true, guessed)]
        right = np.isin(keys[1], keys[0])
        parts = [
            counted(guessed.sentence[right], guessed.type[right]),
            counted(guessed.sentence, guessed.type),
            counted(true.sentence, true.type),
        ]
    return np.concatenate(parts, axis=1).astype("float64")


def correct_words(gold: Array, predicted: Array) -> Array:
    """Return, for each sentence, the number of words with the correct tag and the number of words, [n, 2]."""
    import numpy as np

    words = gold >= 0
    return np.stack([((gold == predicted) & words).sum(axis=1), words.sum(axis=1)], axis=1).astype("float64")


def most_frequent_tags(train: Sequence[Example], examples: Sequence[Example], labels: Labels) -> Array:
    """Return the predictions of a baseline that ignores the context: the most frequent tag of each word in train.

    A word that does not occur in train gets the tag O; without a scheme, the most frequent tag of all words. Among
    equally frequent tags, the tag that comes first in the task's labels is used.

    Args:
        train: The train sentences.
        examples: The sentences to predict.
        labels: The tags.

    Returns:
        The rows of predicted tags, int64 [n, longest].
    """
    import numpy as np

    position = {name: place for place, name in enumerate(labels.names)}
    by_word: dict[str, Counter[int]] = {}
    every: Counter[int] = Counter()
    for example in train:
        for word, tag in zip(example.words or (), example.target, strict=True):  # type: ignore[arg-type]
            by_word.setdefault(word, Counter())[position[tag]] += 1
            every[position[tag]] += 1

    def most(counts: Counter[int]) -> int:
        return min(counts, key=lambda tag: (-counts[tag], tag))

    best = {word: most(counts) for word, counts in by_word.items()}
    unknown = outside_index(labels) if labels.scheme is not None or not every else most(every)
    tags = [best.get(word, unknown) for example in examples for word in example.words or ()]
    return as_rows(np.array(tags, dtype="int64"), word_counts(examples))
