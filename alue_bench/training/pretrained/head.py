"""A classification head that a checkpoint brings along from fine-tuning: which weights it is, and whether it fits.

A run starts with a fresh head, drawn from its seed alone, as for a checkpoint that has only been pre-trained; with
`--keep-head` it starts with the checkpoint's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import shown
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.training.pretrained.files import StoredTensor
from alue_bench.training.pretrained.library import quiet_transformers


def head_names(model: Any) -> frozenset[str]:
    """Return the names of the weights that only fine-tuning gives: no class for pre-training has them.

    So the pooler of BERT, which pre-training gives, is part of the encoder; that of DeBERTa is part of the head, as is
    the dense layer in RoBERTa's classifier; ModernBERT's head predicts masked tokens too, and only its classifier is
    new.

    Args:
        model: with a classification head; on the meta device, say. It is not changed.
    """
    prefix = f"{model.base_model_prefix}."
    known: set[str] = set()
    for pretrained in _pretraining_classes(model.config):
        names = _state_names(pretrained, model.config)
        known |= names | {prefix + name for name in names}
    new = set(model.state_dict()) - known
    if not any("Classification" in name for name in model.config.architectures or ()):
        # A pooler that this class alone asks for may come from a pre-training that the library has no class for.
        new = {name for name in new if not name.startswith(prefix)}
    return frozenset(new)


def _pretraining_classes(config: Any) -> Iterator[type]:
    """Yield the classes that pre-trained weights of this architecture are saved from."""
    import transformers

    mappings = (
        transformers.MODEL_FOR_PRETRAINING_MAPPING,
        transformers.MODEL_FOR_MASKED_LM_MAPPING,
        transformers.MODEL_MAPPING,
    )
    for mapping in mappings:
        found = mapping.get(type(config), ())
        yield from found if isinstance(found, (tuple, list)) else (found,)


def _state_names(kind: type, config: Any) -> set[str]:
    import copy

    import torch

    with quiet_transformers(), torch.device("meta"):
        return set(kind(copy.deepcopy(config)).state_dict())


def check_head_fits(subject: str, config: Any, model: Any, labels: Labels, stored: Mapping[str, StoredTensor]) -> None:
    """Refuse to keep a head that is not there, or was trained for other labels.

    Args:
        subject: names the model in the message.
        config: as it stands in the checkpoint.
        model: with a head for the task's labels, on the meta device.
        labels: the task's.
        stored: the checkpoint's weights.

    Raises:
        UsageError: names what differs.
    """
    instead = "leave out --keep-head, and a fresh head is drawn"
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    head = head_names(model)
    absent = sorted(name for name in head if name not in stored)
    saved_from = list(config.architectures or ())
    if absent or type(model).__name__ not in saved_from:
        why = (
            f"lacks {absent[0]}" if absent else f"was saved from {saved_from[0] if saved_from else 'an unnamed class'}"
        )
        raise UsageError(
            f"--keep-head: {subject} has no head of a {type(model).__name__} to keep (the checkpoint {why}); {instead}"
        )
    has = [str(config.id2label[place]) for place in sorted(config.id2label)]
    differs = next((name for name in sorted(head) if stored[name].shape != shapes[name]), None)
    unnamed = [f"LABEL_{place}" for place in range(labels.outputs)]
    if differs is not None or (labels.kind is not TargetKind.REGRESSION and has not in (list(labels.names), unnamed)):
        wanted = ", ".join(shown(name, quote=False) for name in labels.names) or "a number"
        raise UsageError(
            f"--keep-head: the head of {subject} was trained for {len(has)} outputs "
            f"({', '.join(shown(name, quote=False) for name in has)}), but the task has {labels.outputs} ({wanted}), "
            f"in that order; {instead}"
        )
