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

from alue_bench.contract.errors import TrainingError, UnavailableError
from alue_bench.contract.formats import shown
from alue_bench.contract.strategy import EncoderShape
from alue_bench.training.architecture.anatomy import Anatomy, Members, anatomy_of

if TYPE_CHECKING:
    from torch import nn

    from alue_bench.data.tokenisation import TokenisedSplit


@dataclass(frozen=True)
class EncoderStack:
    """References into a model; it owns nothing.

    A part is a module, or several in an `nn.ModuleList` that the model does not know; parameters that stand in no
    module of the part alone are in an `nn.ParameterList`.
    """

    model: nn.Module
    embeddings: tuple[nn.Module, ...]
    layers: tuple[nn.Module, ...]
    """Each with what runs between it and the next one, such as DeBERTa's convolution beside layer 0."""
    pooler: nn.Module | None
    entries: tuple[nn.Module, ...]
    """The module of each layer that is called with its input states; empty where a layer is not one module."""
    inputs_only: tuple[nn.Module, ...] = ()
    """The embeddings whose output is a vector for each token."""
    returns_tuple: bool = False
    """Whether a layer returns a tuple whose first element is the states."""
    idle: tuple[nn.Parameter, ...] = ()
    """Parameters without influence on the logits, and those that the library keeps fixed: they never train."""

    @property
    def shape(self) -> EncoderShape:
        return EncoderShape(len(self.layers), int(getattr(self.model.config, "hidden_size", 0)))

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that belong to no other part."""
        parts = [*self.embeddings, *self.layers, *([self.pooler] if self.pooler is not None else [])]
        inside = {id(parameter) for part in parts for parameter in part.parameters()}
        inside |= {id(parameter) for parameter in self.idle}
        return (parameter for parameter in self.model.parameters() if id(parameter) not in inside)


def view_as_stack(model: Any) -> EncoderStack:
    """Find embeddings, layers and pooler from what a forward pass of the architecture uses when.

    Args:
        model: A classification model of the library, perhaps on the meta device, perhaps with adapters in it.

    Raises:
        DoesNotFit: The model cannot be seen as embeddings, layers and head. The message says why.
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
        idle=tuple(p for name, p in model.named_parameters() if _plain(name) in anatomy.idle),
    )


def _layer(model: Any, anatomy: Anatomy, index: int) -> nn.Module:
    modules = [model.get_submodule(f"{name}.{index}") for name in anatomy.lists]
    return _joined(modules + _members(model, anatomy.beside.get(index, Members())))


def _members(model: Any, members: Members) -> list[nn.Module]:
    from torch import nn

    modules = [model.get_submodule(name) for name in members.modules]
    loose = [model.get_parameter(name) for name in members.parameters]
    return modules + ([nn.ParameterList(loose)] if loose else [])


def _joined(modules: list[nn.Module]) -> nn.Module:
    from torch import nn

    return modules[0] if len(modules) == 1 else nn.ModuleList(modules)


def _plain(name: str) -> str:
    """A parameter's name without the adapter around its module."""
    return name.replace(".base_layer.", ".")


def check_ids(stack: EncoderStack, split: TokenisedSplit, subject: str) -> None:
    """Raises TrainingError where a split has an id for which the model has no embedding: on a GPU to look one up that
    is not there ends not only the run but all use of the GPU by this process."""
    config: Any = stack.model.config
    ids = (
        ("id", split.input_ids, _words(stack.model)),
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


def _words(model: Any) -> int:
    """How many ids the model has embeddings for; 0 where it looks none up, as CANINE, which hashes characters."""
    try:
        return int(model.get_input_embeddings().num_embeddings)
    except (NotImplementedError, AttributeError):
        return 0


def check_layers_can_be_told_apart(config: Any, folder: Path) -> None:
    """Try a checkpoint's configuration on a model that takes no memory for weights.

    Raises DoesNotFit where the model cannot be seen as a stack, as where its layers share their weights (ALBERT), and
    UnavailableError where the library makes no model of the configuration.
    """
    from alue_bench.training.pretrained.loading import empty_model

    try:
        model = empty_model(config)
    except Exception as error:  # sizes that do not divide, a field of a wrong type, no classifier: no base in common
        cause = shown(next(iter(str(error).splitlines()), type(error).__name__), quote=False, most=200)
        raise UnavailableError(
            f"{folder}: its config.json makes no {config.model_type!r} model that classifies texts: {cause}"
        ) from error
    view_as_stack(model)
