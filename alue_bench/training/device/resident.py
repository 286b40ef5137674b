"""A data split (train, dev or test) kept in an accelerator's memory, from which batches are gathered by index.

Token ids and targets are small: a hundred thousand texts of 30 tokens take 48 MB with their token types. They are
copied to the accelerator once. After that, a step needs only the indices of its examples, and gathering them can be
part of a CUDA graph. The indices of a whole epoch are copied at once, from pinned memory, so that no step waits for the
host.

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
LENGTH_MULTIPLE = 8
"""A number of tokens: the padded length of a batch is a multiple of it, because low-precision products and fused
attention are fastest with such shapes. Only the length of the split's longest text may be used without rounding."""


@dataclass(frozen=True)
class ResidentBatch:
    """A batch of a split in an accelerator's memory: the indices of its examples, whose tokens are not gathered yet.

    Attributes and methods have the same meaning as those of `Batch`.
    """

    split: ResidentSplit
    indices: Tensor  # int64 [b], on the CPU
    device_indices: Tensor  # int64 [b]
    width: int
    """The number of tokens per example, with padding."""
    tokens: int
    """The number of tokens in the batch, without padding."""

    @property
    def padded_tokens(self) -> int:
        """The number of tokens of all examples, with padding."""
        return len(self.indices) * self.width

    @property
    def shape(self) -> Shape:
        """The shape of the batch: the number of examples, and of tokens per example with padding."""
        return len(self.indices), self.width

    @property
    def predictions(self) -> int:
        """The number of predictions over which the loss is averaged: one for each example, or for each word to tag."""
        return self.split.predictions(self.indices)

    def to(self, device: Any, *, pinned: bool = False) -> Batch:
        """Return the gathered batch, on the device that holds the split.

        The arguments are ignored. They exist because `Batch.to` has the same parameters.
        """
        tokens = 0 if self.split.masked else self.tokens
        return replace(self.split.gather_batch(self.device_indices, self.width, tokens), indices=self.indices)

    def rows(self, chosen: slice) -> ResidentBatch:
        """Return a smaller batch with the chosen examples only, padded for the longest one of them."""
        return self.split.ungathered_batch(self.indices[chosen], self.device_indices[chosen])


class ResidentSplit:
    """The token ids, token types, lengths and targets of a data split, in an accelerator's memory."""

    def __init__(self, split: TokenizedSplit, padding: Padding, device: Device, *, masked: bool = False) -> None:
        """Copy a data split (train, dev or test) to the device.

        Args:
            split: The split.
            padding: The padding token, its type and the padded side.
            device: The device.
            masked: Whether each batch gets an attention mask, even if its examples are equally long. A captured step
                always uses a mask, and attention kernels draw dropout differently with and without one. Set this to
                True so that the random numbers do not depend on whether a step is replayed from a CUDA graph.
        """
        import torch

        self.masked = masked
        self._padding = padding
        self._device = device
        self._host_lengths = split.lengths
        self._longest = int(split.lengths.max())
        # The last element of each array stands for padding, so that one index finds tokens and padding.
        self._ids = self._device.copied_from_host(torch.cat([split.input_ids, torch.tensor([padding.token])]))
        self._types = None
        if split.token_type_ids is not None:
            self._types = self._device.copied_from_host(
                torch.cat([split.token_type_ids, torch.tensor([padding.type_id])])
            )
        self._starts = self._device.copied_from_host(split.offsets[:-1].contiguous())
        self._lengths = self._device.copied_from_host(split.offsets[1:] - split.offsets[:-1])
        self._token_targets, self._host_predictions = split.token_targets, None
        self._tags_words = split.tags_words
        targets = split.targets
        if split.tags_words:
            targets_before = torch.cat([torch.zeros(1, dtype=torch.int64), (targets != IGNORED).cumsum(0)])
            self._host_predictions = (targets_before[split.offsets[1:]] - targets_before[split.offsets[:-1]]).numpy()
        if split.token_targets:
            targets = torch.cat([targets, torch.tensor([IGNORED])])
        self._targets = self._device.copied_from_host(targets)
        self._steps = self._device.copied_from_host(torch.arange(self._longest)[None])  # [1, longest]

    @staticmethod
    def fits(split: TokenizedSplit, device: Device) -> bool:
        """Return whether a split takes at most `SHARE_OF_MEMORY` of the accelerator's free memory; False on a CPU."""
        if not device.accelerated:
            return False
        tensors = (split.input_ids, split.token_type_ids, split.offsets, split.offsets, split.targets)
        return sum(t.nbytes for t in tensors if t is not None) <= SHARE_OF_MEMORY * device.free_bytes()

    def epoch_batches(
        self, order: Sequence[np.ndarray[Any, Any]], widths: Sequence[int] = ()
    ) -> Iterator[ResidentBatch]:
        """Yield the batches of an epoch, after copying the order of the examples to the device.

        Args:
            order: For each batch, the positions of its examples in the split.
            widths: The padded lengths to choose from, ascending; the last one is the length of the longest example. If
                there are none, a batch is padded to the next multiple of `LENGTH_MULTIPLE`.
        """
        import numpy as np
        import torch

        if not order:
            return
        flat = torch.from_numpy(np.concatenate(order))
        on_device = self._device.copied_from_host(flat)
        begin = 0
        for indices in order:
            chosen = slice(begin, begin + len(indices))
            yield self.ungathered_batch(flat[chosen], on_device[chosen], widths)
            begin = chosen.stop

    def predictions(self, indices: Tensor) -> int:
        """Return the number of predictions for examples (int64 [b], on the CPU); see `Batch.predictions`."""
        if self._host_predictions is None:
            return len(indices)
        return int(self._host_predictions[indices.numpy()].sum())

    def width_for(self, longest: int) -> int:
        """Return the padded length of a batch: `longest` rounded up to a multiple of `LENGTH_MULTIPLE`.

        The result is at most the length of the longest example in the split.

        Args:
            longest: The number of tokens of the longest example in the batch.
        """
        return min(-(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, self._longest)

    def ungathered_batch(
        self, indices: Tensor, device_indices: Tensor | None = None, widths: Sequence[int] = ()
    ) -> ResidentBatch:
        """Return a batch of the split as indices, without gathering its tokens yet.

        Args:
            indices: The positions of the examples in the split: int64 [b], on the CPU.
            device_indices: A copy of `indices` on the device; None to make one.
            widths: The padded lengths to choose from, see `epoch_batches`.
        """
        lengths = self._host_lengths[indices.numpy()]
        longest = int(lengths.max())
        width = next((width for width in widths if width >= longest), self.width_for(longest))
        on_device = self._device.copied_from_host(indices) if device_indices is None else device_indices
        return ResidentBatch(self, indices, on_device, width, int(lengths.sum()))

    def gather_batch(self, indices: Tensor, width: int, tokens: int = 0) -> Batch:
        """Gather the tokens of a batch on the device, without waiting for it or copying from the host.

        Args:
            indices: The positions of the examples in the split: int64 [b], on the device.
            width: The number of tokens per example, with padding; at least the length of the longest of these examples.
            tokens: The number of tokens of all examples, without padding. 0 if it is unknown, as in a step that is
                captured for all batches of one shape; the batch then gets an attention mask.

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
            targets=self._targets[source] if self._token_targets else self._targets.index_select(0, indices),
            indices=indices,
            tokens=tokens,
            side=self._padding.side,
            device_indices=indices,
            token_targets=self._token_targets,
            tags_words=self._tags_words,
        )
