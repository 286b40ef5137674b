"""The output of a model's frozen prefix (its lowest layers) for the examples of a split, computed once and cached.

The frozen prefix is the embeddings and the contiguous frozen layers above them. Its output for an example is the same
in every epoch and run, because nothing in it trains and its dropout is off. So the output is computed once, stored
without padding in a `PrefixStore`, and passed to the first layer that trains. The depth of a prefix is its number of
layers. The stored output is also called the states of the prefix.

The key of a store entry is a digest of everything that determines the content of the entry: the values of the weights,
the configuration, the token ids, the number format, the implementation of the forward pass, the device, and the
versions of alue-bench and torch.

On a CPU, every computed output is stored if the store has room, and two things save computation. If the output of a
shallower prefix is stored, the output of a deeper one is computed from it. If the runs of a plan need several depths,
one pass over the texts stores the outputs at all these depths. The content of an entry does not depend on how it was
computed. Nor does its recorded cost: the time that computing this entry alone, from the token ids, takes.

On an accelerator, each run computes the states directly into the accelerator's memory. If they do not fit, it keeps
them in pinned host memory or computes them at every step, whichever `prefix/placement.py` estimates to be faster. The
states are written to the store only if another run of the plan needs the same depth and would read them faster than
compute them. They are written after the training, so that the timed training does not involve the disk.

Shapes: a split has `examples` examples with `total_tokens` tokens in all; a padded batch has `batch` examples of
`tokens` tokens each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from alue_bench.contract.version import __version__
from alue_bench.data.batches import Batch, Padding, batches, collate, evaluation_order
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.device.errors import is_out_of_memory, none_if_out_of_memory
from alue_bench.training.device.host_memory import retain_freed_memory
from alue_bench.training.device.precision import Device, autocast
from alue_bench.training.forward import Forward
from alue_bench.training.prefix.accelerator import AcceleratorStates
from alue_bench.training.prefix.states import Examples, PrefixStates, rows_of, write_rows
from alue_bench.training.prefix.store import Draft, PrefixStore, StoredStates

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["ALL_FOLDS", "Examples", "FrozenPrefix", "PlannedDepths", "PrefixStates"]

FORMAT = 3
"""The version of the content of store entries. It is part of each entry's key; increase it when the content changes."""
SPLIT_TOLERANCE = 1e-3
"""The largest accepted difference between logits computed from stored states and those computed from token ids,
relative to the largest logit."""
TASK_CONFIG_FIELDS = ("num_labels", "id2label", "label2id", "problem_type", "classifier_dropout", "_name_or_path")
"""The fields of a configuration that differ between tasks and do not affect the encoder."""


ALL_FOLDS = "all folds"
"""The name of the split in the description of a store entry that holds all folds of a cross-validation."""


@dataclass(frozen=True)
class _StoreRequest:
    """A data split whose frozen-prefix outputs are to be stored, with the new entries' keys and description."""

    split: TokenizedSplit
    padding: Padding
    keys: Sequence[str]
    """The store's key for the outputs at each depth (number of layers), from 0."""
    description: Mapping[str, str]
    """The human-readable description of the new store entries."""


@dataclass
class PlannedDepths:
    """The frozen-prefix depths that a plan's runs of one model on one task need; a depth is a number of layers."""

    depths: set[int] = field(default_factory=set)
    """The depths that at least one run of the plan needs."""
    shared: set[int] = field(default_factory=set)
    """The depths that more than one run of the plan needs."""
    tried: set[str] = field(default_factory=set)
    """The splits for which `FrozenPrefix.prepare` has already tried to store outputs, each by its key at the deepest
    planned depth. `prepare` does not try them again, even if their entries have been evicted since. In that case, each
    run computes the outputs at its own depth only."""

    def add(self, depth: int) -> None:
        """Note that a run of the plan needs a frozen prefix of this depth (number of layers)."""
        if depth in self.depths:
            self.shared.add(depth)
        self.depths.add(depth)


class FrozenPrefix:
    """The frozen embeddings and lowest `depth` layers of a model in training, with access to their stored outputs."""

    def __init__(
        self,
        stack: EncoderStack,
        forward: Forward,
        depth: int | None,
        *,
        store: PrefixStore,
        device: Device,
        shared: bool = False,
    ) -> None:
        """Prepare access to the outputs of the frozen prefix; nothing is computed yet.

        Args:
            stack: The model.
            forward: The implementation of the forward pass.
            depth: The number of frozen layers in the prefix; None if not even the embeddings are frozen.
            store: The on-disk store for the outputs. If its limit is 0, nothing is stored.
            device: The device and the number format.
            shared: Whether other runs of the plan need the same outputs. Outputs that an accelerator computed are
                stored only in this case.
        """
        self._stack = stack
        self._forward = forward
        # Embeddings alone are cheaper to look up again than to keep.
        self._depth = depth if depth and store.limit_bytes else 0
        self._store = store
        self._device = device
        self._weights: list[str] | None = None
        self._starts_from_states: bool | None = None
        self._computed_here: set[str] = set()
        self._all_folds: Examples | None = None
        self._accelerator = AcceleratorStates(stack, forward, self._depth, store=store, device=device, shared=shared)

    def examples(
        self, split: TokenizedSplit, padding: Padding, description: Mapping[str, str], passes: int = 1
    ) -> Examples:
        """Return a split with the frozen prefix's outputs, which are read from the store, or computed and stored.

        Args:
            split: The tokenized examples. If they belong to a cross-validation, the states of the examples of all folds
                are computed once and stored in one entry.
            padding: The padding token id and the padded side.
            description: The human-readable description of the entry.
            passes: The number of times that the whole split will be read. It affects only where the outputs are kept on
                an accelerator.

        Returns:
            The split with its stored outputs. It has none in the following cases, and the frozen layers are then
            computed at every step:

            - no layer is in the frozen prefix, or the store's limit is 0;
            - the model cannot start from stored outputs;
            - on a CPU, the store has no room for the outputs;
            - on an accelerator, computing the outputs at every step is fastest, see `Examples.placement`;
            - memory is exhausted.

            The reason is reported to the store's `on_problem`, except in the first and the fourth case.
        """
        if split.all_rows is not None and split.positions is not None:
            if self._all_folds is None or self._all_folds.split is not split.all_rows:
                self._all_folds = self.examples(split.all_rows, padding, {**description, "split": ALL_FOLDS}, passes)
            whole = self._all_folds
            return Examples(split, whole.prefix and whole.prefix.select(split.positions), whole.placement)
        if not self._depth or not self._can_start_from_states(split, padding):
            return Examples(split)
        retain_freed_memory()
        if self._device.accelerated:
            return self._accelerator.examples(
                split, padding, description, passes=passes, key_of=lambda: self._keys(split, self._depth)[-1]
            )
        started = time.perf_counter()
        keys = self._keys(split, self._depth)
        entry = self._store.open(keys[-1])
        reused = entry is not None and keys[-1] not in self._computed_here
        if entry is None:
            entry = self._build_entry(_StoreRequest(split, padding, keys, description), started)
        if entry is None:
            return Examples(split)
        rows = self._row_ranges(split, self._depth)
        return Examples(
            split,
            PrefixStates(self._depth, entry, entry.states, *rows, reused, self._first_only(self._depth)),
        )

    def store_computed(self) -> None:
        """Write prefix outputs computed on an accelerator to the store, if other runs of the plan will read them.

        Call this after the training, because writing to the disk takes time. On a CPU, the outputs are already stored.
        """
        self._accelerator.store_computed()

    def prepare(
        self,
        splits: Mapping[str, TokenizedSplit],
        padding: Padding,
        descriptions: Mapping[str, Mapping[str, str]],
        planned: PlannedDepths,
    ) -> None:
        """Compute and store the outputs of each split at all planned depths.

        Call this before any layer trains. Each split passes through the model once, up to the deepest planned depth. A
        split is skipped if its output at the depth of this prefix is already stored. If the store has no room for the
        outputs of all splits, nothing is stored, and each run computes the outputs that it needs.

        Nothing is done if no other depth than that of this prefix is planned. Nor is anything done on an accelerator,
        where computing the outputs takes less time than storing them.

        Args:
            splits: The tokenized splits, by name.
            padding: The padding token id and the padded side.
            descriptions: The human-readable description of the store entries of each split, by the split's name.
            planned: The depths that the runs of the plan need. Its `tried` is updated.
        """
        depths = sorted(depth for depth in planned.depths if 0 < depth <= len(self._stack.layers))
        if self._device.accelerated or not self._depth or not set(depths) - {self._depth} or not splits:
            return
        if not self._can_start_from_states(next(iter(splits.values())), padding):
            return
        started = time.perf_counter()
        keys = {name: self._keys(split, depths[-1]) for name, split in splits.items()}
        keys_s = (time.perf_counter() - started) / len(splits)
        missing = {
            name: [depth for depth in depths if not self._store.has(keys[name][depth])]
            for name in splits
            if not self._store.has(keys[name][self._depth]) and keys[name][depths[-1]] not in planned.tried
        }
        planned.tried.update(keys[name][depths[-1]] for name in missing)
        if (
            sum(self._bytes(splits[name], depth) for name in missing for depth in missing[name])
            > self._store.storable_bytes()
        ):
            return

        def work() -> None:
            for name, missing_depths in missing.items():
                self._store_depths(
                    _StoreRequest(splits[name], padding, keys[name], descriptions[name]), missing_depths, keys_s
                )

        # On exhausted memory nothing is reported here: each run will try its own depth, and report it then.
        none_if_out_of_memory(work, self._device.name, lambda: None)

    def _store_depths(self, request: _StoreRequest, depths: Sequence[int], keys_s: float) -> None:
        """Compute and store a split's hidden states at several depths in one forward pass.

        If the store has no room for one of the entries, none is stored. The recorded cost of an entry is the time that
        storing this entry alone would have taken: the time for computing the keys, for computing all layers up to its
        depth, and for writing the entry.

        Args:
            request: The split, with keys and description.
            depths: The depths, in ascending order.
            keys_s: The seconds that computing the keys took.
        """
        import torch

        split, keys = request.split, request.keys
        below = self._deepest_stored(split, keys[: depths[0]])
        base_s = keys_s + (below.entry.build_s if below else 0.0)
        spent = dict.fromkeys(depths, 0.0)
        drafts: dict[int, Draft] = {}
        self._stack.model.eval()
        with ExitStack() as stack, torch.no_grad(), autocast(self._device):
            order = evaluation_order(split.lengths, self._device.tokens_per_inference_batch)
            last = time.perf_counter()
            for batch in batches(split, order, request.padding, round_lengths=self._device.rounds_lengths):
                moved = self._copy_to_device(batch)
                states, start = (below.of(moved), below.depth) if below else (None, 0)
                so_far = 0.0
                for depth in depths:
                    states, start = self._forward.prefix(moved, depth, states, start), depth
                    on_cpu = states.cpu()
                    now = time.perf_counter()
                    so_far, last = so_far + now - last, now
                    rows = self._row_ranges(split, depth)
                    if depth not in drafts:
                        draft = self._store.create(keys[depth], int(rows[1].sum()), on_cpu.shape[-1], on_cpu.dtype)
                        if draft is None:  # the store has reported the reason
                            return
                        drafts[depth] = stack.enter_context(draft)
                    write_rows(on_cpu, batch, rows, drafts[depth].states)
                    now = time.perf_counter()
                    spent[depth] += so_far + now - last
                    last = now
            for depth, draft in drafts.items():
                draft.commit(base_s + spent[depth], {**request.description, "depth": str(depth)})
                self._computed_here.add(keys[depth])

    def _bytes(self, split: TokenizedSplit, depth: int) -> int:
        """Return the size in bytes that a split's entry at this depth has in fp32. In other formats it is smaller."""
        width = int(getattr(self._stack.model.config, "hidden_size", 0)) or self._stack.shape.hidden_size
        return int(self._row_ranges(split, depth)[1].sum()) * width * 4

    def _row_ranges(self, split: TokenizedSplit, depth: int) -> tuple[Tensor, Tensor]:
        """Return the position of each example in the stored array at a depth.

        Returns:
            The first row and the number of rows of each example: int64 `[examples]` each.
        """
        return rows_of(split, first_only=self._first_only(depth))

    def _first_only(self, depth: int) -> bool:
        """Return whether the entries at this depth contain only the first token of each example."""
        return depth == len(self._stack.layers) and self._forward.last_layer != "whole"

    def _build_entry(self, request: _StoreRequest, started: float) -> StoredStates | None:
        """Compute and store this prefix's outputs for a split.

        If outputs of shallower prefixes are stored, the computation starts from those of the deepest. While it reads
        them, their entry cannot be evicted. If the store has no room for the new entry because of this, the outputs are
        computed from the token ids instead.

        Args:
            request: The split, with keys and description.
            started: The reading of `time.perf_counter` from which the entry's cost is counted.

        Returns:
            The new entry; None if the store has no room or memory is exhausted.
        """

        def work() -> StoredStates | None:
            below = self._deepest_stored(request.split, request.keys[:-1])
            entry = self._fill_entry(request, below, started)
            if entry is None and below is not None:
                below = None  # drops the reference, so that the store may evict the entry
                entry = self._fill_entry(request, None, started)
            return entry

        return none_if_out_of_memory(
            work, self._device.name, lambda: self._store.report_exhausted(self._device.tokens_per_inference_batch)
        )

    def _fill_entry(self, request: _StoreRequest, below: PrefixStates | None, started: float) -> StoredStates | None:
        """Compute and store this prefix's outputs for a split; return None if the store has no room.

        Args:
            request: The split, with keys and description.
            below: The stored states of a shallower prefix to start from; None starts from the token ids.
            started: The reading of `time.perf_counter` from which the entry's cost is counted.
        """
        import torch

        self._stack.model.eval()
        rows = self._row_ranges(request.split, self._depth)
        with torch.no_grad(), autocast(self._device):
            computed = self._compute_batches(request, below)
            first = next(computed)
            draft = self._store.create(request.keys[-1], int(rows[1].sum()), first[1].shape[-1], first[1].dtype)
            if draft is None:
                return None
            with draft:
                for batch, states in chain([first], computed):
                    write_rows(states, batch, rows, draft.states)
                spent = time.perf_counter() - started + (below.entry.build_s if below else 0.0)
                return draft.commit(spent, {**request.description, "depth": str(self._depth)})

    def _compute_batches(self, request: _StoreRequest, below: PrefixStates | None) -> Iterator[tuple[Batch, Tensor]]:
        """Compute this prefix's outputs for a split, and yield each batch with its outputs on the CPU.

        The outputs are `[batch, tokens, hidden]`, or `[batch, 1, hidden]` if only first tokens are stored. They are
        computed from `below`, the stored states of a shallower prefix, or from the token ids if `below` is None.
        """
        order = evaluation_order(request.split.lengths, self._device.tokens_per_inference_batch)
        for batch in batches(request.split, order, request.padding, round_lengths=self._device.rounds_lengths):
            moved = self._copy_to_device(batch)
            below_states, start = (below.of(moved), below.depth) if below else (None, 0)
            yield batch, self._forward.prefix(moved, self._depth, below_states, start).cpu()

    def _deepest_stored(self, split: TokenizedSplit, keys: Sequence[str]) -> PrefixStates | None:
        """Return a split's stored states at the greatest depth for which the store has an entry; None if it has none.

        Args:
            split: The split whose states are looked up.
            keys: The store's key for each depth, from 0. Depth 0 (embeddings alone) is never stored and not looked up.
        """
        import torch

        for depth in range(len(keys) - 1, 0, -1):
            entry = self._store.open(keys[depth])
            if entry is not None:
                starts, lengths = split.offsets[:-1], torch.from_numpy(split.lengths)
                return PrefixStates(depth, entry, entry.states, starts, lengths, True, self._first_only(depth))
        return None

    def _can_start_from_states(self, split: TokenizedSplit, padding: Padding) -> bool:
        """Return whether the model gives the same logits for stored hidden states as for the token ids.

        The logits differ if the layers receive information from the embeddings in addition to the hidden states. A few
        examples are compared, once per object, and a difference is reported. Then the longest example is compared again
        without its last token: some architectures (such as Longformer) process tokens in chunks of a fixed size, and
        their embeddings pad each batch to whole chunks.
        """
        if self._starts_from_states is None:
            problem = self._difference_of_logits(split, padding)
            if problem is None and (shorter := _longest_example_shortened(split)) is not None:
                problem = self._difference_of_logits(shorter, padding)
            self._starts_from_states = problem is None
            if problem:
                self._store.on_problem(
                    f"{type(self._stack.model).__name__} cannot be started from the outputs of its lower layers "
                    f"({problem}): frozen layers are computed at every step"
                )
        return self._starts_from_states

    def _difference_of_logits(self, split: TokenizedSplit, padding: Padding) -> str | None:
        """Describe the difference between logits computed from stored states and logits computed from token ids.

        Returns:
            The description, or that of the error if the model raises one; None if the logits agree.
        """
        import numpy as np
        import torch

        self._stack.model.eval()
        by_length = np.argsort(split.lengths, kind="stable")
        few = np.unique(by_length[[0, len(by_length) // 2, -1]])
        batch = collate(split, few, padding)
        moved = self._copy_to_device(batch)
        try:
            with torch.no_grad(), autocast(self._device):
                from_ids = self._forward.logits(moved)
                states = self._forward.prefix(moved, self._depth)
                stored = self._states_of_batch(states, split, batch)
                from_states = self._forward.logits(moved, self._depth, stored.of(moved))
                if batch.token_targets:  # the logits of padding are never used
                    from_ids, from_states = (logits[moved.attention_mask.bool()] for logits in (from_ids, from_states))
        except Exception as error:  # a third-party architecture may raise any error on unexpected inputs
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise
            return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        gap, scale = float((from_ids - from_states).abs().max()), float(from_ids.abs().max())
        return None if gap <= SPLIT_TOLERANCE * scale + 1e-6 else f"its outputs change by {gap:.2g} of {scale:.2g}"

    def _states_of_batch(self, states: Tensor, split: TokenizedSplit, batch: Batch) -> PrefixStates:
        """Return the frozen prefix's outputs for one batch as a `PrefixStates` of its split.

        The states hold only the examples of the batch: do not read other examples of the split from them.
        """
        import torch

        if self._device.accelerated:
            return self._accelerator.of_batch(states, split, batch)
        starts, lengths = self._row_ranges(split, self._depth)
        array = torch.zeros(int(lengths.sum()), states.shape[-1], dtype=states.dtype)
        write_rows(states.cpu(), batch, (starts, lengths), array)
        entry = StoredStates(array, 0.0)
        return PrefixStates(self._depth, entry, array, starts, lengths, False, self._first_only(self._depth))

    def _copy_to_device(self, batch: Batch) -> Batch:
        """Return a copy of a batch, moved to the model's device."""
        return batch.to(self._device.name, pinned=self._device.pins_memory)

    def _keys(self, split: TokenizedSplit, depth: int) -> list[str]:
        """Return the store's keys for the outputs of the lowest 0, 1, …, `depth` layers for a split.

        A key is a digest of everything that determines the outputs: the texts, the weights, and the settings of the
        computation.
        """
        import xxhash

        texts = xxhash.xxh3_128()
        for tensor in (split.input_ids, split.offsets, split.token_type_ids):
            texts.update(b"none" if tensor is None else tensor.numpy().data)
        if self._weights is None or len(self._weights) <= depth:
            self._weights = self._weight_digests(depth)
        weights = self._weights[: depth + 1]
        return [xxhash.xxh3_128_hexdigest(f"{values} {texts.hexdigest()}".encode()) for values in weights]

    def _weight_digests(self, depth: int) -> list[str]:
        """Return a digest of the weights and settings that determine the outputs of the lowest 0, 1, …, `depth` layers.

        The result has one digest for each of these numbers of layers.
        """
        import torch
        import xxhash

        digest = xxhash.xxh3_128()
        model: Any = self._stack.model
        config = {name: value for name, value in model.config.to_dict().items() if name not in TASK_CONFIG_FIELDS}
        device = self._device
        made_by = (
            FORMAT,
            __version__,
            device.tokens_per_inference_batch,
            self._forward.name,
            device.name,
            device.model_name,
            device.precision,
        )
        # With a different number of threads, the terms of a sum are added in a different order.
        computed_with = (torch.__version__, torch.get_num_threads() if device.name == "cpu" else 0)
        described = (*made_by, *computed_with, len(self._stack.layers), sorted(config.items(), key=str))
        digest.update(repr(described).encode())
        _add_values(digest, self._stack.embeddings)
        digests = [digest.hexdigest()]
        for layer in self._stack.layers[:depth]:
            _add_values(digest, (layer,))
            digests.append(digest.hexdigest())
        if self._stack.reads_tokens and depth == len(self._stack.layers):  # else only the first token is stored
            digest.update(b"every token")
            digests[-1] = digest.hexdigest()
        return digests


def _longest_example_shortened(split: TokenizedSplit) -> TokenizedSplit | None:
    """Return a split with only the longest example, without its last token; None if no token would remain."""
    import torch

    longest = int(split.lengths.argmax())
    start, end = int(split.offsets[longest]), int(split.offsets[longest + 1]) - 1
    if start >= end:
        return None
    tokens = slice(start, end)
    return replace(
        split,
        input_ids=split.input_ids[tokens],
        token_type_ids=None if split.token_type_ids is None else split.token_type_ids[tokens],
        offsets=torch.tensor([0, end - start]),
        targets=split.targets[tokens] if split.token_targets else split.targets[longest : longest + 1],
        ids=split.ids[:1],
        all_rows=None,
        positions=None,
    )


def _add_values(digest: Any, modules: tuple[torch.nn.Module, ...]) -> None:
    """Update a hash object with the names, shapes, dtypes and values of all tensors in these modules."""
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
