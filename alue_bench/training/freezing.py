"""Putting a FreezePlan into effect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.errors import DoesNotFit
from alue_bench.strategy import FreezePlan
from alue_bench.training.encoder_stack import EncoderStack

if TYPE_CHECKING:
    from torch import nn


def frozen_modules(stack: EncoderStack, plan: FreezePlan) -> Iterator[nn.Module]:
    """The modules that the plan freezes."""
    if plan.embeddings:
        yield from stack.embeddings
    for index in sorted(plan.frozen_layers):
        yield stack.layers[index]
    if plan.pooler and stack.pooler is not None:
        yield stack.pooler


def trainable_parameters(stack: EncoderStack, plan: FreezePlan) -> list[nn.Parameter]:
    """What the plan lets train, in the model's own order; shared (tied) parameters once.

    Raises DoesNotFit where it is to be the biases, or the adapters, and the layers have none.
    """
    out = {id(p) for module in frozen_modules(stack, plan) for p in module.parameters()}
    if plan.trained != "weights":
        encoder = (*stack.embeddings, *stack.layers)
        chosen = {id(p) for module in encoder for p in (_biases if plan.trained == "biases" else _adapters)(module)}
        if not chosen:
            raise DoesNotFit(f"trains {plan.trained} alone, but the layers of {type(stack.model).__name__} have none")
        out |= {id(p) for module in encoder for p in module.parameters()} - chosen
    return [parameter for parameter in stack.model.parameters() if id(parameter) not in out]


def apply_plan(stack: EncoderStack, plan: FreezePlan) -> None:
    """Make exactly the planned parameters trainable. Call it before the optimiser is built.

    Raises DoesNotFit as `trainable_parameters` does.
    """
    trainable = trainable_parameters(stack, plan)
    stack.model.requires_grad_(False)
    for parameter in trainable:
        parameter.requires_grad_(True)


def training_mode(stack: EncoderStack, plan: FreezePlan) -> None:
    """Dropout on in what trains and off in what is frozen, whose output is then a constant for each example."""
    stack.model.train()
    for module in frozen_modules(stack, plan):
        module.eval()


def _biases(module: nn.Module) -> Iterator[nn.Parameter]:
    return (p for name, p in module.named_parameters() if name.rpartition(".")[2] == "bias")


def _adapters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Parameters that `peft` put into a module: its layers name the attributes that hold them."""
    for part in module.modules():
        for name in getattr(part, "adapter_layer_names", ()):
            holder: Any = getattr(part, name, None)
            yield from holder.parameters() if holder is not None else ()


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters."""

    total: int
    trainable: int


def count_parameters(stack: EncoderStack, plan: FreezePlan) -> ParameterCounts:
    """Shared (tied) parameters count once. The model may be on the meta device and is not changed."""
    return ParameterCounts(
        total=sum(p.numel() for p in stack.model.parameters()),
        trainable=sum(p.numel() for p in trainable_parameters(stack, plan)),
    )
