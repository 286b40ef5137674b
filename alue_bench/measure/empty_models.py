"""Models without weights, from whose shapes the FLOPs of training are computed.

The computation assumes that the outputs of a frozen prefix (the embeddings and lowest layers, if they are frozen) can
be cached. A model whose forward pass cannot start from cached outputs costs more than computed. An adaptive strategy
changes the frozen parts during training, but its FLOPs are computed as if it did not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from alue_bench.contract.spec import digest_of
from alue_bench.contract.strategy import FreezePlan, Outline, Strategy
from alue_bench.contract.task import Labels
from alue_bench.measure.flops import forward_flops, training_parts
from alue_bench.training.architecture.anatomy import architecture_fields
from alue_bench.training.architecture.encoder_stack import EncoderStack, LastLayer
from alue_bench.training.forward import last_layer_of
from alue_bench.training.freezing import without_idle_parts
from alue_bench.training.surgery import model_in_outline

if TYPE_CHECKING:
    import numpy as np

Value = TypeVar("Value")


@dataclass(frozen=True)
class EmptyModel:
    """A model without weights (on the meta device), with the layers that a strategy keeps and the adapters it adds."""

    stack: EncoderStack
    plan: FreezePlan
    """The freeze plan of the model."""
    kept_layers: int
    """The number of frozen lowest layers that are computed once for each example and whose outputs are cached."""
    last_layer: LastLayer
    """The tokens for which the last layer is computed, such as "whole" for all of them; see `LastLayer`."""
    counted: dict[tuple[object, ...], Any] = field(default_factory=dict, repr=False, compare=False)
    """The results of earlier FLOP computations; a key holds everything that determines the result. The models of a plan
    share one dictionary, because many runs of a plan have the same texts."""

    def training(self, lengths: np.ndarray[Any, Any], epochs: int, batch_size: int) -> float:
        """Return the training FLOPs of a run, as the run will record them under `flops/train`.

        Args:
            lengths: The lengths of the train examples in tokens, int64 [examples].
            epochs: The number of epochs.
            batch_size: The number of examples in a batch.
        """
        once, each_epoch = self._counted_once(
            lambda: training_parts(
                self.stack,
                self.plan,
                lengths,
                prefix_cached=self.kept_layers > 0,
                last_layer=self.last_layer,
                batch_size=batch_size,
            ),
            (self.plan, self.kept_layers > 0, batch_size),
            lengths,
        )
        return once + each_epoch * epochs

    def scoring(self, lengths: np.ndarray[Any, Any]) -> float:
        """Return the FLOPs of a forward pass over examples of these lengths in tokens (int64 [examples])."""
        return self._counted_once(
            lambda: forward_flops(self.stack, lengths, last_layer=self.last_layer), ("scoring",), lengths
        )

    def _counted_once(self, count: Callable[[], Value], of: tuple[object, ...], lengths: np.ndarray[Any, Any]) -> Value:
        """Return the result of `count`, or that of an earlier call for the same model, lengths and values `of`.

        Args:
            count: A function that computes the FLOPs of this model.
            of: The values, in addition to model and lengths, that determine the result.
            lengths: The lengths of the examples in tokens, int64 [examples].
        """
        key = (id(self.stack), self.last_layer, *of, lengths.tobytes())
        if key not in self.counted:
            self.counted[key] = count()
        value: Value = self.counted[key]
        return value


class EmptyModels:
    """A factory of models without weights (on the meta device) for the runs of a plan.

    Runs whose models have the same shapes share one `EncoderStack`.
    """

    def __init__(self, *, keeps_prefixes: bool, device: str) -> None:
        """Create a factory of models without weights.

        Args:
            keeps_prefixes: Whether the plan caches the outputs of frozen lowest layers.
            device: The kind of device on which the runs train.
        """
        self._device = device
        self._keeps_prefixes = keeps_prefixes
        self._stacks: dict[tuple[object, ...], EncoderStack] = {}
        self._counted: dict[tuple[object, ...], Any] = {}

    def of(self, config: Any, labels: Labels, strategy: Strategy, outline: Outline) -> EmptyModel:
        """Return the model that a run trains, without weights (on the meta device).

        Args:
            config: The configuration of the pre-trained model, a transformers `PretrainedConfig`.
            labels: The label space of the training task.
            strategy: The strategy.
            outline: The strategy's freeze plan, and the changes that it makes to the model.
        """
        changed = outline.kept_layers is not None or outline.adapter is not None
        key = (
            digest_of(architecture_fields(config)),
            labels.reads_tokens,
            labels.outputs,
            strategy.name if changed else None,
        )
        if key not in self._stacks:
            self._stacks[key] = model_in_outline(config, outline, labels)
        stack = self._stacks[key]
        plan = without_idle_parts(stack, outline.freeze_plan)
        cached_layers = (plan.prefix_layers or 0) if self._keeps_prefixes and strategy.keeps_prefix else 0
        return EmptyModel(stack, plan, cached_layers, last_layer_of(stack, self._device), self._counted)
