"""The classification head of an already fine-tuned checkpoint: its weights, and a check that it fits a task.

By default a run starts with a newly initialised head instead, which depends only on the run's seed. With `--keep-head`
it starts with the checkpoint's head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import excerpt
from alue_bench.contract.task import Labels, TargetKind
from alue_bench.training.pretrained.files import StoredTensor
from alue_bench.training.pretrained.library import quiet_transformers


def head_names(model: Any) -> frozenset[str]:
    """Return the names of the weights of a model's head, that is, of the weights that pre-training does not train.

    These are the weights that the classification model has, but that none of transformers' pre-training models of the
    same architecture has. Weights of the encoder, such as a pooler, are among them only if the configuration says that
    the checkpoint was fine-tuned for classification. Otherwise they may come from a pre-training task for which
    transformers has no class.

    For example, BERT's pooler is pre-trained, so it does not count as part of the head. DeBERTa's pooler and the dense
    layer in RoBERTa's classifier are not pre-trained, so they count. In ModernBERT, the module `head` is pre-trained by
    masked-token prediction, so only `classifier` counts.

    Args:
        model: A model with a classification head, possibly on the meta device. It is not changed.
    """
    key = f"{type(model).__name__} {model.config.to_json_string()}"
    if key not in _known:
        _known[key] = _names_without_pretraining(model)
    return _known[key]


_known: dict[str, frozenset[str]] = {}
"""The results of `head_names` by class and configuration, cached because building models takes a third of a second."""


def _names_without_pretraining(model: Any) -> frozenset[str]:
    """Compute the result of `head_names`."""
    prefix = f"{model.base_model_prefix}."
    known: set[str] = set()
    for pretrained in _pretraining_classes(model.config):
        names = _state_names(pretrained, model.config)
        known |= names | {prefix + name for name in names}
    new = set(model.state_dict()) - known
    if not any("Classification" in name for name in model.config.architectures or ()):
        # The checkpoint was not fine-tuned. Encoder weights that only the classification model has, such as a pooler,
        # may then come from a pre-training task for which transformers has no class.
        new = {name for name in new if not name.startswith(prefix)}
    return frozenset(new)


def _pretraining_classes(config: Any) -> Iterator[type]:
    """Yield the transformers classes with which a model of this configuration may have been pre-trained."""
    import transformers

    mappings = (
        transformers.MODEL_FOR_PRETRAINING_MAPPING,
        transformers.MODEL_FOR_MASKED_LM_MAPPING,
        transformers.MODEL_MAPPING,
    )
    for mapping in mappings:
        classes = mapping.get(type(config), ())
        yield from classes if isinstance(classes, (tuple, list)) else (classes,)


def _state_names(kind: type, config: Any) -> set[str]:
    """Return the names in the `state_dict` of a model of the class `kind`, built from this configuration."""
    import copy

    import torch

    with quiet_transformers(), torch.device("meta"):
        return set(kind(copy.deepcopy(config)).state_dict())


def check_head_fits(subject: str, config: Any, model: Any, labels: Labels, stored: Mapping[str, StoredTensor]) -> None:
    """Check that a checkpoint has a fine-tuned head for the labels of a task.

    Args:
        subject: The name of the model, for the error message.
        config: The checkpoint's configuration.
        model: A model with a head for the task's labels, on the meta device.
        labels: The task's labels.
        stored: The file and shape of each tensor in the checkpoint, by name.

    Raises:
        UsageError: The checkpoint has no fine-tuned head, or its head was trained for other labels.
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
    has = [str(config.id2label[index]) for index in sorted(config.id2label)]
    differs = next((name for name in sorted(head) if stored[name].shape != shapes[name]), None)
    unnamed = [f"LABEL_{index}" for index in range(labels.outputs)]
    if differs is not None or (labels.kind is not TargetKind.REGRESSION and has not in (list(labels.names), unnamed)):
        wanted = ", ".join(excerpt(name, quote=False) for name in labels.names) or "a number"
        raise UsageError(
            f"--keep-head: the head of {subject} was trained for {len(has)} outputs "
            f"({', '.join(excerpt(name, quote=False) for name in has)}), but the task has {labels.outputs} ({wanted}), "
            f"in that order; {instead}"
        )
