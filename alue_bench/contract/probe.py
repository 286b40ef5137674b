"""The input and the result of `Strategy.choose`: a probe (model and train examples), and a choice of layers to train.

A strategy can choose the layers by inspecting the loaded model, for example the gradients of its layers on a few train
examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alue_bench.contract.strategy import EncoderShape, FreezePlan


@dataclass(frozen=True, slots=True)
class HeldOutScore:
    """The quality of a model that was trained on about four fifths of a probe's examples, measured on the rest."""

    score: float
    """The task's primary metric; greater is better."""
    loss: float
    """The mean loss on the examples that were not used for training, without class weights."""


@dataclass(frozen=True)
class Probe:
    """A copy of the loaded model in eval mode, and train examples, from which `Strategy.choose` chooses layers.

    The strategy may change the copy, which is discarded afterwards. All parameters of the copy that influence the
    logits have `requires_grad=True`.
    """

    model: Any
    """The model: a `torch.nn.Module` of the transformers library, with the head that the run will train."""
    shape: EncoderShape
    """The size of the encoder after `Strategy.kept_layers` was applied."""
    layers: tuple[Any, ...]
    """The encoder layers, each a `torch.nn.Module`, from layer 0 upwards."""
    batches: tuple[Any, ...]
    """The tokenised train examples as batches on the model's device. Each batch has the tensors `input_ids` and
    `attention_mask`, int64 [batch, tokens], and `targets`. The shape of `targets` begins with [batch]; if each token
    has a target, it is int64 [batch, tokens]. The option `--probe-rows` sets the number of examples. If the train split
    has fewer examples, all of them are used."""
    loss: Callable[[Any], Any]
    """A function that takes a batch and returns its mean loss, a scalar tensor from which gradients can be computed."""
    hidden_states: Callable[[Any], tuple[Any, ...]]
    """A function that takes a batch and returns the outputs of the embeddings and of each layer, from layer 0 upwards:
    L+1 tensors [batch, tokens, hidden] for L layers. In architectures with a norm after the last layer, the last tensor
    may be the output of this norm."""
    train_and_score: Callable[[FreezePlan], HeldOutScore]
    """A function that trains a copy of the loaded model under a freeze plan, and returns its score. The copy is trained
    on about four fifths of the probe's examples with the run's hyper-parameters. The remaining fifth takes the place of
    the dev split: it selects the epoch and gives the score. The division of the examples is the same in every call, and
    equal plans give equal results."""
    generator: Any
    """A `numpy.random.Generator` for random choices, seeded with the run's data seed."""

    def examples(self) -> Iterator[Any]:
        """Yield each example as a batch with a single row, without padding."""
        for batch in self.batches:
            for row in range(len(batch.input_ids)):
                yield batch.rows(slice(row, row + 1))

    def gradients(self, batch: Any) -> tuple[list[Any], ...]:
        """Return the gradients of a batch's mean loss with respect to the parameters of each layer.

        Returns:
            A list of tensors for each layer, from layer 0 upwards, in the order of `layer.parameters()`. A parameter
            that does not influence the loss of this batch has a gradient of zeros. Parameters without `requires_grad`
            are left out.
        """
        import torch

        parameters = [[p for p in layer.parameters() if p.requires_grad] for layer in self.layers]
        flat = [parameter for of_layer in parameters for parameter in of_layer]
        computed = iter(torch.autograd.grad(self.loss(batch), flat, allow_unused=True, materialize_grads=True))
        return tuple([next(computed) for _ in of_layer] for of_layer in parameters)


@dataclass(frozen=True)
class Choice:
    """The result of `Strategy.choose`: the chosen freeze plan, and the scores of the layers that led to this choice."""

    plan: FreezePlan
    scores: tuple[float, ...]
    """The score of each layer, from layer 0 upwards. The strategy defines their meaning; each must be finite."""

    @classmethod
    def highest(cls, shape: EncoderShape, scores: Sequence[float], count: int) -> Choice:
        """Return the choice that trains the `count` layers with the highest scores.

        The embeddings and all other layers are frozen. Of layers with equal scores, upper layers are preferred.

        Args:
            shape: The size of the encoder (`Probe.shape`).
            scores: The score of each layer, from layer 0 upwards.
            count: The number of layers that train.
        """
        ranked = sorted(range(shape.layers), key=lambda layer: (scores[layer], layer), reverse=True)
        plan = FreezePlan(shape, frozenset(ranked[count:]), embeddings=True)
        return cls(plan, tuple(float(score) for score in scores))


@dataclass(frozen=True, slots=True)
class ProbeCost:
    """The computation that `Strategy.choose` needs, from which the cost of a run is estimated before it begins."""

    forward_passes: int = 0
    """The number of forward passes without backward pass, each over all examples of the probe."""
    gradient_passes: int = 0
    """The number of forward and backward passes, each over all examples of the probe."""
    trainings: tuple[FreezePlan, ...] = ()
    """The freeze plan of each call of `Probe.train_and_score`. If the plans depend on the results of earlier calls,
    these are the plans of the costliest case."""


@dataclass(frozen=True, slots=True)
class LayerScore:
    """The score that a strategy gave to one layer when it chose the layers to train (`Strategy.choose`)."""

    layer: int
    """The index of the layer, from 0."""
    score: float
    frozen: bool
    """True if the strategy chose to freeze the layer."""
