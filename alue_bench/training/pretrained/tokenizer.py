"""Loading and checking the tokenizer of a checkpoint, and choosing its padding token."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import DoesNotFit, UnavailableError
from alue_bench.contract.formats import excerpt
from alue_bench.training.pretrained.library import quiet_transformers, short_message

READS_SENTENCEPIECE = ("sentencepiece", "google.protobuf")
"""The Python modules that transformers needs to read the vocabulary of a SentencePiece tokenizer."""
JSON_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
FAST_TOKENIZER_FILE = "tokenizer.json"
"""The file that contains a complete fast tokenizer, so that no vocabulary files are needed."""
DISTRIBUTIONS = {"google.protobuf": "protobuf"}
"""For a Python module, the name of the package to install, if it differs from the module's name."""


def read_tokenizer(folder: Path, config: Any) -> tuple[Any, tuple[str, ...]]:
    """Load the tokenizer of a checkpoint, with a padding token for which the model has an embedding.

    Args:
        folder: The checkpoint's folder.
        config: The checkpoint's configuration.

    Returns:
        The tokenizer; sentences about its padding, for readers of the results.

    Raises:
        UnavailableError: The folder has no tokenizer, or one that lacks ordinary tokens or a padding token.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # missing files, broken JSON, a missing optional package: no common base class
        raise UnavailableError(f"{folder}: the tokenizer cannot be loaded: {_cause(folder, config, error)}") from error
    _check_vocabulary(folder, tokenizer)
    return tokenizer, _settle_padding(folder, tokenizer, config)


def check_offsets(tokenizer: Any, folder: Path) -> None:
    """Check that a tokenizer gives character offsets, that is, the characters of a text that each token stands for.

    Span extraction needs them to find an answer among the tokens of a text.

    Args:
        tokenizer: The tokenizer.
        folder: The checkpoint's folder, for the error message.

    Raises:
        DoesNotFit: The tokenizer gives no character offsets.
    """
    if not tokenizer.is_fast:
        raise DoesNotFit(
            f"{folder}: its tokenizer {type(tokenizer).__name__} gives no character offsets, so that answers cannot be "
            f"found among its tokens; save a fast one ({FAST_TOKENIZER_FILE}) there, or take another model"
        )


def set_padding_token(config: Any, pad_id: int) -> None:
    """Set the padding token id of a configuration to `pad_id`, unless it states one that has an embedding."""
    if not _has_embedding(config, getattr(config, "pad_token_id", None)):
        config.pad_token_id = pad_id


# Files -----------------------------------------------------------------------------------------------------------


def _cause(folder: Path, config: Any, error: Exception) -> str:
    """Return the reason why transformers could not load a tokenizer, and a remedy, for an error message.

    Args:
        folder: The checkpoint's folder.
        config: The checkpoint's configuration.
        error: The error that transformers raised.
    """
    for name in JSON_FILES:
        try:
            json.loads((folder / name).read_text(encoding="utf-8") if (folder / name).is_file() else "null")
        except (ValueError, RecursionError) as wrong:
            return f"{name} is not valid JSON ({short_message(wrong)}); copy it there again"
    missing = [name for name in READS_SENTENCEPIECE if not _is_installed(name)]
    if missing and not (folder / FAST_TOKENIZER_FILE).is_file() and any(folder.glob("*.model")):
        names = [DISTRIBUTIONS.get(name, name) for name in missing]
        packages = "package" if len(names) == 1 else "packages"
        return (
            f"its vocabulary is one of SentencePiece, which needs the {packages} {' and '.join(names)}; install with: "
            f"pip install {' '.join(names)}"
        )
    if isinstance(error, ImportError):  # the message names the package that the tokenizer's class needs
        return short_message(error)
    names = _files_of_class(folder, config)
    absent = [name for name in names if not (folder / name).is_file() and name != FAST_TOKENIZER_FILE]
    if absent and not (folder / FAST_TOKENIZER_FILE).is_file():
        if FAST_TOKENIZER_FILE in names:
            return f"{FAST_TOKENIZER_FILE} is missing, and so is {' and '.join(absent)}; {SAVE_REMEDY}"
        return f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing; {SAVE_REMEDY}"
    return f"{short_message(error).rstrip(': ')}; {SAVE_REMEDY}"


SAVE_REMEDY = "save the tokenizer to the same folder with its save_pretrained"


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


def _files_of_class(folder: Path, config: Any) -> list[str]:
    """Return the names of the vocabulary files that the checkpoint's tokenizer class reads.

    The list is empty if the class cannot be determined.
    """
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

    try:
        stated = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("tokenizer_class")
    except (OSError, ValueError, AttributeError):
        stated = None
    name = stated or getattr(config, "tokenizer_class", None) or TOKENIZER_MAPPING_NAMES.get(config.model_type)
    tokenizer_class = tokenizer_class_from_name(name) if isinstance(name, str) else None
    return list(_vocabulary_files(tokenizer_class).values())


def _vocabulary_files(tokenizer: Any) -> dict[str, str]:
    """Return the names of a tokenizer's vocabulary files by role, such as "vocab_file".

    The result is empty for byte and character tokenizers.
    """
    files = getattr(tokenizer, "vocab_files_names", None) or {}
    return {role: name for role, name in files.items() if role != "tokenizer_config_file" and isinstance(name, str)}


def _check_vocabulary(folder: Path, tokenizer: Any) -> None:
    """Check that a tokenizer has a vocabulary and can encode a text.

    If a folder has no tokenizer files, transformers raises no error: it builds a tokenizer of the class that belongs to
    config.json, with special tokens only, so that every word is unknown.

    Raises:
        UnavailableError: The tokenizer has no vocabulary, or cannot encode a text.
    """
    files = set(_vocabulary_files(tokenizer).values())
    if not files:
        return
    words = _words(tokenizer)
    names = {path.name for path in folder.iterdir() if path.is_file()}
    if not names & files and words <= _words_without_files(tokenizer):
        raise UnavailableError(
            f"{folder} has no tokenizer ({' or '.join(sorted(files))}), so that every word would be unknown; "
            f"{SAVE_REMEDY}"
        )
    if not words:
        raise UnavailableError(
            f"{folder}: the tokenizer's vocabulary consists of special tokens only, so that every word would be "
            f"unknown; take the tokenizer that belongs to the weights, and {SAVE_REMEDY}"
        )
    try:
        tokenizer("ا a 1")
    except Exception as error:  # such as no token for unknown words; errors from Rust have no common base class
        raise UnavailableError(
            f"{folder}: the tokenizer cannot read a text: {short_message(error)}; take the tokenizer that belongs to "
            f"the weights, and {SAVE_REMEDY}"
        ) from error


def _words(tokenizer: Any) -> set[str]:
    """Return the tokens in a tokenizer's vocabulary, except special tokens."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return set(tokenizer.get_vocab()) - special - set(tokenizer.all_special_tokens)


def _words_without_files(tokenizer: Any) -> set[str]:
    """Return the ordinary tokens, such as a space symbol, that a tokenizer of the same class has without any files."""
    try:
        return _words(type(tokenizer)())
    except Exception:  # the class needs files, so a tokenizer of it has read some
        return set()


# Padding ---------------------------------------------------------------------------------------------------------


def _settle_padding(folder: Path, tokenizer: Any, config: Any) -> tuple[str, ...]:
    """Set the tokenizer's padding token to one for which the model has an embedding.

    Padded positions are masked, so any embedding would do; but some architectures (RoBERTa) compute positions from the
    padding id in their configuration. Three ids are tried in this order: the padding id of the configuration, with
    which the weights were trained; the id of the tokenizer's padding token; the id of the tokenizer's end-of-text
    token, as is usual for GPT-2. The first one that has an embedding and stands for a token is used.

    Args:
        folder: The checkpoint's folder, for messages.
        tokenizer: The tokenizer, which is changed in place.
        config: The checkpoint's configuration.

    Returns:
        Sentences for readers of the results; empty if the tokenizer's own padding token is used, and the configuration
        states the same padding id or none.

    Raises:
        UnavailableError: No padding id with an embedding can be found.
    """
    stated, own, end = getattr(config, "pad_token_id", None), tokenizer.pad_token_id, tokenizer.eos_token_id
    if own is None and end is None:
        raise UnavailableError(
            f"{folder}: the tokenizer has no padding token; name one of its tokens: set its pad_token, and "
            f"{SAVE_REMEDY}"
        )
    if own is not None and (own == stated or stated is None) and _has_embedding(config, own):
        return ()
    for chosen in (stated, own, end):
        if _has_embedding(config, chosen) and tokenizer.convert_ids_to_tokens(chosen) is not None:
            break
    else:
        raise UnavailableError(
            f"{folder}: neither the padding token of the tokenizer (id {own}) nor its end-of-text token (id {end}) has "
            f"an embedding among the {config.vocab_size} of the model; take the tokenizer that belongs to the weights"
        )
    tokenizer.pad_token_id = chosen
    token = excerpt(tokenizer.pad_token)
    if own is None:
        return (f"the tokenizer has no padding token; batches are padded with {token} (id {chosen}), which is masked",)
    return (
        f"the tokenizer pads with id {own}, config.json says {stated}; batches are padded with {token} (id {chosen}), "
        "which is masked",
    )


def _has_embedding(config: Any, token_id: Any) -> bool:
    """Return whether a value is a token id within the vocabulary size of the configuration."""
    size = getattr(config, "vocab_size", None)
    if not isinstance(token_id, int) or isinstance(token_id, bool) or token_id < 0:
        return False
    return not isinstance(size, int) or token_id < size
