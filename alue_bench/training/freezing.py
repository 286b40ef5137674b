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
    """Yield the modules that the plan freezes: embeddings, then layers in ascending order, then the pooler."""
    if plan.embeddings:
        yield from stack.embeddings
    for index in sorted(plan.frozen_layers):
        yield stack.layers[index]
    if plan.pooler and stack.pooler is not None:
        yield stack.pooler


def trainable_parameters(stack: EncoderStack, plan: FreezePlan) -> list[nn.Parameter]:
    """Return the parameters that the plan trains, in the order of `model.parameters()`; tied parameters appear once.

    Parameters that do not influence the logits, and parameters that transformers keeps fixed, are never included.

    Raises:
        DoesNotFit: The plan trains only some kind of parameters, such as biases, and the layers have none; or it names
            a parameter that the model does not have.
    """
    out = {id(p) for module in frozen_modules(stack, plan) for p in module.parameters()}
    out |= {id(parameter) for parameter in stack.idle}
    if plan.trained != "weights":
        chosen = {id(parameter) for parameter in _of_kind(stack, plan)}
        if not chosen:
            what = ", ".join(plan.names) if plan.trained == "names" else plan.trained
            raise DoesNotFit(f"trains only {what}, but the layers of {type(stack.model).__name__} have none")
        out |= {id(p) for module in _encoder(stack) for p in module.parameters()} - chosen
    if plan.frozen_parameters:
        named = dict(stack.model.named_parameters())
        if unknown := sorted(plan.frozen_parameters - named.keys()):
            raise DoesNotFit(f"freezes the parameter {unknown[0]!r}, which {type(stack.model).__name__} does not have")
        out |= {id(named[name]) for name in plan.frozen_parameters}
    return [parameter for parameter in stack.model.parameters() if id(parameter) not in out]


def without_idle_parts(stack: EncoderStack, plan: FreezePlan) -> FreezePlan:
    """Return the plan with the embeddings and each layer frozen in which it trains no parameter.

    The trained parameters stay the same. The frozen prefix then ends below the lowest layer in which something trains.
    A plan that trains whole layers, or adapters, is returned unchanged.

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
    """Set `requires_grad` so that exactly the parameters that the plan trains are trainable.

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


def _of_kind(stack: EncoderStack, plan: FreezePlan) -> Iterator[nn.Parameter]:
    """Yield the parameters of embeddings and layers that are of the kind `plan.trained`, frozen or not.

    Raises:
        DoesNotFit: The kind needs attention to be a module of its own, and it is not.
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
            wanted = plan.trained == "attention"
            yield from (p for p in layer.parameters() if id(p) not in norms and (id(p) in attention) == wanted)
    else:
        of_module = {"biases": _biases, "norms": _norms, "adapters": _adapters}[plan.trained]
        for module in _encoder(stack):
            yield from of_module(module)


def _biases(module: nn.Module) -> Iterator[nn.Parameter]:
    return (p for name, p in module.named_parameters() if name.rpartition(".")[2] == "bias")


def _norms(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of the normalisation layers in a module.

    They are found by the names of their classes, such as LayerNorm, LlamaRMSNorm or MobileBERT's NoNorm, since most
    architectures bring their own. A normalisation layer holds vectors only.
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
    """Return a digest of the values of each parameter that the plan freezes, by the parameter's name."""
    import torch
    import xxhash

    trained = {id(parameter) for parameter in trainable_parameters(stack, plan)}
    return {
        name: xxhash.xxh3_128_hexdigest(p.detach().reshape(-1).view(torch.uint8).cpu().numpy().data)
        for name, p in stack.model.named_parameters()
        if id(p) not in trained
    }


def check_frozen(stack: EncoderStack, before: Mapping[str, str], plans: Iterable[FreezePlan]) -> None:
    """Check that parameters that were frozen throughout a training kept exactly the same values.

    Args:
        stack: The model after training.
        before: The digests that `frozen_weights` returned before training, for the initial plan.
        plans: Every plan that was in effect during the training.

    Raises:
        TrainingError: The values of a frozen parameter changed.
    """
    always = [frozen_weights(stack, plan) for plan in plans]
    now = {name: digest for name, digest in always[0].items() if all(name in frozen for frozen in always)}
    changed = [name for name in now if name in before and now[name] != before[name]]
    if changed:
        raise TrainingError(
            f"{len(changed)} parameters changed although the strategy freezes them ({changed[0]}, …); no result is "
            "recorded, since it would not be one of this strategy: report this with the model's config.json"
        )
