"""The raw text for pre-training: its files, the sampling weight of each file, and the filters for lines.

A line is dropped if it is too short, repeats an earlier line of its file, or overlaps with a text of a benchmark task,
so that the model is not pre-trained on test texts. Dropped lines are counted by file and reason.
"""

from __future__ import annotations

import csv
import lzma
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

SHINGLE_WORDS = 8
SHORTEST_LINE = 15  # lines with at most this many characters are dropped


@dataclass(frozen=True)
class Source:
    """A file of the pre-training corpus, with its sampling weights.

    Both weights favour social-media posts and dialect. These are only a tenth of the text, but most tasks consist of
    such texts.
    """

    name: str
    file: str
    weight: float
    """The share of training sequences that are drawn from the file."""
    tokenizer_weight: float
    """The number of times that each line is read when the vocabulary is learnt; below one, the share of lines that is
    read."""
    scrubbed: bool = False
    """True if the publisher removed mentions and links from the text. They are then added at random, because the texts
    of the tasks contain them."""


SOURCES = (
    Source("books", "books_msa.txt.xz", weight=0.35, tokenizer_weight=0.10),
    Source("news", "news_msa.txt.xz", weight=0.10, tokenizer_weight=0.7),
    Source("posts", "tweets_mixed.txt.xz", weight=0.38, tokenizer_weight=3, scrubbed=True),
    Source("dialect", "levantine_dialect.txt.xz", weight=0.17, tokenizer_weight=4),
)

_NOT_LETTERS = re.compile(r"[^ء-غف-ي0-9a-z]+")
_DIACRITICS = re.compile(r"[\u0610-\u061a\u0640\u064b-\u065f\u0670]")
_FOLD = str.maketrans("إأآٱى" + "٠١٢٣٤٥٦٧٨٩", "اااا" + "ي" + "0123456789")


def comparison_words(text: str) -> list[str]:
    """Return the words of a text, normalised for overlap checks.

    Diacritics, punctuation and emoji are removed. Letters are lower-cased, and variants of alef, final yeh and Arabic
    digits are mapped to one form each.
    """
    return _NOT_LETTERS.sub(" ", _DIACRITICS.sub("", text.lower()).translate(_FOLD)).split()


def read_lines(folder: Path, source: Source) -> Iterator[str]:
    """Yield the lines of a corpus file without surrounding white space."""
    with lzma.open(folder / source.file, "rt", encoding="utf-8", errors="ignore") as lines:
        for line in lines:
            yield line.strip()


def task_texts(data: Path) -> Iterator[str]:
    """Yield every text of every task file in a folder, of all splits.

    Train files count as well, because several tasks take their dev and test splits from the train file.
    """
    for path in sorted(data.glob("madar/*.tsv")) + sorted(data.glob("osact4/*.txt")):
        yield from (row.split("\t")[0] for row in _rows(path))
    for path in sorted(data.glob("semeval2018/*.txt")):
        yield from (row.split("\t")[1] for row in _rows(path)[1:])
    for path in sorted(data.glob("xnli/*.tsv")):
        for row in _rows(path):
            yield from row.split("\t")[:2]
    for path in sorted(data.glob("mq2q/*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for record in csv.DictReader(file):
                yield record["question1"]
                yield record["question2"]


def _rows(path: Path) -> list[str]:
    return [row for row in path.read_text(encoding="utf-8").split("\n") if row.strip()]


class Overlap:
    """The set of all lines that overlap with a text of the tasks.

    A line overlaps with a text if both consist of the same words in the same order, or if they have eight consecutive
    words in common.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Index the texts of the tasks, for the overlap test."""
        self.texts = 0
        self._whole: set[str] = set()
        self._shingles: set[str] = set()
        for text in texts:
            self.texts += 1
            words = comparison_words(text)
            self._whole.add(" ".join(words))
            self._shingles.update(shingles(words))

    def __contains__(self, words: list[str]) -> bool:
        """Return True if a line overlaps with a text of the tasks; `words` are its `comparison_words`."""
        return " ".join(words) in self._whole or any(shingle in self._shingles for shingle in shingles(words))


def shingles(words: list[str]) -> Iterator[str]:
    """Yield every sequence of `SHINGLE_WORDS` consecutive words of a text, joined by spaces."""
    return (" ".join(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1))


@dataclass
class Counts:
    """The numbers of lines of a corpus file that were read, dropped (by reason) and kept."""

    read: int = 0
    short: int = 0
    repeated: int = 0
    overlapping: int = 0
    kept: int = field(default=0)


def clean(lines: Iterable[str], overlap: Overlap, counts: Counts) -> Iterator[str]:
    """Yield the lines that pass the corpus filters, and update `counts` in place."""
    seen: set[int] = set()
    for line in lines:
        counts.read += 1
        if len(line) <= SHORTEST_LINE:
            counts.short += 1
            continue
        words = comparison_words(line)
        digest = hash(tuple(words))
        if digest in seen:
            counts.repeated += 1
            continue
        seen.add(digest)
        if words in overlap:
            counts.overlapping += 1
            continue
        counts.kept += 1
        yield line


def with_mentions(lines: Iterable[str], seed: int = 0) -> Iterator[str]:
    """Yield the lines with mentions and links added at random, as in the texts of the tasks.

    A quarter of the lines get mentions at the start; a sixth get a link at the end.
    """
    rng = random.Random(seed)
    for line in lines:
        before = rng.choices(["", "@USER ", "@USER @USER ", "RT @USER: "], [75, 12, 3, 10])[0]
        yield before + line + rng.choices(["", " URL"], [5, 1])[0]
