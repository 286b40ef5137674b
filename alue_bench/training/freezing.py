"""Putting a FreezePlan into effect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


def apply_plan(stack: EncoderStack, plan: FreezePlan) -> None:
    """Make exactly the planned parameters trainable. Call it before the optimiser is built."""
    stack.model.requires_grad_(True)
    for module in frozen_modules(stack, plan):
        module.requires_grad_(False)  # on a module, setting the attribute would do nothing


def training_mode(stack: EncoderStack, plan: FreezePlan) -> None:
    """Dropout on in what trains and off in what is frozen, whose output is then a constant for each example."""
    stack.model.train()
    for module in frozen_modules(stack, plan):
        module.eval()


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters."""

    total: int
    trainable: int


def count_parameters(stack: EncoderStack, plan: FreezePlan) -> ParameterCounts:
    """Shared (tied) parameters count once. The model may be on the meta device and is not changed."""
    frozen = {id(p) for module in frozen_modules(stack, plan) for p in module.parameters()}
    parameters = list(stack.model.parameters())
    return ParameterCounts(
        total=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if id(p) not in frozen),
    )
