"""The frozen prefix of a model over a split, computed once.

Embeddings and the contiguous frozen layers above them give the same output for an example in every epoch, every run
and every invocation: nothing in them trains, and no dropout is on in them. So it is computed once, kept without padding
in a `PrefixStore`, and handed to the first layer that trains.

Entries are addressed by all that determines their content: the values of the weights, the configuration, the token ids,
the number format, the way through the model, the library's version. A deeper prefix starts from a shallower one that is
there already; and where a plan says which depths its runs need, one pass over the texts stores all of them on its way
to the deepest. Either way an entry has the same content, and is charged what it takes to compute it alone.

Notation: n examples, t tokens of all of them together, b examples in a batch, s tokens of each, d hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from alue_bench import __version__
from alue_bench.data.batches import Batch, Padding, batches, collate, evaluation_order
from alue_bench.data.tokenisation import TokenisedSplit
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.device.errors import is_out_of_memory, release
from alue_bench.training.device.host_memory import keep_freed
from alue_bench.training.device.precision import Device, autocast
from alue_bench.training.forward import Forward
from alue_bench.training.prefix.store import Draft, PrefixStore, StoredStates

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FORMAT = 3
"""Increase when what is stored under a key changes."""
SPLIT_TOLERANCE = 1e-3
"""How far outputs may differ, relative to the largest, when the model starts from stored states."""
NOT_THE_ENCODERS = ("num_labels", "id2label", "label2id", "problem_type", "classifier_dropout", "_name_or_path")
"""Fields of a configuration that differ between tasks and do not touch the encoder."""


@dataclass(frozen=True)
class PrefixStates:
    """What layer `depth` reads, for each example of a split; behind the last layer, perhaps the first token alone."""

    depth: int
    entry: StoredStates
    """From the store; to hold it keeps it from being evicted."""
    states: Tensor
    """[t, d], or [n, d] of first tokens, on the device where it has room for them."""
    starts: Tensor
    """Where each example's states begin, and in `lengths` how many there are: int64 [n], on the CPU."""
    lengths: Tensor
    reused: bool
    """Whether they were there already."""
    placed_s: float = 0.0
    """Seconds that went into copying them to the device."""

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

    def states(self, batch: Batch) -> Tensor | None:
        """Those behind the prefix, where they are at hand: see `PrefixStates.of`."""
        return None if self.prefix is None else self.prefix.of(batch)

    def logits(self, forward: Forward, batch: Batch) -> Tensor:
        """[b, outputs]."""
        return forward.logits(batch, self.depth, self.states(batch))


@dataclass(frozen=True)
class _Wanted:
    """States of a split that are to be stored."""

    split: TokenisedSplit
    padding: Padding
    keys: Sequence[str]
    """By the number of layers, from 0."""
    description: Mapping[str, str]
    """For people, of the entries."""


@dataclass
class PlannedDepths:
    """How deep the frozen prefixes of a plan's runs are that start from one model and train on one task."""

    depths: set[int] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)
    """Keys of what was computed for all depths together: where it did not stay, each run computes its own again."""


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
        self._computed_here: set[str] = set()

    def examples(self, split: TokenisedSplit, padding: Padding, description: Mapping[str, str]) -> Examples:
        """The split with the states behind the prefix, from the store or computed and put there.

        Without them, for recomputation at every step, where there is no prefix, no room in the store, or no way to
        start the model from such states; the store reports which. description: for people, of the entry.
        """
        if not self._depth or not self._can_start_from_states(split, padding):
            return Examples(split)
        keep_freed()
        started = time.perf_counter()
        keys = self._keys(split, self._depth)
        entry = self._store.open(keys[-1])
        reused = entry is not None and keys[-1] not in self._computed_here
        if entry is None:
            entry = self._built(_Wanted(split, padding, keys, description), started)
        if entry is None:
            return Examples(split)
        began = time.perf_counter()
        states = _placed(entry.states, self._device)
        placed_s = time.perf_counter() - began if states is not entry.states else 0.0
        places = self._places(split, self._depth)
        return Examples(split, PrefixStates(self._depth, entry, states, *places, reused, placed_s))

    def prepare(
        self,
        splits: Mapping[str, TokenisedSplit],
        padding: Padding,
        descriptions: Mapping[str, Mapping[str, str]],
        planned: PlannedDepths,
    ) -> None:
        """Store what the prefixes of all planned depths put out for these splits, where this one is not there yet.

        To be called before any layer trains. Each split is passed through the model once, to the deepest layer needed.
        Where the store has not the room for all of it, nothing is done: each run then computes what it needs.
        """
        depths = sorted(depth for depth in planned.depths if 0 < depth <= len(self._stack.layers))
        if not self._depth or not set(depths) - {self._depth} or not splits:
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
        if sum(self._bytes(splits[name], depth) for name in missing for depth in missing[name]) > self._store.room():
            return
        try:
            for name, of_split in missing.items():
                self._pass(_Wanted(splits[name], padding, keys[name], descriptions[name]), of_split, keys_s)
            return
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        release(self._device.name)  # each run tries its own part, and says what does not fit

    def _pass(self, wanted: _Wanted, depths: Sequence[int], keys_s: float) -> None:
        """One pass over a split that stores the states at each of these depths, in ascending order.

        The cost of an entry is that of the layers below it and of storing it, as if it were the only one, and the
        seconds that the keys took.
        """
        import torch

        split, keys = wanted.split, wanted.keys
        below = self._deepest(split, keys[: depths[0]])
        base_s = keys_s + (below.entry.build_s if below else 0.0)
        spent = dict.fromkeys(depths, 0.0)
        drafts: dict[int, Draft] = {}
        self._stack.model.eval()
        with ExitStack() as stack, torch.no_grad(), autocast(self._device):
            order = evaluation_order(split.lengths, self._device.tokens_at_once)
            last = time.perf_counter()
            for batch in batches(split, order, wanted.padding, few_lengths=self._device.few_lengths):
                moved = batch.to(self._device.name)
                states, start = (below.of(moved), below.depth) if below else (None, 0)
                so_far = 0.0
                for depth in depths:
                    states, start = self._forward.prefix(moved, depth, states, start), depth
                    kept = states.cpu()
                    now = time.perf_counter()
                    so_far, last = so_far + now - last, now
                    places = self._places(split, depth)
                    if depth not in drafts:
                        draft = self._store.create(keys[depth], int(places[1].sum()), kept.shape[-1], kept.dtype)
                        if draft is None:  # the store has said why
                            return
                        drafts[depth] = stack.enter_context(draft)
                    _put(kept, batch, places, drafts[depth].states)
                    now = time.perf_counter()
                    spent[depth] += so_far + now - last
                    last = now
            for depth, draft in drafts.items():
                draft.commit(base_s + spent[depth], {**wanted.description, "depth": str(depth)})
                self._computed_here.add(keys[depth])

    def _bytes(self, split: TokenisedSplit, depth: int) -> int:
        """What an entry takes, at most."""
        width = int(getattr(self._stack.model.config, "hidden_size", 0)) or self._stack.shape.hidden_size
        return int(self._places(split, depth)[1].sum()) * width * 4

    def _places(self, split: TokenisedSplit, depth: int) -> tuple[Tensor, Tensor]:
        """Where each example's states begin, and how many there are: int64 [n] each."""
        import torch

        if depth == len(self._stack.layers) and self._forward.head_reads_first:
            return torch.arange(len(split)), torch.ones(len(split), dtype=torch.int64)
        return split.offsets[:-1], torch.from_numpy(split.lengths)

    def _built(self, wanted: _Wanted, started: float) -> StoredStates | None:
        """From the deepest shallower prefix that is there, or, where that one takes the room, from the texts."""
        try:
            below = self._deepest(wanted.split, wanted.keys[:-1])
            entry = self._filled(wanted, below, started)
            if entry is None and below is not None:
                below = None  # lets go of it: the store may evict it
                entry = self._filled(wanted, None, started)
            return entry
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            self._store.on_problem(
                f"the memory does not hold {self._device.tokens_at_once} tokens: "
                "frozen layers are computed at every step"
            )
        release(self._device.name)
        return None

    def _filled(self, wanted: _Wanted, below: PrefixStates | None, started: float) -> StoredStates | None:
        """None where the store has no room. started: when the clock of the entry's cost began."""
        import torch

        self._stack.model.eval()
        places = self._places(wanted.split, self._depth)
        with torch.no_grad(), autocast(self._device):
            found = self._computed(wanted, below)
            first = next(found)
            draft = self._store.create(wanted.keys[-1], int(places[1].sum()), first[1].shape[-1], first[1].dtype)
            if draft is None:
                return None
            with draft:
                for batch, states in chain([first], found):
                    _put(states, batch, places, draft.states)
                spent = time.perf_counter() - started + (below.entry.build_s if below else 0.0)
                entry: StoredStates = draft.commit(spent, {**wanted.description, "depth": str(self._depth)})
                return entry

    def _computed(self, wanted: _Wanted, below: PrefixStates | None) -> Iterator[tuple[Batch, Tensor]]:
        """Batches and their states [b, s, d] or [b, 1, d], on the CPU."""
        order = evaluation_order(wanted.split.lengths, self._device.tokens_at_once)
        for batch in batches(wanted.split, order, wanted.padding, few_lengths=self._device.few_lengths):
            moved = batch.to(self._device.name)
            given, start = (below.of(moved), below.depth) if below else (None, 0)
            yield batch, self._forward.prefix(moved, self._depth, given, start).cpu()

    def _deepest(self, split: TokenisedSplit, keys: Sequence[str]) -> PrefixStates | None:
        """The deepest prefix that is there already, of these keys by depth from 0."""
        import torch

        for depth in range(len(keys) - 1, 0, -1):
            entry = self._store.open(keys[depth])
            if entry is not None:
                starts, lengths = split.offsets[:-1], torch.from_numpy(split.lengths)
                return PrefixStates(depth, entry, entry.states, starts, lengths, reused=True)
        return None

    def _can_start_from_states(self, split: TokenisedSplit, padding: Padding) -> bool:
        """Whether a few examples give the same logits from stored states as from their texts.

        Not so where something beside embeddings and layers carries information from the one to the other.
        """
        if self._splits is None:
            problem = self._split_problem(split, padding)
            self._splits = problem is None
            if problem:
                self._store.on_problem(
                    f"{type(self._stack.model).__name__} cannot be started from the outputs of its lower layers "
                    f"({problem}): frozen layers are computed at every step"
                )
        return self._splits

    def _split_problem(self, split: TokenisedSplit, padding: Padding) -> str | None:
        import numpy as np
        import torch

        self._stack.model.eval()
        by_length = np.argsort(split.lengths, kind="stable")
        few = np.unique(by_length[[0, len(by_length) // 2, -1]])
        batch = collate(split, few, padding)
        moved = batch.to(self._device.name)
        try:
            with torch.no_grad(), autocast(self._device):
                whole = self._forward.logits(moved)
                states = self._forward.prefix(moved, self._depth)
                starts, lengths = self._places(split, self._depth)
                kept = torch.zeros(int(lengths.sum()), states.shape[-1], dtype=states.dtype)
                _put(states.cpu(), batch, (starts, lengths), kept)
                entry = StoredStates(kept, 0.0)
                stored = PrefixStates(self._depth, entry, kept, starts, lengths, reused=False)
                parted = self._forward.logits(moved, self._depth, stored.of(moved))
        except Exception as error:  # whatever a stranger's architecture does with what it does not expect
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise
            return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        gap, scale = float((whole - parted).abs().max()), float(whole.abs().max())
        return None if gap <= SPLIT_TOLERANCE * scale + 1e-6 else f"its outputs change by {gap:.2g} of {scale:.2g}"

    def _keys(self, split: TokenisedSplit, depth: int) -> list[str]:
        """A digest for each number of layers from 0 to `depth`, of all that determines the states behind them."""
        import xxhash

        texts = xxhash.xxh3_128()
        for tensor in (split.input_ids, split.offsets, split.token_type_ids):
            texts.update(b"none" if tensor is None else tensor.numpy().data)
        if self._weights is None or len(self._weights) <= depth:
            self._weights = self._weight_digests(depth)
        weights = self._weights[: depth + 1]
        return [xxhash.xxh3_128_hexdigest(f"{values} {texts.hexdigest()}".encode()) for values in weights]

    def _weight_digests(self, depth: int) -> list[str]:
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
            device.tokens_at_once,
            self._forward.name,
            device.name,
            device.make,
            device.precision,
        )
        # Sums are added up in another order with another number of threads.
        computed_with = (torch.__version__, torch.get_num_threads() if device.name == "cpu" else 0)
        described = (*made_by, *computed_with, len(self._stack.layers), sorted(config.items(), key=str))
        digest.update(repr(described).encode())
        _add_values(digest, self._stack.embeddings)
        found = [digest.hexdigest()]
        for layer in self._stack.layers[:depth]:
            _add_values(digest, (layer,))
            found.append(digest.hexdigest())
        return found


def _placed(states: Tensor, device: Device) -> Tensor:
    """On the GPU, where that leaves it more than half of its free memory; else where they are."""
    if device.name == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info()
        free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # kept by torch, but in nobody's use
        if states.nbytes < free / 2:
            try:
                return states.to("cuda")
            except RuntimeError as error:  # another process took it in the meantime
                if not is_out_of_memory(error):
                    raise
    return states


def _put(states: Tensor, batch: Batch, places: tuple[Tensor, Tensor], kept: Tensor) -> None:
    """Store a batch's states [b, s, d] (s of 1 where first tokens are kept) without padding."""
    into, tokens = _token_places(batch, *places, states.shape[1])
    kept[into[tokens]] = states[tokens]


def _token_places(batch: Batch, starts: Tensor, lengths: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Where the states of a batch's tokens are kept, and which of them are tokens, not padding: [b, width] each."""
    import torch

    lengths = lengths[batch.indices, None]
    steps = torch.arange(width)[None]
    if batch.side == "left":
        steps = steps - (width - lengths)  # below 0 where there is padding
    return starts[batch.indices, None] + steps, (steps >= 0) & (steps < lengths)


def _add_values(digest: Any, modules: tuple[torch.nn.Module, ...]) -> None:
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
