"""The contract of strategies, which decide which parameters of a model are trained and which are frozen.

A strategy plugin returns `StrategyFamily` values from the hook `alue_bench_strategies`. A family is a set of strategies
whose names have a common form. It turns each name into a `Strategy`: the family `bottom<N>top<M>`, for example, accepts
the name `bottom3top4`.

alue-bench calls these methods of a strategy in a run; all but `freeze_plan` are optional:

    kept_layers(shape)       before anything else: select the layers that stay in the model
    freeze_plan(shape)       before training: freeze parts of the kept layers, the embeddings and the pooler
    adapter()                before training: insert small modules that train instead of the model's own weights
    compute_limit()          before training: limit the FLOPs of training, and so the number of steps
    choose(probe)            before training: choose the frozen parts by inspecting the loaded model and train examples
    revisions(), revise()    during training: change what is frozen (adaptive strategies only)
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import index
from typing import TYPE_CHECKING, Any, Literal

from alue_bench.contract.errors import DoesNotFit
from alue_bench.contract.validation import check_callable, check_mapping, check_stated, check_texts, check_types

if TYPE_CHECKING:
    from alue_bench.contract.probe import Choice, Probe, ProbeCost


@dataclass(frozen=True)
class EncoderShape:
    """The size of an encoder. It is known before the model's weights are loaded."""

    layers: int
    """The number L of encoder layers. Layer 0 is next to the embeddings, and layer L-1 is next to the head."""
    hidden_size: int = 0
    """The width of the hidden states; 0 if the model's configuration does not state it."""


STRATEGY_NAME = re.compile(r"[a-z0-9][a-z0-9._%+@-]*")
"""The pattern of the names of strategies. Commas are not permitted, because they separate the names in a list."""

TrainedPart = Literal["weights", "biases", "norms", "attention", "feed-forward", "names", "adapters"]
TRAINED: tuple[TrainedPart, ...] = ("weights", "biases", "norms", "attention", "feed-forward", "names", "adapters")
"""The permitted values of `FreezePlan.trained`: the kinds of parameters that train in the parts that are not frozen."""


@dataclass(frozen=True)
class FreezePlan:
    """The parts of an encoder that are frozen (not trained). The head always trains.

    Creating a plan raises DoesNotFit if it freezes a layer that the encoder does not have.
    """

    shape: EncoderShape
    """The size of the encoder."""
    frozen_layers: frozenset[int] = frozenset()
    """The indices of the frozen layers, from 0."""
    embeddings: bool = False
    """True if the embeddings are frozen."""
    pooler: bool = False
    """True if the pooler is frozen."""
    trained: TrainedPart = "weights"
    """The parameters that train in the layers and embeddings that are not frozen:

    - "weights": all parameters;
    - "biases": only biases, including the biases of normalisation layers;
    - "norms": only the parameters of normalisation layers;
    - "attention": only the attention of each layer, without normalisation layers;
    - "feed-forward": everything in a layer except attention and normalisation layers;
    - "names": only the parameters whose names match one of the patterns in `names`;
    - "adapters": only the strategy's adapters (`Strategy.adapter`).

    alue-bench finds these parameters in every architecture, whatever their names are. Before a run, it also freezes
    the layers and the embeddings in which no parameter trains, so that the frozen prefix (`prefix_layers`) ends
    directly below the lowest layer in which a parameter trains."""
    names: tuple[str, ...] = ()
    """The patterns for `trained="names"`, with `*`, `?` and `[…]` as in file names (`fnmatch`). They must match whole
    names, as in `model.named_parameters()`: "*.query.*" matches the query projections of BERT's layers."""
    frozen_parameters: frozenset[str] = frozenset()
    """The names, as in `model.named_parameters()`, of single parameters that are frozen in addition to those that the
    other fields freeze. Adaptive strategies take the names from `TrainingProgress.changes`."""

    def __post_init__(self) -> None:
        """Check each field; raise DoesNotFit if the plan freezes a layer that the encoder does not have."""
        check_types("freeze plan", vars(self), {"shape": EncoderShape, "embeddings": bool, "pooler": bool})
        if self.trained not in TRAINED:
            raise ValueError(f"freeze plan: trained is {self.trained!r}; it must be {', '.join(TRAINED)}")
        check_texts("freeze plan", vars(self), ("names",))
        if (self.trained == "names") != bool(self.names):
            raise ValueError(
                f"freeze plan: trained is {self.trained!r} and names is {self.names!r}; give patterns in `names` "
                'together with trained="names", and only then'
            )
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "frozen_parameters", frozenset(self.frozen_parameters))
        if not all(isinstance(name, str) for name in self.frozen_parameters):
            raise TypeError("freeze plan: frozen_parameters must be names of parameters")
        # Any iterable of integers is accepted, including NumPy's. They become ints, so that plans compare equal and can
        # be written as JSON.
        object.__setattr__(self, "frozen_layers", frozenset(map(index, self.frozen_layers)))
        outside = sorted(layer for layer in self.frozen_layers if not 0 <= layer < self.shape.layers)
        if outside:
            raise DoesNotFit(f"freezes layer {outside[0]}, but the model has layers 0 to {self.shape.layers - 1}")

    @property
    def bottom(self) -> int:
        """The number of consecutive frozen layers from layer 0 upwards."""
        return next((n for n in range(self.shape.layers) if n not in self.frozen_layers), self.shape.layers)

    @property
    def top(self) -> int:
        """The number of consecutive frozen layers from layer L-1 downwards; 0 if all layers are frozen."""
        above = range(self.shape.layers - 1, self.bottom - 1, -1)
        return next((n for n, layer in enumerate(above) if layer not in self.frozen_layers), len(above))

    @property
    def prefix_layers(self) -> int | None:
        """The number of layers in the frozen prefix, 0 if only embeddings are in it; None if there is no frozen prefix.

        The frozen prefix consists of the frozen embeddings and the consecutive frozen layers from layer 0 upwards. Its
        outputs do not change during training, so that they can be computed once. If the embeddings train, the outputs
        of all layers change, even those of frozen layers; then there is no frozen prefix.
        """
        return self.bottom if self.embeddings else None

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-like data: the number of layers, the indices of frozen layers, and the other fields.

        `names` and `frozen_parameters` are left out if they are empty.
        """
        return {
            "layers": self.shape.layers,
            "frozen_layers": sorted(self.frozen_layers),
            "embeddings": self.embeddings,
            "pooler": self.pooler,
            "trained": self.trained,
            **self.single_parameters(),
        }

    def single_parameters(self) -> dict[str, list[str]]:
        """Return the fields `names` and `frozen_parameters` as JSON-like data, without the fields that are empty."""
        fields = {"names": list(self.names), "frozen_parameters": sorted(self.frozen_parameters)}
        return {name: value for name, value in fields.items() if value}

    def revises(self, other: FreezePlan) -> bool:
        """Return whether this plan may replace the plan `other` during training.

        It may replace the other plan if the plans differ only in whether they freeze the embeddings and the pooler, and
        in the layers and single parameters that they freeze.
        """
        return (self.shape, self.trained, self.names) == (other.shape, other.trained, other.names)

    def describe(self) -> str:
        """Return a description of the frozen parts for readers, such as "embeddings, layers 0-2, 8-11"."""
        parts = ["embeddings"] if self.embeddings else []
        parts += [_layer_ranges(self.frozen_layers)] if self.frozen_layers else []
        parts += ["pooler"] if self.pooler else []
        where = "the other layers" if self.frozen_layers else "the layers"
        if self.trained == "names":
            parts.append(f"all but {', '.join(self.names)} of {where}")
        elif self.trained != "weights":
            parts.append(f"all but the {self.trained} of {where}")
        if self.frozen_parameters:
            parts.append(f"{len(self.frozen_parameters)} single parameters of {where}")
        return ", ".join(parts) or "nothing"


@dataclass(frozen=True)
class Adapter:
    """Small trainable modules that the Python package `peft` inserts into the layers, such as LoRA."""

    kind: str
    """The adapter's `peft_type`, such as "LORA" or "IA3"."""
    options: Mapping[str, object] = field(default_factory=dict)
    """The fields of the configuration class of this kind in `peft`, such as `r` of `LoraConfig`, as JSON-like values.
    If `target_modules` is missing, the default of `peft` for the architecture is used."""

    def __post_init__(self) -> None:
        """Check the type of each field, and that `options` can be written as JSON."""
        check_types("adapter", vars(self), {"kind": str})
        check_stated("adapter", vars(self), ("kind",))
        check_mapping("adapter", vars(self), "options", object)
        object.__setattr__(self, "options", dict(self.options))
        try:  # the options are part of a run's record and fingerprint
            json.dumps(self.options)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"adapter {self.kind!r}: its options are not JSON-like ({error}); use lists instead of sets, and "
                "plain numbers and strings"
            ) from error


@dataclass(frozen=True)
class Revisions:
    """The evaluation points of an adaptive strategy, and the measurements that it needs there.

    An evaluation point is a point during training at which `Strategy.revise` is called to change the frozen parts.
    """

    per_epoch: int = 1
    """The number of evaluation points in an epoch. They divide the epoch's steps into equal parts; the last one is the
    end of the epoch. The end of the last epoch is not an evaluation point, because nothing trains after it."""
    at_start: bool = False
    """True if `Strategy.revise` is also called before the first step, with epoch 1 and step 0. Training then begins
    with the plan that it returns. The estimated cost of the run is still based on the plan of `Strategy.freeze_plan`.
    """
    gradient_norms: bool = False
    """True if `Strategy.revise` uses the gradient norms in `TrainingProgress.norms`. Measuring them costs one addition
    per trained parameter and step."""
    matrix_changes: bool = False
    """True if `Strategy.revise` uses the changes of each weight matrix's gradient in `TrainingProgress.changes`.
    Measuring them costs one addition per trained parameter and step, and memory for two copies of the gradients."""
    prefix_only_grows: bool = False
    """True if the frozen prefix (`FreezePlan.prefix_layers`) never shrinks during training; a run in which it shrinks
    fails. The outputs of the prefix are then cached. When the prefix grows, the outputs of the larger prefix are
    computed once from the cached outputs. If False, the prefix is computed at every step."""

    def __post_init__(self) -> None:
        """Check each field."""
        flags = {"at_start": bool, "gradient_norms": bool, "matrix_changes": bool, "prefix_only_grows": bool}
        check_types("revisions", vars(self), {"per_epoch": int, **flags})
        if self.per_epoch < 1:
            raise ValueError(f"per_epoch is {self.per_epoch}; it must be at least 1")


@dataclass(frozen=True)
class ComputeLimit:
    """A limit on the FLOPs of training: a share of the FLOPs of full fine-tuning, or the FLOPs of another strategy.

    Exactly one of the two fields must be given.
    """

    share: float = 0.0
    """The share of the FLOPs of full fine-tuning with all epochs, above 0 and below 1; 0 if `like` is given."""
    like: str | None = None
    """The name of the strategy whose number of FLOPs is the limit; None if `share` is given."""

    def __post_init__(self) -> None:
        """Check that exactly one field is given and that its value is valid."""
        check_types("compute limit", vars(self), {"share": float})
        if self.like is not None and not (isinstance(self.like, str) and self.like):
            raise TypeError(f"compute limit: like is {self.like!r}; it must be the name of a strategy")
        if (self.like is None) != (0 < self.share < 1) or (self.like is not None and self.share):
            raise ValueError(f"compute limit: give either a share above 0 and below 1 (not {self.share!r}), or like")


@dataclass(frozen=True)
class BlockNorms:
    """The L2 norms of accumulated gradients, one for the embeddings and one for each encoder layer.

    They are measured at an evaluation point (call of `Strategy.revise`): the gradients of all steps since the previous
    evaluation point are summed, and the norm of the sum is taken.
    """

    embeddings: float | None
    """The norm for the embeddings; None if they have not been trained since the previous evaluation point."""
    layers: tuple[float | None, ...]
    """The norm for each layer, from layer 0 upwards; None for a layer that has not been trained since the previous
    evaluation point."""


@dataclass(frozen=True)
class MatrixChanges:
    """The changes of the gradients of the weight matrices in the encoder layers, measured at an evaluation point.

    A weight matrix is a parameter with more than one dimension, so that biases and the parameters of normalisation
    layers are not measured. At each evaluation point (call of `Strategy.revise`), the gradients of all steps since the
    previous evaluation point are averaged. The change is the sum of the absolute differences between the elements of
    this average and of the average at the previous evaluation point.
    """

    layers: tuple[Mapping[str, float], ...]
    """For each layer, from layer 0 upwards, the change of each of its weight matrices by the name of the parameter, as
    in `model.named_parameters()`. A matrix is missing unless it was trained in both periods that are compared; at the
    first evaluation point, the mappings are empty."""


@dataclass(frozen=True)
class TrainingProgress:
    """The state of training when `Strategy.revise` is called, so that the strategy can decide what to freeze."""

    epoch: int
    """The number, from 1, of the epoch that is in progress or has just ended."""
    epochs: int
    """The planned number of epochs."""
    step: int
    """The number of parameter updates so far."""
    steps: int
    """The planned number of parameter updates."""
    dev_scores: tuple[float, ...] = ()
    """The dev score after each epoch that has ended."""
    norms: tuple[BlockNorms, ...] = ()
    """The gradient norms at each evaluation point up to and including this one, in order; empty unless
    `Revisions.gradient_norms` is True."""
    changes: tuple[MatrixChanges, ...] = ()
    """The changes of gradients at each evaluation point up to and including this one, in order; empty unless
    `Revisions.matrix_changes` is True."""
    data_seed: int = 0
    """The run's random seed for the order of the train examples. Strategies that freeze parts at random must derive
    their random numbers from it."""

    @property
    def ends_epoch(self) -> bool:
        """True if this evaluation point is the end of an epoch."""
        return len(self.dev_scores) == self.epoch


def _layer_ranges(layers: Iterable[int]) -> str:
    """Return the indices of layers as text, such as "layers 0-2, 8-11" or "layer 3"."""
    ordered = sorted(layers)
    blocks: list[list[int]] = []
    for layer in ordered:
        if blocks and blocks[-1][-1] == layer - 1:
            blocks[-1].append(layer)
        else:
            blocks.append([layer])
    spans = [f"{block[0]}-{block[-1]}" if len(block) > 1 else str(block[0]) for block in blocks]
    return f"layer{'s' if len(ordered) > 1 else ''} {', '.join(spans)}"


class Strategy(ABC):
    """A rule that decides which parameters of a model are trained.

    Strategies with equal names must be equal values and behave in the same way; a frozen dataclass is suitable.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The canonical name of the strategy. `StrategyFamily.parse` must return an equal strategy for this name."""

    @abstractmethod
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return the parts of the encoder that are frozen when training begins.

        The cost of a run is estimated from this plan. A strategy that overrides `choose` therefore returns the
        costliest plan that `choose` may return.

        Args:
            shape: The size of the encoder after `kept_layers` was applied.

        Raises:
            DoesNotFit: The encoder has too few layers. The message says how many it has and how many are needed.
        """

    def kept_layers(self, shape: EncoderShape) -> tuple[int, ...]:
        """Return the indices of the encoder layers that stay in the model, in ascending order; by default all of them.

        All other layers are removed before the run.

        Args:
            shape: The size of the pre-trained encoder.

        Raises:
            DoesNotFit: No layer would be left. The message says how many layers the encoder has.
        """
        return tuple(range(shape.layers))

    def meaning(self, shape: EncoderShape) -> str:
        """Return a sentence for users on what the strategy's name means for an encoder of this size.

        An example is "last-quarter freezes bottom 9 of 12 layers". The default is an empty string, which is suitable
        for names that need no explanation.

        Args:
            shape: The size of the encoder after `kept_layers` was applied, for which `freeze_plan` gave a plan.
        """
        return ""

    def adapter(self) -> Adapter | None:
        """Return the adapter to insert into the model; None (the default) to insert nothing.

        The freeze plan of a strategy with an adapter must have `trained="adapters"`.
        """
        return None

    def compute_limit(self) -> ComputeLimit | None:
        """Return a limit on the FLOPs of training; None (the default) to train for all epochs.

        alue-bench converts the limit to the nearest number of training steps. The learning rate decays over these
        steps.
        """
        return None

    def choose(self, probe: Probe) -> Choice:
        """Inspect the loaded model, and return the freeze plan that the strategy chooses, with a score of each layer.

        If a strategy overrides this method, it is called once in each run, after the weights are loaded and before
        training. Its time and FLOPs count as costs of the run. The result must depend only on the probe and the
        strategy; random numbers come from `probe.generator`.

        Let the first plan be the one that `freeze_plan` returned. The chosen plan must freeze at least as many layers
        as the first plan. It must freeze the embeddings if the first plan does, and the pooler if the first plan does.
        Its `shape`, `trained` and `names` must be equal to those of the first plan. Otherwise, the run fails.

        Args:
            probe: A copy of the loaded model, tokenised train examples and the loss.
        """
        raise NotImplementedError(f"strategy {self.name!r} does not choose its layers by a probe")

    def probe_cost(self, shape: EncoderShape) -> ProbeCost | None:
        """Return the computation that `choose` needs for an encoder of this size; None (the default) if it is unknown.

        The result is used only to estimate costs (`alue-bench run --dry-run`). The costs that are recorded with a run
        are measured.

        Args:
            shape: The size of the encoder after `kept_layers` was applied.
        """
        return None

    @property
    def chooses(self) -> bool:
        """True if the strategy overrides `choose`, that is, if it chooses the frozen parts at the start of a run."""
        return type(self).choose is not Strategy.choose

    def revisions(self) -> Revisions | None:
        """Return when `revise` is called, and what is measured for it; None (the default) if it is never called."""
        return None

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        """Return the freeze plan that applies from this evaluation point on.

        The method is called only if `revisions` does not return None. The result must depend only on the arguments and
        the strategy. Parameters that were frozen and train again start with a new optimiser state; parameters that
        continue to train keep their optimiser state.

        Args:
            plan: The freeze plan that applied until now. The returned plan must have the same `shape`, `trained` and
                `names`; everything else may differ.
            progress: The state of training at this evaluation point.
        """
        return plan

    @property
    def keeps_prefix(self) -> bool:
        """True if the frozen prefix never shrinks during training, so that its outputs are worth caching.

        The frozen prefix consists of the frozen embeddings and the consecutive frozen layers from layer 0 upwards.
        """
        revisions = self.revisions()
        return revisions is None or revisions.prefix_only_grows


@dataclass(frozen=True)
class Outline:
    """The changes that a strategy makes to a model of a given size before training."""

    freeze_plan: FreezePlan
    """The parts that are frozen, in the model that consists of the kept layers."""
    kept_layers: tuple[int, ...] | None
    """The indices of the layers that stay in the model; None if all layers stay."""
    adapter: Adapter | None
    """The adapter that is inserted; None if there is none."""
    meaning: str = ""
    """The meaning of the strategy's name for this model, from `Strategy.meaning`; empty if it needs no explanation."""

    def describe(self) -> str:
        """Return in words what is frozen, which layers remain if some are removed, and which adapter is inserted.

        An example is "nothing; only layers 0-7 left", if nothing is frozen and the higher layers are removed.
        """
        parts = [self.freeze_plan.describe()]
        if self.kept_layers is not None:
            parts.append(f"only {_layer_ranges(self.kept_layers)} left")
        if self.adapter is not None:
            parts.append(f"{self.adapter.kind} added")
        return "; ".join(parts)


def outline(strategy: Strategy, shape: EncoderShape) -> Outline:
    """Return the changes that a strategy makes to a model of this size before training.

    Errors in the strategy's code are passed on; `registry.outline_of` converts them to errors that name the plugin.

    Args:
        strategy: The strategy.
        shape: The size of the model's encoder.

    Raises:
        DoesNotFit: The strategy cannot be applied to the model; `kept_layers` does not return layers of the model in
            ascending order; or the strategy has an adapter but its freeze plan does not have `trained="adapters"`, or
            the plan has it but there is no adapter.
        TypeError: `freeze_plan` does not return a FreezePlan for the kept layers, or `meaning` does not return a
            string.
    """
    kept = tuple(map(index, strategy.kept_layers(shape)))
    if not kept or list(kept) != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] < shape.layers:
        raise DoesNotFit(f"keeps layers {kept!r:.60} of a model that has 0 to {shape.layers - 1}")
    plan = strategy.freeze_plan(EncoderShape(len(kept), shape.hidden_size))
    if not isinstance(plan, FreezePlan) or plan.shape.layers != len(kept):
        raise TypeError(f"freeze_plan() returned {plan!r:.60} where a FreezePlan of {len(kept)} layers was expected")
    adapter = strategy.adapter()
    if (adapter is not None) != (plan.trained == "adapters"):
        raise DoesNotFit(f"its freeze plan trains {plan.trained}, but it has {'an' if adapter else 'no'} adapter")
    meaning = strategy.meaning(plan.shape)
    if not isinstance(meaning, str):
        raise TypeError(f"meaning() returned {meaning!r:.60} where a text was expected")
    return Outline(plan, kept if len(kept) < shape.layers else None, adapter, meaning)


@dataclass(frozen=True, kw_only=True)
class StrategyFamily:
    """A family of strategies: a set of strategies whose names have a common form, with a description and a source.

    Creating a family raises TypeError or ValueError, naming the field, if a field has a wrong type or is empty.
    """

    grammar: str
    """The form of the names in this family, such as "bottom<N>top<M>"; lists and error messages show it."""
    title: str
    """A short description of the strategies, which lists show."""
    source: str
    """The publication that proposed or measured the strategies."""
    examples: tuple[str, ...]
    """Some names that `parse` accepts. Lists show them, and `check_strategy` tests the strategies with these names."""
    parse: Callable[[str], Strategy | None]
    """The function that takes a name and returns its strategy, or None if the name does not belong to this family.

    It raises UsageError if the name belongs to this family but has an impossible value, such as a number out of range.
    """

    def __post_init__(self) -> None:
        """Check the type of each field."""
        stated = ("grammar", "title", "source", "examples")
        check_stated(f"strategy family {self.grammar or self.title!r}", vars(self), stated)
        owner = f"strategy family {self.grammar!r}"
        check_types(owner, vars(self), {"grammar": str, "title": str, "source": str})
        check_texts(owner, vars(self), ("examples",))
        check_callable(owner, "parse", self.parse)
