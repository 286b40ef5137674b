"""A split in the memory of an accelerator, from which batches are gathered by index.

Token ids and targets are small: a hundred thousand texts of 30 tokens take 48 MB with their token types. Copied once,
they leave only the indices of the examples to be copied at each step, and a gather by index can be part of a CUDA
graph. The order of an epoch is copied at once, from pinned memory, so that no step waits for the host.

The stored outputs of frozen layers are gathered in the same way (`PrefixStates.gather`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alue_bench.data.batches import Batch, Padding
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.data.words import IGNORED
from alue_bench.training.device.precision import Device

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SHARE_OF_MEMORY = 0.1
"""The largest share of the device's free memory that the token ids and targets of a split may take."""
Shape = tuple[int, int]
"""The shape of a batch: the number of examples, and of tokens per example with padding."""
MULTIPLE = 8
"""The padded length of a batch is a multiple of this number, because low-precision products and fused attention are
fastest with such shapes. It may be smaller if no text of the split has more tokens."""


@dataclass(frozen=True)
class Draw:
    """The examples of a batch of a resident split, which has not been gathered yet. See `Batch` for the members."""

    split: ResidentSplit
    indices: Tensor  # int64 [b], on the CPU
    device_indices: Tensor  # int64 [b]
    width: int
    tokens: int

    @property
    def padded_tokens(self) -> int:
        """The number of tokens of all examples, with padding."""
        return len(self.indices) * self.width

    @property
    def shape(self) -> Shape:
        """The number of examples, and of tokens per example with padding."""
        return len(self.indices), self.width

    @property
    def predictions(self) -> int:
        """The number of predictions over which the loss is averaged: of examples, or of words."""
        return self.split.predictions(self.indices)

    def to(self, device: Any, *, pinned: bool = False) -> Batch:
        """Gather the batch on the device on which the split is; both arguments have no effect."""
        tokens = 0 if self.split.masked else self.tokens
        return replace(self.split.batch(self.device_indices, self.width, tokens), indices=self.indices)

    def rows(self, chosen: slice) -> Draw:
        """Return the chosen examples, with padding beyond the longest of these examples removed."""
        return self.split.draw(self.indices[chosen], self.device_indices[chosen])


class ResidentSplit:
    """The token ids, token types, lengths and targets of a split, in the device's memory."""

    def __init__(self, split: TokenizedSplit, padding: Padding, device: Device, *, masked: bool = False) -> None:
        """Copy a split to the device.

        Args:
            split: The split.
            padding: The padding token, its type and the padded side.
            device: The device.
            masked: Whether each batch counts as padded, as it does in a captured step, even if its examples are equally
                long. Attention kernels with a mask draw their dropout differently from those without one, so that the
                random numbers would otherwise depend on whether a step is replayed.
        """
        import torch

        self.masked = masked
        self._padding = padding
        self._device = device
        self._host_lengths = split.lengths
        self._longest = int(split.lengths.max())
        # The last element of each array stands for padding, so that one index finds tokens and padding.
        self._ids = self._device.sent(torch.cat([split.input_ids, torch.tensor([padding.token])]))
        self._types = None
        if split.token_type_ids is not None:
            self._types = self._device.sent(torch.cat([split.token_type_ids, torch.tensor([padding.type_id])]))
        self._starts = self._device.sent(split.offsets[:-1].contiguous())
        self._lengths = self._device.sent(split.offsets[1:] - split.offsets[:-1])
        self._tags_words, self._host_predictions = split.tags_words, None
        targets = split.targets
        if split.tags_words:
            known = torch.cat([torch.zeros(1, dtype=torch.int64), (targets != IGNORED).cumsum(0)])
            self._host_predictions = (known[split.offsets[1:]] - known[split.offsets[:-1]]).numpy()
            targets = torch.cat([targets, torch.tensor([IGNORED])])
        self._targets = self._device.sent(targets)
        self._steps = self._device.sent(torch.arange(self._longest)[None])  # [1, longest]

    @staticmethod
    def fits(split: TokenizedSplit, device: Device) -> bool:
        """Return whether the split takes at most `SHARE_OF_MEMORY` of an accelerator's free memory."""
        if not device.accelerated:
            return False
        tensors = (split.input_ids, split.token_type_ids, split.offsets, split.offsets, split.targets)
        return sum(t.nbytes for t in tensors if t is not None) <= SHARE_OF_MEMORY * device.free_bytes()

    def draws(self, order: Sequence[np.ndarray[Any, Any]], widths: Sequence[int] = ()) -> Iterator[Draw]:
        """Copy the order of an epoch to the device and yield its batches, not gathered yet.

        Args:
            order: The positions of the examples of each batch.
            widths: The padded lengths to choose from, ascending, of which the last is that of the longest example. If
                there are none, a batch is padded to the next multiple of `MULTIPLE`.
        """
        import numpy as np
        import torch

        if not order:
            return
        flat = torch.from_numpy(np.concatenate(order))
        placed = self._device.sent(flat)
        begin = 0
        for indices in order:
            chosen = slice(begin, begin + len(indices))
            yield self.draw(flat[chosen], placed[chosen], widths)
            begin = chosen.stop

    def predictions(self, indices: Tensor) -> int:
        """Return the number of predictions for examples (int64 [b], on the CPU); see `Batch.predictions`."""
        if self._host_predictions is None:
            return len(indices)
        return int(self._host_predictions[indices.numpy()].sum())

    def width_for(self, longest: int) -> int:
        """Return a number of tokens rounded up to a multiple of `MULTIPLE`, at most that of the longest example."""
        return min(-(-longest // MULTIPLE) * MULTIPLE, self._longest)

    def draw(self, indices: Tensor, device_indices: Tensor | None = None, widths: Sequence[int] = ()) -> Draw:
        """Return a batch of the split, not gathered yet.

        Args:
            indices: The positions of the examples in the split: int64 [b], on the CPU.
            device_indices: A copy of `indices` on the device; None to make one.
            widths: The padded lengths to choose from, see `draws`.
        """
        lengths = self._host_lengths[indices.numpy()]
        longest = int(lengths.max())
        width = next((width for width in widths if width >= longest), self.width_for(longest))
        placed = self._device.sent(indices) if device_indices is None else device_indices
        return Draw(self, indices, placed, width, int(lengths.sum()))

    def batch(self, indices: Tensor, width: int, tokens: int = 0) -> Batch:
        """Gather a batch on the device. This neither waits for the device nor copies anything from the host.

        Args:
            indices: The positions of the examples in the split: int64 [b], on the device.
            width: The number of tokens per example, with padding; at least that of the longest of these examples.
            tokens: The number of tokens without padding. 0 if it is unknown, as in a step that is captured for all
                batches of one shape; such a batch counts as padded.

        Returns:
            The batch, with all its tensors on the device.
        """
        starts = self._starts.index_select(0, indices)[:, None]  # [b, 1]
        lengths = self._lengths.index_select(0, indices)[:, None]
        steps = self._steps[:, :width]
        if self._padding.side == "left":
            steps = steps - (width - lengths)  # [b, s], below 0 where there is padding
            is_padding = steps < 0
        else:
            is_padding = steps >= lengths  # [b, s]
        # `torch.where` with a number would copy the number from the host and wait for it; `masked_fill_` does not.
        source = (starts + steps).masked_fill_(is_padding, len(self._ids) - 1)
        return Batch(
            input_ids=self._ids[source],
            attention_mask=is_padding.logical_not().long(),
            token_type_ids=None if self._types is None else self._types[source],
            targets=self._targets[source] if self._tags_words else self._targets.index_select(0, indices),
            indices=indices,
            tokens=tokens,
            side=self._padding.side,
            device_indices=indices,
            tags_words=self._tags_words,
        )
