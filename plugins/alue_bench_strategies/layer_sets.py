"""Freezing of any set of layers: the name lists the layers that are frozen from the first step to the last.

`layers-0+5-8` freezes layer 0 and layers 5 to 8, counted from 0 as PyTorch and transformers count them
(`model.encoder.layer[0]`). Freezing layer 0 freezes the embeddings too, as in `bottom<N>`; the embeddings train if the
name ends in `-trainemb`. This family is meant for hypotheses about single layers, and for settings that other programs
write as lists of layers.

Source: no publication on freezing arbitrary sets of layers. Lee, Tang & Lin 2019, "What Would Elsa Do? Freezing Layers
During Transformer Fine-Tuning", measure how the quality depends on the number of frozen bottom layers.

Cost: if the forward pass of a layer costs F, a trained layer costs 3 F per step, and a frozen layer above a trained one
costs 2 F. The consecutive frozen layers from layer 0 upwards form the frozen prefix. A layer of the prefix costs only
1 F, and its output is computed once and cached.

When it does not help: freezing middle layers saves only a third of their compute, because the gradient passes through
them to the layers and embeddings below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alue_bench import DoesNotFit, EncoderShape, FreezePlan, Strategy, StrategyFamily, UsageError

PREFIX = "layers-"
TRAIN_EMBEDDINGS = "-trainemb"


@dataclass(frozen=True)
class LayerSet(Strategy):
    """A strategy that freezes a set of layers, and the embeddings if layer 0 is among them."""

    layers: frozenset[int]
    """The indices of the frozen layers; layer 0 is the one next to the embeddings."""
    train_embeddings: bool = False
    """True if the embeddings train although layer 0 is frozen."""

    @property
    def name(self) -> str:
        """The strategy's canonical name, such as "layers-0+5-8"."""
        spans = "+".join(f"{first}-{last}" if last > first else str(first) for first, last in _spans(self.layers))
        return f"{PREFIX}{spans}{TRAIN_EMBEDDINGS if self.train_embeddings else ''}"

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a freeze plan that freezes the layers of the set; raise DoesNotFit if the model has too few layers."""
        if (highest := max(self.layers)) >= shape.layers:
            raise DoesNotFit(
                f"{self.name} freezes layer {highest}, but the model has {shape.layers} layers, 0 to {shape.layers - 1}"
            )
        return FreezePlan(shape, self.layers, embeddings=0 in self.layers and not self.train_embeddings)


_NAME = re.compile(r"layers-([\d+,-]*\d[\d+,-]*?)(-trainemb)?", re.ASCII)
_SPAN = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)


def parse(name: str) -> LayerSet | None:
    """Return the strategy for a name such as `layers-0+5-8-trainemb`, or None for a name of another form.

    Raises:
        UsageError: The name has this form but is not allowed, for example because it names a layer twice.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    layers: set[int] = set()
    for written in match[1].split("+"):
        span = _SPAN.fullmatch(written)
        if span is None:
            raise UsageError(
                f"strategy {name!r}: {written!r} is neither a layer nor a range of layers; write numbers and ranges "
                "with + between them, such as layers-0+5-8"
            )
        first, last = int(span[1]), int(span[2] or span[1])
        if last < first:
            raise UsageError(f"strategy {name!r}: {written} runs backwards; write {last}-{first}")
        again = layers.intersection(range(first, last + 1))
        if again:
            raise UsageError(f"strategy {name!r} names layer {min(again)} twice; name each layer once")
        layers.update(range(first, last + 1))
    strategy = LayerSet(frozenset(layers), train_embeddings=match[2] is not None)
    if strategy.train_embeddings and 0 not in layers:
        plain = name.removesuffix(TRAIN_EMBEDDINGS)
        raise UsageError(f"strategy {name!r}: unless layer 0 is frozen the embeddings train anyway; say {plain!r}")
    if strategy.name != name:
        raise UsageError(f"strategy {name!r} is written {strategy.name!r}")
    return strategy


def _spans(layers: frozenset[int]) -> list[tuple[int, int]]:
    """Return the first and the last index of each group of consecutive layers, in ascending order."""
    starts = sorted(layer for layer in layers if layer - 1 not in layers)
    ends = sorted(layer for layer in layers if layer + 1 not in layers)
    return list(zip(starts, ends, strict=True))


FAMILIES = (
    StrategyFamily(
        grammar="layers-<I>+<J>-<K>, with -trainemb after layer 0",
        title="The named layers, counted from 0, stay frozen, and the embeddings with layer 0",
        source="a way to write any set of layers; no publication",
        examples=("layers-0+2-3", "layers-4-7", "layers-0-2-trainemb"),
        parse=parse,
    ),
)
