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

from alue_bench import __version__
from alue_bench.data.batches import Batch, batches, collate, evaluation_order
from alue_bench.data.tokenisation import TokenisedSplit
from alue_bench.training.encoder_stack import EncoderStack
from alue_bench.training.forward import Forward
from alue_bench.training.memory_limit import is_out_of_memory, release
from alue_bench.training.precision import Device, autocast
from alue_bench.training.prefix_store import Entry, PrefixStore

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT = 2
"""Increase when what is stored under a key changes."""
TOKENS_PER_BATCH = 8192
"""Padded tokens computed at a time. The batches, and with them the last bits of the states, depend on nothing else."""
SPLIT_TOLERANCE = 1e-3
"""How far outputs may differ, relative to the largest, when the model starts from stored states."""
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
        first_only = len(self.states) == len(self.starts)
        width = 1 if first_only else batch.attention_mask.shape[1]
        places, tokens = _token_places(batch, self.starts, self.lengths, width)
        places = torch.where(tokens, places, 0)
        if self.states.is_cuda:
            places = places.pin_memory()
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


class FrozenPrefix:
    """The lowest `depth` layers and the embeddings of a model in training, frozen: what they put out for a split."""

    def __init__(
        self, stack: EncoderStack, forward: Forward, depth: int | None, *, store: PrefixStore | None, device: Device
    ) -> None:
        """depth: None where there is no prefix. store: None, or one with a limit of 0, keeps nothing."""
        self._stack = stack
        self._forward = forward
        # Embeddings alone are cheaper to look up again than to keep.
        self._depth = depth if depth and store is not None and store.limit_bytes else 0
        self._store: Any = store
        self._device = device
        self._weights: list[str] | None = None
        self._splits: bool | None = None

    def examples(self, split: TokenisedSplit, pad_id: int, description: Mapping[str, str]) -> Examples:
        """The split with the states behind the prefix, from the store or computed and put there.

        Without them, for recomputation at every step, where there is no prefix, no room in the store, or no way to
        start the model from such states; the store reports which. description: for people, of the entry.
        """
        if not self._depth or not self._can_start_from_states(split, pad_id):
            return Examples(split)
        started = time.perf_counter()
        keys = self._keys(split)
        places = self._places(split)
        entry = self._store.open(keys[-1])
        reused = entry is not None
        if entry is None:
            entry = self._built(split, keys, places, pad_id, description, started)
        if entry is None:
            return Examples(split)
        return Examples(split, PrefixStates(self._depth, entry, _placed(entry.states, self._device), *places, reused))

    def _places(self, split: TokenisedSplit) -> tuple[Tensor, Tensor]:
        """Where each example's states begin, and how many there are: int64 [n] each."""
        import torch

        if self._depth == len(self._stack.layers) and self._forward.head_reads_first:
            return torch.arange(len(split)), torch.ones(len(split), dtype=torch.int64)
        return split.offsets[:-1], torch.from_numpy(split.lengths)

    def _built(
        self,
        split: TokenisedSplit,
        keys: list[str],
        places: tuple[Tensor, Tensor],
        pad_id: int,
        description: Mapping[str, str],
        started: float,
    ) -> Entry | None:
        """From the deepest shallower prefix that is there, or, where that one takes the room, from the texts."""
        try:
            below = self._deepest(split, keys)
            entry = self._filled(split, keys[-1], places, pad_id, description, started, below)
            if entry is None and below is not None:
                below = None  # lets go of it: the store may evict it
                entry = self._filled(split, keys[-1], places, pad_id, description, started, None)
            return entry
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._store.on_problem(
                f"the memory does not hold {TOKENS_PER_BATCH} tokens: frozen layers are computed at every step"
            )
        release(self._device.name)
        return None

    def _filled(
        self,
        split: TokenisedSplit,
        key: str,
        places: tuple[Tensor, Tensor],
        pad_id: int,
        description: Mapping[str, str],
        started: float,
        below: PrefixStates | None,
    ) -> Entry | None:
        import torch

        self._stack.model.eval()
        with torch.no_grad(), autocast(self._device):
            found = self._computed(split, pad_id, below)
            first = next(found)
            draft = self._store.create(key, int(places[1].sum()), first[1].shape[-1], first[1].dtype)
            if draft is None:
                return None
            with draft:
                for batch, states in chain([first], found):
                    _put(states, batch, places, draft.states)
                spent = time.perf_counter() - started + (below.entry.build_s if below else 0.0)
                entry: Entry = draft.commit(spent, {**description, "depth": str(self._depth)})
                return entry

    def _computed(
        self, split: TokenisedSplit, pad_id: int, below: PrefixStates | None
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Batches and their states [b, s, d] or [b, 1, d], on the CPU."""
        order = evaluation_order(split.lengths, TOKENS_PER_BATCH)
        for batch in batches(split, order, pad_id, few_lengths=self._device.few_lengths):
            moved = batch.to(self._device.name)
            given, start = (below.of(moved), below.depth) if below else (None, 0)
            yield batch, self._forward.prefix(moved, self._depth, given, start).cpu()

    def _deepest(self, split: TokenisedSplit, keys: list[str]) -> PrefixStates | None:
        """The deepest shallower prefix that is there already."""
        import torch

        for depth in range(self._depth - 1, 0, -1):
            entry = self._store.open(keys[depth])
            if entry is not None:
                starts, lengths = split.offsets[:-1], torch.from_numpy(split.lengths)
                return PrefixStates(depth, entry, entry.states, starts, lengths, reused=True)
        return None

    def _can_start_from_states(self, split: TokenisedSplit, pad_id: int) -> bool:
        """Whether a few examples give the same logits from stored states as from their texts.

        Not so where something beside embeddings and layers carries information from the one to the other.
        """
        if self._splits is None:
            problem = self._split_problem(split, pad_id)
            self._splits = problem is None
            if problem:
                self._store.on_problem(
                    f"{type(self._stack.model).__name__} cannot be started from the outputs of its lower layers "
                    f"({problem}): frozen layers are computed at every step"
                )
        return self._splits

    def _split_problem(self, split: TokenisedSplit, pad_id: int) -> str | None:
        import numpy as np
        import torch

        self._stack.model.eval()
        by_length = np.argsort(split.lengths, kind="stable")
        few = np.unique(by_length[[0, len(by_length) // 2, -1]])
        batch = collate(split, few, pad_id)
        moved = batch.to(self._device.name)
        try:
            with torch.no_grad(), autocast(self._device):
                whole = self._forward.logits(moved)
                states = self._forward.prefix(moved, self._depth)
                starts, lengths = self._places(split)
                kept = torch.zeros(int(lengths.sum()), states.shape[-1], dtype=states.dtype)
                _put(states.cpu(), batch, (starts, lengths), kept)
                entry = Entry(kept, 0.0)
                stored = PrefixStates(self._depth, entry, kept, starts, lengths, reused=False)
                parted = self._forward.logits(moved, self._depth, stored.of(moved))
        except Exception as error:  # whatever a stranger's architecture does with what it does not expect
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise
            return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        gap, scale = float((whole - parted).abs().max()), float(whole.abs().max())
        return None if gap <= SPLIT_TOLERANCE * scale + 1e-6 else f"its outputs change by {gap:.2g} of {scale:.2g}"

    def _keys(self, split: TokenisedSplit) -> list[str]:
        """A digest for each number of layers from 0 to `depth`, of all that determines the states behind them."""
        import xxhash

        texts = xxhash.xxh3_128()
        for tensor in (split.input_ids, split.offsets, split.token_type_ids):
            texts.update(b"none" if tensor is None else tensor.numpy().data)
        if self._weights is None:
            self._weights = self._weight_digests()
        return [xxhash.xxh3_128_hexdigest(f"{weights} {texts.hexdigest()}".encode()) for weights in self._weights]

    def _weight_digests(self) -> list[str]:
        """One for each number of layers from 0 to `depth`, with everything else but the texts."""
        import torch
        import xxhash

        digest = xxhash.xxh3_128()
        model: Any = self._stack.model
        config = {name: value for name, value in model.config.to_dict().items() if name not in NOT_THE_ENCODERS}
        device = self._device
        made_by = (
            FORMAT,
            __version__,
            TOKENS_PER_BATCH,
            self._forward.name,
            device.name,
            device.make,
            device.precision,
        )
        computed_with = (torch.__version__, torch.get_num_threads())
        described = (*made_by, *computed_with, len(self._stack.layers), sorted(config.items(), key=str))
        digest.update(repr(described).encode())
        _add_values(digest, self._stack.embeddings)
        found = [digest.hexdigest()]
        for layer in self._stack.layers[: self._depth]:
            _add_values(digest, (layer,))
            found.append(digest.hexdigest())
        return found


def _placed(states: Tensor, device: Device) -> Tensor:
    """On the GPU, where that leaves it more than half of its free memory; else where they are."""
    if device.name == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info()
        if states.nbytes < free / 2:
            return states.to("cuda")
    return states


def _put(states: Tensor, batch: Batch, places: tuple[Tensor, Tensor], kept: Tensor) -> None:
    """Store a batch's states [b, s, d] (s of 1 where first tokens are kept) without padding."""
    into, tokens = _token_places(batch, *places, states.shape[1])
    kept[into[tokens]] = states[tokens]


def _token_places(batch: Batch, starts: Tensor, lengths: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Where the states of a batch's tokens are kept, and which of them are tokens, not padding: [b, width] each."""
    import torch

    steps = torch.arange(width)[None]
    return starts[batch.indices, None] + steps, steps < lengths[batch.indices, None]


def _add_values(digest: Any, modules: tuple[torch.nn.Module, ...]) -> None:
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
