"""A cache of tokenizers and freshly loaded models, so that each checkpoint is loaded once for all runs of a plan.

A run changes its model by training, so each run gets a model of its own: the one that was loaded first, or a copy of
it. The weights that do not come from the checkpoint (the head and possibly the pooler) are initialised for each seed,
with the same values as loading the checkpoint anew would give.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alue_bench.contract.task import Labels
from alue_bench.training.pretrained.loading import Checkpoint, load_model_with_report, load_tokenizer_with_notes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class _Template:
    """A loaded model that is never trained, only copied."""

    key: tuple[Checkpoint, Labels]
    model: Any
    drawn: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    """The weights that were initialised at random, by seed and name."""


class ModelCache:
    """A source of freshly loaded models for the runs of a plan, which may change them.

    At most one model is kept besides the one in training, in host memory, and only while more runs that start from it
    are expected. A copy equals a newly loaded model to the last bit.
    """

    def __init__(self) -> None:
        """Start with an empty cache."""
        self._expected: Counter[tuple[Checkpoint, Labels]] = Counter()
        self._tokenizers: dict[Checkpoint, tuple[Any, tuple[str, ...]]] = {}
        self._template: _Template | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without models and tokenizers: another process loads its own."""
        return {**vars(self), "_tokenizers": {}, "_template": None}

    def expect(self, checkpoint: Checkpoint, labels: Labels) -> None:
        """Announce that one more run will ask for this model."""
        self._expected[checkpoint, labels] += 1

    def tokenizer(self, checkpoint: Checkpoint) -> Any:
        """Return the checkpoint's tokenizer. The object is shared, since nothing changes a tokenizer in use.

        Raises:
            UnavailableError: The checkpoint has no tokenizer, or one whose vocabulary knows no words.
        """
        return self._tokenizer_with_notes(checkpoint)[0]

    def notes(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Return notes for readers of the results: which parts of the checkpoint are not used, how batches are padded.

        Raises:
            UnavailableError: The checkpoint has no tokenizer, or one whose vocabulary knows no words.
        """
        return (*checkpoint.notes, *self._tokenizer_with_notes(checkpoint)[1])

    def _tokenizer_with_notes(self, checkpoint: Checkpoint) -> tuple[Any, tuple[str, ...]]:
        if checkpoint not in self._tokenizers:
            self._tokenizers[checkpoint] = load_tokenizer_with_notes(checkpoint)
        return self._tokenizers[checkpoint]

    @property
    def kept_bytes(self) -> int:
        """The number of bytes of the model that is kept for later runs."""
        if self._template is None:
            return 0
        model = self._template.model
        return sum(tensor.nbytes for tensors in (model.parameters(), model.buffers()) for tensor in tensors)

    def model(self, checkpoint: Checkpoint, labels: Labels, *, init_seed: int) -> Any:
        """Return a model that equals the result of `load_model`, and count one expected run less.

        Args:
            checkpoint: The checkpoint.
            labels: The task's labels, which give the size of the head.
            init_seed: The seed for everything that the checkpoint has no weights for.

        Raises:
            UnavailableError: The weights cannot be loaded.
        """
        key = (checkpoint, labels)
        self._expected[key] -= 1
        kept = self._template if self._template is not None and self._template.key == key else None
        self._template = kept  # a model of another key is released before anything is loaded
        if kept is not None and init_seed in kept.drawn:
            if self._expected[key] <= 0:
                self._template = None
                return _with(kept.model, kept.drawn[init_seed])
            return _with(copy.deepcopy(kept.model), kept.drawn[init_seed])
        loaded = self._tokenizers.get(checkpoint)
        pad_id = loaded[0].pad_token_id if loaded else None
        model, drawn = load_model_with_report(checkpoint, labels, init_seed=init_seed, pad_id=pad_id)
        if self._expected[key] > 0:
            tensors = model.state_dict()
            values = {name: tensors[name].detach().clone() for name in drawn if name in tensors}
            if kept is None:
                kept = self._template = _Template(key, copy.deepcopy(model))
            kept.drawn[init_seed] = values
        return model


def _with(model: Any, drawn: dict[str, Tensor]) -> Any:
    """Copy tensors into the model's tensors of the same names, and return the model."""
    import torch

    tensors = model.state_dict()
    with torch.no_grad():
        for name, values in drawn.items():
            tensors[name].copy_(values)
    return model
