"""The output of the frozen lowest layers (the frozen prefix) for a whole split, and the selection of a batch from it.

Shapes: a split has `examples` examples with `total_tokens` tokens in all; a padded batch has `batch` examples of
`tokens` tokens each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from alue_bench.data.batches import Batch
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.training.device.precision import Device
from alue_bench.training.forward import Forward
from alue_bench.training.prefix.placement import PrefixPlacement
from alue_bench.training.prefix.store import StoredStates
from alue_bench.training.prefix.transfer import pinned_empty

if TYPE_CHECKING:
    from torch import Tensor

Side = Literal["right", "left"]


@dataclass(frozen=True)
class ResidentRows:
    """The positions of the examples in an array of hidden states on an accelerator, as tensors on the accelerator."""

    edges: Tensor
    """The row in the array at which each example begins, or, if padding is on the left, the row after its end: int64
    `[examples]`."""
    steps: Tensor
    """The row of each token of a padded example, relative to the example's entry in `edges`: int64 `[1, longest]`. The
    values are 0, 1, 2 and so on or, if padding is on the left, consecutive numbers that end with -1."""
    side: Side
    """The side on which texts are padded."""
    device: Device
    """The accelerator."""

    @classmethod
    def of(cls, starts: Tensor, lengths: Tensor, side: Side, device: Device) -> ResidentRows:
        """Copy the positions of the examples in the array to an accelerator.

        Args:
            starts: The first row of each example: int64 `[examples]`, on the CPU.
            lengths: The number of rows of each example: int64 `[examples]`, on the CPU.
            side: The side on which texts are padded.
            device: The accelerator.
        """
        import torch

        longest = int(lengths.max())
        edges = starts if side == "right" else starts + lengths
        steps = torch.arange(longest) if side == "right" else torch.arange(-longest, 0)
        return cls(device.copied_from_host(edges), device.copied_from_host(steps[None]), side, device)

    def select(self, positions: Tensor) -> ResidentRows:
        """Return the positions of a selection of the examples.

        Args:
            positions: The indices of the selected examples: int64 `[examples]`, on the CPU.
        """
        return replace(self, edges=self.edges.index_select(0, self.device.copied_from_host(positions)))

    def steps_of(self, width: int) -> Tensor:
        """Return `steps` for examples that are padded to `width` tokens: int64 `[1, width]`."""
        import torch

        longest = self.steps.shape[1]
        if width > longest:
            first = 0 if self.side == "right" else -width
            return torch.arange(first, first + width, device=self.steps.device)[None]
        return self.steps[:, :width] if self.side == "right" else self.steps[:, longest - width :]


@dataclass(frozen=True)
class PrefixStates:
    """The stored output of the lowest `depth` layers, which is the input of layer `depth`, for each example of a split.

    If `depth` is the number of layers and the head reads only the first token, only first tokens are stored.
    """

    depth: int
    """The number of frozen lowest layers whose output is stored."""
    entry: StoredStates
    """The array `states` together with the seconds that computing it took. On a CPU, it is an entry of the store, which
    this process does not evict while this object exists; on an accelerator, it is no entry of the store."""
    states: Tensor
    """The hidden states, `[total_tokens, hidden]`, or `[examples, hidden]` if only first tokens are stored. They are in
    a memory-mapped file, on the accelerator or in pinned host memory."""
    starts: Tensor
    """The row of `states` at which each example begins: int64 `[examples]`, on the CPU."""
    lengths: Tensor
    """The number of rows of `states` for each example: int64 `[examples]`, on the CPU."""
    reused: bool
    """True if the states were read from the store, because an earlier run had computed them."""
    first_only: bool
    """True if only the first token of each example is stored."""
    rows: ResidentRows | None = None
    """The positions of the examples in `states`, as tensors on the accelerator; None if `states` is in host memory."""
    share: float = 1.0
    """The fraction of the store entry's tokens that are in this split; below 1 if the folds of a cross-validation share
    the entry."""

    @property
    def seconds(self) -> float:
        """The seconds that computing this split's states took; on a CPU, storing them is included."""
        return self.entry.build_s * self.share

    @property
    def resident(self) -> bool:
        """True if the states are in an accelerator's memory, so that `gather` can be called."""
        return self.rows is not None

    def of(self, batch: Batch) -> Tensor:
        """Return the stored hidden states of a batch, on the batch's device.

        The CPU does not wait for an accelerator. States in pinned host memory are gathered by the CPU into pinned
        memory, and copied from there while the accelerator works.

        Returns:
            The states, `[batch, tokens, hidden]`, or `[batch, 1, hidden]` if only first tokens are stored. Padded
            positions hold the states of an arbitrary token: finite values, which the attention masks of the layers
            above ignore.
        """
        import torch

        device = batch.attention_mask.device
        width = 1 if self.first_only else batch.attention_mask.shape[1]
        if self.rows is not None:
            indices = batch.indices if batch.device_indices is None else batch.device_indices
            return self.gather(indices.to(device), width)
        rows, tokens = token_rows(batch, self.starts, self.lengths, width)
        rows = torch.where(tokens, rows, 0)
        if device.type == "cpu":
            return self.states.index_select(0, rows.flatten()).view(*rows.shape, -1)
        chosen = pinned_empty(rows.numel(), self.states.shape[1], self.states.dtype)
        torch.index_select(self.states, 0, rows.flatten(), out=chosen)
        return chosen.to(device, non_blocking=True).view(*rows.shape, -1)

    def gather(self, indices: Tensor, width: int) -> Tensor:
        """Return the hidden states of some examples, by operations that a CUDA graph can contain.

        Args:
            indices: The positions of the examples in the split: int64 `[batch]`, on the accelerator.
            width: The number of tokens of each example, with padding; not used if only first tokens are stored.

        Returns:
            The states, in the shape that `of` returns. Padded positions hold states of neighbouring examples.

        Raises:
            RuntimeError: The states are not on an accelerator (see `resident`).
        """
        if self.rows is None:
            raise RuntimeError("states in host memory cannot be gathered on the accelerator; call PrefixStates.of")
        steps = self.rows.steps_of(1 if self.first_only else width)
        rows = self.rows.edges.index_select(0, indices)[:, None] + steps  # [batch, width]
        rows = rows.clamp_(0, self.states.shape[0] - 1)
        return self.states.index_select(0, rows.flatten()).view(*rows.shape, self.states.shape[1])

    def select(self, positions: Tensor) -> PrefixStates:
        """Return the `PrefixStates` of a selection of the examples, without copying the hidden states.

        Args:
            positions: The indices of the selected examples: int64 `[examples]`, on the CPU.
        """
        lengths = self.lengths[positions]
        share = float(lengths.sum()) / float(self.lengths.sum())
        rows = self.rows and self.rows.select(positions)
        return replace(self, starts=self.starts[positions], lengths=lengths, rows=rows, share=share)

    def released(self) -> PrefixStates:
        """Return a copy of this object without the hidden states, but with their depth, positions and cost."""
        none = self.states[:0].clone()
        return replace(self, entry=StoredStates(none, self.entry.build_s), states=none, rows=None)


@dataclass(frozen=True)
class Examples:
    """A data split, with the stored output of the model's frozen lowest layers if there is one."""

    split: TokenizedSplit
    prefix: PrefixStates | None = None
    placement: PrefixPlacement | None = None
    """The place in which the output of the frozen layers is kept on an accelerator, and the reason. None on a CPU, and
    if no place was chosen, because no lowest layers are frozen, the store is turned off, the model cannot start from
    stored output, or memory is exhausted."""

    @property
    def depth(self) -> int:
        """The number of lowest layers that need not be computed, because their output is stored; 0 if none is."""
        return self.prefix.depth if self.prefix else 0

    def states(self, batch: Batch) -> Tensor | None:
        """Return the stored output of the frozen layers for a batch, in the shape that `PrefixStates.of` returns.

        The result is None if nothing is stored.
        """
        return None if self.prefix is None else self.prefix.of(batch)

    def logits(self, forward: Forward, batch: Batch) -> Tensor:
        """Compute the logits of a batch, from the frozen layers' stored output if there is one, else from token ids.

        They are `[batch, outputs]`, or `[batch, tokens, outputs]` if the head reads every token.
        """
        return forward.logits(batch, self.depth, self.states(batch))

    def released(self) -> Examples:
        """Return the examples without the stored output, to free its memory.

        The cost of computing it stays recorded.
        """
        return replace(self, prefix=self.prefix and self.prefix.released())


def rows_of(split: TokenizedSplit, *, first_only: bool) -> tuple[Tensor, Tensor]:
    """Return the position of each example in the unpadded array of a split's hidden states.

    Args:
        split: The split.
        first_only: Whether the array holds only the first token of each example.

    Returns:
        The first row and the number of rows of each example, in the order of the split: int64 `[examples]` each.
    """
    import torch

    if first_only:
        return torch.arange(len(split)), torch.ones(len(split), dtype=torch.int64)
    return split.offsets[:-1], torch.from_numpy(split.lengths)


def write_rows(states: Tensor, batch: Batch, rows: tuple[Tensor, Tensor], kept: Tensor) -> None:
    """Copy the hidden states of a batch, without padding, into the array of its split.

    Args:
        states: The states of the batch, `[batch, tokens, hidden]` or `[batch, 1, hidden]`, on the CPU.
        batch: The batch.
        rows: The first row in `kept` and the number of rows of each example of the split: int64 `[examples]` each.
        kept: The array of the whole split, `[total_tokens, hidden]` or `[examples, hidden]`.
    """
    into, tokens = token_rows(batch, *rows, states.shape[1])
    kept[into[tokens]] = states[tokens]


def unpadded(states: Tensor, batch: Batch, lengths: Tensor, device: Device) -> Tensor:
    """Return the hidden states of a batch without padding, `[rows, hidden]`, and do not wait for the accelerator.

    Args:
        states: The states of the batch, `[batch, tokens, hidden]` or `[batch, 1, hidden]`, on the accelerator.
        batch: The batch, whose `indices` are on the CPU.
        lengths: The number of rows of each example of the split: int64 `[examples]`, on the CPU.
        device: The accelerator.
    """
    _, tokens = token_rows(batch, lengths, lengths, states.shape[1])
    chosen = tokens.flatten().nonzero()[:, 0]
    return states.flatten(0, 1).index_select(0, device.copied_from_host(chosen))


def token_rows(batch: Batch, starts: Tensor, lengths: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the row of each token of a batch in the stored array, and a mask that is False at padding.

    Args:
        batch: The batch.
        starts: The first row of each example of the split: int64 `[examples]`.
        lengths: The number of rows of each example of the split: int64 `[examples]`.
        width: The number of tokens per example of the batch, with padding; 1 if only first tokens are stored.

    Returns:
        The rows, int64 `[batch, width]`, meaningless at padding; the mask, bool `[batch, width]`, True at tokens.
    """
    import torch

    lengths = lengths[batch.indices, None]
    steps = torch.arange(width)[None]
    if batch.side == "left":
        steps = steps - (width - lengths)  # below 0 where there is padding
    return starts[batch.indices, None] + steps, (steps >= 0) & (steps < lengths)
