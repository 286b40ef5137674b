"""The probe of a loaded model, from which a strategy chooses the layers to train, and the strategy's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alue_bench.contract.strategy import EncoderShape, FreezePlan


@dataclass(frozen=True, slots=True)
class HeldOutScore:
    """The quality of a model that was trained on a part of the probe's examples, on the rest of them."""

    score: float
    """The task's primary metric; greater is better."""
    loss: float
    """The mean loss."""


@dataclass(frozen=True)
class Probe:
    """A copy of the loaded model in eval mode, and train examples on which `Strategy.choose` may run it.

    The copy is discarded afterwards. All of its parameters that influence the logits have `requires_grad` set.
    """

    model: Any
    """The model, a `torch.nn.Module` of transformers with the new head of the task."""
    shape: EncoderShape
    """The size of the encoder after `Strategy.kept_layers` was applied."""
    layers: tuple[Any, ...]
    """The encoder layers, `torch.nn.Module` each, from layer 0 upwards."""
    batches: tuple[Any, ...]
    """The tokenised train examples, as batches on the model's device with `input_ids` and `attention_mask`, int64
    [batch, tokens], and `targets`. There are `--probe-rows` examples, or all if the train split has fewer."""
    loss: Callable[[Any], Any]
    """A function that returns the mean loss of a batch, a tensor from which gradients can be computed."""
    hidden_states: Callable[[Any], tuple[Any, ...]]
    """A function that returns the outputs of the embeddings and of each layer for a batch: tensors [batch, tokens,
    hidden], one more than there are layers. Architectures may apply their last norm to the last one."""
    train_and_score: Callable[[FreezePlan], HeldOutScore]
    """A function that trains a copy of the loaded model under a freeze plan, and scores it. It trains on four fifths of
    the probe's examples with the run's own hyper-parameters, and scores the best epoch on the other fifth, for which
    the same examples are held out each time. Equal plans give equal results."""
    generator: Any
    """A `numpy.random.Generator`, seeded by the run's data seed."""

    def examples(self) -> Iterator[Any]:
        """Yield each example as a batch of its own, without padding."""
        for batch in self.batches:
            for row in range(len(batch.input_ids)):
                yield batch.rows(slice(row, row + 1))

    def gradients(self, batch: Any) -> tuple[list[Any], ...]:
        """Return the gradients of a batch's mean loss with respect to each layer's parameters: a list for each layer.

        The gradient of a parameter without influence on this batch's loss is zero.
        """
        import torch

        parameters = [[p for p in layer.parameters() if p.requires_grad] for layer in self.layers]
        flat = [parameter for of_layer in parameters for parameter in of_layer]
        computed = iter(torch.autograd.grad(self.loss(batch), flat, allow_unused=True, materialize_grads=True))
        return tuple([next(computed) for _ in of_layer] for of_layer in parameters)


@dataclass(frozen=True)
class Choice:
    """The freeze plan that a strategy chose, with the score of each layer."""

    plan: FreezePlan
    scores: tuple[float, ...]
    """The score of each layer, from layer 0 upwards, in a unit of the strategy's own."""

    @classmethod
    def highest(cls, shape: EncoderShape, scores: Sequence[float], count: int) -> Choice:
        """Return the choice that trains the `count` layers with the highest scores; equal scores favour upper layers.

        The embeddings and all other layers are frozen.
        """
        ranked = sorted(range(shape.layers), key=lambda layer: (scores[layer], layer), reverse=True)
        plan = FreezePlan(shape, frozenset(ranked[count:]), embeddings=True)
        return cls(plan, tuple(float(score) for score in scores))


@dataclass(frozen=True, slots=True)
class ProbeCost:
    """The work of a choice (`Strategy.choose`), by which a run's cost is estimated before it begins."""

    forward_passes: int = 0
    """The number of forward passes over all of the probe's examples."""
    gradient_passes: int = 0
    """The number of forward and backward passes over all of the probe's examples."""
    trainings: tuple[FreezePlan, ...] = ()
    """The freeze plans that are given to `Probe.train_and_score`. If they depend on results, those of the costliest
    case."""


@dataclass(frozen=True, slots=True)
class LayerScore:
    """The score of one layer in a strategy's choice, and whether the choice freezes the layer."""

    layer: int
    score: float
    frozen: bool
