"""A split in the memory of an accelerator, from which batches are gathered by index.

Token ids and targets are small: a hundred thousand texts of 30 tokens take 48 MB with their token types. Copied once,
they leave only the indices of the examples to be copied at each step, and a gather by index can be part of a CUDA
graph. The order of an epoch is copied at once, from pinned memory, so that no step waits for the host.

The stored outputs of frozen layers (`training/prefix/`) can be gathered in the same way: the batches made here have
their `indices` on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.data.batches import Batch, Padding
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.training.device.precision import Device

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SHARE_OF_MEMORY = 0.1
"""The largest share of the device's free memory that the token ids and targets of a split may take."""
MULTIPLE = 8
"""The padded length of a batch is a multiple of this number, because low-precision products and fused attention are
fastest with such shapes. It may be smaller if no text of the split has more tokens."""


@dataclass(frozen=True)
class Draw:
    """The examples of a batch that has not been gathered yet."""

    indices: np.ndarray[Any, Any]
    """The positions of the examples in the split: int64 [b], on the host."""
    placed: Tensor
    """The same positions on the device."""
    width: int
    """The number of tokens per example, with padding."""
    tokens: int
    """The number of tokens without padding."""


class ResidentSplit:
    """The token ids, token types, lengths and targets of a split, in the device's memory."""

    def __init__(self, split: TokenizedSplit, padding: Padding, device: Device) -> None:
        """Copy a split to the device.

        Args:
            split: The split.
            padding: The padding token, its type and the padded side.
            device: The device.
        """
        import torch

        self._padding = padding
        self._device = device
        self._host_lengths = split.lengths
        self._longest = int(split.lengths.max())
        # The last element of each array stands for padding, so that one index finds tokens and padding.
        self._ids = self._placed(torch.cat([split.input_ids, torch.tensor([padding.token])]))
        self._types = None
        if split.token_type_ids is not None:
            self._types = self._placed(torch.cat([split.token_type_ids, torch.tensor([padding.type_id])]))
        self._starts = self._placed(split.offsets[:-1].contiguous())
        self._lengths = self._placed(split.offsets[1:] - split.offsets[:-1])
        self._targets = self._placed(split.targets)
        self._steps = self._placed(torch.arange(self._longest)[None])  # [1, longest]

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
        placed = self._placed(torch.from_numpy(np.concatenate(order)))
        begin = 0
        for indices in order:
            lengths = self._host_lengths[indices]
            longest = int(lengths.max())
            width = next((width for width in widths if width >= longest), self.width_for(longest))
            yield Draw(indices, placed[begin : begin + len(indices)], width, int(lengths.sum()))
            begin += len(indices)

    def width_for(self, longest: int) -> int:
        """Return a number of tokens rounded up to a multiple of `MULTIPLE`, at most that of the longest example."""
        return min(-(-longest // MULTIPLE) * MULTIPLE, self._longest)

    def batch(self, indices: Tensor, width: int, tokens: int = 0) -> Batch:
        """Gather a batch on the device. This neither waits for the device nor copies anything from the host.

        Args:
            indices: The positions of the examples in the split: int64 [b], on the device.
            width: The number of tokens per example, with padding; at least that of the longest of these examples.
            tokens: The number of tokens without padding. 0 if it is unknown, as in a step that is captured for all
                batches of one shape; such a batch counts as padded.

        Returns:
            The batch, with all its tensors, `indices` among them, on the device.
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
            targets=self._targets.index_select(0, indices),
            indices=indices,
            tokens=tokens,
            side=self._padding.side,
        )

    def _placed(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to the device without waiting for the device."""
        if self._device.pins_memory:
            tensor = tensor.pin_memory()
        return tensor.to(self._device.name, non_blocking=True)
