"""The outputs of frozen lower layers on an accelerator, computed directly into its memory instead of through the disk.

The frozen prefix is the embeddings and the lowest frozen layers; its outputs are called states.

    measure the rates of computing and copying                                 # not timed
    choose the memory that keeps the states  # prefix/placement.py
    for each batch, from short to long:      # timed as `runtime/prefix_s`
        compute the states, and write them without padding to the next rows of one preallocated tensor
    train
    write the states to the store, if other runs of the plan will read them    # not timed as training

Within the loop over batches, the CPU never waits for the accelerator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alue_bench.data.batches import Batch, Padding, batches, collate, evaluation_order
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.device.errors import none_if_out_of_memory, release_caches
from alue_bench.training.device.precision import Device, autocast
from alue_bench.training.forward import Forward
from alue_bench.training.prefix.placement import DEVICE_SHARE, Rates, Sizes, choose_placement, worth_storing
from alue_bench.training.prefix.states import Examples, PrefixStates, ResidentRows, Side, rows_of, unpadded
from alue_bench.training.prefix.store import PrefixStore, StoredStates
from alue_bench.training.prefix.transfer import (
    available_host_bytes,
    bandwidths,
    pinned_empty,
    read_states,
    reading_rate,
    storing_rate,
    write_states,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

OPTIMISER_SHARE = 3
"""The memory for a trainable parameter's gradient and AdamW's two moments, as a multiple of the parameter's size."""


@dataclass(frozen=True)
class _TimedBatch:
    """The measurements from computing the frozen prefix's output for one batch."""

    tokens_per_s: float
    """The number of tokens, without padding, that the frozen prefix processes per second."""
    width: int
    """The hidden size."""
    dtype: torch.dtype
    """The number format of the output."""


@dataclass(frozen=True)
class _UnwrittenEntry:
    """Computed outputs of a frozen prefix that still have to be written to the store for other runs of the plan."""

    key: str
    """The key of the new store entry."""
    states: PrefixStates
    description: Mapping[str, str]
    """The human-readable description of the new store entry."""


class AcceleratorStates:
    """The outputs of a model's frozen prefix (its lowest layers) for the data splits of a run on an accelerator."""

    def __init__(
        self, stack: EncoderStack, forward: Forward, depth: int, *, store: PrefixStore, device: Device, shared: bool
    ) -> None:
        """Prepare to compute the outputs of the frozen prefix; nothing is computed or measured yet.

        Args:
            stack: The model.
            forward: The implementation of the forward pass.
            depth: The number of layers of the frozen prefix.
            store: The on-disk store; outputs are read from it and written to it if that saves time.
            device: The accelerator and the number format.
            shared: Whether other runs of the plan need the same outputs.
        """
        self._stack, self._forward, self._depth = stack, forward, depth
        self._store, self._device, self._shared = store, device, shared
        self._timed: _TimedBatch | None = None
        self._unwritten: list[_UnwrittenEntry] = []

    def examples(
        self,
        split: TokenizedSplit,
        padding: Padding,
        description: Mapping[str, str],
        *,
        passes: int,
        key_of: Callable[[], str],
    ) -> Examples:
        """Return a split with the outputs of the frozen prefix, in the memory from which training reads them fastest.

        Args:
            split: The tokenized examples.
            padding: The padding token id and the padded side.
            description: The human-readable description of the store entry, if the outputs are written to the store.
            passes: The number of times that the whole split will be read.
            key_of: A function that returns the key of the store's entry. It is slow, because it reads all weights, and
                is therefore called only if the outputs may be in the store or may be written to it.

        Returns:
            The split. It has no stored outputs if computing them at every step is fastest, or if memory is exhausted;
            exhausted memory is reported to the store's `on_problem`.
        """
        filled = none_if_out_of_memory(
            lambda: self._examples_in_memory(split, padding, description, passes, key_of),
            self._device.name,
            lambda: self._store.report_exhausted(self._device.tokens_per_inference_batch),
        )
        return Examples(split) if filled is None else filled

    def of_batch(self, states: Tensor, split: TokenizedSplit, batch: Batch) -> PrefixStates:
        """Return the frozen prefix's outputs for one batch as a `PrefixStates` of its split.

        Args:
            states: The outputs for the batch, `[batch, tokens, hidden]` or `[batch, 1, hidden]`, on the accelerator.
            split: The split to which the examples belong.
            batch: The batch.

        Returns:
            The states. They hold only the examples of the batch: do not read other examples of the split from them.
        """
        import torch

        _, lengths = rows_of(split, first_only=self._first_only)
        batch_lengths = lengths[batch.indices]
        starts = torch.zeros_like(lengths).index_copy_(0, batch.indices, batch_lengths.cumsum(0) - batch_lengths)
        unpadded_states = unpadded(states, batch, lengths, self._device)
        return self._in_memory(StoredStates(unpadded_states, 0.0), starts, lengths, batch.side)

    def store_computed(self) -> None:
        """Write computed outputs to the on-disk store, if other runs of the plan will read them.

        Outputs that do not fit into the store are dropped and reported to its `on_problem`.
        """
        import torch

        unwritten, self._unwritten = self._unwritten, []
        for item in unwritten:
            states, lengths = item.states.states, item.states.lengths
            ends = lengths.cumsum(0)
            rows = torch.repeat_interleave(item.states.starts - (ends - lengths), lengths) + torch.arange(int(ends[-1]))
            draft = self._store.create(item.key, states.shape[0], states.shape[1], states.dtype)
            if draft is not None:
                with draft:
                    write_states(states, rows, draft.states, self._device)
                    description = {**item.description, "depth": str(self._depth)}
                    draft.commit(item.states.entry.build_s, description, charged=False)

    @property
    def _first_only(self) -> bool:
        """True if the outputs are kept for the first token of each example only.

        This is so if the prefix contains all layers and the head reads only the first token.
        """
        return self._depth == len(self._stack.layers) and self._forward.last_layer != "whole"

    def _examples_in_memory(
        self,
        split: TokenizedSplit,
        padding: Padding,
        description: Mapping[str, str],
        passes: int,
        key_of: Callable[[], str],
    ) -> Examples:
        """Choose where to keep the frozen prefix's outputs for a split, and compute or read them.

        The arguments and the result are the same as for `examples`, but exhausted memory raises an error.
        """
        import torch

        starts, lengths = rows_of(split, first_only=self._first_only)
        timed = self._timed_batch(split, padding)
        key = key_of() if self._shared or self._store.holds_any() else None
        stored = key is not None and self._store.has(key)
        rows = int(lengths.sum())
        size = rows * timed.width * timed.dtype.itemsize
        sizes = Sizes(
            tokens=int(split.lengths.sum()),
            bytes=size,
            passes=passes,
            device_free=self._free_bytes(size),
            host_free=available_host_bytes() if self._device.pins_memory else 0,
            stored=stored,
        )
        read_rate = reading_rate(self._store.states_path(key)) if stored and key is not None else 0.0
        placement = choose_placement(sizes, self._rates(timed, read_rate))
        if placement.location == "recomputed":
            return Examples(split, placement=placement)
        self._device.synchronise()
        began = time.perf_counter()
        if placement.location == "resident":
            buffer = torch.empty(rows, timed.width, dtype=timed.dtype, device=self._device.name)
        else:
            buffer = pinned_empty(rows, timed.width, timed.dtype)
        entry = self._store.open(key) if placement.read and key is not None else None
        if entry is not None:
            read_states(entry.states, buffer, self._device)
            self._device.synchronise()
            outputs = StoredStates(buffer, entry.build_s)
            return Examples(split, self._in_memory(outputs, starts, lengths, padding.side, reused=True), placement)
        starts = self._compute(split, padding, lengths, buffer)
        self._device.synchronise()
        outputs = StoredStates(buffer, time.perf_counter() - began)
        states = self._in_memory(outputs, starts, lengths, padding.side)
        if self._shared and key is not None and not stored:
            rates = self._rates(timed, storing_rate(self._store.folder))
            if worth_storing(sizes, rates):
                self._unwritten.append(_UnwrittenEntry(key, states, description))
        return Examples(split, states, placement)

    def _compute(self, split: TokenizedSplit, padding: Padding, lengths: Tensor, kept: Tensor) -> Tensor:
        """Compute the frozen prefix's outputs for a split, batch by batch, into consecutive rows of a tensor.

        Args:
            split: The tokenized examples.
            padding: The padding token id and the padded side.
            lengths: The number of rows of each example: int64 `[examples]`, on the CPU.
            kept: The tensor to fill, `[rows, hidden]`, on the accelerator or in pinned memory.

        Returns:
            The first row of each example: int64 `[examples]`, on the CPU.
        """
        import torch

        starts = torch.empty_like(lengths)
        begin = 0
        self._stack.model.eval()
        with torch.no_grad(), autocast(self._device):
            order = evaluation_order(split.lengths, self._device.tokens_per_inference_batch)
            for batch in batches(split, order, padding, round_lengths=self._device.rounds_lengths):
                states = self._forward.prefix(self._copy_to_device(batch), self._depth)
                unpadded_states = unpadded(states, batch, lengths, self._device)
                end = begin + len(unpadded_states)
                kept[begin:end].copy_(unpadded_states, non_blocking=True)
                starts[batch.indices] = begin + lengths[batch.indices].cumsum(0) - lengths[batch.indices]
                begin = end
        return starts

    def _in_memory(
        self, outputs: StoredStates, starts: Tensor, lengths: Tensor, side: Side, *, reused: bool = False
    ) -> PrefixStates:
        """Return a split's `PrefixStates` for outputs that lie on the accelerator or in pinned host memory.

        Args:
            outputs: The outputs of the frozen prefix, `[rows, hidden]`, with the seconds that computing them took.
            starts: The first row of each example: int64 `[examples]`, on the CPU.
            lengths: The number of rows of each example: int64 `[examples]`, on the CPU.
            side: The side on which texts are padded.
            reused: Whether the outputs were read from the store.
        """
        states = outputs.states
        rows = None if states.device.type == "cpu" else ResidentRows.of(starts, lengths, side, self._device)
        return PrefixStates(self._depth, outputs, states, starts, lengths, reused, self._first_only, rows)

    def _timed_batch(self, split: TokenizedSplit, padding: Padding) -> _TimedBatch:
        """Measure how long the frozen prefix takes for the batch of the shortest examples, after an untimed first pass.

        Later calls return the first result, whatever their arguments.
        """
        import torch

        if self._timed is None:
            order = evaluation_order(split.lengths, self._device.tokens_per_inference_batch)
            batch = collate(split, order[0], padding, round_lengths=self._device.rounds_lengths)
            self._stack.model.eval()
            with torch.no_grad(), autocast(self._device):
                moved = self._copy_to_device(batch)
                self._forward.prefix(moved, self._depth)
                self._device.synchronise()
                began = time.perf_counter()
                states = self._forward.prefix(moved, self._depth)
                self._device.synchronise()
            seconds = time.perf_counter() - began
            self._timed = _TimedBatch(batch.tokens / seconds, states.shape[-1], states.dtype)
        return self._timed

    def _rates(self, timed: _TimedBatch, read: float) -> Rates:
        """Return the measured rates of computing and copying outputs, as `choose_placement` takes them.

        Args:
            timed: The measurements from computing one batch.
            read: The bytes per second at which the store's file can be read; 0 if unknown.
        """
        measured = bandwidths(self._device)
        return Rates(timed.tokens_per_s, measured.to_device, measured.to_host, measured.gather, read)

    def _free_bytes(self, wanted: int) -> int:
        """Return the accelerator's free memory in bytes, minus the memory that gradients and optimiser state will take.

        Args:
            wanted: The size of the outputs to keep, in bytes. If they would take more than `DEVICE_SHARE` of the free
                memory, memory that torch's allocator caches is released first and counted as free.
        """
        trained = sum(parameter.nbytes for parameter in self._stack.model.parameters() if parameter.requires_grad)
        free = self._device.free_bytes() - OPTIMISER_SHARE * trained
        if wanted <= DEVICE_SHARE * free:
            return free
        release_caches(self._device.name)
        return self._device.free_bytes() - OPTIMISER_SHARE * trained

    def _copy_to_device(self, batch: Batch) -> Batch:
        """Return a copy of a batch, moved to the accelerator."""
        return batch.to(self._device.name, pinned=self._device.pins_memory)
