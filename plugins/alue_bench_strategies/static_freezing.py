"""Static freezing: the same layers are frozen from the first step to the last.

Source: Abir et al., "On Enhancing Fine-Tuning for Pre-trained Language Models", who search all pairs (top n, bottom m)
of 12 layers and choose bottom 3 + top 4.

Cost: with F for the forward pass of a layer, a trained layer costs 3 F per step. A frozen layer above a trained one
costs 2 F, because the gradient still passes through it. A frozen layer of the prefix costs 1 F.

Freezing bottom layers freezes the embeddings too. Otherwise back-propagation would pass through every layer to reach
them, and little would be saved. The paper does not say whether its embeddings train. Every name with frozen bottom
layers therefore has the variant `-trainemb`, which trains them.

When it does not help: freezing only top layers saves a ninth of the time for 4 of 12 layers, because the gradient has
to pass through them. A model that was not pre-trained on similar text needs to train its lower layers.
"""

from __future__ import annotations

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

PAPER = "Abir et al., On Enhancing Fine-Tuning for Pre-trained Language Models (grid over bottom and top layers)"
TRAIN_EMBEDDINGS = "-trainemb"


@dataclass(frozen=True)
class StaticFreezing(Strategy):
    """A strategy that freezes the bottom and top layers, and the embeddings with the bottom layers."""

    bottom: int
    """The number of frozen layers at the bottom."""
    top: int
    """The number of frozen layers at the top."""
    train_embeddings: bool = False
    """True if the embeddings train although bottom layers are frozen."""

    @property
    def name(self) -> str:
        """The canonical name, such as "bottom3top4" or "full"."""
        return cell_name((self.bottom, self.top)) + (TRAIN_EMBEDDINGS if self.train_embeddings else "")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a plan that freezes these layers; raise DoesNotFit if the model has too few layers."""
        if self.bottom + self.top > shape.layers:
            raise DoesNotFit(
                f"{self.name} freezes {self.bottom + self.top} layers, but the model has only {shape.layers}"
            )
        frozen = [*range(self.bottom), *range(shape.layers - self.top, shape.layers)]
        return FreezePlan(shape, frozenset(frozen), embeddings=self.bottom > 0 and not self.train_embeddings)


@dataclass(frozen=True)
class HeadOnly(Strategy):
    """A strategy that freezes all layers, so that only the pooler and the task's head train."""

    train_embeddings: bool = False
    """True if the embeddings train too."""

    @property
    def name(self) -> str:
        """The canonical name, "head-only" or "head-only-trainemb"."""
        return "head-only" + (TRAIN_EMBEDDINGS if self.train_embeddings else "")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a plan that freezes all layers, and the embeddings unless they are to train."""
        return FreezePlan(shape, frozenset(range(shape.layers)), embeddings=not self.train_embeddings)


def parse_bottom_top(name: str) -> StaticFreezing | None:
    """Return the strategy of a name, or None for a name of another family.

    Args:
        name: A name such as `bottom3`, `top4` or `bottom3top4`; names with bottom layers may end with `-trainemb`.
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


def parse_full(name: str) -> StaticFreezing | None:
    """Return full fine-tuning for `full` and its alias `none`, or None for any other name."""
    return StaticFreezing(0, 0) if name in ("full", "none") else None


def parse_head_only(name: str) -> HeadOnly | None:
    """Return the strategy of a name `head-only` or `head-only-trainemb`, or None for any other name."""
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
        grammar="head-only, head-only-trainemb",
        title="Only the pooler and the task's head train",
        source="Lee, Tang & Lin 2019, What Would Elsa Do? (freezing all layers as one end of the scale)",
        examples=("head-only",),
        parse=parse_head_only,
    ),
)
