"""Tokenisers and models as their checkpoints give them, loaded once for all runs of a plan.

A run that trains changes its model, so each gets one of its own: the first that was loaded, or a copy of it. What a
checkpoint has no weights for, or has them from fine-tuning, the head and perhaps the pooler, is drawn anew for each
seed, as loading does it.
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
    """A model as it was loaded, never trained."""

    key: tuple[Checkpoint, Labels]
    model: Any
    drawn: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    """What was initialised at random, by seed."""


class ModelCache:
    """Gives the runs of a plan their models, each to change as it likes.

    At most one model is kept besides the one in training, and only while runs that begin with it are expected; it
    stays in the main memory. A copy equals a model that is loaded anew to the last bit.
    """

    def __init__(self) -> None:
        self._expected: Counter[tuple[Checkpoint, Labels]] = Counter()
        self._tokenizers: dict[Checkpoint, tuple[Any, tuple[str, ...]]] = {}
        self._template: _Template | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Models do not travel to other processes: each loads them once."""
        return {**vars(self), "_tokenizers": {}, "_template": None}

    def expect(self, checkpoint: Checkpoint, labels: Labels) -> None:
        """One more run will ask for this model."""
        self._expected[checkpoint, labels] += 1

    def tokenizer(self, checkpoint: Checkpoint) -> Any:
        """Shared: nothing changes a tokeniser in use. Raises UnavailableError as `load_tokenizer` does."""
        return self._tokenizer_with_notes(checkpoint)[0]

    def notes(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Return what is to be said of a checkpoint: what of it is not used, how batches are padded.

        Raises UnavailableError as `load_tokenizer` does.
        """
        return (*checkpoint.notes, *self._tokenizer_with_notes(checkpoint)[1])

    def _tokenizer_with_notes(self, checkpoint: Checkpoint) -> tuple[Any, tuple[str, ...]]:
        if checkpoint not in self._tokenizers:
            self._tokenizers[checkpoint] = load_tokenizer_with_notes(checkpoint)
        return self._tokenizers[checkpoint]

    @property
    def kept_bytes(self) -> int:
        """What the model takes that is kept for later runs."""
        if self._template is None:
            return 0
        model = self._template.model
        return sum(tensor.nbytes for tensors in (model.parameters(), model.buffers()) for tensor in tensors)

    def model(self, checkpoint: Checkpoint, labels: Labels, *, init_seed: int) -> Any:
        """As `load_model` gives it. Raises UnavailableError as that does."""
        key = (checkpoint, labels)
        self._expected[key] -= 1
        kept = self._template if self._template is not None and self._template.key == key else None
        self._template = kept  # another one makes room before anything is loaded
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
            found = {name: tensors[name].detach().clone() for name in drawn if name in tensors}
            if kept is None:
                kept = self._template = _Template(key, copy.deepcopy(model))
            kept.drawn[init_seed] = found
        return model


def _with(model: Any, drawn: dict[str, Tensor]) -> Any:
    """The model with these tensors for its own of the same names."""
    import torch

    tensors = model.state_dict()
    with torch.no_grad():
        for name, values in drawn.items():
            tensors[name].copy_(values)
    return model
