"""Batches of examples of similar length.

Every epoch draws all examples in a fresh random order, cuts the order into windows of some batches, sorts each window
by length, cuts it into batches and shuffles the batches. Batch size and number of steps are exactly those of plain
shuffling; padding is not. Each example occurs once an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from alue_bench.data.tokenisation import TokenisedSplit

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

WINDOW = 50
"""Batches in a window: large enough for even lengths, small enough to keep the order random."""
JITTER, LEAST_JITTER = 1 / 25, 1.0
"""Lengths are compared with noise of up to such a part of each, one token at least: where a window holds the whole of a
small data set, every epoch would else have the same batches. No example is padded by more than that for it. A token
is enough for short texts, many of which are of one length; of long texts no two may be."""


@dataclass(frozen=True)
class Padding:
    """The filling that brings the texts of a batch to one length."""

    token: int
    """The id of the padding token."""
    side: Literal["right", "left"] = "right"
    """The end of a text at which it stands; `training.trial` chooses it."""
    type_id: int = 0
    """Its segment number."""


@dataclass(frozen=True)
class Batch:
    """Examples padded to the longest of them. b examples, s tokens."""

    input_ids: Tensor  # int64 [b, s]
    attention_mask: Tensor  # int64 [b, s]
    token_type_ids: Tensor | None  # int64 [b, s]
    targets: Tensor
    indices: Tensor  # int64 [b]: the examples' places in the split
    tokens: int
    """Tokens without padding."""
    side: Literal["right", "left"] = "right"
    """The end of a text at which the padding stands."""

    def to(self, device: Any) -> Batch:
        def moved(tensor: Tensor) -> Tensor:
            if device == "cuda" and not tensor.is_cuda:
                tensor = tensor.pin_memory()  # else the copy would wait for what the GPU is at
            return tensor.to(device, non_blocking=True)

        return self.with_each(moved)

    def with_each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same with what a model reads of it, and its targets, changed one by one."""
        return replace(
            self,
            input_ids=change(self.input_ids),
            attention_mask=change(self.attention_mask),
            token_type_ids=None if self.token_type_ids is None else change(self.token_type_ids),
            targets=change(self.targets),
        )

    def rows(self, chosen: slice) -> Batch:
        """Some of the examples, padded to the longest of them."""
        mask = self.attention_mask[chosen]
        width = mask.shape[1]
        longest = int(mask.sum(1).max())
        kept = slice(0, longest) if self.side == "right" else slice(width - longest, width)
        return replace(
            self,
            input_ids=self.input_ids[chosen, kept],
            attention_mask=mask[:, kept],
            token_type_ids=None if self.token_type_ids is None else self.token_type_ids[chosen, kept],
            targets=self.targets[chosen],
            indices=self.indices[chosen],
            tokens=int(mask.sum()),
        )


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """The last batch of an epoch may be smaller."""
    return math.ceil(examples / batch_size)


def training_order(
    lengths: np.ndarray[Any, Any], batch_size: int, rng: np.random.Generator
) -> list[np.ndarray[Any, Any]]:
    """One epoch: the example indices of each batch."""
    import numpy as np

    order = rng.permutation(len(lengths))
    noisy = lengths + rng.uniform(0, 1, len(lengths)) * np.maximum(LEAST_JITTER, JITTER * lengths)
    size = WINDOW * batch_size
    batches: list[np.ndarray[Any, Any]] = []
    for start in range(0, len(order), size):
        window = order[start : start + size]
        window = window[np.argsort(noisy[window])]
        if remainder := len(window) % batch_size:
            # From anywhere in the window, round its end, so that each example is as often in the small batch, whose
            # gradient weighs an example more. Cut at the end, it would hold the longest ones, epoch after epoch.
            window = np.roll(window, -int(rng.integers(len(window))))
            small, window = window[:remainder], window[remainder:]
            batches.append(small)
            window = window[np.argsort(noisy[window])]
        batches.extend(np.split(window, range(batch_size, len(window), batch_size)) if len(window) else [])
    return [batches[index] for index in rng.permutation(len(batches))]


def evaluation_order(lengths: np.ndarray[Any, Any], tokens_per_batch: int) -> list[np.ndarray[Any, Any]]:
    """All examples from short to long, in batches of at most `tokens_per_batch` padded tokens (one at least)."""
    import numpy as np

    batches: list[np.ndarray[Any, Any]] = []
    current: list[int] = []
    for index in np.argsort(lengths, kind="stable"):
        if current and (len(current) + 1) * int(lengths[index]) > tokens_per_batch:
            batches.append(np.array(current))
            current = []
        current.append(int(index))
    batches.append(np.array(current))
    return batches


def rounded_up(length: int) -> int:
    """The next multiple of 4, from 64 on of 8, from 128 on of 16, and so on: eight lengths between 2^k and 2^(k+1)."""
    step = max(4, 1 << max(0, length.bit_length() - 4))
    return -(-length // step) * step


def collate(
    split: TokenisedSplit, indices: np.ndarray[Any, Any], padding: Padding, *, few_lengths: bool = False
) -> Batch:
    """Pad the examples at `indices` to the longest of them; with `few_lengths` to one of few lengths, never beyond the
    longest example of the split."""
    import torch

    chosen = torch.from_numpy(indices)
    starts, ends = split.offsets[chosen], split.offsets[chosen + 1]
    lengths = ends - starts
    longest = int(lengths.max())
    if few_lengths:
        longest = max(longest, min(rounded_up(longest), int(split.lengths.max())))
    places = torch.arange(longest)[None, :]  # [1, s]
    if padding.side == "left":
        places = places - (longest - lengths[:, None])  # [b, s], below 0 where there is padding
    mask = (places >= 0) & (places < lengths[:, None])  # [b, s]
    source = torch.where(mask, starts[:, None] + places, 0)
    type_ids = None
    if split.token_type_ids is not None:
        type_ids = torch.where(mask, split.token_type_ids[source], padding.type_id)
    return Batch(
        input_ids=torch.where(mask, split.input_ids[source], padding.token),
        attention_mask=mask.long(),
        token_type_ids=type_ids,
        targets=split.targets[chosen],
        indices=chosen,
        tokens=int(lengths.sum()),
        side=padding.side,
    )


def batches(
    split: TokenisedSplit, order: list[np.ndarray[Any, Any]], padding: Padding, *, few_lengths: bool = False
) -> Iterator[Batch]:
    """The batches of an order, made one at a time; see `collate`."""
    for indices in order:
        yield collate(split, indices, padding, few_lengths=few_lengths)
