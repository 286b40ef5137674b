"""Layers frozen from the first step to the last.

Source: Abir et al., "On Enhancing Fine-Tuning for Pre-trained Language Models", who search all pairs (top n, bottom m)
of 12 layers and settle on bottom 3 + top 4. Cost: with F for one layer forward, a trained layer costs 3 F a step, a
frozen one above a trained one 2 F (the gradient still passes through it), a frozen one of the prefix 1 F.

Freezing bottom layers freezes the embeddings too: otherwise back-propagation crosses every layer to reach them, and
little is saved. The paper does not say which it did, so every name has the variant `-trainemb`, which trains them.

When it does not help: freezing only top layers saves a ninth of the time at 4 of 12 layers, since the gradient has to
pass through them; and a model that was not pre-trained on similar text needs its lower layers.
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
    """The bottom N and top M layers stay as pre-trained; the embeddings too where N > 0, unless they shall train."""

    bottom: int
    top: int
    train_embeddings: bool = False

    @property
    def name(self) -> str:
        return cell_name((self.bottom, self.top)) + (TRAIN_EMBEDDINGS if self.train_embeddings else "")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        if self.bottom + self.top > shape.layers:
            raise DoesNotFit(
                f"{self.name} freezes {self.bottom + self.top} layers, but the model has only {shape.layers}"
            )
        frozen = [*range(self.bottom), *range(shape.layers - self.top, shape.layers)]
        return FreezePlan(shape, frozenset(frozen), embeddings=self.bottom > 0 and not self.train_embeddings)


@dataclass(frozen=True)
class HeadOnly(Strategy):
    """The whole encoder stays as pre-trained; only the pooler and the task's head train."""

    train_embeddings: bool = False

    @property
    def name(self) -> str:
        return "head-only" + (TRAIN_EMBEDDINGS if self.train_embeddings else "")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        return FreezePlan(shape, frozenset(range(shape.layers)), embeddings=not self.train_embeddings)


def parse_bottom_top(name: str) -> StaticFreezing | None:
    """`bottomN`, `topM` or `bottomNtopM`, with `-trainemb` where there are bottom layers to tell it from."""
    layers = name.removesuffix(TRAIN_EMBEDDINGS)
    cell = read_cell(layers)
    if cell is None or layers == "full":
        return None
    bottom, top = cell
    train_embeddings = layers != name
    if ("bottom" in layers and bottom == 0) or ("top" in layers and top == 0):
        raise UsageError(f"strategy {name!r} freezes 0 layers somewhere; leave that part out, or say full")
    if train_embeddings and bottom == 0:
        raise UsageError(f"strategy {name!r}: without frozen bottom layers the embeddings train anyway; say {layers!r}")
    canonical = StaticFreezing(bottom, top, train_embeddings)
    if canonical.name != name:
        raise UsageError(f"strategy {name!r} is written {canonical.name!r}")
    return canonical


def parse_full(name: str) -> StaticFreezing | None:
    return StaticFreezing(0, 0) if name in ("full", "none") else None


def parse_head_only(name: str) -> HeadOnly | None:
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
