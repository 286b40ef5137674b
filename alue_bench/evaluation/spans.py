"""The choice of an answer from the scores of its first and last token, and a baseline that ignores the question."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alue_bench.contract.formats import Answers, Example
from alue_bench.data.spans import SpanPositions, word_spans

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

MAX_WORDS = 30
"""The largest number of words of a predicted answer. A punctuation mark is a word."""


def best_answers(logits: Array, positions: SpanPositions, *, no_answer: bool) -> Array:
    """Return the predicted answer to each question, strings in an object array [n]; empty for "no answer".

    The answer is the span of at most `MAX_WORDS` words, over all windows of the question, with the highest sum of the
    logits of its beginning and its end (Devlin et al. 2019, section 4.2); in case of a tie, the first one. If a
    question need not have an answer, the prediction is "no answer" if the sum of both logits of the null candidate is
    higher. Each window has a null candidate, a token that stands for "no answer"; the lowest of their sums is used,
    because only some windows contain the answer (section 4.3).

    Args:
        logits: The two logits (beginning and end of the answer) of each of the p tokens that may begin or end an
            answer, fp32 [p, 2]; see `training.inference.predict_logits`.
        positions: The words of the split, and which of the p tokens are the first and the last of each word.
        no_answer: Whether a question need not have an answer.
    """
    import numpy as np

    count = len(positions.windows)
    begin, end = logits[positions.firsts, 0], logits[positions.lasts, 1]
    best, length = np.full(count, -np.inf), np.zeros(count, dtype="int64")
    for more in range(min(MAX_WORDS, count)):  # the number of words after the first one
        scores = begin[: count - more] + end[more:]
        better = (positions.windows[: count - more] == positions.windows[more:]) & (scores > best[: count - more])
        best[: count - more][better] = scores[better]
        length[: count - more][better] = more
    answers = np.full(len(positions.contexts), "", dtype=object)
    highest = np.full(len(positions.contexts), -np.inf)
    questions = positions.questions[positions.windows]
    order = np.lexsort((np.arange(count), -best, questions))
    asked, first = np.unique(questions[order], return_index=True)
    for question, word in zip(asked.tolist(), order[first].tolist(), strict=True):
        highest[question] = best[word]
        last = word + length[word]
        answers[question] = positions.contexts[question][positions.begins[word] : positions.ends[last]]
    if no_answer:
        null = np.full(len(positions.contexts), np.inf)
        np.minimum.at(null, positions.questions, logits[positions.nulls].sum(axis=1))
        answers[null > highest] = ""
    return answers


def score_of_answer(logits: Array, positions: SpanPositions, question: int, text: str) -> float:
    """Return the score that a text has as the answer to a question; -inf if it cannot be the answer.

    Args:
        logits: The logits, as in `best_answers`.
        positions: The words of the split, as in `best_answers`.
        question: The position of the question in the split.
        text: The answer; empty for the null candidate.
    """
    import numpy as np

    if not text:
        return float(logits[positions.nulls[positions.questions == question]].sum(axis=1).min())
    words = np.nonzero(positions.questions[positions.windows] == question)[0].tolist()
    return max(
        (
            float(logits[positions.firsts[first], 0] + logits[positions.lasts[last], 1])
            for first in words
            for last in range(first, min(first + MAX_WORDS, words[-1] + 1))
            if positions.windows[first] == positions.windows[last]
            and positions.contexts[question][positions.begins[first] : positions.ends[last]] == text
        ),
        default=-np.inf,
    )


def first_words(train: Sequence[Example], examples: Sequence[Example]) -> Array:
    """Return the answers of a baseline that ignores the question: the first words of each context, objects [n].

    The number of words is the lower median of the numbers of words in the train answers. A question without an answer
    counts as an answer without words.

    Args:
        train: The train questions.
        examples: The questions to answer.
    """
    import numpy as np

    lengths = [
        len(word_spans(target.texts[0])) if target.texts else 0
        for target in (example.target for example in train)
        if isinstance(target, Answers)
    ]
    count = statistics.median_low(lengths) if lengths else 0
    answers = np.full(len(examples), "", dtype=object)
    for place, example in enumerate(examples):
        words = word_spans(example.text)[:count]
        answers[place] = example.text[words[0][0] : words[-1][1]] if words else ""
    return answers
