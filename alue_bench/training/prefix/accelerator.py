"""The states of a frozen prefix on an accelerator: computed into its memory, without a way through host or disk.

    measure rates, once per process          # not timed
    choose a place for the states            # prefix/placement.py
    for each batch, from short to long:      # timed as `runtime/prefix_s`
        compute the states, and write them without padding to the next rows of one preallocated tensor
    train
    write the states to the store, if other runs of the plan will read them    # not timed as training

Nothing waits for the accelerator within the loop over batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alue_bench.data.batches import Batch, Padding, batches, collate, evaluation_order
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.device.errors import give_back, unless_exhausted
from alue_bench.training.device.precision import Device, autocast
from alue_bench.training.forward import Forward
from alue_bench.training.prefix.placement import DEVICE_SHARE, Rates, Sizes, place_states, worth_storing
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
"""The memory for a trainable parameter's gradient and AdamW's two averages, relative to the parameter's own."""


@dataclass(frozen=True)
class _Probe:
    """The result of computing one batch of states."""

    tokens_per_s: float
    width: int
    """The hidden size."""
    dtype: torch.dtype


@dataclass(frozen=True)
class _Unwritten:
    """States that other runs of the plan want to read from the store."""

    key: str
    states: PrefixStates
    description: Mapping[str, str]


class AcceleratorStates:
    """The states of a frozen prefix for the splits of a training on an accelerator."""

    def __init__(
        self, stack: EncoderStack, forward: Forward, depth: int, *, store: PrefixStore, device: Device, shared: bool
    ) -> None:
        """Prepare the computation; nothing is computed or measured yet.

        Args:
            stack: The model.
            forward: The implementation of the forward pass.
            depth: The number of layers of the prefix.
            store: The store, from which states are read and to which they are written where that saves time.
            device: The accelerator and the number format.
            shared: Whether other runs of the plan need the same states.
        """
        self._stack, self._forward, self._depth = stack, forward, depth
        self._store, self._device, self._shared = store, device, shared
        self._probed: _Probe | None = None
        self._unwritten: list[_Unwritten] = []

    def examples(
        self,
        split: TokenizedSplit,
        padding: Padding,
        description: Mapping[str, str],
        *,
        passes: int,
        key_of: Callable[[], str],
    ) -> Examples:
        """Return a split with its states in the place from which the training reads them fastest.

        Args:
            split: The tokenized examples.
            padding: The padding token id and the padded side.
            description: The human-readable description of a stored entry.
            passes: The number of times that the whole split will be read.
            key_of: A function that returns the key of the store's entry. It takes the time of reading all weights, and
                is called only if the store may have the states or is to keep them.

        Returns:
            The split. It has no states if computing them at every step is fastest, or if memory is exhausted.
        """
        filled = unless_exhausted(
            lambda: self._filled(split, padding, description, passes, key_of),
            self._device.name,
            lambda: self._store.report_exhausted(self._device.tokens_at_once),
        )
        return Examples(split) if filled is None else filled

    def of_batch(self, states: Tensor, split: TokenizedSplit, batch: Batch) -> PrefixStates:
        """Return the states of a batch, `[batch, tokens, hidden]`, in the form of the states of a whole split."""
        import torch

        _, lengths = rows_of(split, first_only=self._first_only)
        own = lengths[batch.indices]
        starts = torch.zeros_like(lengths).index_copy_(0, batch.indices, own.cumsum(0) - own)
        kept = unpadded(states, batch, lengths, self._device)
        return self._in_memory(StoredStates(kept, 0.0), starts, lengths, batch.side)

    def store_computed(self) -> None:
        """Write to the store what was computed here and other runs of the plan want to read.

        What the store has no room for is dropped, with a report to its `on_problem`.
        """
        import torch

        unwritten, self._unwritten = self._unwritten, []
        for one in unwritten:
            states, lengths = one.states.states, one.states.lengths
            ends = lengths.cumsum(0)
            rows = torch.repeat_interleave(one.states.starts - (ends - lengths), lengths) + torch.arange(int(ends[-1]))
            draft = self._store.create(one.key, states.shape[0], states.shape[1], states.dtype)
            if draft is not None:
                with draft:
                    write_states(states, rows, draft.states, self._device)
                    description = {**one.description, "depth": str(self._depth)}
                    draft.commit(one.states.entry.build_s, description, charged=False)

    @property
    def _first_only(self) -> bool:
        """True if only first tokens are kept."""
        return self._depth == len(self._stack.layers) and self._forward.last_layer != "whole"

    def _filled(
        self,
        split: TokenizedSplit,
        padding: Padding,
        description: Mapping[str, str],
        passes: int,
        key_of: Callable[[], str],
    ) -> Examples:
        """Choose a place for the states of a split and fill it: see `examples`."""
        import torch

        starts, lengths = rows_of(split, first_only=self._first_only)
        probe = self._probe(split, padding)
        key = key_of() if self._shared or self._store.holds_any() else None
        stored = key is not None and self._store.has(key)
        rows = int(lengths.sum())
        size = rows * probe.width * probe.dtype.itemsize
        sizes = Sizes(
            tokens=int(split.lengths.sum()),
            bytes=size,
            passes=passes,
            device_free=self._free_bytes(size),
            host_free=available_host_bytes() if self._device.pins_memory else 0,
            stored=stored,
        )
        read_rate = reading_rate(self._store.states_path(key)) if stored and key is not None else 0.0
        placement = place_states(sizes, self._rates(probe, read_rate))
        if placement.place == "recomputed":
            return Examples(split, placement=placement)
        self._device.synchronise()
        began = time.perf_counter()
        if placement.place == "resident":
            kept = torch.empty(rows, probe.width, dtype=probe.dtype, device=self._device.name)
        else:
            kept = pinned_empty(rows, probe.width, probe.dtype)
        entry = self._store.open(key) if placement.read and key is not None else None
        if entry is not None:
            read_states(entry.states, kept, self._device)
            self._device.synchronise()
            there = StoredStates(kept, entry.build_s)
            return Examples(split, self._in_memory(there, starts, lengths, padding.side, reused=True), placement)
        starts = self._compute(split, padding, lengths, kept)
        self._device.synchronise()
        there = StoredStates(kept, time.perf_counter() - began)
        states = self._in_memory(there, starts, lengths, padding.side)
        if self._shared and key is not None and not stored:
            rates = self._rates(probe, storing_rate(self._store.folder))
            if worth_storing(sizes, rates):
                self._unwritten.append(_Unwritten(key, states, description))
        return Examples(split, states, placement)

    def _compute(self, split: TokenizedSplit, padding: Padding, lengths: Tensor, kept: Tensor) -> Tensor:
        """Compute the states of a split, batch by batch, into consecutive rows of a tensor.

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
            order = evaluation_order(split.lengths, self._device.tokens_at_once)
            for batch in batches(split, order, padding, few_lengths=self._device.few_lengths):
                states = self._forward.prefix(self._moved(batch), self._depth)
                own = unpadded(states, batch, lengths, self._device)
                end = begin + len(own)
                kept[begin:end].copy_(own, non_blocking=True)
                starts[batch.indices] = begin + lengths[batch.indices].cumsum(0) - lengths[batch.indices]
                begin = end
        return starts

    def _in_memory(
        self, there: StoredStates, starts: Tensor, lengths: Tensor, side: Side, *, reused: bool = False
    ) -> PrefixStates:
        """Return states that lie on the accelerator or in pinned host memory as the states of a split.

        Args:
            there: The states, `[rows, hidden]`, with the seconds that computing them took.
            starts: The first row of each example: int64 `[examples]`, on the CPU.
            lengths: The number of rows of each example: int64 `[examples]`, on the CPU.
            side: The end of a text at which padding is added.
            reused: Whether the states were read from the store.
        """
        states = there.states
        rows = None if states.device.type == "cpu" else ResidentRows.of(starts, lengths, side, self._device)
        return PrefixStates(self._depth, there, states, starts, lengths, reused, self._first_only, rows)

    def _probe(self, split: TokenizedSplit, padding: Padding) -> _Probe:
        """Compute one batch of states twice, and measure the second time. Later calls return the first result."""
        import torch

        if self._probed is None:
            order = evaluation_order(split.lengths, self._device.tokens_at_once)
            batch = collate(split, order[0], padding, few_lengths=self._device.few_lengths)
            self._stack.model.eval()
            with torch.no_grad(), autocast(self._device):
                moved = self._moved(batch)
                self._forward.prefix(moved, self._depth)
                self._device.synchronise()
                began = time.perf_counter()
                states = self._forward.prefix(moved, self._depth)
                self._device.synchronise()
            seconds = time.perf_counter() - began
            self._probed = _Probe(batch.tokens / seconds, states.shape[-1], states.dtype)
        return self._probed

    def _rates(self, probe: _Probe, read: float) -> Rates:
        """Return the measured rates, with `read` bytes per second from the store's file."""
        measured = bandwidths(self._device)
        return Rates(probe.tokens_per_s, measured.to_device, measured.to_host, measured.gather, read)

    def _free_bytes(self, wanted: int) -> int:
        """Return the accelerator's free memory, without what gradients and optimiser state will take.

        Args:
            wanted: The size of the states. If they seem not to fit, the memory that torch's allocator keeps for reuse
                is given back and counted, too; otherwise it is left for the computation.
        """
        trained = sum(parameter.nbytes for parameter in self._stack.model.parameters() if parameter.requires_grad)
        free = self._device.free_bytes() - OPTIMISER_SHARE * trained
        if wanted <= DEVICE_SHARE * free:
            return free
        give_back(self._device.name)
        return self._device.free_bytes() - OPTIMISER_SHARE * trained

    def _moved(self, batch: Batch) -> Batch:
        """Return a batch on the accelerator."""
        return batch.to(self._device.name, pinned=self._device.pins_memory)
