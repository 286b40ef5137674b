"""The tokenization of questions about a text (the context): pairs of texts, in windows if a context is too long.

An answer is a part of the context that begins and ends with whole words. It is cut out of the original text, so that
changes by a model's normalisation and tokenizer do not appear in it. A word is a punctuation mark or symbol, or a
stretch of other characters without white space. The tokens of a word are found by the character offsets that the
tokenizer gives. The head scores the first token of a word as the beginning of the answer, and the last token of a word
as the end of the answer (Devlin et al. 2019, section 4.2).

A pair that exceeds the maximal length is divided into windows. Each window has the question and a part of the context;
the parts overlap by half. Only words that a window contains completely can begin or end an answer in it. In a window
without the whole gold answer, the correct prediction is the null candidate, which stands for "no answer": the
tokenizer's token for classification (CLS), or the first token if there is no CLS.

The target of a token is the sum of the marks `MAY_START`, `MAY_END`, `STARTS` and `ENDS` that apply to it; `IGNORED` if
none applies.

Notation: n is the number of questions, m the number of windows, p the number of tokens whose target is not `IGNORED`, u
the number of words over all windows (a word in two windows counts twice).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.formats import Answers, Example
from alue_bench.data.words import IGNORED, token_for_empty_text

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor

    Array = np.ndarray[Any, Any]

MAY_START, MAY_END, STARTS, ENDS = 1, 2, 4, 8
"""The marks of a token: it may begin an answer, may end an answer, begins the gold answer, ends the gold answer."""
QUESTIONS_PER_BATCH = 1000
"""The number of questions that are passed to the tokenizer at once."""
_NON_SPACE = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class GoldAnswers:
    """The gold answers to a question, and the number of its context, which groups the questions."""

    texts: tuple[str, ...]
    """The answers; empty if the context contains no answer."""
    context: int
    """The number of the context; questions with the same number are about the same text."""


@dataclass(frozen=True)
class SpanPositions:
    """The words of a tokenized split of questions, and the tokens by which each word is scored.

    A word may be the first or the last word of an answer; its score is the logit of its first or last token. The split
    has n questions, m windows, u words, and p tokens with a target: the null candidates, and the tokens of words. The
    targets of all other tokens are `IGNORED`.
    """

    contexts: list[str]
    """The context of each question, [n], as it is written in its file."""
    gold: Array  # objects [n]
    """The gold answers to each question, of type `GoldAnswers`. Their `texts` are empty if the answers are unknown."""
    questions: Array  # int64 [m]
    """The position of each window's question among the n questions, in ascending order."""
    nulls: Array  # int64 [m]
    """The null candidate ("no answer") of each window, as a position among the p tokens that have a target."""
    windows: Array  # int64 [u]
    """The position of each word's window among the m windows, in ascending order."""
    firsts: Array  # int64 [u]
    """The first token of each word, as a position among the p tokens that have a target."""
    lasts: Array  # int64 [u]
    """The last token of each word, as a position among the p tokens that have a target."""
    begins: Array  # int64 [u]
    """The position of each word's first character in the context."""
    ends: Array  # int64 [u]
    """The end of each word in the context: the position after its last character."""
    windowed: int
    """The number of questions that were divided into windows."""
    cut: int
    """The number of questions that were cut, so that only their first tokens are read."""
    unread: int
    """The number of words that no window contains completely, because they have too many tokens."""
    empty: int
    """The number of questions whose context has no word that can begin an answer."""
    unlearnt: int
    """The number of questions whose answer no window contains completely, so that it cannot be learnt."""


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return the (start, end) positions of the words of a text; `end` is exclusive."""
    return [span for match in _NON_SPACE.finditer(text) for span in _divided(match.group(), match.start())]


def _divided(stretch: str, offset: int) -> list[tuple[int, int]]:
    """Return the (start, end) positions of the words in a piece of text without white space that begins at `offset`."""
    spans: list[tuple[int, int]] = []
    inside = False
    for place, character in enumerate(stretch, offset):
        mark = unicodedata.category(character)[0] in "PS"
        if inside and not mark:
            spans[-1] = (spans[-1][0], place + 1)
        else:
            spans.append((place, place + 1))
        inside = not mark
    return spans


def contexts_of(examples: Sequence[Example]) -> Array:
    """Return the number of each question's context, int64 [n]; contexts are counted from 0 in order of first use."""
    import numpy as np

    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(one.text, len(numbers)) for one in examples], dtype="int64")


def gold_answers(examples: Sequence[Example]) -> Array:
    """Return the gold answers to each question, with the number of its context: objects [n], `GoldAnswers`."""
    import numpy as np

    gold = np.empty(len(examples), dtype=object)
    for place, (example, context) in enumerate(zip(examples, contexts_of(examples).tolist(), strict=True)):
        texts = example.target.texts if isinstance(example.target, Answers) else ()
        gold[place] = GoldAnswers(texts, context)
    return gold


# Normalisation ---------------------------------------------------------------------------------------------------


def normalised_questions(examples: Sequence[Example], clean: Callable[[str], str]) -> dict[str, list[Any]]:
    """Return questions and contexts as a model reads them, as columns with one entry for each question.

    Args:
        examples: The questions.
        clean: The model's normalisation. It is applied to each question, and to each stretch of a context between white
            space. If the normalised stretch is not the sequence of its normalised words, for example because the
            normalisation replaces whole URLs, the whole stretch counts as one word.

    Returns:
        The columns "question" and "context"; and "places", with four positions for each word: its start and end in the
        normalised context, and its start and end in the original context.
    """
    known: dict[str, str] = {}

    def cleaned(text: str) -> str:
        if text not in known:
            known[text] = clean(text)
        return known[text]

    made = {text: _normalised(text, cleaned) for text in {example.text for example in examples}}
    return {
        "question": [cleaned(example.text_pair or "") for example in examples],
        "context": [made[example.text][0] for example in examples],
        "places": [made[example.text][1] for example in examples],
    }


def _normalised(context: str, clean: Callable[[str], str]) -> tuple[str, list[list[int]]]:
    """Return the normalised context, and the four positions of each word; see `normalised_questions`."""
    parts: list[str] = []
    places: list[list[int]] = []
    length = 0
    for match in _NON_SPACE.finditer(context):
        whole = clean(match.group())
        for begin, end, first, last in _mapped(match, whole, clean):
            places.append([length + begin, length + end, first, last])
        parts.append(whole)
        length += len(whole) + 1
    return " ".join(parts), places


def _mapped(match: re.Match[str], whole: str, clean: Callable[[str], str]) -> Iterator[tuple[int, int, int, int]]:
    """Yield each word's start and end in the normalised stretch, and its start and end in the original context.

    Args:
        match: A stretch without white space in the original context.
        whole: The normalised stretch, which may contain spaces that the normalisation added.
        clean: The normalisation.
    """
    visible = [place for place, character in enumerate(whole) if not character.isspace()]
    if not visible:
        return
    spans = _divided(match.group(), match.start())
    alone = ["".join(clean(match.string[begin:end]).split()) for begin, end in spans]
    if "".join(alone) != "".join(whole.split()):
        yield visible[0], visible[-1] + 1, match.start(), match.end()
        return
    done = 0
    for (begin, end), word in zip(spans, alone, strict=True):
        if word:
            yield visible[done], visible[done + len(word) - 1] + 1, begin, end
        done += len(word)


# Tokens ----------------------------------------------------------------------------------------------------------


def encoded_questions(columns: Mapping[str, Sequence[Any]], tokenizer: Any, max_length: int) -> pa.Table:
    """Return the token ids of questions with their contexts, as an Arrow table with one row for each window.

    Args:
        columns: The columns of `normalised_questions`.
        tokenizer: The tokenizer, which must give character offsets (a "fast" one).
        max_length: The maximal number of tokens of a window, special tokens included. A question gets at most half of
            them; the rest of a longer question is cut off.

    Returns:
        The columns "input_ids" and, if the tokenizer gives any, "token_type_ids"; "question", the position of the
        window's question; "null", the position of the null candidate in the window; "firsts" and "lasts", the positions
        in the window of the first and last token of each word that the window contains completely; "begins" and "ends",
        the positions of these words in the original context; "cut", 1 if the question was cut, otherwise 0; "unread",
        the number of words that no window contains completely. To be counted once, "unread" is 0 in all windows of a
        question except the first.
    """
    import pyarrow as pa

    parts = []
    for start in range(
        0, len(columns["question"]), QUESTIONS_PER_BATCH
    ):  # Python's integers need much more memory than Arrow's
        part = slice(start, start + QUESTIONS_PER_BATCH)
        encoded = tokenizer(
            list(columns["question"][part]), list(columns["context"][part]), truncation=False, verbose=False,
            return_attention_mask=False, return_offsets_mapping=True,
        )  # fmt: skip
        rows = [
            {"question": start + row, **window}
            for row, places in enumerate(columns["places"][part])
            for window in _windows_of(_Pair.of(encoded, row), places, tokenizer, max_length)
        ]
        number = pa.int64()
        kinds = {name: pa.list_(number) if isinstance(value, list) else number for name, value in rows[0].items()}
        parts.append(pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()}))
    return pa.concat_tables(parts)


@dataclass(frozen=True)
class _Pair:
    """The tokens of a question with its context, before they are divided into windows."""

    ids: list[int]
    types: list[int] | None
    offsets: list[tuple[int, int]]
    """The (start, end) positions of each token's characters in the text (question or context) that it belongs to."""
    texts: list[int | None]
    """The text that each token belongs to: 0 for the question, 1 for the context, None for special tokens."""

    @classmethod
    def of(cls, encoded: Any, row: int) -> _Pair:
        """Return the pair in one row of a tokenizer's output."""
        types = encoded["token_type_ids"][row] if "token_type_ids" in encoded else None
        return cls(encoded["input_ids"][row], types, encoded["offset_mapping"][row], encoded.sequence_ids(row))

    def tokens_of(self, text: int) -> list[int]:
        """Return the positions of the tokens of a text: 0 for the question, 1 for the context."""
        return [place for place, one in enumerate(self.texts) if one == text]


def _windows_of(
    pair: _Pair, word_positions: Sequence[Sequence[int]], tokenizer: Any, max_tokens: int
) -> Iterator[dict[str, Any]]:
    """Yield the windows of a question with its context, as rows of the table of `encoded_questions`."""
    question, context = pair.tokens_of(0), pair.tokens_of(1)
    left = max_tokens - (len(pair.ids) - len(question) - len(context))  # the number of tokens left for both texts
    kept = question[: max(1, left // 2)]
    size = max(1, left - len(kept))
    outside = [place for place, text in enumerate(pair.texts) if text is None] + kept
    begin = context[0] if context else len(pair.ids)
    before = sorted(place for place in outside if place < begin)
    behind = sorted(place for place in outside if place >= begin)
    words = _word_tokens([pair.offsets[place] for place in context], word_positions)
    parts = _parts(len(context), size)
    complete = [{w for w, (first, last) in words.items() if low <= first and last < high} for low, high in parts]
    unread = len(words) - len(set().union(*complete))
    for number, ((low, high), contained) in enumerate(zip(parts, complete, strict=True)):
        chosen = [*before, *context[low:high], *behind]
        inside, shift = sorted(contained), len(before) - low
        ids = [pair.ids[place] for place in chosen] or [token_for_empty_text(tokenizer)]
        window: dict[str, Any] = {
            "input_ids": ids,
            "null": ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0,
            "firsts": [words[word][0] + shift for word in inside],
            "lasts": [words[word][1] + shift for word in inside],
            "begins": [word_positions[word][2] for word in inside],
            "ends": [word_positions[word][3] for word in inside],
            "cut": int(len(kept) < len(question)),
            "unread": 0 if number else unread,
        }
        if pair.types is not None:
            window["token_type_ids"] = [pair.types[place] for place in chosen] or [0]
        yield window


def _word_tokens(
    offsets: Sequence[tuple[int, int]], word_positions: Sequence[Sequence[int]]
) -> dict[int, tuple[int, int]]:
    """Return the first and the last token of each word that has tokens, as positions among the context's tokens.

    Args:
        offsets: The (start, end) positions of each token's characters in the normalised context.
        word_positions: The positions of the words; see `normalised_questions`.

    Returns:
        The first and last tokens, keyed by the position of the word in `word_positions`.
    """
    tokens_of: dict[int, tuple[int, int]] = {}
    word = 0
    for token, (begin, end) in enumerate(offsets):
        while word < len(word_positions) and word_positions[word][1] <= begin:
            word += 1
        reached = word
        while reached < len(word_positions) and word_positions[reached][0] < end and begin < end:
            tokens_of[reached] = (tokens_of.get(reached, (token, token))[0], token)
            reached += 1
    return tokens_of


def _parts(tokens: int, size: int) -> list[tuple[int, int]]:
    """Divide a context into parts of `size` tokens that overlap by half; return the (start, end) range of each.

    The last two parts may overlap by more. A context of at most `size` tokens is a single part.
    """
    if tokens <= size:
        return [(0, tokens)]
    starts = [*range(0, tokens - size, size - size // 2), tokens - size]
    return [(start, start + size) for start in starts]


# Targets ---------------------------------------------------------------------------------------------------------


def as_targets(examples: Sequence[Example], table: pa.Table) -> tuple[Tensor, SpanPositions]:
    """Return the target of each token, int64 [tokens], and the words of the split with the tokens that score them.

    Args:
        examples: The questions. If one has several gold answers, the first is learnt. Unknown answers are treated as no
            answer; their targets must not be used.
        table: The windows, as `encoded_questions` returns them.
    """
    import numpy as np
    import torch

    def numbers(name: str) -> Array:
        return np.asarray(table[name].to_numpy())

    def flat(name: str) -> Array:
        return np.asarray(table[name].combine_chunks().flatten())

    def lengths(name: str) -> Array:
        return np.asarray(table[name].combine_chunks().value_lengths(), dtype="int64")

    ends_of_windows = np.cumsum(lengths("input_ids"))
    starts = ends_of_windows - lengths("input_ids")
    question, windows = numbers("question"), np.repeat(np.arange(len(table)), lengths("firsts"))
    firsts, lasts = (starts[windows] + flat(name) for name in ("firsts", "lasts"))
    begins, ends, nulls = flat("begins"), flat("ends"), starts + numbers("null")
    spans = np.array([_span_of(example) for example in examples], dtype="int64")
    is_first, is_last = _edges(question[windows], begins, ends, spans)
    has_answer = (
        np.bincount(windows[is_first], minlength=len(table)) * np.bincount(windows[is_last], minlength=len(table)) > 0
    )

    marks = np.zeros(int(ends_of_windows[-1]), dtype="int64")
    marks[firsts] |= MAY_START
    marks[lasts] |= MAY_END
    marks[nulls] |= MAY_START | MAY_END
    marks[nulls[~has_answer]] |= STARTS | ENDS
    marks[firsts[is_first & has_answer[windows]]] |= STARTS
    marks[lasts[is_last & has_answer[windows]]] |= ENDS

    counted = np.cumsum(marks > 0) - 1  # the position of a token among the tokens with a target
    learnt = np.bincount(question[has_answer], minlength=len(examples)) > 0
    places = SpanPositions(
        contexts=[example.text for example in examples],
        gold=gold_answers(examples),
        questions=question,
        nulls=counted[nulls],
        windows=windows,
        firsts=counted[firsts],
        lasts=counted[lasts],
        begins=begins,
        ends=ends,
        windowed=int((np.bincount(question) > 1).sum()),
        cut=len(np.unique(question[numbers("cut") > 0])),
        unread=int(numbers("unread").sum()),
        empty=len(examples) - len(np.unique(question[windows])),
        unlearnt=int(((spans[:, 1] > 0) & ~learnt).sum()),
    )
    return torch.from_numpy(np.where(marks > 0, marks, IGNORED)), places


def _edges(question: Array, begins: Array, ends: Array, spans: Array) -> tuple[Array, Array]:
    """Return two arrays, bool [u]: whether each word is the first word, and the last word, of the gold answer.

    The gold answer is that of the word's question.

    Args:
        question: The position of each word's question, int64 [u].
        begins: The position of each word's first character in the context, int64 [u].
        ends: The position after each word's last character, int64 [u].
        spans: The (start, end) positions of each question's gold answer in its context, int64 [n, 2]; (0, 0) if there
            is no answer.
    """
    import numpy as np

    inside = (begins < spans[question, 1]) & (spans[question, 0] < ends)
    first, last = np.full(len(spans), np.iinfo("int64").max), np.full(len(spans), -1)
    np.minimum.at(first, question[inside], begins[inside])
    np.maximum.at(last, question[inside], ends[inside])
    return inside & (begins == first[question]), inside & (ends == last[question])


def _span_of(example: Example) -> tuple[int, int]:
    """Return the (start, end) positions of the first gold answer in the context; (0, 0) if there is no answer."""
    answers = example.target
    return (answers.starts[0], answers.ends[0]) if isinstance(answers, Answers) and answers.starts else (0, 0)
