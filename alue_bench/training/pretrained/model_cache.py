"""A cache of tokenizers and freshly loaded models, so that a checkpoint is not loaded again for every run of a plan.

A run changes its model by training, so each run gets a separate model: the loaded model or a copy of it. The weights
that are not in the checkpoint (the head and possibly the pooler) depend on the run's seed, and have the same values as
after loading the checkpoint again. A checkpoint is loaded again for each new seed, and after a run with another
checkpoint or other labels.
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
    """A loaded model, which is copied for each run."""

    key: tuple[Checkpoint, Labels]
    model: Any
    drawn: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    """The weights that the checkpoint lacks and that are initialised at random: for each seed, a dictionary by name."""


class ModelCache:
    """A source of freshly loaded models for the runs of a plan; each run may change the model that it gets.

    At most one loaded model stays in host memory to be copied, as long as more runs are expected to start from it. A
    copy equals a newly loaded model to the last bit.
    """

    def __init__(self) -> None:
        """Start with an empty cache."""
        self._expected: Counter[tuple[Checkpoint, Labels]] = Counter()
        self._tokenizers: dict[Checkpoint, tuple[Any, tuple[str, ...]]] = {}
        self._template: _Template | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickling, without models and tokenizers, which another process has to load itself."""
        return {**vars(self), "_tokenizers": {}, "_template": None}

    def expect(self, checkpoint: Checkpoint, labels: Labels) -> None:
        """Add one to the number of expected calls of `model` with this checkpoint and these labels."""
        self._expected[checkpoint, labels] += 1

    def tokenizer(self, checkpoint: Checkpoint) -> Any:
        """Return the checkpoint's tokenizer. All callers share the object and must not change it.

        Raises:
            UnavailableError: The checkpoint has no tokenizer, or one that lacks ordinary tokens or a padding token.
        """
        return self._tokenizer_with_notes(checkpoint)[0]

    def notes(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Return sentences for readers of the results, about unused files of a checkpoint and about its padding.

        Raises:
            UnavailableError: The checkpoint has no tokenizer, or one that lacks ordinary tokens or a padding token.
        """
        return (*checkpoint.notes, *self._tokenizer_with_notes(checkpoint)[1])

    def _tokenizer_with_notes(self, checkpoint: Checkpoint) -> tuple[Any, tuple[str, ...]]:
        if checkpoint not in self._tokenizers:
            self._tokenizers[checkpoint] = load_tokenizer_with_notes(checkpoint)
        return self._tokenizers[checkpoint]

    @property
    def kept_bytes(self) -> int:
        """The size, in bytes, of the model that stays in memory to be copied for later runs; 0 if there is none."""
        if self._template is None:
            return 0
        model = self._template.model
        return sum(tensor.nbytes for tensors in (model.parameters(), model.buffers()) for tensor in tensors)

    def model(self, checkpoint: Checkpoint, labels: Labels, *, init_seed: int) -> Any:
        """Return a model that equals the result of `load_model`, and subtract this call from the expected calls.

        Args:
            checkpoint: The checkpoint.
            labels: The task's labels, which give the size of the head.
            init_seed: The seed of the weights that the checkpoint lacks, such as the head.

        Raises:
            UnavailableError: The weights cannot be loaded.
        """
        key = (checkpoint, labels)
        self._expected[key] -= 1
        kept = self._template if self._template is not None and self._template.key == key else None
        self._template = kept  # a model of another checkpoint is released before loading
        if kept is not None and init_seed in kept.drawn:
            if self._expected[key] <= 0:
                self._template = None
                return _with_weights(kept.model, kept.drawn[init_seed])
            return _with_weights(copy.deepcopy(kept.model), kept.drawn[init_seed])
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


def _with_weights(model: Any, drawn: dict[str, Tensor]) -> Any:
    """Copy the tensors in `drawn` (weights initialised at random) into the model, by name; return the model."""
    import torch

    tensors = model.state_dict()
    with torch.no_grad():
        for name, values in drawn.items():
            tensors[name].copy_(values)
    return model
