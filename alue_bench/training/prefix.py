"""The frozen prefix of a model over a split, computed once.

Embeddings and the contiguous frozen layers above them give the same output for an example in every epoch, every run
and every invocation: nothing in them trains, and no dropout is on in them. So it is computed once, kept without padding
in a `PrefixStore`, and handed to the first layer that trains.

Entries are addressed by all that determines their content: the values of the weights, the configuration, the token ids,
the number format, the way through the model, the library's version. A deeper prefix starts from a shallower one that is
there already: the depths of a sweep share their work.

Notation: n examples, t tokens of all of them together, b examples in a batch, s tokens of each, d hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from alue_bench.data.batches import Batch, batches, evaluation_order
from alue_bench.data.tokenisation import TokenisedSplit
from alue_bench.training.encoder_stack import EncoderStack
from alue_bench.training.forward import Forward
from alue_bench.training.precision import Device, autocast
from alue_bench.training.prefix_store import Entry, PrefixStore

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT = 1
"""Increase when what is stored under a key changes."""
TOKENS_PER_BATCH = 8192
"""Padded tokens computed at a time. The batches, and with them the last bits of the states, depend on nothing else."""
NOT_THE_ENCODERS = ("num_labels", "id2label", "label2id", "problem_type", "classifier_dropout", "_name_or_path")
"""Fields of a configuration that differ between tasks and do not touch the encoder."""


@dataclass(frozen=True)
class PrefixStates:
    """What layer `depth` reads, for each example of a split; behind the last layer, perhaps the first token alone."""

    depth: int
    entry: Entry
    """From the store; to hold it keeps it from being evicted."""
    states: Tensor
    """[t, d], or [n, d] of first tokens, on the device where it has room for them."""
    starts: Tensor
    """Where each example's states begin, and in `lengths` how many there are: int64 [n], on the CPU."""
    lengths: Tensor
    reused: bool
    """Whether they were there already."""

    def of(self, batch: Batch) -> Tensor:
        """[b, s, d], or [b, 1, d] of first tokens, on the batch's device. Padding has the states of some token: finite,
        and masked."""
        import torch

        device = batch.attention_mask.device
        starts, lengths = self.starts[batch.indices, None], self.lengths[batch.indices, None]  # [b, 1]
        steps = torch.arange(int(lengths.max()))[None]  # [1, s]
        places = torch.where(steps < lengths, starts + steps, 0)  # [b, s]
        found = self.states.index_select(0, places.flatten().to(self.states.device, non_blocking=True))
        if found.device != device:
            found = found.pin_memory()
        return found.view(*places.shape, -1).to(device, non_blocking=True)


@dataclass(frozen=True)
class Examples:
    """A split, with what its frozen prefix gives where that is at hand."""

    split: TokenisedSplit
    prefix: PrefixStates | None = None

    @property
    def depth(self) -> int:
        """How many layers need not be computed."""
        return self.prefix.depth if self.prefix else 0

    def logits(self, forward: Forward, batch: Batch) -> Tensor:
        """[b, outputs]."""
        if self.prefix is None:
            return forward.logits(batch)
        return forward.logits(batch, self.prefix.depth, self.prefix.of(batch))


def with_prefix(
    split: TokenisedSplit,
    stack: EncoderStack,
    forward: Forward,
    depth: int | None,
    *,
    store: PrefixStore | None,
    device: Device,
    pad_id: int,
    description: Mapping[str, str],
) -> Examples:
    """The split with the states behind `depth` frozen layers, from the store or computed and put there.

    Without them, for recomputation at every step, where there is no frozen layer (embeddings alone are cheaper to look
    up again), no store, or no room in it (which the store reports).
    """
    if not depth or store is None or store.limit_bytes == 0:
        return Examples(split)
    import torch

    keys = _keys(stack, forward, depth, split, device)
    starts, lengths = split.offsets[:-1], torch.from_numpy(split.lengths)
    if depth == len(stack.layers) and forward.head_reads_first:
        starts, lengths = torch.arange(len(split)), torch.ones(len(split), dtype=torch.int64)
    entry = store.open(keys[depth])
    reused = entry is not None
    if entry is None:
        entry = _build(split, stack, forward, keys, starts, lengths, store, device, pad_id, description)
    if entry is None:
        return Examples(split)
    return Examples(split, PrefixStates(depth, entry, _placed(entry.states, device), starts, lengths, reused))


def _placed(states: Tensor, device: Device) -> Tensor:
    """On the GPU, where that leaves it more than half of its free memory; else where they are."""
    if device.name == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info()
        if states.nbytes < free / 2:
            return states.to("cuda")
    return states


def _build(
    split: TokenisedSplit,
    stack: EncoderStack,
    forward: Forward,
    keys: list[str],
    starts: Tensor,
    lengths: Tensor,
    store: PrefixStore,
    device: Device,
    pad_id: int,
    description: Mapping[str, str],
) -> Entry | None:
    import torch

    depth = len(keys) - 1
    below, base = _deepest(store, keys, split)
    stack.model.eval()
    started = time.perf_counter()

    def computed() -> Iterator[tuple[Batch, Tensor]]:
        for batch in batches(split, evaluation_order(split.lengths, TOKENS_PER_BATCH), pad_id):
            moved = batch.to(device.name)
            yield batch, forward.prefix(moved, depth, base.of(moved) if base else None, below).cpu()

    with torch.no_grad(), autocast(device):
        found = computed()
        first = next(found)
        draft = store.create(keys[depth], int(lengths.sum()), first[1].shape[-1], first[1].dtype)
        if draft is None:
            return None
        with draft:
            for batch, states in chain([first], found):
                _put(states, batch, starts, lengths, draft.states)
            spent = time.perf_counter() - started + (base.entry.build_s if base else 0.0)
            return draft.commit(spent, {**description, "depth": str(depth)})


def _put(states: Tensor, batch: Batch, starts: Tensor, lengths: Tensor, kept: Tensor) -> None:
    """Store a batch's states [b, s, d] (s of 1 where first tokens are kept) without padding."""
    import torch

    steps = torch.arange(states.shape[1])[None]  # [1, s]
    mask = steps < lengths[batch.indices, None]  # [b, s]
    kept[(starts[batch.indices, None] + steps)[mask]] = states[mask]


def _deepest(store: PrefixStore, keys: list[str], split: TokenisedSplit) -> tuple[int, PrefixStates | None]:
    """The deepest shallower prefix that is there already."""
    import torch

    for depth in range(len(keys) - 2, 0, -1):
        entry = store.open(keys[depth])
        if entry is not None:
            starts, lengths = split.offsets[:-1], torch.from_numpy(split.lengths)
            return depth, PrefixStates(depth, entry, entry.states, starts, lengths, reused=True)
    return 0, None


def _keys(stack: EncoderStack, forward: Forward, depth: int, split: TokenisedSplit, device: Device) -> list[str]:
    """A digest for each number of layers from 0 to `depth`, of all that determines the states behind them."""
    import torch
    import xxhash

    digest = xxhash.xxh3_128()
    model: Any = stack.model
    config = {name: value for name, value in model.config.to_dict().items() if name not in NOT_THE_ENCODERS}
    made_by = (FORMAT, TOKENS_PER_BATCH, forward.name, device.name, device.make, device.precision)
    computed_with = (torch.__version__, torch.get_num_threads())
    digest.update(repr((*made_by, *computed_with, len(stack.layers), sorted(config.items(), key=str))).encode())
    for tensor in (split.input_ids, split.offsets, split.token_type_ids):
        digest.update(b"none" if tensor is None else tensor.numpy().data)
    _add_values(digest, stack.embeddings)
    keys = [digest.hexdigest()]
    for layer in stack.layers[:depth]:
        _add_values(digest, (layer,))
        keys.append(digest.hexdigest())
    return keys


def _add_values(digest: Any, modules: tuple[torch.nn.Module, ...]) -> None:
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
