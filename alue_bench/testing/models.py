"""The conformance checks of a model: its metadata and, if it is on this machine, its checkpoint."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import AlueBenchError, UnavailableError
from alue_bench.contract.model import Model
from alue_bench.contract.task import NAME
from alue_bench.testing.normalisation import TEXTS, attempt, check_normalisation
from alue_bench.testing.scripts import SENTENCES, scripts_of
from alue_bench.testing.violations import (
    PLACEHOLDER,
    Remark,
    bad_defaults,
    bad_folder,
    bad_languages,
    cause,
    incomplete,
    raise_if_any,
)

if TYPE_CHECKING:
    from alue_bench.training.pretrained.loading import Checkpoint

MAX_UNKNOWN_SHARE = 0.5
"""The largest share of unknown tokens in the test sentences of a writing system. If the share is larger, a warning says
that the tokenizer may not belong to the model."""


def check_model(model: Model) -> None:
    """Check a model's declaration, its text normalisation and, if it is on this machine, its checkpoint.

        def test_my_model() -> None:
            check_model(my_plugin.MODEL)

    A conforming model has these properties:

    - Its metadata are complete, and `defaults` are hyper-parameters within the model's limits.
    - `normalise` is a pure and idempotent function from str to str, which accepts any text and keeps the letters of the
      model's languages.
    - `architecture` agrees with the checkpoint's config.json.
    - The checkpoint has a configuration, undamaged files of weights, and layers that can be frozen. Its tokenizer has a
      padding token and knows the words of the model's languages.

    Weights are not loaded, and nothing is downloaded. A ConformanceWarning reports what could not be checked.

    Args:
        model: The declaration of the model.

    Raises:
        ConformanceError: The model breaks the contract; the message has one sentence for each violation.
    """
    raise_if_any(
        model, Model, [_metadata, lambda model: check_normalisation(model, _missing_packages(model)), _checkpoint]
    )


def _metadata(model: Model) -> Iterator[str]:
    subject = f"model {model.name!r}"
    if not NAME.fullmatch(model.name):
        yield f"{subject}: the name must match {NAME.pattern}; rename it"
    yield from incomplete(subject, model, ("title", "licence", "citation"))
    yield from bad_languages(subject, model.languages)
    yield from bad_folder(subject, "checkpoint", model.checkpoint)
    described = model.normalisation != Model.normalisation and not PLACEHOLDER.fullmatch(model.normalisation)
    if model.normalise is not None and not described:
        yield f"{subject} has a normalise function; describe in normalisation what it does"
    yield from bad_defaults(subject, model.defaults)


def _missing_packages(model: Model) -> list[str]:
    """Return the modules in `requires` that are not installed."""
    import importlib.util

    return [package for package in model.requires if importlib.util.find_spec(package) is None]


# The checkpoint ------------------------------------------------------------------------------------------------------


def _checkpoint(model: Model) -> Iterator[str]:
    from alue_bench.training.pretrained.loading import locate_checkpoint

    subject = f"model {model.name!r}"
    declared = yield from _declared_architecture(model)
    if isinstance(model.checkpoint, str) and not re.fullmatch(r"[\w.-]+/[\w.-]+", model.checkpoint):
        yield f"{subject}: checkpoint {model.checkpoint!r} is not a hub id like 'owner/name'; give a folder as a Path"
        return
    try:
        checkpoint = locate_checkpoint(model, download=False)
    except UnavailableError as error:
        if isinstance(model.checkpoint, Path) and not _missing_packages(model):
            yield f"{error}; correct checkpoint="
        else:
            yield Remark(f"{subject}: the checkpoint was not checked: {error}")
            if declared is not None:
                yield from _length(model, declared)
        return
    try:
        yield from _can_be_loaded(model, checkpoint)
    except AlueBenchError as error:
        yield f"{subject}: the checkpoint cannot be used: {error}; save model and tokenizer with save_pretrained"
    except Exception as error:  # the library may raise anything for damaged files
        yield f"{subject}: the checkpoint cannot be used: {cause(error)}; save model and tokenizer with save_pretrained"


def _declared_architecture(model: Model) -> Generator[str, None, Any]:
    """Yield a violation if a model's field `architecture` is not the configuration of a known architecture.

    The return value of the generator is the transformers configuration that is made from the field; None if the field
    is empty or invalid.
    """
    from alue_bench.training.pretrained.loading import declared_config

    if not model.architecture:
        return None
    try:
        return declared_config(model)
    except UnavailableError as error:
        yield f"{error}; correct architecture, or leave it out"
    return None


def _can_be_loaded(model: Model, checkpoint: Checkpoint) -> Iterator[str]:
    from alue_bench.training.architecture.capabilities import capabilities_of
    from alue_bench.training.architecture.encoder_stack import view_as_stack
    from alue_bench.training.pretrained.loading import empty_model, encoder_shape, load_config, load_tokenizer
    from alue_bench.training.pretrained.tokenizer import set_padding_token

    subject = f"model {model.name!r}"
    config = load_config(checkpoint)
    yield from _length(model, config)
    for name, value in model.architecture.items():
        if (there := getattr(config, name, None)) != value:
            yield f"{subject}: architecture says {name}={value!r}, but config.json {there!r}; correct architecture"
    yield from _weights(model, checkpoint)
    shape = encoder_shape(config)
    tokenizer = load_tokenizer(checkpoint)
    yield from _tokenizer_fits(model, tokenizer, config)
    stack = view_as_stack(empty_model(config))
    set_padding_token(config, tokenizer.pad_token_id)
    for note in capabilities_of(config, tokenizer, "bf16", "cpu").notes:
        yield Remark(f"{subject}: {note}")
    if stack.shape != shape:
        yield f"{subject}: config.json says {shape}, but the model has {stack.shape}; correct config.json"


def _length(model: Model, config: Any) -> Iterator[str]:
    """Yield a violation if `max_length` in a model's `defaults` exceeds the model's number of positions."""
    from alue_bench.training.architecture.capabilities import positions_of

    limit, wanted = positions_of(config), model.defaults.get("max_length")
    if limit is not None and isinstance(wanted, int) and wanted > limit:
        yield (
            f"model {model.name!r}: max_length in defaults is {wanted}, but the model has positions for {limit} "
            f"tokens; give at most {limit}"
        )


def _weights(model: Model, checkpoint: Checkpoint) -> Iterator[str]:
    """Yield a violation for each truncated or damaged file of weights in a checkpoint; only headers are read."""
    from safetensors import safe_open

    subject = f"model {model.name!r}"
    if checkpoint.pickled:
        yield Remark(
            f"{subject}: its weights are pickles, which runs refuse without --allow-pickles and which were not "
            "checked; convert them to safetensors"
        )
    for path in sorted(checkpoint.folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as opened:
                opened.keys()
        except Exception as error:  # SafetensorError, OSError, and any other error of the library
            yield f"{subject}: {path.name} cannot be read: {cause(error)}; copy or download the file again"


def _tokenizer_fits(model: Model, tokenizer: Any, config: Any) -> Iterator[str]:
    """Yield a violation for a token id without an embedding, and one for scripts of which the tokenizer knows no word.

    The scripts (writing systems) are those of the model's languages. A remark is yielded for each script of which the
    tokenizer knows few words.
    """
    subject = f"model {model.name!r}"
    ids = [tokenizer.pad_token_id, *(number for text in TEXTS for number in tokenizer(text)["input_ids"])]
    beyond = [number for number in ids if not 0 <= number < config.vocab_size]
    if beyond:
        yield (
            f"{subject}: the tokenizer gives the id {beyond[0]}, but the model has {config.vocab_size} embeddings; "
            "take the tokenizer that belongs to the weights"
        )
    scripts = scripts_of(model.languages)
    shares = {script: _unknown_share(model, tokenizer, script) for script in scripts or SENTENCES}
    remedy = "put the tokenizer's files that belong to the weights beside them (tokenizer.json, vocab.txt or the like)"
    unread = [script for script in shares if shares[script] == 1]
    if unread and (scripts or len(unread) == len(SENTENCES)):
        yield (
            f"{subject}: the tokenizer knows no word of texts in {', '.join(unread)} script; {remedy}, or correct "
            f"languages={model.languages!r}"
        )
    for script in scripts:
        if MAX_UNKNOWN_SHARE < shares[script] < 1:
            yield Remark(
                f"{subject}: {shares[script]:.0%} of the tokens of plain texts in {script} script are unknown to the "
                "tokenizer; make sure that it is the tokenizer that belongs to the weights"
            )


def _unknown_share(model: Model, tokenizer: Any, script: str) -> float:
    """Return the share of unknown tokens in the test sentences of a script (writing system); 1 if there are no tokens.

    As in a run, the model's `normalise` is applied to the sentences before they are tokenized.
    """
    tokens: list[int] = []
    for sentence in SENTENCES[script]:
        normalised = attempt(model.normalise, sentence) if model.normalise is not None else sentence
        text = normalised if isinstance(normalised, str) else sentence
        tokens += tokenizer(text, add_special_tokens=False)["input_ids"]
    if not tokens:
        return 1.0
    unknown = tokenizer.unk_token_id
    return tokens.count(unknown) / len(tokens)
