"""Saving a trained model's adapter (such as LoRA), either merged into the model's weights or in a separate file.

An adapter is written to a separate file only if merging is impossible or would change the predictions. A merged model
can be used without `peft`, and with alue-bench's faster forward pass.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UnavailableError
from alue_bench.contract.strategy import Adapter
from alue_bench.training.architecture.encoder_stack import EncoderStack
from alue_bench.training.surgery import modify_model

WEIGHTS = "adapter_model.safetensors"
NAME = "default"
"""The name that `peft` gives to a model's adapter by default."""


def merge_adapter(model: Any) -> Any:
    """Return a copy of a model, on the CPU, with its adapter added to the weights.

    Raises:
        NotImplementedError: The kind of adapter cannot be merged.
    """
    merged = _copy_on_cpu(model)
    for parent, child, layer in _adapter_modules(merged):
        layer.merge(safe_merge=True)
        setattr(parent, child, layer.get_base_layer())
    return merged


def without_adapter(model: Any) -> Any:
    """Return a copy of a model, on the CPU, without its adapter."""
    plain = _copy_on_cpu(model)
    for parent, child, layer in _adapter_modules(plain):
        setattr(parent, child, layer.get_base_layer())
    return plain


def write_adapter(model: Any, adapter: Adapter, folder: Path) -> None:
    """Write the adapter of a model in the format of `peft`.

    Args:
        model: The model with the adapter.
        adapter: The declaration of the adapter, such as its kind and rank.
        folder: A new folder.
    """
    import peft
    from safetensors.torch import save_file

    folder.mkdir()
    state = peft.get_peft_model_state_dict(model, adapter_name=NAME)
    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, folder / WEIGHTS)
    peft.get_peft_config({"peft_type": adapter.kind, **adapter.options}).save_pretrained(folder)
    path = folder / "adapter_config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), "base_model_name_or_path": "../base"}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def with_adapter(stack: EncoderStack, adapter: Mapping[str, Any], folder: Path) -> EncoderStack:
    """Load an adapter that `write_adapter` wrote, and add it to a model.

    Args:
        stack: The model without the adapter.
        adapter: The fields of the `Adapter` that declares it, by name.
        folder: The adapter's folder.

    Raises:
        UnavailableError: `peft` is not installed, or the adapter's weights are missing or do not fit the model.
    """
    changed = modify_model(stack, None, Adapter(**adapter))
    import peft
    from safetensors.torch import load_file

    if not (folder / WEIGHTS).is_file():
        raise UnavailableError(f"{folder / WEIGHTS} is missing; copy the whole folder again")
    loaded = peft.set_peft_model_state_dict(changed.model, load_file(folder / WEIGHTS), adapter_name=NAME)
    if loaded.unexpected_keys:
        raise UnavailableError(
            f"{folder / WEIGHTS} holds {loaded.unexpected_keys[0]}, for which the model has no place"
        )
    return changed


def _copy_on_cpu(model: Any) -> Any:
    return copy.deepcopy(model).to("cpu")


def _adapter_modules(model: Any) -> list[tuple[Any, str, Any]]:
    """Return the wrapper modules that `peft` inserted, each as (parent module, name in the parent, wrapper)."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [
        (parent, name, child)
        for parent in model.modules()
        if not isinstance(parent, BaseTunerLayer)
        for name, child in parent.named_children()
        if isinstance(child, BaseTunerLayer)
    ]
