"""Drawing training sequences without padding from the token streams of the corpus files (sources).

A stream holds the word-piece ids of all lines of a source, with ``[SEP]`` after each line. All sequences of a batch are
equally long, so that there is no padding and no attention mask. Some sequences have one segment, ``[CLS] text [SEP]``.
The others have two, ``[CLS] a [SEP] b [SEP]``, with token types 0 and 1 and a relation (`tools.pretraining.relations`)
that the model learns to predict.

Step n draws all its random numbers from a generator seeded with (seed, n), so that a checkpoint needs no random state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.pretraining.masking import Flags, Ids, mask_words
from tools.pretraining.relations import Pieces, Relation, related
from tools.pretraining.tokenization import CLS, SEP, SPECIAL

NO_LABEL = -100
"""The target value of positions and sequences that the loss ignores."""


@dataclass(frozen=True)
class Batch:
    """A batch of training sequences."""

    ids: Ids
    """The word-piece ids after masking, int64 `[batch, tokens]`."""
    types: Ids
    """The token type ids (segment numbers), int64 `[batch, tokens]`."""
    targets: Ids
    """The word-piece ids before masking, int64 `[batch, tokens]`."""
    chosen: Flags
    """A mask of the positions to predict, bool `[batch, tokens]`."""
    relations: Ids
    """The `Relation` between the two segments of each sequence, int64 `[batch]`; `NO_LABEL` for a sequence with one
    segment."""

    def bags(self) -> NDArray[np.float32]:
        """Return the bag of words of each text, as weights of its pieces, float32 `[batch, tokens]`.

        The distinct pieces of a text, special pieces excluded, have equal weights that sum to 1. The weight is at the
        first occurrence of the piece in `targets`; all other positions are 0.
        """
        order = np.argsort(self.targets, axis=1, kind="stable")
        ordered = np.take_along_axis(self.targets, order, axis=1)
        new = np.ones_like(ordered, bool)
        new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        first = np.empty_like(new)
        np.put_along_axis(first, order, new & (ordered >= len(SPECIAL)), axis=1)
        weights: NDArray[np.float32] = (first / np.maximum(1, first.sum(1, keepdims=True))).astype(np.float32)
        return weights


class Stream:
    """The word-piece ids of one corpus file, and the positions where its lines start."""

    def __init__(self, pieces: NDArray[np.uint16], continues: Flags) -> None:
        """Index the lines of a stream.

        Args:
            pieces: The pieces of the source, uint16 `[pieces]`.
            continues: True for each piece of the vocabulary that continues a word, bool `[vocabulary]`.
        """
        self.pieces = pieces
        self.continues = continues
        starts = np.flatnonzero(pieces == SEP) + 1
        self._starts = np.concatenate([[0], starts[:-1]])

    def __len__(self) -> int:
        """Return the number of word pieces in the stream."""
        return len(self.pieces)

    def line_start(self, room: int, rng: np.random.Generator) -> int:
        """Return the start of a random line, from which at least `room` pieces remain in the stream."""
        last = int(np.searchsorted(self._starts, len(self.pieces) - room, side="right"))
        return int(self._starts[rng.integers(0, max(1, last))])

    def inside_line(self, room: int, rng: np.random.Generator) -> int:
        """Return the start of a random word inside a line, from which at least `room` pieces remain in the stream."""
        return self.next_inside(int(rng.integers(1, len(self.pieces) - room - 100)))

    def next_inside(self, position: int) -> int:
        """Return the first position, from `position` on, at which a word but not a line starts.

        If there is no such position within 100 pieces, return `position` itself.
        """
        for at in range(position, min(position + 100, len(self.pieces))):
            piece = self.pieces[at]
            if piece != SEP and not self.continues[piece] and self.pieces[at - 1] != SEP:
                return at
        return position

    def text(self, start: int, size: int) -> Pieces:
        """Return `size` pieces from position `start` on, without line ends."""
        pieces = self.pieces[start : start + 2 * size]
        inside: Pieces = pieces[pieces != SEP]
        return inside[:size]

    def elsewhere(self, size: int, rng: np.random.Generator) -> Pieces:
        """Return `size` pieces from a random position in the stream.

        They begin at the start of a word, and line ends are left out.
        """
        return self.text(self.inside_line(2 * size, rng), size)


class Sampler:
    """A generator of training batches, whose sequences are drawn from several streams with given frequencies."""

    def __init__(
        self,
        streams: Mapping[str, Stream],
        weights: Mapping[str, float],
        continues: Flags,
        *,
        mask_rate: float,
        pair_rate: float,
        relations: Sequence[float],
        seed: int,
    ) -> None:
        """Set the streams to draw from, and the proportions in which to draw.

        Args:
            streams: The stream of each source.
            weights: The sampling weight of each source.
            continues: True for each piece of the vocabulary that continues a word, bool `[vocabulary]`.
            mask_rate: The expected share of masked words.
            pair_rate: The share of sequences with two segments.
            relations: The share of pairs with each `Relation`.
            seed: The seed of all random draws.
        """
        self._streams = [streams[name] for name in weights]
        total = sum(weights.values())
        self._shares = [weight / total for weight in weights.values()]
        self._continues = continues
        self._mask_rate = mask_rate
        self._pair_rate = pair_rate
        self._relations = list(relations)
        self._seed = seed

    def batch(self, step: int, rows: int, length: int) -> Batch:
        """Return the batch of a training step, which depends only on these arguments and the sampler's settings.

        Args:
            step: The number of the step.
            rows: The number of sequences.
            length: The number of pieces per sequence.
        """
        rng = np.random.default_rng([self._seed, step])
        ids = np.empty((rows, length), np.int64)
        types = np.zeros((rows, length), np.int64)
        relations = np.full(rows, NO_LABEL, np.int64)
        for row, which in enumerate(rng.choice(len(self._streams), rows, p=self._shares)):
            stream = self._streams[which]
            if rng.random() < self._pair_rate:
                relations[row] = rng.choice(len(Relation), p=self._relations)
                ids[row], types[row] = pair(stream, length, Relation(relations[row]), rng)
            else:
                ids[row] = single(stream, length, rng)
        corrupted, chosen = mask_words(ids, self._continues, self._mask_rate, rng)
        return Batch(corrupted, types, ids, chosen, relations)


def single(stream: Stream, length: int, rng: np.random.Generator) -> Ids:
    """Draw a sequence with one segment, ``[CLS] text [SEP]``; half of the texts begin at the start of a line."""
    start = _start(stream, length, rng)
    ids = np.empty(length, np.int64)
    ids[0], ids[-1] = CLS, SEP
    ids[1:-1] = stream.pieces[start : start + length - 2]
    return ids


def pair(stream: Stream, length: int, relation: Relation, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """Draw a sequence with two segments, ``[CLS] a [SEP] b [SEP]``, which have a given relation.

    One segment is up to about twice as long as the other; the longer one comes first in half of the cases.

    Args:
        stream: The stream to draw from.
        length: The number of pieces of the sequence.
        relation: The relation between the segments.
        rng: The random generator.

    Returns:
        The pieces and the token types, int64 `[length]` each.
    """
    room = length - 3
    size = int(rng.integers(room // 2, 2 * room // 3)) + 1
    first = stream.text(_start(stream, 2 * size, rng), size)
    second = related(first, room - size, relation, stream.elsewhere, stream.continues, rng)
    if rng.random() < 0.5:
        first, second = second, first
    types = np.zeros(length, np.int64)
    types[len(first) + 2 :] = 1
    return np.concatenate([[CLS], first, [SEP], second, [SEP]]).astype(np.int64), types


def _start(stream: Stream, room: int, rng: np.random.Generator) -> int:
    """Return a random position in a stream, from which at least `room` pieces remain.

    In half of the cases it is the start of a line, otherwise the start of a word inside a line.
    """
    if rng.random() < 0.5:
        return stream.line_start(room, rng)
    return stream.inside_line(room, rng)


def windows(pieces: NDArray[np.uint16], length: int) -> Ids:
    """Cut a held-out stream into ``[CLS] text [SEP]`` sequences without overlap, int64 `[sequences, length]`."""
    size = length - 2
    count = len(pieces) // size
    ids = np.full((count, length), SEP, np.int64)
    ids[:, 0] = CLS
    ids[:, 1:-1] = pieces[: count * size].reshape(count, size)
    return ids


def save_streams(path: Path, streams: Mapping[str, NDArray[np.uint16]]) -> None:
    """Write streams of word pieces, by source, to one .npz file."""
    np.savez(path, allow_pickle=False, **dict(streams))


def load_streams(path: Path) -> dict[str, NDArray[np.uint16]]:
    """Read the streams of word pieces, by source, from a file that `save_streams` wrote."""
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}
