"""A uniform view of a loaded model as embeddings → layers → head, independent of the names in its architecture.

| part | BERT, RoBERTa, XLM-R | ELECTRA | DistilBERT | DeBERTa-v2 | ModernBERT |
| --- | --- | --- | --- | --- | --- |
| embeddings | embeddings | embeddings, embeddings_project | embeddings | embeddings, relative positions | embeddings |
| layers | encoder.layer | encoder.layer | transformer.layer | encoder.layer | layers |
| pooler | pooler (BERT) | - | - | - | - |
| head | classifier | classifier | pre_classifier, classifier | pooler, classifier | final_norm, head, classifier |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alue_bench.contract.errors import TrainingError, UnavailableError
from alue_bench.contract.formats import excerpt
from alue_bench.contract.strategy import EncoderShape
from alue_bench.messages.display import first_line
from alue_bench.training.architecture.anatomy import Anatomy, Members, anatomy_of

if TYPE_CHECKING:
    from torch import nn

    from alue_bench.data.tokenization import TokenizedSplit


LastLayer = Literal["whole", "first", "reordered"]
"""The ways in which the last layer can be computed:

- "whole": for all tokens;
- "first": for the first token only, from the keys and values of all tokens;
- "reordered": for the first token only, with matrix products in another order, so that keys and values are not
  computed (see `first_token_layer` in `training/bert/layer.py`)."""


@dataclass(frozen=True)
class EncoderStack:
    """The parts of a model, as references to its modules.

    A layer or pooler that consists of several modules is represented by a new `nn.ModuleList`, which is not itself
    registered in the model. A module whose parameters belong to several parts is in none of them. Instead, each of them
    contains an `nn.ParameterList` of those parameters of the module that belong to it.
    """

    model: nn.Module
    embeddings: tuple[nn.Module, ...]
    layers: tuple[nn.Module, ...]
    """The layers, each together with the modules that run between it and the next layer, such as DeBERTa's convolution
    after layer 0."""
    pooler: nn.Module | None
    entries: tuple[nn.Module, ...]
    """For each layer, the module that takes the output of the layer below; empty if the layers are spread over several
    module lists, as in XLM."""
    inputs_only: tuple[nn.Module, ...] = ()
    """The embedding modules that return a vector for each token, `[batch, tokens, hidden]`. A forward pass that starts
    from the stored hidden states of a layer skips them."""
    returns_tuple: bool = False
    """True if a layer returns a tuple whose first element is the hidden states."""
    attention: tuple[tuple[nn.Module, ...], ...] | None = ()
    """For each layer, the tuple of its attention modules, which is empty for a layer without attention. The whole value
    is None if attention is not a separate module in this architecture."""
    idle: tuple[nn.Parameter, ...] = ()
    """The parameters that never train: those without influence on the logits, and those that transformers keeps
    fixed."""

    @property
    def reads_tokens(self) -> bool:
        """True if the head computes logits for every token, to tag words or find spans, instead of for the text."""
        return reads_tokens(self.model)

    @property
    def shape(self) -> EncoderShape:
        """The number of layers and the hidden size of the model.

        The hidden size is 0 if the configuration does not state it.
        """
        return EncoderShape(len(self.layers), int(getattr(self.model.config, "hidden_size", 0)))


def reads_tokens(model: object) -> bool:
    """Return whether a transformers model has a head that classifies each token."""
    return type(model).__name__.endswith("ForTokenClassification")


def view_as_stack(model: Any) -> EncoderStack:
    """Return references to the embeddings, layers and pooler of a model, as found by `anatomy_of`.

    Args:
        model: A transformers model with a classification head, possibly on the meta device, possibly with adapters.

    Raises:
        DoesNotFit: The model cannot be divided into embeddings, layers and head. The message says why.
    """
    anatomy = anatomy_of(model)
    count = int(model.config.num_hidden_layers)
    pooler = _members(model, anatomy.pooler)
    return EncoderStack(
        model=model,
        embeddings=tuple(_members(model, anatomy.embeddings)),
        layers=tuple(_layer(model, anatomy, index) for index in range(count)),
        pooler=_joined(pooler) if pooler else None,
        entries=tuple(model.get_submodule(anatomy.lists[0])) if anatomy.restartable else (),
        inputs_only=tuple(model.get_submodule(name) for name in anatomy.inputs_only),
        returns_tuple=anatomy.returns_tuple,
        attention=_attention(model, anatomy, count),
        idle=tuple(p for name, p in model.named_parameters() if _plain(name) in anatomy.idle),
    )


def _layer(model: Any, anatomy: Anatomy, index: int) -> nn.Module:
    modules = [model.get_submodule(f"{name}.{index}") for name in anatomy.lists]
    return _joined(modules + _members(model, anatomy.beside.get(index, Members())))


def _attention(model: Any, anatomy: Anatomy, count: int) -> tuple[tuple[nn.Module, ...], ...] | None:
    if anatomy.attention is None:
        return None
    modules = dict(model.named_modules())
    names = [[f"{name}.{index}.{own}".rstrip(".") for name, own in anatomy.attention] for index in range(count)]
    return tuple(tuple(modules[name] for name in of_layer if name in modules) for of_layer in names)


def _members(model: Any, members: Members) -> list[nn.Module]:
    from torch import nn

    modules = [model.get_submodule(name) for name in members.modules]
    loose = [model.get_parameter(name) for name in members.parameters]
    return modules + ([nn.ParameterList(loose)] if loose else [])


def _joined(modules: list[nn.Module]) -> nn.Module:
    from torch import nn

    return modules[0] if len(modules) == 1 else nn.ModuleList(modules)


def _plain(name: str) -> str:
    """Return a parameter's name without `.base_layer`, which `peft` inserts for a module that it wraps."""
    return name.replace(".base_layer.", ".")


def check_ids(stack: EncoderStack, split: TokenizedSplit, subject: str) -> None:
    """Check that the model has an embedding for each token id and each segment number (token type id) of a split.

    Without this check, a missing embedding would make a GPU unusable for the rest of the process.

    Args:
        stack: The model.
        split: The tokenized examples.
        subject: The name of the model and data, for the error message.

    Raises:
        TrainingError: A token id or segment number has no embedding.
    """
    config: Any = stack.model.config
    ids = (
        ("id", split.input_ids, _token_embeddings(stack.model)),
        ("segment number", split.token_type_ids, int(getattr(config, "type_vocab_size", 0) or 0)),
    )
    for what, given, count in ids:
        # A model without segment embeddings does not read segment numbers.
        highest = int(given.max()) if given is not None and len(given) else -1
        if count and highest >= count:
            raise TrainingError(
                f"{subject}: the tokenizer gives the {what} {highest}, but the model has only {count} embeddings of "
                f"{what}s; take the tokenizer that belongs to the weights"
            )


def _token_embeddings(model: Any) -> int:
    """Return the number of token embeddings of a model.

    The result is 0 if the model has no table of token embeddings, like CANINE, which hashes characters.
    """
    try:
        return int(model.get_input_embeddings().num_embeddings)
    except (NotImplementedError, AttributeError):
        return 0


def check_layers_can_be_told_apart(config: Any, folder: Path) -> None:
    """Check, without loading weights, that the layers of a checkpoint's model can be frozen separately.

    Args:
        config: The checkpoint's configuration.
        folder: The checkpoint's folder, for the error message.

    Raises:
        DoesNotFit: The model cannot be divided into embeddings, layers and head, for example because its layers share
            their weights (ALBERT).
        UnavailableError: transformers cannot build a model from the configuration.
    """
    from alue_bench.training.pretrained.loading import empty_model

    try:
        model = empty_model(config)
    except Exception as error:  # sizes that do not divide, a field of a wrong type, no classifier: no common base class
        cause = excerpt(first_line(error), quote=False, max_length=200)
        raise UnavailableError(
            f"{folder}: its config.json describes no usable {config.model_type!r} model for text classification: "
            f"{cause}"
        ) from error
    view_as_stack(model)
