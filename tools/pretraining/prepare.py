"""The step `prepare`: it cleans the corpus, learns the vocabulary and encodes the text.

It writes the tokenizer, streams of word pieces for training and evaluation, and statistics of the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tools.pretraining import tokenization
from tools.pretraining.corpus import SOURCES, Counts, Overlap, Source, clean, read_lines, task_texts, with_mentions
from tools.pretraining.sampling import save_streams

HELD_OUT_PIECES = 16_000
"""The largest number of word pieces, at the end of each source, that are held out from training. The first version of
`mini` held out the last 20,000 pieces. It was therefore trained on none of these pieces, and training can start from
its weights."""


def prepare(corpus: Path, tasks: Path | None, out: Path, vocabulary: int, learnt: Path | None = None) -> None:
    """Clean the corpus, learn the vocabulary, and write the text of each source as a stream of word pieces.

    Args:
        corpus: The folder with the files of the corpus.
        tasks: The folder with the data files of the tasks, with which the corpus must not overlap; None skips the
            check.
        out: The folder to write: tokenizer.json, train.npz, held_out.npz, and corpus.json with statistics.
        vocabulary: The number of pieces of a new vocabulary.
        learnt: The tokenizer.json whose vocabulary is used; None learns a new vocabulary, in which pieces with equal
            frequencies get their ids in a different order each time.
    """
    out.mkdir(parents=True, exist_ok=True)
    overlap = Overlap(task_texts(tasks) if tasks else ())
    counts = {source.name: Counts() for source in SOURCES}
    lines = {source.name: list(clean(read_lines(corpus, source), overlap, counts[source.name])) for source in SOURCES}
    tokenizer = (
        tokenization.load(learnt) if learnt else tokenization.learn(vocabulary_lines(SOURCES, lines), vocabulary)
    )
    tokenizer.save(str(out / "tokenizer.json"))
    train, held_out = {}, {}
    for source in SOURCES:
        texts = lines[source.name]
        first = held_out_start(tokenizer, texts)
        held_out[source.name] = encode(tokenizer, texts[first:])
        train[source.name] = encode(tokenizer, decorated(source, texts[:first]))
    save_streams(out / "train.npz", train)
    save_streams(out / "held_out.npz", held_out)
    report = {
        "task_texts": overlap.texts,
        "lines": {name: asdict(count) for name, count in counts.items()},
        "pieces": {name: len(stream) for name, stream in train.items()},
        "unknown_per_million": {
            name: round(1e6 * float(np.mean(stream == tokenization.UNK))) for name, stream in train.items()
        },
    }
    (out / "corpus.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(json.dumps(report))


def decorated(source: Source, lines: list[str]) -> list[str]:
    """Return the lines of a source, with mentions and links added at random if the publisher had removed them."""
    return list(with_mentions(lines)) if source.scrubbed else lines


def vocabulary_lines(sources: Iterable[Source], lines: dict[str, list[str]]) -> Iterable[str]:
    """Yield the lines from which the vocabulary is learnt, repeated according to `Source.tokenizer_weight`."""
    for source in sources:
        yield from tokenization.repeated(decorated(source, lines[source.name]), source.tokenizer_weight)


def encode(tokenizer: Tokenizer, lines: list[str], chunk: int = 5_000) -> NDArray[np.uint16]:
    """Return all lines as one stream of word pieces, uint16 `[pieces]`, with ``[SEP]`` after each line.

    Args:
        tokenizer: The tokenizer.
        lines: The lines.
        chunk: The number of lines that are encoded at once.
    """
    parts: list[NDArray[np.uint16]] = []
    for start in range(0, len(lines), chunk):
        encodings = tokenizer.encode_batch_fast(lines[start : start + chunk], add_special_tokens=False)
        parts += [np.array([*encoding.ids, tokenization.SEP], np.uint16) for encoding in encodings]
    return np.concatenate(parts)


def held_out_start(tokenizer: Tokenizer, lines: list[str]) -> int:
    """Return the index of the first held-out line.

    This line and all lines after it are held out. They are as many as fit into `HELD_OUT_PIECES` word pieces.

    Raises:
        ValueError: All lines together have too few pieces.
    """
    pieces = 0
    for number in range(len(lines) - 1, -1, -1):
        pieces += len(tokenizer.encode(lines[number], add_special_tokens=False).ids) + 1
        if pieces > HELD_OUT_PIECES:
            return number + 1
    raise ValueError(f"{pieces} pieces are too few to hold {HELD_OUT_PIECES} out")


def continues(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Return True for each piece of the vocabulary that continues a word (begins with "##"), bool `[vocabulary]`."""
    flags = np.zeros(tokenizer.get_vocab_size(), bool)
    for piece, number in tokenizer.get_vocab().items():
        flags[number] = piece.startswith("##")
    return flags
