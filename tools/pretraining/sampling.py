"""Packed training sequences, drawn from token streams by source.

A stream is all lines of a source as piece numbers, each line closed by ``[SEP]``. A sequence is full: no
padding, so no attention mask. Some are one segment, ``[CLS] text [SEP]``; the others are two, ``[CLS] a [SEP] b
[SEP]`` with token types 0 and 1, in a relation (`tools.pretraining.relations`) that the model is to tell.

Everything random about step n is drawn from a generator seeded with (seed, n): resuming needs no random
state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.pretraining.masking import Flags, Ids, mask_words
from tools.pretraining.relations import Pieces, Relation, related
from tools.pretraining.tokeniser import CLS, SEP, SPECIAL

NO_LABEL = -100


@dataclass(frozen=True)
class Batch:
    """`ids`, `types`, `targets`, `chosen` [b, s]; `relations` [b]: a `Relation`, or `NO_LABEL` for single segments."""

    ids: Ids
    types: Ids
    targets: Ids
    chosen: Flags
    relations: Ids

    def bags(self) -> NDArray[np.float32]:
        """[b, s]: one share of 1 for each different piece of a row's uncorrupted text, where it occurs first."""
        order = np.argsort(self.targets, axis=1, kind="stable")
        ordered = np.take_along_axis(self.targets, order, axis=1)
        new = np.ones_like(ordered, bool)
        new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        first = np.empty_like(new)
        np.put_along_axis(first, order, new & (ordered >= len(SPECIAL)), axis=1)
        return (first / np.maximum(1, first.sum(1, keepdims=True))).astype(np.float32)


class Stream:
    """The pieces of one source, and where its lines start."""

    def __init__(self, pieces: NDArray[np.uint16], continues: Flags) -> None:
        self.pieces = pieces
        self.continues = continues
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
            if piece != SEP and not self.continues[piece] and self.pieces[at - 1] != SEP:
                return at
        return position

    def text(self, start: int, size: int) -> Pieces:
        """`size` pieces from `start` on, ends of lines left out."""
        pieces = self.pieces[start : start + 2 * size]
        return pieces[pieces != SEP][:size]

    def elsewhere(self, size: int, rng: np.random.Generator) -> Pieces:
        """A text of `size` pieces from a random word on."""
        return self.text(self.inside_line(2 * size, rng), size)


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
        relations: Sequence[float],
        seed: int,
    ) -> None:
        self._streams = [streams[name] for name in weights]
        total = sum(weights.values())
        self._shares = [weight / total for weight in weights.values()]
        self._continues = continues
        self._mask_rate = mask_rate
        self._pair_rate = pair_rate
        self._relations = list(relations)
        self._seed = seed

    def batch(self, step: int, rows: int, length: int) -> Batch:
        """The batch of training step `step`: always the same one."""
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
    """``[CLS] text [SEP]``; the text starts at a line in half of the cases, else in the middle of one."""
    start = _start(stream, length, rng)
    ids = np.empty(length, np.int64)
    ids[0], ids[-1] = CLS, SEP
    ids[1:-1] = stream.pieces[start : start + length - 2]
    return ids


def pair(stream: Stream, length: int, relation: Relation, rng: np.random.Generator) -> tuple[Ids, Ids]:
    """``[CLS] a [SEP] b [SEP]`` in the given relation, and its token types. The longer segment, up to twice as long as
    the other, comes first in half of the cases.
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
