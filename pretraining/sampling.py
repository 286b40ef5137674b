"""Packed training sequences, drawn from token streams by source.

A stream is all lines of a source as piece numbers, each line closed by ``[SEP]``. A sequence is full: no
padding, so no attention mask. Half of them are one segment, ``[CLS] text [SEP]``; half are two, ``[CLS] a
[SEP] b [SEP]`` with token types 0 and 1, where b continues a, or comes from elsewhere in the same source.
Telling which trains the pooler and the token types (next-sentence prediction of Devlin et al. 2019; same
source, so that topic alone does not tell).

Everything random about step n is drawn from a generator seeded with (seed, n): resuming needs no random
state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pretraining.masking import Flags, Ids, mask_words
from pretraining.tokeniser import CLS, SEP

NO_LABEL = -100


@dataclass(frozen=True)
class Batch:
    """`ids`, `types`, `targets`, `chosen` [b, s]; `follows` [b]: 1, 0, or `NO_LABEL` for single segments."""

    ids: Ids
    types: Ids
    targets: Ids
    chosen: Flags
    follows: Ids


class Stream:
    """The pieces of one source, and where its lines start."""

    def __init__(self, pieces: NDArray[np.uint16], continues: Flags) -> None:
        self.pieces = pieces
        self._continues = continues
        starts = np.flatnonzero(pieces == SEP) + 1
        self._starts = np.concatenate([[0], starts[:-1]])

    def __len__(self) -> int:
        return len(self.pieces)

    def line_start(self, room: int, rng: np.random.Generator) -> int:
        """The start of a random line with `room` pieces from there to the end of the stream."""
        last = int(np.searchsorted(self._starts, len(self.pieces) - room, side="right"))
        return int(self._starts[rng.integers(0, max(1, last))])

    def inside_line(self, room: int, rng: np.random.Generator) -> int:
        """A random word start that is not the start of a line."""
        return self.next_inside(int(rng.integers(1, len(self.pieces) - room - 100)))

    def next_inside(self, position: int) -> int:
        """The first position from `position` on that starts a word in the middle of a line."""
        for at in range(position, min(position + 100, len(self.pieces))):
            piece = self.pieces[at]
            if piece != SEP and not self._continues[piece] and self.pieces[at - 1] != SEP:
                return at
        return position


class Sampler:
    """Draws batches from several streams by weight."""

    def __init__(
        self,
        streams: Mapping[str, Stream],
        weights: Mapping[str, float],
        continues: Flags,
        *,
        mask_rate: float,
        pair_rate: float,
        seed: int,
    ) -> None:
        self._streams = [streams[name] for name in weights]
        total = sum(weights.values())
        self._shares = [weight / total for weight in weights.values()]
        self._continues = continues
        self._mask_rate = mask_rate
        self._pair_rate = pair_rate
        self._seed = seed

    def batch(self, step: int, rows: int, length: int) -> Batch:
        """The batch of training step `step`: always the same one."""
        rng = np.random.default_rng([self._seed, step])
        ids = np.empty((rows, length), np.int64)
        types = np.zeros((rows, length), np.int64)
        follows = np.full(rows, NO_LABEL, np.int64)
        for row, which in enumerate(rng.choice(len(self._streams), rows, p=self._shares)):
            stream = self._streams[which]
            if rng.random() < self._pair_rate:
                ids[row], types[row], follows[row] = pair(stream, length, rng)
            else:
                ids[row] = single(stream, length, rng)
        corrupted, chosen = mask_words(ids, self._continues, self._mask_rate, rng)
        return Batch(corrupted, types, ids, chosen, follows)


def single(stream: Stream, length: int, rng: np.random.Generator) -> Ids:
    """``[CLS] text [SEP]``; the text starts at a line in half of the cases, else in the middle of one."""
    start = _start(stream, length, rng)
    ids = np.empty(length, np.int64)
    ids[0], ids[-1] = CLS, SEP
    ids[1:-1] = stream.pieces[start : start + length - 2]
    return ids


def pair(stream: Stream, length: int, rng: np.random.Generator) -> tuple[Ids, Ids, int]:
    """``[CLS] a [SEP] b [SEP]``, its token types, and whether b continues a.

    Either way b starts in the middle of a line: how it starts must not give the answer away.
    """
    start = _start(stream, length + 100, rng)
    second = stream.next_inside(start + int(rng.integers(length // 5, length - length // 5)))
    size = min(second - start, length - 8)
    second = start + size
    follows = int(rng.random() < 0.5)
    if not follows:
        second = stream.inside_line(length, rng)
    ids = np.full(length, SEP, np.int64)
    ids[0] = CLS
    ids[1 : size + 1] = stream.pieces[start : start + size]
    ids[size + 2 : -1] = stream.pieces[second : second + length - size - 3]
    types = np.zeros(length, np.int64)
    types[size + 2 :] = 1
    return ids, types, follows


def _start(stream: Stream, room: int, rng: np.random.Generator) -> int:
    if rng.random() < 0.5:
        return stream.line_start(room, rng)
    return stream.inside_line(room, rng)


def windows(pieces: NDArray[np.uint16], length: int) -> Ids:
    """A held-out stream cut into ``[CLS] text [SEP]`` sequences, [n, length], without overlap."""
    size = length - 2
    count = len(pieces) // size
    ids = np.full((count, length), SEP, np.int64)
    ids[:, 0] = CLS
    ids[:, 1:-1] = pieces[: count * size].reshape(count, size)
    return ids


def save_streams(path: Path, streams: Mapping[str, NDArray[np.uint16]]) -> None:
    """Write streams to one file."""
    np.savez(path, allow_pickle=False, **dict(streams))


def load_streams(path: Path) -> dict[str, NDArray[np.uint16]]:
    """Read what `save_streams` wrote."""
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}
