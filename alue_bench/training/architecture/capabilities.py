"""A test of what a model supports, made with a small, randomly initialised copy before the first run of a plan.

| question | consequence if the answer is no |
| --- | --- |
| Is a text's prediction the same in a batch as alone? | pad on the other side if this helps; note it in the results |
| Can the model compute in the number format that the plan requests? | use fp32 and add a note to the results |
| Does the model accept as many tokens as its configuration states? | use the number that it accepts |

The other side is the one on which the tokenizer does not pad.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alue_bench.contract.errors import DoesNotFit
from alue_bench.contract.formats import excerpt
from alue_bench.contract.spec import digest_of
from alue_bench.data.batches import Padding
from alue_bench.messages.display import first_line
from alue_bench.training.architecture.anatomy import TEXT, anatomy_of, architecture_fields, small_copy, text_of
from alue_bench.training.architecture.encoder_stack import reads_tokens
from alue_bench.training.device.errors import is_out_of_memory
from alue_bench.training.device.hardware import Precision
from alue_bench.training.device.precision import Device, autocast
from alue_bench.training.forward import StopForward, replaced_forward_methods
from alue_bench.training.pretrained.loading import TAGS, empty_model

if TYPE_CHECKING:
    from torch import Tensor

LENGTHS = (12, 11, 4)
"""The lengths, in tokens, of the texts whose logits are computed both alone and in one batch."""
LONG_TEXT = 768
"""The length, in tokens, of a further text for architectures with sparse attention (see `SPARSE`); less if the model
accepts fewer tokens."""
SPARSE = ("block_size", "attention_window", "num_random_blocks", "num_landmarks", "attn_layers", "num_hash_functions")
"""The configuration fields of architectures that compute attention differently for long texts. If a configuration has
such a field, padding is also tested with a long text."""
TOLERANCE = 1e-4
"""The largest accepted difference between the logits of a text alone and in a batch, relative to the largest logit.
Padding adds terms to sums, which changes rounding errors."""
SHORTER_LENGTHS_TRIED = 4
"""The number of shorter lengths to try if a model accepts fewer tokens than its configuration states, each one token
shorter than the previous one. After them, one more length is tried: the one that remains if all positions up to the
padding id are reserved. If the model accepts none of these lengths, the accepted length is found by bisection."""
UNTESTED_ABOVE_WITHOUT_TABLE = 2048
"""A number of positions. If a configuration states more than this, the accepted length is tested only if the model has
an embedding table with about as many rows as the configuration has positions. Otherwise the stated length is used."""
UNTESTED_ABOVE = 8192
"""A number of positions. If a configuration states more than this, the stated length is used without a test."""

Side = Literal["right", "left"]


@dataclass(frozen=True)
class Capabilities:
    """The inputs and number formats that a model supports, found by running a small copy of it."""

    padding: Padding
    """The padding token id and the side on which to pad."""
    independent: bool
    """True if a text's predictions do not depend on the other texts in its batch."""
    precision: Precision
    """The requested number format, or fp32 if the model cannot compute in it."""
    positions: int | None
    """The largest number of tokens that the model accepts; None if it has no limit."""
    parts: str = ""
    """A digest of the model's division into parts (embeddings, layers, pooler, head); empty if the order in which its
    modules are registered gives the same division."""
    notes: tuple[str, ...] = ()
    """Sentences for readers of the results about what the model does not support, for example padding on one side."""


_known_capabilities: dict[str, Capabilities] = {}


def capabilities_of(config: Any, tokenizer: Any, precision: Precision, device: str) -> Capabilities:
    """Return the inputs and number formats that a model supports, found by running a small copy of it.

    Results are cached within the process.

    Args:
        config: The transformers configuration of the checkpoint.
        tokenizer: The checkpoint's tokenizer, which must have a padding token.
        precision: The number format that the plan requests.
        device: The device on which the number format is tried, such as "cuda".

    Raises:
        DoesNotFit: The model cannot be divided into embeddings, layers and head, or needs inputs other than token ids.
    """
    side: Side = "left" if tokenizer.padding_side == "left" else "right"
    wanted = Padding(int(tokenizer.pad_token_id), side, int(getattr(tokenizer, "pad_token_type_id", 0) or 0))
    key = digest_of([architecture_fields(config), wanted.token, side, wanted.type_id, precision, device])
    if key not in _known_capabilities:
        outline = empty_model(config)
        anatomy, positions = anatomy_of(outline), positions_of(config)
        model = small_copy(type(outline), config)
        sparse = any(hasattr(config, name) for name in SPARSE)
        texts = (LONG_TEXT, *LENGTHS) if sparse else LENGTHS
        lengths = tuple(min(length, positions or length) for length in texts)
        usable, cause = _precision(model, wanted.side, precision, device, lengths)
        padding, independent, notes = _padding(model, wanted, lengths)
        if cause:
            notes.append(f"computed in fp32: {type(model).__name__} cannot compute in {precision} ({cause})")
        parts = "" if anatomy.as_registered else digest_of(repr(anatomy))
        _known_capabilities[key] = Capabilities(padding, independent, usable, positions, parts, tuple(notes))
    return _known_capabilities[key]


def _padding(model: Any, wanted: Padding, lengths: tuple[int, ...]) -> tuple[Padding, bool, list[str]]:
    """Choose the side, left or right, on which padding does not change predictions; prefer the tokenizer's side.

    Args:
        model: The small copy of the model.
        wanted: The padding of the tokenizer.
        lengths: The lengths, in tokens, of the texts to try.

    Returns:
        The padding to use; whether predictions are then independent of the other texts in a batch; notes for readers of
        the results.

    Raises:
        DoesNotFit: The model cannot run on texts of these lengths.
    """
    other: Side = "right" if wanted.side == "left" else "left"
    name = type(model).__name__
    try:
        if not _padding_changes_logits(model, wanted.side, lengths):
            return wanted, True, []
        other_depends = _padding_changes_logits(model, other, lengths)
    except Exception as error:  # a third-party architecture may raise any error on texts of several lengths
        raise DoesNotFit(
            f"{name} cannot be run on texts of {', '.join(map(str, lengths))} tokens: {type(error).__name__}: "
            f"{_first_line(error)}"
        ) from error
    if not other_depends:
        note = (
            f"padded on the {other}, although the tokenizer says {wanted.side}: with padding on the {wanted.side} the "
            f"predictions of {name} would depend on the other texts of a batch"
        )
        return Padding(wanted.token, other, wanted.type_id), True, [note]
    note = (
        f"predictions of {name} for a text depend on the length of the other texts in its batch, whichever side is "
        "padded: the architecture does not mask padding everywhere. Scores may change with --batch-size and "
        "--limit-eval, and frozen layers are computed at every step"
    )
    return wanted, False, [note]


def _padding_changes_logits(model: Any, side: Side, lengths: tuple[int, ...]) -> bool:
    """Return whether padding changes the logits of a text.

    Logits are computed for each text alone, for all texts in one padded batch, and for a batch that lacks the longest
    text and therefore has less padding.

    Args:
        model: The small copy of the model.
        side: The side on which texts are padded.
        lengths: The lengths of the texts in tokens, the longest first.
    """
    import torch

    whole = text_of(model, texts=len(lengths), tokens=max(lengths))
    with torch.no_grad():
        each = [
            model(**{name: values[row : row + 1, :length] for name, values in whole.items()}).logits
            for row, length in enumerate(lengths)
        ]
        together, few = (_batch(model, side, lengths, first) for first in (0, 1))
        logits = [model(**inputs).logits for inputs in (together, few)]
    if reads_tokens(model):  # logits of padding are never used
        each = [values[0] for values in each]
        logits = [
            values[inputs["attention_mask"].bool()] for values, inputs in zip(logits, (together, few), strict=True)
        ]
    alone, without_first = torch.cat(each), torch.cat(each[1:])
    gaps = [float((logits[0] - alone).abs().max()), float((logits[1] - without_first).abs().max())]
    return not max(gaps) <= TOLERANCE * float(alone.abs().max()) + 1e-7


def _batch(model: Any, side: Side, lengths: tuple[int, ...], first: int = 0) -> dict[str, Tensor]:
    """Return a padded batch of random texts of the given lengths, leaving out the first `first` texts.

    The texts are those of `text_of`, cut to the lengths. The result has "input_ids" and "attention_mask", int64
    `[texts, tokens]` each.
    """
    import torch

    whole = text_of(model, texts=len(lengths), tokens=max(lengths))["input_ids"]
    width = max(lengths[first:])
    ids = torch.full((len(lengths), width), int(model.config.pad_token_id))
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        if row >= first:
            columns = slice(0, length) if side == "right" else slice(width - length, None)
            ids[row, columns] = whole[row, :length]
            mask[row, columns] = 1
    return {"input_ids": ids[first:], "attention_mask": mask[first:]}


_tagging_problems: dict[str, str] = {}
"""The reason why a model cannot tag words, by a digest of its configuration and its padding; empty if it can."""


def check_tagging(config: Any, padding: Padding) -> None:
    """Check that a model can tag words or find spans: that a token's logits depend on the whole text and nothing else.

    A small copy of the model is tested, as in `capabilities_of`. Results are cached within the process.

    Args:
        config: The transformers configuration of the checkpoint.
        padding: The padding that `capabilities_of` chose.

    Raises:
        DoesNotFit: transformers has no token classifier of this architecture; or the model cannot be divided into
            embeddings, layers and head; or it is causal (a decoder, in which a token does not attend to later tokens);
            or its logits depend on the padding.
    """
    key = digest_of([architecture_fields(config), padding.token, padding.side])
    if key not in _tagging_problems:
        _tagging_problems[key] = _why_not_tagging(config, padding)
    if _tagging_problems[key]:
        raise DoesNotFit(_tagging_problems[key])


def _why_not_tagging(config: Any, padding: Padding) -> str:
    """Return the reason why a model cannot tag words; an empty string if it can."""
    import torch

    try:
        outline = empty_model(config, TAGS)
    except Exception as error:  # no class for token classification, or one that fails: no common base class
        return f"{config.model_type!r} models cannot classify tokens here: {_first_line(error)}"
    try:
        anatomy_of(outline)
        model = small_copy(type(outline), config)
        whole = text_of(model, texts=1, tokens=LENGTHS[0])
        other = {**whole, "input_ids": whole["input_ids"].clone()}
        other["input_ids"][0, -1] = whole["input_ids"][0, 0]
        if whole["input_ids"][0, -1] == whole["input_ids"][0, 0]:
            other["input_ids"][0, -1] = whole["input_ids"][0, 1]
        with torch.no_grad():
            first, changed = (model(**inputs).logits[0, 0] for inputs in (whole, other))
        if torch.equal(first, changed):
            return (
                f"{type(model).__name__} reads texts from left to right only (a decoder): it would tag a word, or "
                "begin an answer, without seeing the words after it; take an encoder"
            )
        if _padding_changes_logits(model, padding.side, LENGTHS):
            return (
                f"what {type(model).__name__} predicts for a word depends on the other texts of a batch, since it does "
                "not mask padding everywhere; take another model"
            )
    except DoesNotFit as error:
        return str(error)
    except Exception as error:  # a third-party architecture may raise any error on texts of several lengths
        return f"{type(outline).__name__} cannot be run: {type(error).__name__}: {_first_line(error)}"
    return ""


def _precision(
    model: Any, side: Side, wanted: Precision, device: str, lengths: tuple[int, ...]
) -> tuple[Precision, str]:
    """Return the number format to use, and the reason if it differs from the wanted format (else an empty string).

    Args:
        model: The small copy of the model, which is run forward and backward in the wanted format.
        side: The side on which texts are padded.
        wanted: The number format that the plan requests.
        device: The device to run on, such as "cuda".
        lengths: The lengths, in tokens, of the texts to run on.
    """
    import torch

    if not Device(device, wanted).is_16_bit:
        return wanted, ""
    moved = copy.deepcopy(model).to(device)
    try:
        for first in (0, 1):  # with and without the longest text
            inputs = {name: values.to(device) for name, values in _batch(model, side, lengths, first).items()}
            with autocast(Device(device, wanted)):
                logits = moved(**inputs).logits
            logits.float().sum().backward()
            if not bool(torch.isfinite(logits).all()):
                return "fp32", "its outputs are not finite"
    except Exception as error:  # if fp32 fails too, `_padding` raises
        if isinstance(error, RuntimeError) and is_out_of_memory(error):  # no evidence about the number format
            return wanted, ""
        return "fp32", _first_line(error)
    return wanted, ""


def _first_line(error: Exception) -> str:
    return excerpt(first_line(error), quote=False, max_length=200)


_known_positions: dict[str, int | None] = {}


def positions_of(config: Any) -> int | None:
    """Return the largest number of tokens, with special tokens, that a model accepts; None if it has no limit.

    Some architectures reserve the first rows of their table of position embeddings: RoBERTa accepts two tokens fewer
    than its configuration states. So the number in the configuration is tried first, then smaller numbers.

    Raises:
        DoesNotFit: The model cannot be divided into embeddings, layers and head, or needs inputs other than token ids.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    key = digest_of(architecture_fields(config))
    if key not in _known_positions:
        pad = getattr(config, "pad_token_id", None)
        model = small_copy(type(empty_model(config)), config)
        _known_positions[key] = _max_accepted_tokens(model, limit, pad if isinstance(pad, int) else 0)
    return _known_positions[key]


def _max_accepted_tokens(model: Any, limit: int, pad: int) -> int:
    """Return the largest number of tokens, at most `limit`, that the small copy of a model accepts.

    Args:
        model: The small copy of the model.
        limit: The number of positions in the configuration; larger numbers of tokens are not tried.
        pad: The padding id in the configuration.
    """
    from torch import nn

    tables = {int(m.num_embeddings) for m in model.modules() if isinstance(m, nn.Embedding)}
    if limit > UNTESTED_ABOVE or (
        limit > UNTESTED_ABOVE_WITHOUT_TABLE
        and not any(limit <= rows <= limit + SHORTER_LENGTHS_TRIED for rows in tables)
    ):
        return limit
    tried = [*range(limit, max(0, limit - SHORTER_LENGTHS_TRIED - 1), -1), limit - pad - 1]
    fits = next((tokens for tokens in tried if tokens > 0 and _embeds(model, tokens)), None)
    if fits is not None or limit <= TEXT or not _embeds(model, TEXT):
        return fits or limit
    # The model accepts far fewer tokens than the configuration states; CANINE has as many positions as hash buckets.
    fits, fails = TEXT, limit
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if _embeds(model, middle) else (fits, middle)
    return fits


def _embeds(model: Any, tokens: int) -> bool:
    """Return whether a model's embeddings accept a text of `tokens` tokens without an error."""
    import torch

    first = model.get_submodule(f"{anatomy_of(model).lists[0]}.0")

    def stop(*args: Any, **options: Any) -> Any:
        raise StopForward

    try:
        with torch.no_grad(), replaced_forward_methods({first: stop}):
            model(input_ids=text_of(model, texts=1, tokens=tokens)["input_ids"])
    except StopForward:
        return True
    except (IndexError, RuntimeError, ValueError):
        return False
    return True
