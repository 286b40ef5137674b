"""Changes to a loaded model before it is trained: removing layers and inserting adapters."""

from __future__ import annotations

from typing import Any

from alue_bench.contract.errors import DoesNotFit, UnavailableError
from alue_bench.contract.strategy import Adapter, Outline
from alue_bench.contract.task import Labels
from alue_bench.messages.extras import install_command
from alue_bench.training.architecture.anatomy import anatomy_of, shorten
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.freezing import trainable_parameters
from alue_bench.training.pretrained.loading import BINARY, empty_model


def model_in_outline(config: Any, outline: Outline, labels: Labels = BINARY) -> EncoderStack:
    """Build a model on the meta device, with the changes that a strategy makes: layers removed, an adapter inserted.

    Such a model has no weights in memory, but its parameters and FLOPs can be counted.

    Args:
        config: The transformers configuration of the checkpoint.
        outline: The strategy's changes to the model: the layers to keep, the adapter to insert, and the freeze plan.
        labels: The task's labels, which give the size of the head.

    Raises:
        DoesNotFit: The adapter or the number of layers does not fit the model, or the freeze plan does not (see
            `trainable_parameters`).
        UnavailableError: A package that the adapter needs is missing.
    """
    stack = view_as_stack(empty_model(config, labels))
    stack = modify_model(stack, outline.kept_layers, outline.adapter)
    trainable_parameters(stack, outline.freeze_plan)
    return stack


def modify_model(stack: EncoderStack, kept_layers: tuple[int, ...] | None, adapter: Adapter | None) -> EncoderStack:
    """Remove layers from a model and insert an adapter, in place.

    Args:
        stack: The model, which may be on the meta device.
        kept_layers: The indices of the layers to keep; None keeps all layers.
        adapter: The adapter to insert; None for no adapter. Its weights are drawn from torch's global random generator.

    Returns:
        The parts of the changed model; `stack` is outdated if anything was changed.

    Raises:
        DoesNotFit: The adapter cannot be inserted into the model, or the model's number of layers is fixed.
        UnavailableError: The package `peft`, which adapters need, is missing.
    """
    if kept_layers is not None and len(kept_layers) < len(stack.layers):
        _keep_layers(stack, kept_layers)
        stack = view_as_stack(stack.model)
    if adapter is not None:
        _insert_adapter(stack.model, adapter)
        stack = view_as_stack(stack.model)
    return stack


def _keep_layers(stack: EncoderStack, kept: tuple[int, ...]) -> None:
    model: Any = stack.model
    count = len(stack.layers)
    lists = [model.get_submodule(name) for name in anatomy_of(model).lists]
    try:
        shorten(model.config, kept)
    except NotImplementedError as error:
        raise DoesNotFit(f"{type(model).__name__} has a fixed number of layers: none can be left out") from error
    for layers in lists:
        for index in sorted(set(range(count)) - set(kept), reverse=True):
            del layers[index]


def _insert_adapter(model: Any, adapter: Adapter) -> None:
    try:
        import peft
    except ImportError as error:
        raise UnavailableError(
            f"adapters ({adapter.kind}) need the package 'peft'; install it with: {install_command('peft')}"
        ) from error
    try:
        peft.inject_adapter_in_model(peft.get_peft_config({"peft_type": adapter.kind, **adapter.options}), model)
    except (ValueError, TypeError, KeyError) as error:  # no target modules, or an unknown kind or option
        raise DoesNotFit(
            f"{adapter.kind} cannot be put into {type(model).__name__}: {next(iter(str(error).splitlines()), error)}"
        ) from error
