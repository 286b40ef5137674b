"""The properties of each architecture of the gallery, as a row of the table in docs/models.md.

`python tests/architectures.py` prints the table anew.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gallery import GALLERY, gallery_config, gallery_model
from torch.nn.functional import cross_entropy

from alue_bench import DoesNotFit
from alue_bench.contract.byte_sizes import parse_size
from alue_bench.contract.registry import load_registry
from alue_bench.contract.strategy import EncoderShape, FreezePlan
from alue_bench.data.batches import Padding, collate
from alue_bench.data.tokenization import TokenizedSplit
from alue_bench.data.words import IGNORED, WordPositions, as_rows
from alue_bench.measure.flops import flops_method_of, training_flops
from alue_bench.training.architecture.capabilities import capabilities_of, check_tagging
from alue_bench.training.architecture.encoder_stack import EncoderStack, view_as_stack
from alue_bench.training.device.precision import Device
from alue_bench.training.forward import choose_forward
from alue_bench.training.freezing import apply_plan, training_mode
from alue_bench.training.prefix.frozen_prefix import FrozenPrefix
from alue_bench.training.prefix.store import PrefixStore
from alue_bench.training.pretrained.loading import empty_model

HEADINGS = (
    *("architecture", "parts", "forward", "frozen exactly", "FLOPs", "cached equals uncached"),
    *("independent of batch mates", "tags of words"),
)
PLANS: dict[str, FreezePlan] = {
    name: load_registry().strategy(name)[0].freeze_plan(EncoderShape(4))
    for name in ("full", "head-only", "bottom2", "top2")
}
CPU = Device("cpu", "fp32")
EXAMPLES, TOKENS = 3, 64
REASONS = {
    "reads texts from left to right only": "a decoder",
    "on the other texts of a batch": "padding is not masked",
    "Unrecognized configuration class": "transformers has no such head",
}
"""For each reason for not tagging words, some words of the plan's message, and how the table says it."""


@dataclass(frozen=True)
class Row:
    """One architecture. Texts are as the table has them."""

    name: str
    refused: str = ""
    forward: str = ""
    frozen: str = ""
    flops: str = ""
    cached: str = ""
    independent: str = ""
    tags: str = ""

    def cells(self) -> tuple[str, ...]:
        if self.refused:
            return (self.name, f"refused: {self.refused}", *[""] * (len(HEADINGS) - 2))
        tried = (self.forward, self.frozen, self.flops, self.cached, self.independent, self.tags)
        return (self.name, "found", *tried)


@cache
def row_of(name: str) -> Row:
    """Try everything on a model of the gallery."""
    try:
        view_as_stack(empty_model(gallery_config(name)))
        capabilities = capabilities_of(gallery_config(name), tokenizer_of(name), "fp32", "cpu")
    except DoesNotFit as error:
        return Row(name, refused=str(error))
    if capabilities.independent:
        independent = "yes" if capabilities.padding.side == "right" else "yes, padded on the left"
    else:
        independent = "no, with a note"
    exactly = freezes_exactly(name)
    gap = flops_gap(name)
    by = flops_method_of(view_as_stack(empty_model(gallery_config(name)))).name
    return Row(
        name,
        forward=choose_forward(loaded(name), torch.float32).name,
        frozen="yes" if exactly else "NO",
        flops=f"{by}, within 2 %" if gap <= 0.02 else f"OFF BY {gap:.0%}",
        cached=cached(name, capabilities.padding)
        if capabilities.independent
        else "computed at every step, with a note",
        independent=independent,
        tags=tags_of_words(name, capabilities.padding),
    )


def tokenizer_of(name: str) -> Any:
    """A stand-in for a tokenizer, with the attributes that `capabilities_of` reads."""
    pad = getattr(gallery_config(name), "pad_token_id", None)
    return SimpleNamespace(pad_token_id=pad or 0, padding_side="right", pad_token_type_id=0)


def loaded(name: str, *, tags: bool = False) -> EncoderStack:
    model = gallery_model(name, tags=tags)
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = 0
    return view_as_stack(model)


def split(*, tags: bool = False) -> TokenizedSplit:
    """Five texts of several lengths, with a label each, or with a tag for every second token."""
    lengths = [12, 9, 5, 12, 3]
    ids = torch.randint(5, 90, (sum(lengths),), generator=torch.Generator().manual_seed(1))
    offsets = torch.tensor([0, *itertools.accumulate(lengths)])
    if not tags:
        return TokenizedSplit(ids, None, offsets, torch.tensor([0, 1, 0, 1, 1]), list("abcde"), 0)
    targets = torch.where(torch.arange(len(ids)) % 2 == 0, ids % 2, IGNORED)
    known = targets[targets != IGNORED].numpy()
    counts = np.array([int((part != IGNORED).sum()) for part in targets.split(lengths)])
    words = WordPositions(counts, as_rows(known, counts), np.arange(len(known)), outside=0, windowed=0, cut=0)
    return TokenizedSplit(ids, None, offsets, targets, list("abcde"), 0, words=words)


def tags_of_words(name: str, padding: Padding) -> str:
    """Return whether models of this architecture are trained to tag words, or why the plan refuses it."""
    try:
        check_tagging(gallery_config(name), padding)
    except DoesNotFit as error:
        return f"no: {next((short for words, short in REASONS.items() if words in str(error)), str(error))}"
    if not freezes_exactly(name, tags=True):
        return "NOT EXACTLY FROZEN"
    states = cached(name, padding, tags=True)
    return "yes" if states == "yes" else f"yes; {states}"


def freezes_exactly(name: str, *, tags: bool = False) -> bool:
    return all(changes_what_it_should(name, PLANS[key], tags=tags) for key in ("head-only", "bottom2", "top2"))


def changes_what_it_should(name: str, plan: FreezePlan, *, tags: bool = False) -> bool:
    """Return whether a training step changes every parameter that the plan lets train, and no other."""
    stack = loaded(name, tags=tags)
    apply_plan(stack, plan)
    training_mode(stack, plan)
    forward = choose_forward(stack, torch.float32)
    before = {key: p.detach().clone() for key, p in stack.model.named_parameters()}
    batch = collate(split(tags=tags), np.arange(5), Padding(int(stack.model.config.pad_token_id or 0)))  # type: ignore[union-attr,arg-type]
    optimiser = torch.optim.SGD([p for p in stack.model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        cross_entropy(forward.logits(batch).flatten(0, -2), batch.targets.flatten()).backward()
        reached = {key for key, p in stack.model.named_parameters() if p.grad is not None}
        optimiser.step()
        optimiser.zero_grad()
    changed = {key for key, p in stack.model.named_parameters() if not torch.equal(before[key], p)}
    allowed = {key for key, p in stack.model.named_parameters() if p.requires_grad}
    return changed <= allowed and reached <= allowed and _frozen(stack, plan).isdisjoint(changed)


def _frozen(stack: EncoderStack, plan: FreezePlan) -> set[str]:
    """By name: what lies in a frozen layer's own place in the list of layers, and the table of words where the
    embeddings are frozen. Found from names, not from the stack."""
    model: Any = stack.model
    words = {id(p) for p in model.get_input_embeddings().parameters()} if plan.embeddings and _words(stack) else set()
    return {
        key
        for key, p in stack.model.named_parameters()
        if id(p) in words or any(f".{layer}." in key and _is_layer(key, layer) for layer in plan.frozen_layers)
    }


def _words(stack: EncoderStack) -> bool:
    try:
        return stack.model.get_input_embeddings() is not None  # type: ignore[operator]
    except NotImplementedError:
        return False


def _is_layer(key: str, layer: int) -> bool:
    """Return whether the first number in a name is that of the layer. Names of character encoders do not count."""
    number = next(part for part in key.split(".") if part.isdigit())
    return number == str(layer) and "_char_" not in key and "chars_" not in key and "conv" not in key


def flops_gap(name: str) -> float:
    """Return the largest relative difference between our count of operations and torch's, over the plans."""
    from torch.utils.flop_counter import FlopCounterMode

    stack = view_as_stack(gallery_model(name, attn_implementation="eager"))
    config: Any = stack.model.config
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = 0
    empty = view_as_stack(empty_model(gallery_config(name)))
    ids = torch.randint(5, 90, (EXAMPLES, TOKENS), generator=torch.Generator().manual_seed(1))
    gaps = []
    for plan in PLANS.values():
        apply_plan(stack, plan)
        with FlopCounterMode(display=False) as counter:
            stack.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().sum().backward()
        counted = counter.get_total_flops()
        gaps.append(abs(training_flops(empty, plan, np.full(EXAMPLES, TOKENS), 1) / counted - 1))
    return max(gaps)


def cached(name: str, padding: Padding, *, tags: bool = False) -> str:
    """Return whether logits from stored states equal those from texts, or that frozen layers are always computed."""
    stack = loaded(name, tags=tags)
    forward = choose_forward(stack, torch.float32)
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        store = PrefixStore(Path(folder), parse_size("1GB"), problems.append)
        examples = FrozenPrefix(stack, forward, 2, store=store, device=CPU).examples(split(tags=tags), padding, {})
        if examples.depth == 0:
            return "computed at every step, with a note" if problems else "NO NOTE"
        batch = collate(split(tags=tags), np.arange(5), padding)
        with torch.no_grad():
            both = [examples.logits(forward, batch), forward.logits(batch)]
            if tags:
                both = [logits[batch.targets != IGNORED] for logits in both]  # others are never used
            gap, scale = (both[0] - both[1]).abs().max(), both[1].abs().max()
        return "yes" if gap <= 1e-4 * scale else f"OFF BY {float(gap / scale):.2g}"


def table() -> Iterator[str]:
    """The table's lines."""
    yield f"| {' | '.join(HEADINGS)} |"
    yield f"| {' | '.join('---' for _ in HEADINGS)} |"
    for name in GALLERY:
        yield f"| {' | '.join(row_of(name).cells())} |"


if __name__ == "__main__":
    print("\n".join(table()))
