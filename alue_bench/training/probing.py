"""Probes: copies of a loaded model that strategies examine to choose the layers to train (`Strategy.choose`)."""

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
    """Return a probe of a model. It contains a copy of the model, so that a strategy cannot change the model itself.

    Args:
        stack: The model.
        batches: Batches of train examples, on the model's device.
        loss_of: A function that computes the mean loss from logits and targets.
        train_and_score: A function that fine-tunes briefly under a freeze plan and returns the score on held-out
            examples; it becomes `Probe.train_and_score`.
        seed: The seed of `Probe.generator`.
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
    """Let a strategy choose the layers to train, and return its choice after checking it.

    Args:
        strategy: A strategy that overrides `Strategy.choose`.
        bound: The result of `Strategy.freeze_plan`, with which the run's cost was estimated. The choice must freeze at
            least as many layers as this plan, and the embeddings and the pooler if this plan freezes them.
        probe: The copy of the model, and the train examples, that the strategy may use.

    Raises:
        TrainingError: The choice is invalid, or freezes less than `bound`.
    """
    choice = strategy.choose(probe)
    start = f"strategy {strategy.name!r}: choose returned"
    if not isinstance(choice, Choice) or not isinstance(choice.plan, FreezePlan):
        raise TrainingError(f"{start} {choice!r:.80}; it must return a Choice with a FreezePlan")
    plan = choice.plan
    if not plan.revises(bound):
        raise TrainingError(f"{start} {plan!r:.120}; its shape and trained must be those of freeze_plan's result")
    if len(choice.scores) != plan.shape.layers:
        raise TrainingError(f"{start} {len(choice.scores)} scores; return one for each of {plan.shape.layers} layers")
    if not np.isfinite(choice.scores).all():
        raise TrainingError(f"{start} scores that are not finite; check the weights and the losses of the probe")
    fewer = len(plan.frozen_layers) < len(bound.frozen_layers)
    if fewer or (bound.embeddings and not plan.embeddings) or (bound.pooler and not plan.pooler):
        raise TrainingError(
            f"{start} a plan that freezes {plan.describe()}; it must freeze at least as many layers as freeze_plan's "
            f"result, and the embeddings and pooler if that does ({bound.describe()})"
        )
    return choice
