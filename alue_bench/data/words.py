"""The tokenization of words that have tags: word by word, and in windows if a sentence is too long.

A word's tag is predicted from its first subword (Devlin et al. 2019, section 5.3). The model's normalisation is applied
to each word, and each word is tokenized as it would be inside a text. A word that normalisation removes entirely has no
subword; its predicted tag is O, or the first tag if the task has no O.

A sentence that exceeds the maximal length is divided into windows that overlap by half. Each word's tag is predicted in
one window only: a word in the overlap of two windows belongs to the later window if its left context there is longer
than its right context in the earlier one.

Notation: n is the number of sentences, w the number of words of all sentences together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from alue_bench.contract.formats import Example
from alue_bench.contract.task import OUTSIDE, Labels

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Array = np.ndarray[Any, Any]

IGNORED = -100
"""The target of a token from which no tag is predicted; torch's cross-entropy ignores it."""
NO_WORD = -1
"""The value that pads a sentence's row of tags after the last tag."""


def token_for_empty_text(tokenizer: Any) -> int:
    """Return the id of the token that represents an empty text.

    It is the tokenizer's end-of-text token. If there is none, it is the beginning-of-text token, or else the padding
    token.
    """
    ends = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    return int(next(token for token in ends if token is not None))


@dataclass(frozen=True)
class WordPositions:
    """The words of a tokenized split, and the positions of the words whose tag is predicted from a token."""

    counts: Array  # int64 [n]
    """The number of words of each sentence."""
    gold: Array  # int64 [n, longest]
    """The gold tags, in the form of `as_rows`."""
    predicted: Array  # int64 [p]
    """The positions, among all words of the split, of the words that have a first subword, in ascending order. The
    tokens whose target is not `IGNORED` are these subwords, in the same order."""
    outside: int
    """The predicted tag of words without a subword, as a position among the labels: that of O, or 0 if the task has no
    O."""
    windowed: int
    """The number of sentences that were divided into windows."""
    cut: int
    """The number of words with more subwords than fit into a window; their further subwords were cut off."""

    @property
    def unread(self) -> int:
        """The number of words without a subword."""
        return int(self.counts.sum()) - len(self.predicted)

    def logits_of_all(self, logits: Array) -> Array:
        """Return logits for all words, fp32 [w, labels].

        Args:
            logits: The logits of the words with a subword, fp32 [p, labels]. Words without a subword get logits that
                favour the tag `outside`.
        """
        import numpy as np

        every = np.zeros((int(self.counts.sum()), logits.shape[1]), dtype=logits.dtype)
        every[:, self.outside] = 1.0
        every[self.predicted] = logits
        return every


def outside_index(labels: Labels) -> int:
    """Return the position of the tag O among the labels; 0 if the task has no such tag."""
    return labels.names.index(OUTSIDE) if OUTSIDE in labels.names else 0


def as_rows(tags: Array, counts: Array) -> Array:
    """Return a row of tags for each sentence, int64 [n, longest], padded with `NO_WORD`.

    Args:
        tags: The tags of all words, int64 [w].
        counts: The number of words of each sentence, int64 [n].
    """
    import numpy as np

    rows = np.full((len(counts), int(counts.max(initial=0))), NO_WORD, dtype="int64")
    rows[np.arange(rows.shape[1]) < counts[:, None]] = tags
    return rows


def gold_rows(examples: Sequence[Example], labels: Labels) -> Array:
    """Return the gold tags of sentences, int64 [n, longest], in the form of `as_rows`."""
    import numpy as np

    position = {name: index for index, name in enumerate(labels.names)}
    tags = [position[tag] for example in examples for tag in _tags_of(example)]
    return as_rows(np.array(tags, dtype="int64"), word_counts(examples))


def word_counts(examples: Sequence[Example]) -> Array:
    """Return the number of words of each sentence, int64 [n]."""
    import numpy as np

    return np.array([len(example.words or ()) for example in examples], dtype="int64")


def _tags_of(example: Example) -> tuple[str, ...]:
    return example.target if isinstance(example.target, tuple) else ()


def encoded_words(sentences: Sequence[Sequence[str]], tokenizer: Any, max_length: int) -> dict[str, list[Any]]:
    """Return the token ids of sentences, as columns of a table with one row for each window.

    Args:
        sentences: The normalised words of each sentence. A word may be empty or contain spaces.
        tokenizer: The tokenizer, fast or slow.
        max_length: The maximal number of tokens of a window, special tokens included.

    Returns:
        The columns "input_ids" and, if the tokenizer gives any, "token_type_ids"; "sentence", the position of the
        window's sentence; "words", the positions in the sentence of the words whose tags are predicted in this window;
        "firsts", the positions in the window of the first subwords of these words; "cut", the number of these words
        that were cut.
    """
    frame = _SpecialTokens.of(tokenizer)
    pieces_of = _subword_ids({word for words in sentences for word in words}, tokenizer)
    size = max(1, max_length - len(frame.before) - len(frame.after))
    columns: dict[str, list[Any]] = {name: [] for name in ("input_ids", "sentence", "words", "firsts", "cut")}
    if frame.types is not None:
        columns["token_type_ids"] = []
    for place, words in enumerate(sentences):
        whole = [pieces_of[word] for word in words]
        pieces = [ids[:size] for ids in whole]
        for window in windows([len(ids) for ids in pieces], size):
            inside = pieces[window.start : window.end]
            starts = list(accumulate((len(ids) for ids in inside), initial=len(frame.before)))
            chosen = [word for word in range(window.first, window.last) if pieces[word]]
            ids = [*frame.before, *(token for ids in inside for token in ids), *frame.after]
            columns["input_ids"].append(ids or [frame.for_empty_text])
            columns["sentence"].append(place)
            columns["words"].append(chosen)
            columns["firsts"].append([starts[word - window.start] for word in chosen])
            columns["cut"].append(sum(len(whole[word]) > size for word in chosen))
            if frame.types is not None:
                columns["token_type_ids"].append(frame.types_for(len(ids)) if ids else [0])
    return columns


@dataclass(frozen=True)
class Window:
    """A part of a sentence: a range of words that the model reads, and a range of words whose tags are predicted."""

    start: int
    """The first word that is read."""
    end: int
    """The word after the last word that is read."""
    first: int
    """The first word whose tag is predicted."""
    last: int
    """The word after the last word whose tag is predicted."""


def words_of(text: str) -> list[str]:
    """Return the words of a sentence, which are separated by spaces; other white space is part of a word."""
    return [word for word in text.split(" ") if word.strip()]


def windows(lengths: Sequence[int], size: int) -> list[Window]:
    """Divide a sentence into overlapping windows; the tag of each word is predicted in one of them.

    Each window except the last repeats at most the last half of the window before it, and less if the next word would
    otherwise not fit. The last window begins as early as its size allows, so that it contains as much of the sentence
    as the other windows.

    Args:
        lengths: The number of subwords of each word, each at most `size`.
        size: The number of subwords that fit into a window.
    """
    total = [0, *accumulate(lengths)]  # total[i]: the number of subwords before word i
    count = len(lengths)
    if total[-1] <= size:
        return [Window(0, count, 0, count)]
    spans: list[tuple[int, int]] = []
    start = 0
    while True:
        end = next((word for word in range(start + 1, count + 1) if total[word] - total[start] > size), count + 1) - 1
        if end == count:
            break
        spans.append((start, end))
        left = min(size // 2, size - lengths[end])  # so that at least the next word fits
        start = next(word for word in range(start + 1, end + 1) if total[end] - total[word] <= left)
    spans.append((next(word for word in range(count) if total[count] - total[word] <= size), count))
    # A word is predicted in the later window if it has more left context there than right context in the earlier one.
    edges = [0]
    for (_, end), (later, _) in pairwise(spans):
        inside = range(max(later, edges[-1]), end)
        edges.append(next((w for w in inside if total[w] - total[later] > total[end] - total[w + 1]), end))
    return [
        Window(start, end, first, last)
        for (start, end), (first, last) in zip(spans, pairwise([*edges, count]), strict=True)
    ]


@dataclass(frozen=True)
class _SpecialTokens:
    """The special tokens that a tokenizer adds to a text."""

    before: tuple[int, ...]
    """The ids of the special tokens before the text."""
    after: tuple[int, ...]
    """The ids of the special tokens after the text."""
    types: tuple[tuple[int, ...], int, tuple[int, ...]] | None
    """The token types (segment numbers) of the tokens before, in and after the text; None if the tokenizer gives
    none."""
    for_empty_text: int
    """The id of the token that represents an empty sentence if there are no special tokens."""

    @classmethod
    def of(cls, tokenizer: Any) -> _SpecialTokens:
        """Find the special tokens that the tokenizer adds, by tokenizing a short text with and without them."""
        framed = tokenizer("a", return_attention_mask=False)
        around = list(framed["input_ids"])
        own = list(tokenizer("a", add_special_tokens=False)["input_ids"])
        begin = next(b for b in range(len(around) + 1) if around[b : b + len(own)] == own)
        end = begin + len(own)
        types = None
        if "token_type_ids" in framed:
            given = tuple(framed["token_type_ids"])
            types = (given[:begin], given[begin] if begin < end else 0, given[end:])
        return cls(tuple(around[:begin]), tuple(around[end:]), types, token_for_empty_text(tokenizer))

    def types_for(self, tokens: int) -> list[int]:
        """Return the token types of a window with this number of tokens, special tokens included."""
        assert self.types is not None
        before, own, after = self.types
        return [*before, *[own] * (tokens - len(before) - len(after)), *after]


def _subword_ids(words: set[str], tokenizer: Any) -> dict[str, list[int]]:
    """Return the ids of each word's subwords, as the tokenizer gives them for a word inside a text."""
    known = sorted(words)
    plain, spaced = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", " a"))
    # Byte-level tokenizers, such as RoBERTa's, have different tokens for a word after a space.
    before = " " if plain != spaced and len(plain) == len(spaced) else ""
    given = [before + word if word.strip() else "" for word in known]
    ids = tokenizer(given, add_special_tokens=False)["input_ids"] if known else []
    return dict(zip(known, ids, strict=True))


def targets_of_tokens(
    examples: Sequence[Example], labels: Labels, columns: Mapping[str, Sequence[Any]], offsets: Tensor
) -> Tensor:
    """Return the target of each token, int64 [tokens]: the tag of a word for its first subword, otherwise `IGNORED`.

    Args:
        examples: The sentences. The words of a sentence without gold tags get the first tag as their target, which must
            not be used.
        labels: The tags.
        columns: The columns "sentence", "words" and "firsts" of `encoded_words`.
        offsets: The positions of the first token of each window, and the number of tokens: int64 [windows + 1].
    """
    import torch

    position = {name: index for index, name in enumerate(labels.names)}
    starts = offsets.tolist()
    targets = torch.full((starts[-1],), IGNORED, dtype=torch.int64)
    places: list[int] = []
    tags: list[int] = []
    for window, (sentence, words, firsts) in enumerate(
        zip(columns["sentence"], columns["words"], columns["firsts"], strict=True)
    ):
        given = _tags_of(examples[sentence])
        places += [starts[window] + first for first in firsts]
        tags += [position[given[word]] if given else 0 for word in words]
    targets[torch.tensor(places, dtype=torch.int64)] = torch.tensor(tags, dtype=torch.int64)
    return targets


def places_of_words(examples: Sequence[Example], columns: Mapping[str, Sequence[Any]], labels: Labels) -> WordPositions:
    """Return the words of a split, and the positions of the words whose tag is predicted from a token.

    Args:
        examples: The sentences.
        columns: The columns of `encoded_words`.
        labels: The tags.
    """
    import numpy as np

    counts = word_counts(examples)
    starts = np.concatenate([[0], np.cumsum(counts)])
    predicted = [starts[s] + w for s, words in zip(columns["sentence"], columns["words"], strict=True) for w in words]
    sentences, times = np.unique(np.asarray(columns["sentence"], dtype="int64"), return_counts=True)
    assert len(sentences) == len(counts)
    return WordPositions(
        counts=counts,
        gold=gold_rows(examples, labels),
        predicted=np.array(predicted, dtype="int64"),
        outside=outside_index(labels),
        windowed=int((times > 1).sum()),
        cut=int(sum(columns["cut"])),
    )
