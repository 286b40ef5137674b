"""The batches for training or evaluation, usually made of examples of similar length.

For every training epoch, a new random order of all examples is drawn and divided into windows of `WINDOW` batches. Each
window is sorted by length and divided into batches; then all batches are shuffled. Batch size and number of steps are
the same as with plain shuffling, but there is less padding. Each example occurs once in an epoch. If the
hyper-parameter `batch_order` is "random", the windows are not sorted.

For an evaluation, all examples are sorted by length; a batch then has a limited number of tokens instead of a fixed
number of examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.data.words import IGNORED

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

WINDOW = 50
"""The number of batches in a window, within which examples are sorted by length. It is large enough for batches of
similar lengths, and small enough to keep the order random."""
JITTER, LEAST_JITTER = 1 / 25, 1.0
"""The largest random noise that is added to the length of an example before a window is sorted: the larger of `JITTER`
times the length and `LEAST_JITTER` tokens.

Without noise, a data set that fits into one window would have the same batches in every epoch. The padding of an
example grows at most by the noise. For short texts, one token of noise is enough, because many of them have the same
length. Long texts may all have different lengths and need more."""


@dataclass(frozen=True)
class Padding:
    """The padding token, and the side of a text on which it is added to give the texts of a batch the same length."""

    token: int
    """The id of the padding token."""
    side: Literal["right", "left"] = "right"
    """The side of a text on which padding is added; `training.architecture.capabilities` finds the side that the model
    needs."""
    type_id: int = 0
    """The token type id (segment number) of padding tokens."""


@dataclass(frozen=True)
class Batch:
    """A batch of b examples, padded to s tokens each."""

    input_ids: Tensor  # int64 [b, s]
    attention_mask: Tensor  # int64 [b, s]; 1 for a token, 0 for padding
    token_type_ids: Tensor | None  # int64 [b, s]; None if the tokenizer gives none
    targets: Tensor
    """The targets of the examples, [b] or [b, labels]. If `token_targets` is True: the targets of the tokens, int64
    [b, s], with `IGNORED` for padding and other tokens from which nothing is predicted."""
    indices: Tensor  # int64 [b]: the positions of the examples in the split
    tokens: int
    """The number of tokens in the batch, without padding."""
    side: Literal["right", "left"] = "right"
    """The side of a text on which padding was added."""
    device_indices: Tensor | None = None  # int64 [b]
    """A copy of `indices` on the device that holds the batch; `indices` itself stays on the CPU. None for a batch that
    was not moved to a device."""
    token_targets: bool = False
    """True if there is a target for each token, False if there is one for each example."""
    tags_words: bool = False
    """True if the model predicts a tag for each word."""

    @property
    def width(self) -> int:
        """The number of tokens per example, with padding."""
        return int(self.input_ids.shape[1])

    @property
    def padded_tokens(self) -> int:
        """The number of tokens of all examples of the batch, with padding."""
        return self.input_ids.numel()

    @property
    def predictions(self) -> int:
        """The number of predictions over which the loss is averaged.

        These are the words whose tag is predicted in a task that tags words, and the examples in every other task.
        """
        return int((self.targets != IGNORED).sum()) if self.tags_words else len(self.indices)

    @property
    def is_padded(self) -> bool:
        """True if any token is padding."""
        return self.tokens < self.padded_tokens

    def to(self, device: Any, *, pinned: bool = False) -> Batch:
        """Return a copy of the batch whose tensors are on the given device.

        Args:
            device: The device, as `Tensor.to` takes it.
            pinned: Whether to copy from pinned (page-locked) memory. From other memory, a CUDA device would copy only
                after its queued work. All tensors are packed into one pinned buffer and copied at once. torch reuses
                the buffers of earlier batches, so that most steps need not page-lock memory.
        """
        if not pinned or self.input_ids.device.type != "cpu":
            # The copy is blocking: MPS would read the source of an asynchronous copy after its memory was freed.
            moved = self.map_tensors(lambda tensor: tensor.to(device))
            return replace(moved, device_indices=self.indices.to(device))
        tensors = (self.indices, self.input_ids, self.attention_mask, self.token_type_ids, self.targets)
        indices, input_ids, attention_mask, token_type_ids, targets = _copy_in_one_transfer(tensors, device)
        return replace(
            self,
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            targets=targets,
            device_indices=indices,
        )

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return a copy of the batch with `change` applied to each input tensor of the model, and to the targets."""
        return replace(
            self,
            input_ids=change(self.input_ids),
            attention_mask=change(self.attention_mask),
            token_type_ids=None if self.token_type_ids is None else change(self.token_type_ids),
            targets=change(self.targets),
        )

    def rows(self, chosen: slice) -> Batch:
        """Return a batch of the chosen examples only, padded to the longest of these examples."""
        mask = self.attention_mask[chosen]
        width = mask.shape[1]
        longest = int(mask.sum(1).max())
        kept = slice(0, longest) if self.side == "right" else slice(width - longest, width)
        return replace(
            self,
            input_ids=self.input_ids[chosen, kept],
            attention_mask=mask[:, kept],
            token_type_ids=None if self.token_type_ids is None else self.token_type_ids[chosen, kept],
            targets=self.targets[chosen, kept] if self.token_targets else self.targets[chosen],
            indices=self.indices[chosen],
            tokens=int(mask.sum()),
        )


def _copy_in_one_transfer(tensors: Sequence[Tensor | None], device: Any) -> list[Any]:
    """Copy tensors to an accelerator in a single asynchronous copy from pinned memory, and return the copies.

    Args:
        tensors: The tensors, on the CPU; None stays None. Tensors with smaller elements must come last, so that each
            copy is aligned to the size of its elements.
        device: The accelerator, as `Tensor.to` takes it.
    """
    import torch

    flat = [
        torch.empty(0, dtype=torch.uint8) if each is None else each.reshape(-1).view(torch.uint8) for each in tensors
    ]
    moved = torch.cat(flat).pin_memory().to(device, non_blocking=True)
    parts = torch.split(moved, [len(each) for each in flat])
    return [
        None if each is None else part.view(each.dtype).view(each.shape)
        for part, each in zip(parts, tensors, strict=True)
    ]


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Return the number of batches in an epoch; one of the batches may be smaller than the others."""
    return math.ceil(examples / batch_size)


def training_order(
    lengths: np.ndarray[Any, Any], batch_size: int, rng: np.random.Generator, *, by_length: bool = True
) -> list[np.ndarray[Any, Any]]:
    """Draw the batches of one training epoch at random.

    Args:
        lengths: The lengths of the examples in tokens, int64 [n].
        batch_size: The number of examples in a batch.
        rng: The random generator.
        by_length: Whether a batch consists of examples of similar length; otherwise they are drawn at random.

    Returns:
        For each batch, the indices of its examples.
    """
    import numpy as np

    order = rng.permutation(len(lengths))
    if not by_length:
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    noisy = lengths + rng.uniform(0, 1, len(lengths)) * np.maximum(LEAST_JITTER, JITTER * lengths)
    size = WINDOW * batch_size
    batches: list[np.ndarray[Any, Any]] = []
    for start in range(0, len(order), size):
        window = order[start : start + size]
        window = window[np.argsort(noisy[window])]
        if remainder := len(window) % batch_size:
            # One batch of the window is smaller, and each of its examples has a larger weight in the batch's mean loss.
            # The small batch therefore begins at a random position of the sorted window and continues at the window's
            # start if it reaches the end: every example is in it equally often. Taken from the end, it would contain
            # the longest examples in every epoch.
            window = np.roll(window, -int(rng.integers(len(window))))
            small, window = window[:remainder], window[remainder:]
            batches.append(small)
            window = window[np.argsort(noisy[window])]
        batches.extend(np.split(window, range(batch_size, len(window), batch_size)) if len(window) else [])
    return [batches[index] for index in rng.permutation(len(batches))]


def evaluation_order(lengths: np.ndarray[Any, Any], tokens_per_batch: int) -> list[np.ndarray[Any, Any]]:
    """Divide all examples into batches for an evaluation, from the shortest to the longest example.

    Args:
        lengths: The lengths of the examples in tokens, int64 [n].
        tokens_per_batch: The largest number of tokens of a batch, padding included. A longer example forms a batch of
            its own.

    Returns:
        For each batch, the indices of its examples.
    """
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


def round_up_length(length: int) -> int:
    """Return a padded length, rounded up so that batches have only a few different lengths.

    The result is a multiple of 4 below length 64, of 8 from length 64 on, of 16 from length 128 on, and so on. There
    are therefore at most eight different rounded lengths from one power of two to the next.
    """
    step = max(4, 1 << max(0, length.bit_length() - 4))
    return -(-length // step) * step


def collate(
    split: TokenizedSplit, indices: np.ndarray[Any, Any], padding: Padding, *, round_lengths: bool = False
) -> Batch:
    """Return a batch of examples, padded to the length of the longest of these examples.

    Args:
        split: The split.
        indices: The positions of the examples in the split, int64 [b].
        padding: The padding token, and the side on which it is added.
        round_lengths: Whether to round the padded length up with `round_up_length`, so that batches have few different
            lengths. The rounded length never exceeds the length of the split's longest example.
    """
    import torch

    chosen = torch.from_numpy(indices)
    starts, ends = split.offsets[chosen], split.offsets[chosen + 1]
    lengths = ends - starts
    longest = int(lengths.max())
    if round_lengths:
        longest = max(longest, min(round_up_length(longest), int(split.lengths.max())))
    positions = torch.arange(longest)[None, :]  # [1, s]
    if padding.side == "left":
        positions = positions - (longest - lengths[:, None])  # [b, s], below 0 where there is padding
    mask = (positions >= 0) & (positions < lengths[:, None])  # [b, s]
    source = torch.where(mask, starts[:, None] + positions, 0)
    type_ids = None
    if split.token_type_ids is not None:
        type_ids = torch.where(mask, split.token_type_ids[source], padding.type_id)
    targets = torch.where(mask, split.targets[source], IGNORED) if split.token_targets else split.targets[chosen]
    return Batch(
        input_ids=torch.where(mask, split.input_ids[source], padding.token),
        attention_mask=mask.long(),
        token_type_ids=type_ids,
        targets=targets,
        indices=chosen,
        tokens=int(lengths.sum()),
        side=padding.side,
        token_targets=split.token_targets,
        tags_words=split.tags_words,
    )


def batches(
    split: TokenizedSplit, order: list[np.ndarray[Any, Any]], padding: Padding, *, round_lengths: bool = False
) -> Iterator[Batch]:
    """Collate and yield the batches of a split in the given order.

    Args:
        split: The split.
        order: For each batch, the positions of its examples in the split.
        padding: The padding token, and the side on which it is added.
        round_lengths: Whether to round the padded lengths of the batches up; see `collate`.
    """
    for indices in order:
        yield collate(split, indices, padding, round_lengths=round_lengths)
