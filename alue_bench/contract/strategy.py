"""The contract of strategies, which decide which parameters of a model are trained and which are frozen.

A strategy plugin returns `StrategyFamily` values from the hook `alue_bench_strategies`. A family is a set of strategies
whose names have a common form. It turns each name into a `Strategy`: the family `bottom<N>top<M>`, for example, accepts
the name `bottom3top4`.

A strategy acts at six points of a run; all but the second are optional:

    kept_layers(shape)       before anything else: select the layers that stay in the model
    freeze_plan(shape)       before training: freeze parts of the kept layers, the embeddings and the pooler
    adapter()                before training: insert small modules that train instead of the model's own weights
    compute_limit()          before training: give the training fewer steps
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
    """The size of an encoder, from which a strategy can choose layers before the model's weights are loaded."""

    layers: int
    """The number L of encoder layers. Their indices run from 0 (next to the embeddings) to L-1 (next to the head)."""
    hidden_size: int = 0
    """The width of the hidden states; 0 if the model's configuration does not state it."""


STRATEGY_NAME = re.compile(r"[a-z0-9][a-z0-9._%+@-]*")
"""The pattern of the names of strategies. A name contains no comma, because commas separate names in a list."""

TrainedPart = Literal["weights", "biases", "norms", "attention", "feed-forward", "names", "adapters"]
TRAINED: tuple[TrainedPart, ...] = ("weights", "biases", "norms", "attention", "feed-forward", "names", "adapters")
"""The permitted values of `FreezePlan.trained`, which says what trains in the parts that are not frozen."""


@dataclass(frozen=True)
class FreezePlan:
    """The parts of an encoder that are frozen. The head of the task always trains."""

    shape: EncoderShape
    frozen_layers: frozenset[int] = frozenset()
    """The indices of the frozen layers."""
    embeddings: bool = False
    """True if the embeddings are frozen."""
    pooler: bool = False
    """True if the pooler is frozen."""
    trained: TrainedPart = "weights"
    """The parameters that train in the layers and embeddings that are not frozen, whatever the architecture calls them:

    - "weights": all of them;
    - "biases": the biases alone, also those of norms;
    - "norms": the parameters of the normalisation layers alone;
    - "attention": the attention of each layer, without norms;
    - "feed-forward": everything in a layer but attention and norms;
    - "names": those whose names match a pattern in `names`;
    - "adapters": the strategy's adapters alone.

    Before a run, layers and embeddings in which nothing trains are frozen, so that the frozen prefix ends below the
    lowest layer in which something does."""
    names: tuple[str, ...] = ()
    """The patterns of `trained="names"`, with `*`, `?` and `[…]` as in file names (`fnmatch`). They are compared with
    whole names, as in `model.named_parameters()`: "*.query.*" matches the query projections of BERT's layers."""
    frozen_parameters: frozenset[str] = frozenset()
    """The names of single parameters that are frozen although the other fields say that they train, as in
    `model.named_parameters()`. Adaptive strategies take these names from `TrainingProgress.changes`."""

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
        # Any iterable of numbers is accepted, also NumPy's. They become ints, by which plans are recorded and compared.
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
        """The number of consecutive frozen layers from the last layer downwards, without those counted in `bottom`."""
        above = range(self.shape.layers - 1, self.bottom - 1, -1)
        return next((n for n, layer in enumerate(above) if layer not in self.frozen_layers), len(above))

    @property
    def prefix_layers(self) -> int | None:
        """The number of layers in the frozen prefix, or None if there is no frozen prefix.

        The frozen prefix consists of the frozen embeddings and the consecutive frozen layers above them; its outputs
        never change. If the embeddings train, the outputs of all layers change, even of frozen layers, so that there is
        no frozen prefix.
        """
        return self.bottom if self.embeddings else None

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON-like data: the number of layers, the frozen layers from 0, and the other parts."""
        return {
            "layers": self.shape.layers,
            "frozen_layers": sorted(self.frozen_layers),
            "embeddings": self.embeddings,
            "pooler": self.pooler,
            "trained": self.trained,
            **self.single_parameters(),
        }

    def single_parameters(self) -> dict[str, list[str]]:
        """Return the fields that name single parameters, as JSON-like data; only those that are not empty."""
        fields = {"names": list(self.names), "frozen_parameters": sorted(self.frozen_parameters)}
        return {name: value for name, value in fields.items() if value}

    def revises(self, other: FreezePlan) -> bool:
        """Return whether a training can go from another plan to this one: both differ at most in what is frozen."""
        return (self.shape, self.trained, self.names) == (other.shape, other.trained, other.names)

    def describe(self) -> str:
        """Return a description of the frozen parts for people, such as "embeddings, layers 0-2, 8-11"."""
        parts = ["embeddings"] if self.embeddings else []
        parts += [_named(self.frozen_layers)] if self.frozen_layers else []
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
    """The fields of the kind's configuration class in `peft`, as JSON-like values. If `target_modules` is not given,
    the package's own choice for the architecture is used."""

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
    """The points during training at which an adaptive strategy changes what is frozen (`Strategy.revise`)."""

    per_epoch: int = 1
    """The number of these points in an epoch. They divide the epoch's steps into equal parts; the last one is the end
    of the epoch."""
    at_start: bool = False
    """True if `Strategy.revise` is also called before the first step, with epoch 1 and step 0. Its plan then replaces
    that of `Strategy.freeze_plan`, from which the cost of the run is estimated."""
    gradient_norms: bool = False
    """True if `Strategy.revise` uses the gradient norms in `TrainingProgress.norms`. Measuring them costs one addition
    per training weight and step."""
    matrix_changes: bool = False
    """True if `Strategy.revise` uses the changes of each weight matrix's gradient in `TrainingProgress.changes`.
    Measuring them costs one addition per training weight and step, and memory for two copies of the gradients."""
    prefix_only_grows: bool = False
    """True if the frozen prefix (`FreezePlan.prefix_layers`) never shrinks during training. The outputs of the prefix
    are then cached; each time the prefix grows, its new outputs are computed once from the cached ones. If False, the
    prefix is computed at every step."""

    def __post_init__(self) -> None:
        """Check each field."""
        flags = {"at_start": bool, "gradient_norms": bool, "matrix_changes": bool, "prefix_only_grows": bool}
        check_types("revisions", vars(self), {"per_epoch": int, **flags})
        if self.per_epoch < 1:
            raise ValueError(f"per_epoch is {self.per_epoch}; it must be at least 1")


@dataclass(frozen=True)
class ComputeLimit:
    """A limit on the training FLOPs of a run: a share of those of full fine-tuning, or those of another strategy.

    Exactly one of the two fields is given.
    """

    share: float = 0.0
    """The share of the FLOPs of full fine-tuning with all epochs, above 0 and below 1."""
    like: str | None = None
    """The name of the strategy whose FLOPs are the limit."""

    def __post_init__(self) -> None:
        """Check that exactly one field is given, and its value."""
        check_types("compute limit", vars(self), {"share": float})
        if self.like is not None and not (isinstance(self.like, str) and self.like):
            raise TypeError(f"compute limit: like is {self.like!r}; it must be the name of a strategy")
        if (self.like is None) != (0 < self.share < 1) or (self.like is not None and self.share):
            raise ValueError(f"compute limit: give either a share above 0 and below 1 (not {self.share!r}), or like")


@dataclass(frozen=True)
class BlockNorms:
    """The L2 norms of accumulated gradients, one for the embeddings and one for each encoder layer.

    The gradients of all steps since the last evaluation point (call of `Strategy.revise`) are summed, and then the norm
    is taken.
    """

    embeddings: float | None
    """The norm for the embeddings; None if no step since the last evaluation point trained them."""
    layers: tuple[float | None, ...]
    """The norm for each layer, from layer 0 upwards; None if no step since the last evaluation point trained it."""


@dataclass(frozen=True)
class MatrixChanges:
    """The change of the gradient of each weight matrix in the layers, between two evaluation points.

    A weight matrix is a parameter of more than one dimension; biases and norms are not measured.
    The gradients of all steps since the last evaluation point are averaged. The change is the element-wise L1 norm of
    the difference between this average and that of the evaluation point before.
    """

    layers: tuple[Mapping[str, float], ...]
    """For each layer, from layer 0 upwards, the change of each weight matrix that has trained since the evaluation
    point before the last one, by the name of the parameter in the model. Empty at the first evaluation point."""


@dataclass(frozen=True)
class TrainingProgress:
    """The state of training when `Strategy.revise` is called, so that the strategy can decide what to freeze."""

    epoch: int
    """The number, from 1, of the epoch that is in progress or has just ended."""
    epochs: int
    """The number of epochs of the whole training."""
    step: int
    """The number of parameter updates so far."""
    steps: int
    """The number of parameter updates of the whole training."""
    dev_scores: tuple[float, ...] = ()
    """The dev score after each epoch that has ended."""
    norms: tuple[BlockNorms, ...] = ()
    """The gradient norms at each evaluation point so far, in order; empty unless `Revisions.gradient_norms` is True."""
    changes: tuple[MatrixChanges, ...] = ()
    """The changes of gradients at each evaluation point so far, in order; empty unless `Revisions.matrix_changes` is
    True."""
    data_seed: int = 0
    """The run's random seed of the order of the training data, for strategies that draw what is frozen."""

    @property
    def ends_epoch(self) -> bool:
        """True if the epoch ends at this evaluation point."""
        return len(self.dev_scores) == self.epoch


def _named(layers: Iterable[int]) -> str:
    """Return the layers as text, such as "layers 0-2, 8-11" or "layer 3"."""
    ordered = sorted(layers)
    runs: list[list[int]] = []
    for layer in ordered:
        if runs and runs[-1][-1] == layer - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    spans = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return f"layer{'s' if len(ordered) > 1 else ''} {', '.join(spans)}"


class Strategy(ABC):
    """A rule that decides which parameters of a model are trained. Strategies with equal names must behave equally."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The canonical name of the strategy, from which `StrategyFamily.parse` must make an equal strategy."""

    @abstractmethod
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return the parts of the encoder that are frozen when training begins.

        A strategy that chooses (`choose`) returns the costliest plan that it may choose. The cost of a run is estimated
        from it before the run.

        Args:
            shape: The size of the encoder after `kept_layers` was applied.

        Raises:
            DoesNotFit: The encoder has too few layers. The message says how many it has and how many are needed.
        """

    def kept_layers(self, shape: EncoderShape) -> tuple[int, ...]:
        """Return the layers of the pre-trained model that stay in it, in ascending order; by default all of them.

        Raises:
            DoesNotFit: No layer would be left. The message says how many layers there are.
        """
        return tuple(range(shape.layers))

    def meaning(self, shape: EncoderShape) -> str:
        """Return a sentence for people that says what the strategy's name means for an encoder of this size.

        An example is "last-quarter freezes bottom 9 of 12 layers". The default, an empty text, is for names that need
        no explanation.

        Args:
            shape: The size of the encoder after `kept_layers` was applied, for which `freeze_plan` gave a plan.
        """
        return ""

    def adapter(self) -> Adapter | None:
        """Return the modules to insert into the model, or None (the default) for no modules.

        A strategy with an adapter returns a freeze plan with `trained="adapters"`.
        """
        return None

    def compute_limit(self) -> ComputeLimit | None:
        """Return a limit of the training's FLOPs, by which it has fewer steps; None (the default) for all epochs.

        The plan converts the limit to the nearest number of steps. The learning rate decays over these steps.
        """
        return None

    def choose(self, probe: Probe) -> Choice:
        """Return the freeze plan chosen by inspecting the loaded model, with the score of each layer.

        A strategy that overrides this method is called once in a run, after the weights are loaded and before training.
        Time and FLOPs are charged to the run. The result must depend only on the probe, its generator and the strategy.
        The plan freezes at least as many layers as the one of `freeze_plan`, and the embeddings and the pooler if that
        plan freezes them.

        Args:
            probe: A copy of the loaded model, tokenised train examples and the loss.
        """
        raise NotImplementedError(f"strategy {self.name!r} does not choose its layers by a probe")

    def probe_cost(self, shape: EncoderShape) -> ProbeCost | None:
        """Return the work of `choose` for an encoder of this size; None (the default) if it is unknown.

        The estimated cost of a plan (`alue-bench run --dry-run`) then includes the choice. Recorded costs do not depend
        on it.
        """
        return None

    @property
    def chooses(self) -> bool:
        """True if the strategy chooses the frozen parts at the start of a run, that is, if it overrides `choose`."""
        return type(self).choose is not Strategy.choose

    def revisions(self) -> Revisions | None:
        """Return the points of the training at which `revise` is called; None (the default) if it never is."""
        return None

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        """Return the freeze plan that applies from this evaluation point on.

        The method is called only if `revisions` does not return None. The result must depend only on the arguments and
        the strategy. A block (the embeddings or one layer) that was frozen and trains again starts with a fresh
        optimiser state; all other blocks keep their optimiser state. This holds for single parameters too.

        Args:
            plan: The freeze plan in force until now. The returned plan may differ from it in what is frozen, but not in
                what trains in the other parts (`FreezePlan.trained` and `names`).
            progress: The state of the training at this evaluation point.
        """
        return plan

    @property
    def keeps_prefix(self) -> bool:
        """True if the outputs of the frozen prefix are worth caching.

        The frozen prefix consists of the frozen embeddings and the frozen layers directly above them. Caching is
        worthwhile if the prefix never shrinks during training.
        """
        revisions = self.revisions()
        return revisions is None or revisions.prefix_only_grows


@dataclass(frozen=True)
class Outline:
    """The changes that a strategy makes to a model of a given size before training."""

    freeze_plan: FreezePlan
    kept_layers: tuple[int, ...] | None
    """The indices of the layers that stay in the model; None if all do."""
    adapter: Adapter | None
    meaning: str = ""
    """The meaning of the strategy's name for this model, from `Strategy.meaning`; empty if it needs no explanation."""

    def describe(self) -> str:
        """Return a description for people of what is frozen, removed and inserted: "nothing; only layers 0-7 left"."""
        parts = [self.freeze_plan.describe()]
        if self.kept_layers is not None:
            parts.append(f"only {_named(self.kept_layers)} left")
        if self.adapter is not None:
            parts.append(f"{self.adapter.kind} added")
        return "; ".join(parts)


def outline(strategy: Strategy, shape: EncoderShape) -> Outline:
    """Return the changes that a strategy makes to a model of this size before training.

    Errors that the strategy's own code raises are passed on; see `registry.outline_of`.

    Raises:
        DoesNotFit: The strategy cannot be applied to the model, keeps layers that the model does not have, or has an
            adapter that its freeze plan does not train (or the reverse).
        TypeError: The strategy returned something other than a FreezePlan for the kept layers, or a meaning that is no
            text.
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
    """A family of strategies: a set of strategies whose names have a common form, with a description and a source."""

    grammar: str
    """The form of the names in this family, such as "bottom<N>top<M>"; shown in lists and error messages."""
    title: str
    """The description that lists show to people."""
    source: str
    """The publication that proposed or measured the strategies."""
    examples: tuple[str, ...]
    """Names that `parse` accepts. Lists show them, and the conformance checks test the strategies that they name."""
    parse: Callable[[str], Strategy | None]
    """The function that returns the strategy of a name, or None if the name does not belong to this family.

    It raises UsageError if the name belongs to this family but asks for something impossible.
    """

    def __post_init__(self) -> None:
        """Check the type of each field."""
        stated = ("grammar", "title", "source", "examples")
        check_stated(f"strategy family {self.grammar or self.title!r}", vars(self), stated)
        owner = f"strategy family {self.grammar!r}"
        check_types(owner, vars(self), {"grammar": str, "title": str, "source": str})
        check_texts(owner, vars(self), ("examples",))
        check_callable(owner, "parse", self.parse)
