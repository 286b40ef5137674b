"""Probes: copies of a loaded model from which strategies choose the layers to train (`Strategy.choose`)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alue_bench.contract.errors import TrainingError
from alue_bench.contract.probe import Choice, HeldOutScore, Probe
from alue_bench.contract.strategy import FreezePlan, Strategy
from alue_bench.data.batches import Batch
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.forward import LibraryForward

if TYPE_CHECKING:
    from torch import Tensor


def probe_of(
    stack: EncoderStack,
    batches: Sequence[Batch],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    train_and_score: Callable[[FreezePlan], HeldOutScore],
    seed: int,
) -> Probe:
    """Return a probe with a copy of the model, so that nothing that a strategy does to it changes the training.

    Args:
        stack: The model.
        batches: The train examples, on the model's device.
        loss_of: A function that computes the mean loss from logits and targets.
        train_and_score: The probe's function of this name.
        seed: The seed of the probe's random generator.
    """
    model: Any = copy.deepcopy(stack.model).eval()
    copied = view_as_stack(model)
    idle = {id(parameter) for parameter in copied.idle}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) not in idle)
    forward = LibraryForward(copied)

    def hidden_states(batch: Batch) -> tuple[Tensor, ...]:
        more = {} if batch.token_type_ids is None else {"token_type_ids": batch.token_type_ids}
        result = model(batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True, **more)
        return tuple(result.hidden_states)

    return Probe(
        model=model,
        shape=copied.shape,
        layers=copied.layers,
        batches=tuple(batches),
        loss=lambda batch: loss_of(forward.logits(batch), batch.targets),
        hidden_states=hidden_states,
        train_and_score=train_and_score,
        generator=np.random.default_rng(seed),
    )


def checked_choice(strategy: Strategy, bound: FreezePlan, probe: Probe) -> Choice:
    """Return the strategy's choice.

    Args:
        strategy: A strategy that chooses.
        bound: The plan from `Strategy.freeze_plan`, by which the run's cost was estimated.
        probe: The model and examples to choose by.

    Raises:
        TrainingError: The choice is invalid, or trains more than the bound.
    """
    choice = strategy.choose(probe)
    said = f"strategy {strategy.name!r}: choose returned"
    if not isinstance(choice, Choice) or not isinstance(choice.plan, FreezePlan):
        raise TrainingError(f"{said} {choice!r:.80}; it must return a Choice with a FreezePlan")
    plan = choice.plan
    if not plan.revises(bound):
        raise TrainingError(f"{said} {plan!r:.120}; its shape and trained must be those of freeze_plan's result")
    if len(choice.scores) != plan.shape.layers:
        raise TrainingError(f"{said} {len(choice.scores)} scores; return one for each of {plan.shape.layers} layers")
    if not np.isfinite(choice.scores).all():
        raise TrainingError(f"{said} scores that are not finite; check the weights and the losses of the probe")
    fewer = len(plan.frozen_layers) < len(bound.frozen_layers)
    if fewer or (bound.embeddings and not plan.embeddings) or (bound.pooler and not plan.pooler):
        raise TrainingError(
            f"{said} a plan that freezes {plan.describe()}; it must freeze at least as many layers as freeze_plan's "
            f"result, and the embeddings and pooler if that does ({bound.describe()})"
        )
    return choice
