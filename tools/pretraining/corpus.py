"""Raw text: which files there are, how often each is sampled, and what is left out of them.

A line is dropped when it is too short, when it repeats an earlier line of its source, or when it overlaps a
text of a benchmark task. Every drop is counted, by source and cause.
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
SHORTEST_LINE = 15  # characters


@dataclass(frozen=True)
class Source:
    """One file of the corpus.

    `weight` is the share of training sequences drawn from it; `tokeniser_weight` how often its lines are
    read when the vocabulary is learnt (below one: that share of its lines). Both favour posts and dialect,
    which are a tenth of the bytes and most of the tasks.
    """

    name: str
    file: str
    weight: float
    tokeniser_weight: float
    scrubbed: bool = False
    """Mentions and links were removed by its publisher, as they are not in the posts of the tasks."""


SOURCES = (
    Source("books", "books_msa.txt.xz", weight=0.35, tokeniser_weight=0.10),
    Source("news", "news_msa.txt.xz", weight=0.10, tokeniser_weight=0.7),
    Source("posts", "tweets_mixed.txt.xz", weight=0.38, tokeniser_weight=3, scrubbed=True),
    Source("dialect", "levantine_dialect.txt.xz", weight=0.17, tokeniser_weight=4),
)

_NOT_LETTERS = re.compile(r"[^ء-غف-ي0-9a-z]+")
_DIACRITICS = re.compile(r"[\u0610-\u061a\u0640\u064b-\u065f\u0670]")
_FOLD = str.maketrans("إأآٱى" + "٠١٢٣٤٥٦٧٨٩", "اااا" + "ي" + "0123456789")


def comparison_words(text: str) -> list[str]:
    """The words that overlap is judged on: no diacritics, punctuation, emoji or spelling variants."""
    return _NOT_LETTERS.sub(" ", _DIACRITICS.sub("", text.lower()).translate(_FOLD)).split()


def read_lines(folder: Path, source: Source) -> Iterator[str]:
    """The stripped lines of a source's file."""
    with lzma.open(folder / source.file, "rt", encoding="utf-8", errors="ignore") as lines:
        for line in lines:
            yield line.strip()


def task_texts(data: Path) -> Iterator[str]:
    """Every text of every task file under `data`, of all splits.

    Train files count as well: for several tasks the dev and test splits are cut out of the train file.
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
    """The texts of the tasks; a line is in it if it is one or shares eight words in a row with one."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = 0
        self._whole: set[str] = set()
        self._shingles: set[str] = set()
        for text in texts:
            self.texts += 1
            words = comparison_words(text)
            self._whole.add(" ".join(words))
            self._shingles.update(shingles(words))

    def __contains__(self, words: list[str]) -> bool:
        return " ".join(words) in self._whole or any(shingle in self._shingles for shingle in shingles(words))


def shingles(words: list[str]) -> Iterator[str]:
    """Every run of `SHINGLE_WORDS` words."""
    return (" ".join(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1))


@dataclass
class Counts:
    """What became of a source's lines."""

    read: int = 0
    short: int = 0
    repeated: int = 0
    overlapping: int = 0
    kept: int = field(default=0)


def clean(lines: Iterable[str], overlap: Overlap, counts: Counts) -> Iterator[str]:
    """The lines worth training on; `counts` is filled on the way."""
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
    """`lines` with the mentions and links that posts have put back at random, so that a model knows them as what
    may stand before and after a post and means little: a quarter begin with one, a sixth end in a link.
    """
    rng = random.Random(seed)
    for line in lines:
        before = rng.choices(["", "@USER ", "@USER @USER ", "RT @USER: "], [75, 12, 3, 10])[0]
        yield before + line + rng.choices(["", " URL"], [5, 1])[0]
