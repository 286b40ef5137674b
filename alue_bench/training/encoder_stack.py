"""A loaded model seen as embeddings → layers → head, whatever its architecture calls them.

| part | BERT, RoBERTa, XLM-R | ELECTRA | DistilBERT | DeBERTa-v2 | ModernBERT |
| --- | --- | --- | --- | --- | --- |
| embeddings | embeddings | embeddings, embeddings_project | embeddings | embeddings, relative positions | embeddings |
| layers | encoder.layer | encoder.layer | transformer.layer | encoder.layer | layers |
| pooler | pooler (BERT) | - | - | - | - |
| head | classifier | classifier | pre_classifier, classifier | pooler, classifier | final_norm, head, classifier |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.errors import DoesNotFit, TrainingError, UnavailableError
from alue_bench.formats import shown
from alue_bench.strategy import EncoderShape

if TYPE_CHECKING:
    from torch import nn

    from alue_bench.data.tokenisation import TokenisedSplit

# Shared by all layers and learnt with the embeddings: with these frozen, a layer's output depends on nothing else.
POSITION_MODULES = ("rel_embeddings", "relative_attention_bias")
# Beside them in DeBERTa: the norm of the positions, and a convolution over the embeddings that joins layer 0's output.
BESIDE_POSITIONS = ("LayerNorm", "conv")


@dataclass(frozen=True)
class EncoderStack:
    """References into a model; it owns nothing."""

    model: nn.Module
    embeddings: tuple[nn.Module, ...]
    layers: tuple[nn.Module, ...]
    pooler: nn.Module | None
    inputs_only: tuple[nn.Module, ...] = ()
    """The embeddings that nothing but the lowest layer reads."""
    joins_first_layer: tuple[nn.Module, ...] = ()
    """Those whose output is added to that of the lowest layer (DeBERTa's convolution)."""

    @property
    def shape(self) -> EncoderShape:
        return EncoderShape(len(self.layers), int(getattr(self.model.config, "hidden_size", 0)))

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that belong neither to the embeddings, nor to a layer, nor to the pooler."""
        parts = [*self.embeddings, *self.layers, *([self.pooler] if self.pooler is not None else [])]
        inside = {id(parameter) for part in parts for parameter in part.parameters()}
        return (parameter for parameter in self.model.parameters() if id(parameter) not in inside)


def view_as_stack(model: Any) -> EncoderStack:
    """Find embeddings, layers and pooler by structure, not by architecture name.

    Raises DoesNotFit where the model has no list of encoder layers that can be told apart.
    """
    from torch import nn

    base = getattr(model, model.base_model_prefix, None)
    count = getattr(model.config, "num_hidden_layers", 0)
    lists = [
        (name, module)
        for name, module in (base.named_modules() if base is not None else ())
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if base is None or not lists:
        raise DoesNotFit(
            f"{type(model).__name__} has no list of {count} encoder layers; alue-bench can freeze layers only of "
            "encoders built as embeddings, layers and head"
        )
    name, layer_list = min(lists, key=lambda found: found[0].count("."))
    outermost = name.split(".")[0]
    embeddings: list[nn.Module] = []
    for child_name, child in base.named_children():
        if child_name == outermost:
            break  # children registered before the layers feed them
        embeddings.append(child)
    if not embeddings:
        raise DoesNotFit(f"{type(model).__name__} has no embeddings before its encoder layers")
    inputs_only = tuple(embeddings)
    joins_first_layer: tuple[nn.Module, ...] = ()
    if "." in name:  # modules beside the list, such as DeBERTa's relative positions and their norm
        parent = base.get_submodule(name.rpartition(".")[0])
        beside = dict(parent.named_children())
        if any(part in beside for part in POSITION_MODULES):
            embeddings += [beside[part] for part in (*POSITION_MODULES, *BESIDE_POSITIONS) if part in beside]
            joins_first_layer = (beside["conv"],) if "conv" in beside else ()
    pooler = getattr(base, "pooler", None)
    return EncoderStack(model, tuple(embeddings), tuple(layer_list), pooler, inputs_only, joins_first_layer)


def check_ids(stack: EncoderStack, split: TokenisedSplit, subject: str) -> None:
    """Raises TrainingError where a split has an id for which the model has no embedding: on a GPU to look one up that
    is not there ends not only the run but all use of the GPU by this process."""
    config: Any = stack.model.config
    ids = (
        ("id", split.input_ids, int(stack.model.get_input_embeddings().num_embeddings)),  # type: ignore[operator]
        ("segment number", split.token_type_ids, int(getattr(config, "type_vocab_size", 0) or 0)),
    )
    for what, given, count in ids:
        # Without embeddings of segments, no model reads their numbers.
        highest = int(given.max()) if given is not None and len(given) else -1
        if count and highest >= count:
            raise TrainingError(
                f"{subject}: the tokeniser gives the {what} {highest}, but the model has only {count} embeddings of "
                f"{what}s; take the tokeniser that belongs to the weights"
            )


def check_layers_can_be_told_apart(config: Any, folder: Path) -> None:
    """Try a checkpoint's configuration on a model that takes no memory for weights.

    Raises DoesNotFit where the model cannot be seen as a stack, as where its layers share their weights (ALBERT), and
    UnavailableError where the library makes no model of the configuration.
    """
    from alue_bench.training.checkpoint import empty_model

    try:
        model = empty_model(config)
    except Exception as error:  # sizes that do not divide, a field of a wrong type, no classifier: no base in common
        cause = shown(next(iter(str(error).splitlines()), type(error).__name__), quote=False, most=200)
        raise UnavailableError(
            f"{folder}: its config.json makes no {config.model_type!r} model that classifies texts: {cause}"
        ) from error
    view_as_stack(model)
