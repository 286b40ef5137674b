"""Freezing a model's parameters according to a FreezePlan, and checking that frozen parameters did not change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import DoesNotFit, TrainingError
from alue_bench.contract.strategy import FreezePlan
from alue_bench.training.architecture.encoder_stack import EncoderStack

if TYPE_CHECKING:
    from torch import nn


def frozen_modules(stack: EncoderStack, plan: FreezePlan) -> Iterator[nn.Module]:
    """Yield the modules that a freeze plan freezes: embeddings, then layers in ascending order, then the pooler."""
    if plan.embeddings:
        yield from stack.embeddings
    for index in sorted(plan.frozen_layers):
        yield stack.layers[index]
    if plan.pooler and stack.pooler is not None:
        yield stack.pooler


def trainable_parameters(stack: EncoderStack, plan: FreezePlan) -> list[nn.Parameter]:
    """Return the parameters that train under a freeze plan, in the order of `model.parameters()`.

    Tied parameters appear once. Parameters that do not influence the logits, and parameters that transformers keeps
    fixed, are never included.

    Raises:
        DoesNotFit: The plan trains only one kind of parameters, such as biases, and the layers have none of this kind;
            or it trains only attention or only feed-forward modules, and the layers have no attention module; or it
            freezes a parameter by a name that the model does not have.
    """
    excluded = {id(p) for module in frozen_modules(stack, plan) for p in module.parameters()}
    excluded |= {id(parameter) for parameter in stack.idle}
    if plan.trained != "weights":
        chosen = {id(parameter) for parameter in _parameters_of_kind(stack, plan)}
        if not chosen:
            what = ", ".join(plan.names) if plan.trained == "names" else plan.trained
            raise DoesNotFit(f"trains only {what}, but the layers of {type(stack.model).__name__} have none")
        excluded |= {id(p) for module in _encoder(stack) for p in module.parameters()} - chosen
    if plan.frozen_parameters:
        named = dict(stack.model.named_parameters())
        if unknown := sorted(plan.frozen_parameters - named.keys()):
            raise DoesNotFit(f"freezes the parameter {unknown[0]!r}, which {type(stack.model).__name__} does not have")
        excluded |= {id(named[name]) for name in plan.frozen_parameters}
    return [parameter for parameter in stack.model.parameters() if id(parameter) not in excluded]


def without_idle_parts(stack: EncoderStack, plan: FreezePlan) -> FreezePlan:
    """Return a plan that trains the same parameters as `plan`, and freezes every layer without a trained parameter.

    The embeddings are treated like a layer. The frozen prefix (the frozen embeddings and the consecutive frozen layers
    above them) then reaches up to the lowest layer with a trained parameter. A plan that trains whole layers, or
    adapters, is returned unchanged.

    Args:
        stack: The model, possibly on the meta device.
        plan: A freeze plan that fits the model.

    Raises:
        DoesNotFit: The plan does not fit the model; see `trainable_parameters`.
    """
    if plan.trained in ("weights", "adapters"):
        return plan
    trained = {id(parameter) for parameter in trainable_parameters(stack, plan)}

    def trains(*modules: nn.Module) -> bool:
        return any(id(parameter) in trained for module in modules for parameter in module.parameters())

    idle = frozenset(index for index, layer in enumerate(stack.layers) if not trains(layer))
    embeddings = plan.embeddings or not trains(*stack.embeddings)
    return replace(plan, frozen_layers=plan.frozen_layers | idle, embeddings=embeddings)


def apply_plan(stack: EncoderStack, plan: FreezePlan) -> None:
    """Set `requires_grad` of each parameter: True if it trains under the freeze plan, else False.

    Call this before the optimiser is built.

    Raises:
        DoesNotFit: The plan does not fit the model; see `trainable_parameters`.
    """
    trainable = trainable_parameters(stack, plan)
    stack.model.requires_grad_(False)
    for parameter in trainable:
        parameter.requires_grad_(True)


def training_mode(stack: EncoderStack, plan: FreezePlan) -> None:
    """Put the model in training mode and its frozen modules in eval mode.

    Frozen modules then use no dropout. If everything below a frozen module is frozen too, the module's output for an
    example never changes.
    """
    stack.model.train()
    for module in frozen_modules(stack, plan):
        module.eval()


def _encoder(stack: EncoderStack) -> tuple[nn.Module, ...]:
    return (*stack.embeddings, *stack.layers)


def _parameters_of_kind(stack: EncoderStack, plan: FreezePlan) -> Iterator[nn.Parameter]:
    """Yield the parameters of the embeddings and layers that are of the kind `plan.trained`, such as all biases.

    Parameters in frozen layers are included.

    Raises:
        DoesNotFit: The kind is "attention" or "feed-forward", and the layers have no separate attention module.
    """
    if plan.trained == "names":
        inside = {id(p) for module in _encoder(stack) for p in module.parameters()}
        named = ((name, p) for name, p in stack.model.named_parameters() if id(p) in inside)
        yield from (p for name, p in named if any(fnmatchcase(name, pattern) for pattern in plan.names))
    elif plan.trained in ("attention", "feed-forward"):
        if stack.attention is None:
            raise DoesNotFit(
                f"trains only {plan.trained}, but attention is no module of its own in the layers of "
                f"{type(stack.model).__name__}"
            )
        for layer, modules in zip(stack.layers, stack.attention, strict=True):
            attention = {id(p) for module in modules for p in module.parameters()}
            norms = {id(p) for p in _norms(layer)}
            in_attention = plan.trained == "attention"
            yield from (p for p in layer.parameters() if id(p) not in norms and (id(p) in attention) == in_attention)
    else:
        select = {"biases": _biases, "norms": _norms, "adapters": _adapters}[plan.trained]
        for module in _encoder(stack):
            yield from select(module)


def _biases(module: nn.Module) -> Iterator[nn.Parameter]:
    return (p for name, p in module.named_parameters() if name.rpartition(".")[2] == "bias")


def _norms(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of the normalisation layers in a module.

    A submodule counts as a normalisation layer if the name of its class contains "norm", as in LayerNorm, LlamaRMSNorm
    or MobileBERT's NoNorm, and it has no matrices of its own. There is no common base class to test for.
    """
    for part in module.modules():
        own = list(part.parameters(recurse=False))
        if "norm" in type(part).__name__.lower() and all(parameter.ndim <= 1 for parameter in own):
            yield from own


def _adapters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters that `peft` added to a module, found by the `adapter_layer_names` of its layers."""
    for part in module.modules():
        for name in getattr(part, "adapter_layer_names", ()):
            holder: Any = getattr(part, name, None)
            yield from holder.parameters() if holder is not None else ()


@dataclass(frozen=True)
class ParameterCounts:
    """The number of a model's parameters, in total and trainable."""

    total: int
    trainable: int


def count_parameters(stack: EncoderStack, plan: FreezePlan) -> ParameterCounts:
    """Count a model's parameters, in total and trainable; shared (tied) parameters count once.

    The model may be on the meta device and is not changed.
    """
    return ParameterCounts(
        total=sum(p.numel() for p in stack.model.parameters()),
        trainable=sum(p.numel() for p in trainable_parameters(stack, plan)),
    )


def frozen_weights(stack: EncoderStack, plan: FreezePlan) -> dict[str, str]:
    """Return a digest of the values of each parameter that does not train under the plan, by the parameter's name."""
    import torch
    import xxhash

    trained = {id(parameter) for parameter in trainable_parameters(stack, plan)}
    return {
        name: xxhash.xxh3_128_hexdigest(p.detach().reshape(-1).view(torch.uint8).cpu().numpy().data)
        for name, p in stack.model.named_parameters()
        if id(p) not in trained
    }


def check_frozen(stack: EncoderStack, before: Mapping[str, str], plans: Iterable[FreezePlan]) -> None:
    """Check that the parameters that were frozen throughout training have not changed.

    Args:
        stack: The model after training.
        before: The digests that `frozen_weights` returned before training, for the initial plan.
        plans: Every freeze plan that was in effect during training.

    Raises:
        TrainingError: The values of a frozen parameter changed.
    """
    by_plan = [frozen_weights(stack, plan) for plan in plans]
    now = {name: digest for name, digest in by_plan[0].items() if all(name in frozen for frozen in by_plan)}
    changed = [name for name in now if name in before and now[name] != before[name]]
    if changed:
        raise TrainingError(
            f"{len(changed)} parameters changed although the strategy freezes them ({changed[0]}, …); no result is "
            "recorded, since it would not be one of this strategy: report this with the model's config.json"
        )
