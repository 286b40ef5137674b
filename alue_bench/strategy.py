"""What a strategy is: it decides which parameters train.

A strategy plugin returns `StrategyFamily` values from the hook `alue_bench_strategies`. A family turns a name into a
`Strategy` by its own grammar: `bottom3top4` is one name of the family `bottom<N>top<M>`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from alue_bench.declaration import check_callable, check_texts, check_types
from alue_bench.errors import DoesNotFit


@dataclass(frozen=True)
class EncoderShape:
    """What a strategy may know of a model before its weights are loaded."""

    layers: int
    """The number L of encoder layers, counted 0 (next to the embeddings) to L-1 (next to the head)."""
    hidden_size: int = 0


@dataclass(frozen=True)
class FreezePlan:
    """Which parts of an encoder are frozen. The task's head always trains."""

    shape: EncoderShape
    frozen_layers: frozenset[int] = frozenset()
    embeddings: bool = False
    pooler: bool = False

    def __post_init__(self) -> None:
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
        runs: list[list[int]] = []
        for layer in sorted(self.frozen_layers):
            if runs and runs[-1][-1] == layer - 1:
                runs[-1].append(layer)
            else:
                runs.append([layer])
        spans = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
        parts = ["embeddings"] if self.embeddings else []
        parts += [f"layer{'s' if len(self.frozen_layers) > 1 else ''} {', '.join(spans)}"] if spans else []
        parts += ["pooler"] if self.pooler else []
        return ", ".join(parts) or "nothing"


class Strategy(ABC):
    """Decides which parameters train. Subclasses are values: equal names mean equal behaviour."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The canonical name; `StrategyFamily.parse(name)` gives an equal strategy back."""

    @abstractmethod
    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """What is frozen when training begins.

        Raises DoesNotFit, with the numbers that clash, where the model has too few layers.
        """


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
        for required in ("grammar", "title", "source", "examples"):
            if not getattr(self, required):
                raise ValueError(f"strategy family {self.grammar or self.title!r} does not state its {required}")
        owner = f"strategy family {self.grammar!r}"
        check_types(owner, vars(self), {"grammar": str, "title": str, "source": str})
        check_texts(owner, vars(self), ("examples",))
        check_callable(owner, "parse", self.parse)
