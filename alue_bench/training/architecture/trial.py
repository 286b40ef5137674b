"""What a model can do, tried on a small copy with random weights before anything of a plan runs.

| question | answer where it is no |
| --- | --- |
| Are a text's predictions the same alone and beside longer texts? | pad on the other side; else a note |
| Can it compute in the plan's number format? | fp32, with a note |
| Does it take as many tokens as its configuration says? | the number that it takes |
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alue_bench.contract.errors import DoesNotFit
from alue_bench.contract.formats import shown
from alue_bench.contract.spec import digest_of
from alue_bench.data.batches import Padding
from alue_bench.training.architecture.anatomy import TEXT, anatomy_of, described, small_copy, text_of
from alue_bench.training.device.errors import is_out_of_memory
from alue_bench.training.device.precision import Device, Precision, autocast
from alue_bench.training.forward import Reached, in_place
from alue_bench.training.pretrained.loading import empty_model

if TYPE_CHECKING:
    from torch import Tensor

LENGTHS = (12, 11, 4)
"""Tokens of the texts that are compared alone and in one batch."""
LONG_TEXT = 768
"""Tokens of the long text, where the model takes so many."""
SPARSE = ("block_size", "attention_window", "num_random_blocks", "num_landmarks", "attn_layers", "num_hash_functions")
"""Fields of configurations whose attention is another one for long texts: with these, a long text is tried too."""
TOLERANCE = 1e-4
"""How far logits may differ, relative to the largest: sums of other lengths round otherwise."""
FEWER = 4
"""How many positions fewer than its table has a model may take, beside those up to its padding id."""
LONG = 2048
"""Above so many positions, only a table of that length is tried."""
LONGEST = 8192
"""Above so many positions, none are tried."""

Side = Literal["right", "left"]


@dataclass(frozen=True)
class Trial:
    """What was found out about a model with its tokenizer."""

    padding: Padding
    independent: bool
    """Whether a text's predictions do not depend on the texts beside it in a batch."""
    precision: Precision
    """The number format asked for, or fp32 where the model cannot compute in it."""
    positions: int | None
    """The most tokens the model takes; None where it has no limit."""
    parts: str = ""
    """A digest of the model's parts, where the order of registration does not tell them."""
    notes: tuple[str, ...] = ()
    """What a reader of the results should know, in whole sentences."""


_known: dict[str, Trial] = {}


def try_model(config: Any, tokenizer: Any, precision: Precision, device: str) -> Trial:
    """Try a model of this configuration with this tokenizer's padding.

    Args:
        config: The library's configuration of the checkpoint.
        tokenizer: Its tokenizer, with a padding token.
        precision: The number format that the plan would use.
        device: "cpu" or "cuda"; number formats are tried on it.

    Raises:
        DoesNotFit: The model cannot be seen as embeddings, layers and head, or cannot be run on texts alone.
    """
    side: Side = "left" if tokenizer.padding_side == "left" else "right"
    wanted = Padding(int(tokenizer.pad_token_id), side, int(getattr(tokenizer, "pad_token_type_id", 0) or 0))
    key = digest_of([described(config), wanted.token, side, wanted.type_id, precision, device])
    if key not in _known:
        outline = empty_model(config)
        anatomy, positions = anatomy_of(outline), positions_of(config)
        model = small_copy(type(outline), config)
        sparse = any(hasattr(config, name) for name in SPARSE)
        lengths = (LONG_TEXT, *LENGTHS) if sparse else LENGTHS
        lengths = tuple(min(length, positions or length) for length in lengths)
        usable, cause = _precision(model, wanted.side, precision, device, lengths)
        padding, independent, notes = _padding(model, wanted, lengths)
        if cause:
            notes.append(f"computed in fp32: {type(model).__name__} cannot compute in {precision} ({cause})")
        parts = "" if anatomy.as_registered else digest_of(repr(anatomy))
        _known[key] = Trial(padding, independent, usable, positions, parts, tuple(notes))
    return _known[key]


def _padding(model: Any, wanted: Padding, lengths: tuple[int, ...]) -> tuple[Padding, bool, list[str]]:
    """The side on which padding changes nothing: the tokenizer's where it is one of them."""
    other: Side = "right" if wanted.side == "left" else "left"
    name = type(model).__name__
    try:
        if not _depends(model, wanted.side, lengths):
            return wanted, True, []
        elsewhere = _depends(model, other, lengths)
    except Exception as error:  # whatever a stranger's architecture does with texts of several lengths
        raise DoesNotFit(
            f"{name} cannot be run on texts of {', '.join(map(str, lengths))} tokens: {type(error).__name__}: "
            f"{_first_line(error)}"
        ) from error
    if not elsewhere:
        told = (
            f"padded on the {other}, although the tokenizer says {wanted.side}: with padding on the {wanted.side} the "
            f"predictions of {name} would depend on the other texts of a batch"
        )
        return Padding(wanted.token, other, wanted.type_id), True, [told]
    told = (
        f"predictions of {name} for a text depend on the length of the other texts in its batch, whichever side is "
        "padded: the architecture does not mask padding everywhere. Scores may change with --batch-size and "
        "--limit-eval, and frozen layers are computed at every step"
    )
    return wanted, False, [told]


def _depends(model: Any, side: Side, lengths: tuple[int, ...]) -> bool:
    """Whether logits differ between texts alone and all in one batch, or between one batch and the next."""
    import torch

    whole = text_of(model, texts=len(lengths), tokens=max(lengths))
    with torch.no_grad():
        alone = torch.cat(
            [
                model(**{name: values[row : row + 1, :length] for name, values in whole.items()}).logits
                for row, length in enumerate(lengths)
            ]
        )
        together = model(**_batch(model, side, lengths)).logits
        few = model(**_batch(model, side, lengths, first=1)).logits
    gaps = [float((together - alone).abs().max()), float((few - alone[1:]).abs().max())]
    return not max(gaps) <= TOLERANCE * float(alone.abs().max()) + 1e-7


def _batch(model: Any, side: Side, lengths: tuple[int, ...], first: int = 0) -> dict[str, Tensor]:
    """The same texts, from `first` on, in one batch."""
    import torch

    whole = text_of(model, texts=len(lengths), tokens=max(lengths))["input_ids"]
    width = max(lengths[first:])
    ids = torch.full((len(lengths), width), int(model.config.pad_token_id))
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        if row >= first:
            kept = slice(0, length) if side == "right" else slice(width - length, None)
            ids[row, kept] = whole[row, :length]
            mask[row, kept] = 1
    return {"input_ids": ids[first:], "attention_mask": mask[first:]}


def _precision(
    model: Any, side: Side, wanted: Precision, device: str, lengths: tuple[int, ...]
) -> tuple[Precision, str]:
    """The number format to use, and why it is not the wanted one."""
    import torch

    if wanted == "fp32":
        return wanted, ""
    moved = copy.deepcopy(model).to(device)
    try:
        for first in (0, 1):  # with the longest text, and without it
            inputs = {name: values.to(device) for name, values in _batch(model, side, lengths, first).items()}
            with autocast(Device(device, wanted)):
                logits = moved(**inputs).logits
            logits.float().sum().backward()
            if not bool(torch.isfinite(logits).all()):
                return "fp32", "its outputs are not finite"
    except Exception as error:  # where the number format is not the cause, `_padding` fails in fp32 too, and refuses
        if isinstance(error, RuntimeError) and is_out_of_memory(error):  # says nothing about the number format
            return wanted, ""
        return "fp32", _first_line(error)
    return wanted, ""


def _first_line(error: Exception) -> str:
    return shown(next(iter(str(error).splitlines()), type(error).__name__), quote=False, most=200)


_positions: dict[str, int | None] = {}


def positions_of(config: Any) -> int | None:
    """Return the most tokens that a model takes, special tokens included; None where it has no limit.

    Some architectures keep the first rows of their table of positions for padding: RoBERTa takes two tokens fewer than
    its configuration says. So the number that the configuration says is tried, and smaller ones where it fails.

    Raises:
        DoesNotFit: As `try_model`.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    key = digest_of(described(config))
    if key not in _positions:
        pad = getattr(config, "pad_token_id", None)
        model = small_copy(type(empty_model(config)), config)
        _positions[key] = _longest(model, limit, pad if isinstance(pad, int) else 0)
    return _positions[key]


def _longest(model: Any, limit: int, pad: int) -> int:
    from torch import nn

    tables = {int(m.num_embeddings) for m in model.modules() if isinstance(m, nn.Embedding)}
    if limit > LONGEST or (limit > LONG and not any(limit <= rows <= limit + FEWER for rows in tables)):
        return limit
    tried = [*range(limit, max(0, limit - FEWER - 1), -1), limit - pad - 1]
    fits = next((tokens for tokens in tried if tokens > 0 and _embeds(model, tokens)), None)
    if fits is not None or limit <= TEXT or not _embeds(model, TEXT):
        return fits or limit
    # Far fewer than the configuration says: CANINE has as many positions as hash buckets.
    fits, fails = TEXT, limit
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if _embeds(model, middle) else (fits, middle)
    return fits


def _embeds(model: Any, tokens: int) -> bool:
    """Whether a text of so many tokens gets as far as the first layer."""
    import torch

    first = model.get_submodule(f"{anatomy_of(model).lists[0]}.0")

    def stop(*args: Any, **options: Any) -> Any:
        raise Reached

    try:
        with torch.no_grad(), in_place({first: stop}):
            model(input_ids=text_of(model, texts=1, tokens=tokens)["input_ids"])
    except Reached:
        return True
    except (IndexError, RuntimeError, ValueError):
        return False
    return True
