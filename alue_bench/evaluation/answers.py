"""Exact match and token F1 of answers, by the definition of SQuAD's evaluation script.

The score of a prediction is its maximum over the gold answers (Rajpurkar et al. 2016). Before the comparison, the
script puts answers into lower case and removes ASCII punctuation, the words "a", "an" and "the", and extra white space.
Exact match is 1 if the answers are then equal. F1 is computed over their words, as multisets. If neither the prediction
nor the gold answer has any words, both metrics are 1; if only one of them has words, both are 0. A question without an
answer has the gold answer "" (Rajpurkar, Jia & Liang 2018). Gold answers that are empty after this normalisation are
ignored, unless all gold answers to the question are empty.

The script is made for English. For the metrics whose names end in `_arabic`, answers are changed as follows before the
normalisation of the script:

- Diacritics (Unicode category Mn) and the elongation character (tatweel) are removed.
- Punctuation of every script (categories P and S) is removed, so that "القاهرة،" equals "القاهرة".
- The article ال is removed at the beginning of a word, unless fewer than two letters remain. After an attached
  particle, as in "والقاهرة", it is kept, because without a dictionary it cannot be distinguished from the letters of
  the word.

Letters are not unified: "أحمد" differs from "احمد". Texts are brought into Unicode's form NFC, so that "أ" written as
one or as two characters is the same letter.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

ARABIC = "_arabic"
"""The ending of the names of metrics that normalise Arabic answers before the comparison."""

_ENGLISH_ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
_ARABIC_ARTICLE = re.compile(r"(?<!\S)ال(?=\S{2})")
_TATWEEL = "\u0640"
_ASCII_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))


@lru_cache(maxsize=1 << 16)  # the same gold answers are normalised after every epoch
def normalise_as_squad(text: str) -> str:
    """Return an answer normalised as in SQuAD's evaluation script."""
    return " ".join(_ENGLISH_ARTICLES.sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split())


@lru_cache(maxsize=1 << 16)  # the same gold answers are normalised after every epoch
def normalise_arabic(text: str) -> str:
    """Return an answer without Arabic diacritics, articles and punctuation, then normalised as in SQuAD's script."""
    composed = unicodedata.normalize("NFC", text)
    kept = "".join(c for c in composed if c != _TATWEEL and unicodedata.category(c)[0] not in "PS" and not _is_mark(c))
    return normalise_as_squad(_ARABIC_ARTICLE.sub("", kept))


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) == "Mn"


def scores(metric: str, gold: Sequence[tuple[str, ...]] | Array, predicted: Sequence[str] | Array) -> Array:
    """Return the score of each question, float64 [questions].

    Args:
        metric: "f1" or "exact_match", or one of them followed by "_arabic".
        gold: The gold answers to each question; empty if the question has no answer.
        predicted: The predicted answer to each question; empty for "no answer".
    """
    import numpy as np

    clean = normalise_arabic if metric.endswith(ARABIC) else normalise_as_squad
    compare = {"f1": _f1, "exact_match": _equal}[metric.removesuffix(ARABIC)]
    return np.array(
        [_best_over_gold_answers(compare, clean, *one) for one in zip(gold, predicted, strict=True)], dtype="float64"
    )


def _best_over_gold_answers(
    compare: Callable[[str, str], float], clean: Callable[[str], str], gold: tuple[str, ...], predicted: str
) -> float:
    answers = [clean(text) for text in gold]
    answers = [text for text in answers if text] or [""]
    return max(compare(answer, clean(predicted)) for answer in answers)


def _equal(gold: str, predicted: str) -> float:
    return float(gold == predicted)


def _f1(gold: str, predicted: str) -> float:
    gold_words, predicted_words = gold.split(), predicted.split()
    if not gold_words or not predicted_words:
        return float(gold_words == predicted_words)
    common = sum((Counter(gold_words) & Counter(predicted_words)).values())
    return 2 * common / (len(gold_words) + len(predicted_words))
