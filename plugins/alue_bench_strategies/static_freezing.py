"""Static freezing: the same layers are frozen from the first step to the last.

Source: Betka et al., "On Enhancing Fine-Tuning for Pre-trained Language Models". The authors try every pair of numbers
of frozen bottom and top layers on models with 12 layers, and choose to freeze the bottom 3 and the top 4.

Cost: if the forward pass of a layer costs F, a trained layer costs 3 F per step: the forward pass, the gradient of its
input and the gradient of its weights. A frozen layer above a trained one costs 2 F, because the gradient still passes
through it. A frozen layer with only frozen parts below it costs 1 F, and its output can be computed once and cached.

Freezing bottom layers freezes the embeddings too. Otherwise back-propagation would pass through every layer to reach
the embeddings, and little would be saved. The paper does not state whether its embeddings train. Every name with frozen
bottom layers therefore has a variant that ends in `-trainemb`, in which the embeddings train.

The numbers of layers can also be given in percent, so that one name works for models of different depths:
`bottom25%top33%` freezes 3 bottom and 4 top layers of 12, or 2 bottom and 2 top layers of 6. Each share is rounded to
the nearest number of layers (halves up). If the rounded numbers add up to more layers than there are, fewer top layers
are frozen. If a share rounds to 0 layers, the strategy cannot be applied to the model (`DoesNotFit`).

When it does not help: freezing only top layers saves little (a ninth of the compute for 4 of 12 layers), because the
gradient has to pass through them. A model whose pre-training text was not similar to the task's texts needs to train
its lower layers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alue_bench import (
    DoesNotFit,
    EncoderShape,
    FreezePlan,
    Strategy,
    StrategyFamily,
    UsageError,
    cell_name,
    read_cell,
)

PAPER = "Betka et al., On Enhancing Fine-Tuning for Pre-trained Language Models (grid over bottom and top layers)"
TRAIN_EMBEDDINGS = "-trainemb"
USUAL_DEPTHS = (12, 24)
"""The numbers of layers of BERT-base and BERT-large. If a strategy freezes more layers than the model has, the error
message proposes percentages instead, computed for one of these depths."""


@dataclass(frozen=True)
class StaticFreezing(Strategy):
    """A strategy that freezes given numbers of bottom and top layers.

    If bottom layers are frozen, the embeddings are frozen too, unless `train_embeddings` is true.
    """

    bottom: int
    """The number of frozen layers at the bottom."""
    top: int
    """The number of frozen layers at the top."""
    train_embeddings: bool = False
    """True if the embeddings train although bottom layers are frozen."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "bottom3top4" or "full"."""
        return cell_name((self.bottom, self.top)) + (TRAIN_EMBEDDINGS if self.train_embeddings else "")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a plan that freezes the bottom and top layers; raise DoesNotFit if the model has too few layers."""
        if self.bottom + self.top > shape.layers:
            raise DoesNotFit(
                f"{self.name} freezes {self.bottom + self.top} layers, but the model has only {shape.layers}"
                f"{self._proposal(shape)}"
            )
        return frozen_ends(shape, (self.bottom, self.top), train_embeddings=self.train_embeddings)

    def _proposal(self, shape: EncoderShape) -> str:
        """Return the end of an error message, which proposes a strategy with percentages instead of numbers of layers.

        The text is empty if no percentages can be proposed for this model.
        """
        depth = next((depth for depth in USUAL_DEPTHS if self.bottom + self.top <= depth), None)
        if depth is None:
            return ""
        shares = RelativeFreezing(
            round(100 * self.bottom / depth), round(100 * self.top / depth), self.train_embeddings
        )
        try:
            shares.cell(shape)
        except DoesNotFit:
            return ""
        return f"; {shares.name} freezes the same share of any model as {self.name} of one with {depth} layers"


@dataclass(frozen=True)
class RelativeFreezing(Strategy):
    """A strategy that freezes shares of the layers at the bottom and at the top, for models of any depth.

    If bottom layers are frozen, the embeddings are frozen too, unless `train_embeddings` is true.
    """

    bottom: int
    """The share of the model's layers that are frozen at the bottom, in percent."""
    top: int
    """The share of the model's layers that are frozen at the top, in percent."""
    train_embeddings: bool = False
    """True if the embeddings train although bottom layers are frozen."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "bottom25%top33%"."""
        bottom, top = (f"{end}{share}%" if share else "" for end, share in self._shares())
        return bottom + top + (TRAIN_EMBEDDINGS if self.train_embeddings else "")

    def _shares(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return ("bottom", self.bottom), ("top", self.top)

    def cell(self, shape: EncoderShape) -> tuple[int, int]:
        """Return the numbers of frozen layers at the bottom and at the top of a model of this size.

        Raises:
            DoesNotFit: A share rounds to 0 layers.
        """
        layers = shape.layers
        bottom, rounded_top = ((2 * share * layers + 100) // 200 for share in (self.bottom, self.top))  # halves up
        top = min(rounded_top, layers - bottom)
        for (end, share), count in zip(self._shares(), (bottom, top), strict=True):
            if share and not count:
                raise DoesNotFit(f"{self.name}: {end}{share}% is no whole layer of the model's {layers}")
        return bottom, top

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a plan that freezes the bottom and top layers, whose numbers are computed from the shares.

        Raises:
            DoesNotFit: A share rounds to 0 layers.
        """
        return frozen_ends(shape, self.cell(shape), train_embeddings=self.train_embeddings)

    def meaning(self, shape: EncoderShape) -> str:
        """Return a sentence such as "bottom25%top33% freezes bottom 3 and top 4 of 12 layers"."""
        ends = zip(("bottom", "top"), self.cell(shape), strict=True)
        frozen = " and ".join(f"{end} {count}" for end, count in ends if count)
        return f"{self.name} freezes {frozen} of {shape.layers} layers"


@dataclass(frozen=True)
class HeadOnly(Strategy):
    """A strategy that freezes all layers: only the pooler and the task's head train, and the embeddings on request."""

    train_embeddings: bool = False
    """True if the embeddings train too."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, "head-only" or "head-only-trainemb"."""
        return "head-only" + (TRAIN_EMBEDDINGS if self.train_embeddings else "")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a plan that freezes all layers, and also the embeddings unless `train_embeddings` is true."""
        return FreezePlan(shape, frozenset(range(shape.layers)), embeddings=not self.train_embeddings)


def frozen_ends(shape: EncoderShape, cell: tuple[int, int], *, train_embeddings: bool) -> FreezePlan:
    """Return a plan that freezes bottom and top layers.

    If bottom layers are frozen, the embeddings are frozen too, unless `train_embeddings` is true.

    Args:
        shape: The size of the model, which must have at least as many layers as are frozen.
        cell: The numbers of frozen layers, as a pair (bottom, top).
        train_embeddings: True if the embeddings train although bottom layers are frozen.
    """
    bottom, top = cell
    frozen = frozenset([*range(bottom), *range(shape.layers - top, shape.layers)])
    return FreezePlan(shape, frozen, embeddings=bottom > 0 and not train_embeddings)


def parse_bottom_top(name: str) -> StaticFreezing | None:
    """Return the strategy for a name with numbers of frozen layers, or None for a name of another form.

    Args:
        name: A name such as `bottom3`, `top4` or `bottom3top4`; names with bottom layers may end with `-trainemb`.

    Raises:
        UsageError: The name has this form but is not allowed, such as `bottom0`, `bottom03` or `top4-trainemb`.
    """
    layers = name.removesuffix(TRAIN_EMBEDDINGS)
    cell = read_cell(layers)
    if cell is None or layers == "full":
        return None
    bottom, top = cell
    train_embeddings = layers != name
    if ("bottom" in layers and bottom == 0) or ("top" in layers and top == 0):
        raise UsageError(f"strategy {name!r} freezes 0 layers somewhere; leave that part out, or use full")
    if train_embeddings and bottom == 0:
        raise UsageError(f"strategy {name!r}: without frozen bottom layers the embeddings train anyway; use {layers!r}")
    canonical = StaticFreezing(bottom, top, train_embeddings)
    if canonical.name != name:
        raise UsageError(f"strategy {name!r} must be written {canonical.name!r}")
    return canonical


_SHARES = re.compile(r"(?=.*%)(?:bottom(\d{1,4})(%?))?(?:top(\d{1,4})(%?))?(-trainemb)?", re.ASCII)


def parse_shares(name: str) -> RelativeFreezing | None:
    """Return the strategy for a name with shares of the layers in percent, or None for a name of another form.

    Args:
        name: A name such as `bottom25%`, `top33%` or `bottom25%top33%`; names with bottom layers may end with
            `-trainemb`.

    Raises:
        UsageError: The name has this form but is not allowed, such as `bottom0%`, `bottom3top33%` or `top33%-trainemb`.
    """
    match = _SHARES.fullmatch(name)
    if match is None:
        return None
    bottom, bottom_unit, top, top_unit, train_embeddings = match.groups()
    if "" in (bottom_unit, top_unit):
        raise UsageError(f"strategy {name!r} mixes a number of layers with a share; write % after both, or after none")
    if (bottom and not int(bottom)) or (top and not int(top)):
        raise UsageError(f"strategy {name!r} freezes 0 % somewhere; leave that part out, or say full")
    strategy = RelativeFreezing(int(bottom or 0), int(top or 0), train_embeddings is not None)
    if strategy.bottom + strategy.top > 100:
        raise UsageError(
            f"strategy {name!r} freezes {strategy.bottom + strategy.top} % of the layers; take shares that add up to "
            "100 % at most"
        )
    if strategy.train_embeddings and not strategy.bottom:
        plain = name.removesuffix(TRAIN_EMBEDDINGS)
        raise UsageError(f"strategy {name!r}: without frozen bottom layers the embeddings train anyway; say {plain!r}")
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} is written {strategy.name!r}")
    return strategy


def parse_full(name: str) -> StaticFreezing | None:
    """Return the strategy of full fine-tuning for the names `full` and `none`; return None for any other name."""
    return StaticFreezing(0, 0) if name in ("full", "none") else None


def parse_head_only(name: str) -> HeadOnly | None:
    """Return the strategy for the names `head-only` and `head-only-trainemb`; return None for any other name."""
    variants = {strategy.name: strategy for strategy in (HeadOnly(), HeadOnly(train_embeddings=True))}
    return variants.get(name)


FAMILIES = (
    StrategyFamily(
        grammar="full",
        title="Everything trains (alias: none)",
        source="Devlin et al. 2019, BERT, section 4",
        examples=("full",),
        parse=parse_full,
    ),
    StrategyFamily(
        grammar="bottom<N>, top<M>, bottom<N>top<M>, each with -trainemb after bottom layers",
        title="The bottom N layers, with the embeddings, and the top M layers stay frozen",
        source=PAPER,
        examples=("bottom3top4", "bottom3", "bottom6", "top4", "bottom3top4-trainemb"),
        parse=parse_bottom_top,
    ),
    StrategyFamily(
        grammar="bottom<P>%, top<Q>%, bottom<P>%top<Q>%, each with -trainemb after bottom layers",
        title="The bottom P percent of the layers, with the embeddings, and the top Q percent stay frozen",
        source=PAPER,
        examples=("bottom25%top33%", "bottom50%", "top33%", "bottom25%top33%-trainemb"),
        parse=parse_shares,
    ),
    StrategyFamily(
        grammar="head-only, head-only-trainemb",
        title="Only the pooler and the task's head train",
        source="Lee, Tang & Lin 2019, What Would Elsa Do? (freezing all layers as one end of the scale)",
        examples=("head-only",),
        parse=parse_head_only,
    ),
)
