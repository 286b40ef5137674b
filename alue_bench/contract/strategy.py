"""What a strategy is: it decides which parameters train.

A strategy plugin returns `StrategyFamily` values from the hook `alue_bench_strategies`. A family turns a name into a
`Strategy` by its own grammar: `bottom3top4` is one name of the family `bottom<N>top<M>`.

A strategy acts at four points of a run; all but the second are optional:

    kept_layers(shape)       before anything else: layers that are left out of the model
    freeze_plan(shape)       what is frozen when training begins, of the layers that were kept
    adapter()                small modules that are put into the model and train instead of its weights
    revisions(), revise()    a change of mind while it trains
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import index
from typing import Literal

from alue_bench.contract.errors import DoesNotFit
from alue_bench.contract.validation import check_callable, check_mapping, check_stated, check_texts, check_types


@dataclass(frozen=True)
class EncoderShape:
    """What a strategy may know of a model before its weights are loaded."""

    layers: int
    """The number L of encoder layers, counted 0 (next to the embeddings) to L-1 (next to the head)."""
    hidden_size: int = 0


TRAINED = ("weights", "biases", "adapters")


@dataclass(frozen=True)
class FreezePlan:
    """Which parts of an encoder are frozen. The task's head always trains."""

    shape: EncoderShape
    frozen_layers: frozenset[int] = frozenset()
    embeddings: bool = False
    pooler: bool = False
    trained: Literal["weights", "biases", "adapters"] = "weights"
    """What trains of the layers and embeddings that are not frozen: all of it, the biases alone, or the strategy's
    adapters alone."""

    def __post_init__(self) -> None:
        check_types("freeze plan", vars(self), {"shape": EncoderShape, "embeddings": bool, "pooler": bool})
        if self.trained not in TRAINED:
            raise ValueError(f"freeze plan: trained is {self.trained!r}; it must be {', '.join(TRAINED)}")
        # Any iterable of numbers, NumPy's too: what a plan is recorded and compared by are ints.
        object.__setattr__(self, "frozen_layers", frozenset(map(index, self.frozen_layers)))
        outside = sorted(layer for layer in self.frozen_layers if not 0 <= layer < self.shape.layers)
        if outside:
            raise DoesNotFit(f"freezes layer {outside[0]}, but the model has layers 0 to {self.shape.layers - 1}")

    @property
    def bottom(self) -> int:
        """How many frozen layers lie on top of each other from layer 0 up."""
        return next((n for n in range(self.shape.layers) if n not in self.frozen_layers), self.shape.layers)

    @property
    def top(self) -> int:
        """How many frozen layers lie below each other from the last one down, without those counted in `bottom`."""
        above = range(self.shape.layers - 1, self.bottom - 1, -1)
        return next((n for n, layer in enumerate(above) if layer not in self.frozen_layers), len(above))

    @property
    def prefix_layers(self) -> int | None:
        """How many layers belong to the frozen prefix, whose outputs never change; None if there is no prefix.

        Trainable embeddings make every output above them change: then there is none, whatever else is frozen.
        """
        return self.bottom if self.embeddings else None

    def describe(self) -> str:
        """For people: what is frozen, such as "embeddings, layers 0-2, 8-11"."""
        parts = ["embeddings"] if self.embeddings else []
        parts += [_named(self.frozen_layers)] if self.frozen_layers else []
        parts += ["pooler"] if self.pooler else []
        if self.trained != "weights":
            parts.append(f"all but the {self.trained} of {'the other layers' if self.frozen_layers else 'the layers'}")
        return ", ".join(parts) or "nothing"


@dataclass(frozen=True)
class Adapter:
    """Small trainable modules inside the layers, as the package `peft` makes them."""

    kind: str
    """The `peft_type`, such as "LORA" or "IA3"."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Fields of that kind's configuration, JSON-like. Without `target_modules`, those that the package has for the
    architecture."""

    def __post_init__(self) -> None:
        check_types("adapter", vars(self), {"kind": str})
        check_stated("adapter", vars(self), ("kind",))
        check_mapping("adapter", vars(self), "options", object)
        object.__setattr__(self, "options", dict(self.options))
        try:  # a run is recorded, and found again, by them
            json.dumps(self.options)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"adapter {self.kind!r}: its options are not JSON-like ({error}); give lists in place of sets, and "
                "plain numbers and texts"
            ) from error


@dataclass(frozen=True)
class Revisions:
    """When a strategy is asked again what to freeze."""

    per_epoch: int = 1
    """How often in an epoch, after equal parts of its steps, the last time at its end."""
    gradient_norms: bool = False
    """Whether `TrainingProgress.norms` is wanted. It costs an addition for each weight that trains, at each step."""
    prefix_only_grows: bool = False
    """Whether what is frozen from the bottom stays so. Then its outputs are worth keeping: each time the prefix grows,
    they are computed once from those of the shallower one. Where this is False the prefix is computed at every step."""

    def __post_init__(self) -> None:
        flags = {"gradient_norms": bool, "prefix_only_grows": bool}
        check_types("revisions", vars(self), {"per_epoch": int, **flags})
        if self.per_epoch < 1:
            raise ValueError(f"per_epoch is {self.per_epoch}; it must be at least 1")


@dataclass(frozen=True)
class BlockNorms:
    """The norm of each block's gradient, added up over the steps since the last evaluation point."""

    embeddings: float | None
    """None where no step changed the block in this time."""
    layers: tuple[float | None, ...]


@dataclass(frozen=True)
class TrainingProgress:
    """What a strategy may know when it is asked again."""

    epoch: int
    """From 1; the one that ends at this point, or is under way."""
    epochs: int
    step: int
    """Updates done."""
    steps: int
    """Updates of the whole training."""
    dev_scores: tuple[float, ...] = ()
    """One for each epoch that has ended."""
    norms: tuple[BlockNorms, ...] = ()
    """One for each evaluation point so far, the latest last; empty where the strategy did not ask for them."""

    @property
    def ends_epoch(self) -> bool:
        return len(self.dev_scores) == self.epoch


def _named(layers: Iterable[int]) -> str:
    """Such as "layers 0-2, 8-11", or "layer 3"."""
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
    """Decides which parameters train. Subclasses are values: equal names mean equal behaviour."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The canonical name; `StrategyFamily.parse(name)` gives an equal strategy back."""

    @abstractmethod
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """What is frozen when training begins. `shape` counts the layers that were kept.

        Raises DoesNotFit, with the numbers that clash, where the model has too few layers.
        """

    def kept_layers(self, shape: EncoderShape) -> tuple[int, ...]:
        """Which layers of the pre-trained model stay in it, from low to high; by default all of them.

        Raises DoesNotFit, with the numbers that clash, where none would be left.
        """
        return tuple(range(shape.layers))

    def adapter(self) -> Adapter | None:
        """Modules to put into the model; the freeze plan then says `trained="adapters"`."""
        return None

    def revisions(self) -> Revisions | None:
        """When `revise` is called; None, the default, for a strategy that never changes its mind."""
        return None

    def revise(self, plan: FreezePlan, progress: TrainingProgress) -> FreezePlan:
        """What is frozen from here on, given what is frozen now. Depends on its arguments and the strategy alone.

        Blocks that were frozen and train again start with a fresh state of the optimiser; all others keep theirs.
        """
        return plan

    @property
    def keeps_prefix(self) -> bool:
        """Whether the outputs of the frozen prefix are worth keeping: not where it may shrink, for one interval."""
        revisions = self.revisions()
        return revisions is None or revisions.prefix_only_grows


@dataclass(frozen=True)
class Outline:
    """What a strategy makes of a model of some shape before it trains."""

    freeze_plan: FreezePlan
    kept_layers: tuple[int, ...] | None
    """None where all are kept."""
    adapter: Adapter | None

    def describe(self) -> str:
        """For people: what is frozen, and what is left or added, such as "nothing; only layers 0-7 left"."""
        parts = [self.freeze_plan.describe()]
        if self.kept_layers is not None:
            parts.append(f"only {_named(self.kept_layers)} left")
        if self.adapter is not None:
            parts.append(f"{self.adapter.kind} added")
        return "; ".join(parts)


def outline(strategy: Strategy, shape: EncoderShape) -> Outline:
    """Raises DoesNotFit where the strategy does not fit the model, or names layers that are not there; TypeError where
    it gives no freeze plan, and whatever else the strategy raises (see `plugins.outline_of`)."""
    kept = tuple(map(index, strategy.kept_layers(shape)))
    if not kept or list(kept) != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] < shape.layers:
        raise DoesNotFit(f"keeps layers {kept!r:.60} of a model that has 0 to {shape.layers - 1}")
    plan = strategy.freeze_plan(EncoderShape(len(kept), shape.hidden_size))
    if not isinstance(plan, FreezePlan) or plan.shape.layers != len(kept):
        raise TypeError(f"freeze_plan() returned {plan!r:.60} where a FreezePlan of {len(kept)} layers was expected")
    adapter = strategy.adapter()
    if (adapter is not None) != (plan.trained == "adapters"):
        raise DoesNotFit(f"its freeze plan trains {plan.trained}, but it has {'an' if adapter else 'no'} adapter")
    return Outline(plan, kept if len(kept) < shape.layers else None, adapter)


@dataclass(frozen=True, kw_only=True)
class StrategyFamily:
    """Strategies that share a grammar, a description and a source."""

    grammar: str
    """How names of this family are written, such as "bottom<N>top<M>"; shown in lists and error messages."""
    title: str
    source: str
    """The publication that proposed or measured it."""
    examples: tuple[str, ...]
    """Names that `parse` accepts: those that lists show and the conformance checks try."""
    parse: Callable[[str], Strategy | None]
    """The strategy of that name, or None where the name is not of this family.

    Raises UsageError where the name is of this family but asks for something impossible.
    """

    def __post_init__(self) -> None:
        stated = ("grammar", "title", "source", "examples")
        check_stated(f"strategy family {self.grammar or self.title!r}", vars(self), stated)
        owner = f"strategy family {self.grammar!r}"
        check_types(owner, vars(self), {"grammar": str, "title": str, "source": str})
        check_texts(owner, vars(self), ("examples",))
        check_callable(owner, "parse", self.parse)
