"""Locating and loading a model's configuration, tokenizer and weights.

No code from a checkpoint is ever run. If a checkpoint has safetensors and pickles, the safetensors are used.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UnavailableError
from alue_bench.contract.model import Model
from alue_bench.contract.strategy import EncoderShape
from alue_bench.contract.task import Labels
from alue_bench.messages.extras import command_for_module
from alue_bench.training.pretrained.files import (
    Weights,
    adapter_files,
    adapter_only_message_for,
    check_fetched,
    find_weights,
    folder_digest,
    has_tokenizer_files,
    read_pickle,
    stored_tensors,
)
from alue_bench.training.pretrained.head import check_head_fits, head_names
from alue_bench.training.pretrained.hub import cached_snapshot, download_config, download_snapshot
from alue_bench.training.pretrained.library import quiet_transformers, short_message
from alue_bench.training.pretrained.tokenizer import read_tokenizer, set_padding_token

BINARY = Labels.binary("no", "yes")
"""Placeholder labels, to build a model of which only the encoder matters, for example to count its parameters."""
TAGS = Labels.tokens("no", "yes")
"""Placeholder tags, like `BINARY`, to build a model that tags words."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine: its folder, and options for loading it."""

    folder: Path
    digest: str
    """A digest of the files' contents; for a checkpoint from the hub, the commit hash."""
    pickled: bool
    """True if the weights exist only as pickles, which are read without running code from them."""
    keep_head: bool = False
    """True to start training from the checkpoint's fine-tuned head; False to initialise a fresh head."""
    notes: tuple[str, ...] = ()
    """Sentences, for readers of the results, about files in the folder that are not used."""
    has_unused_head: bool = False
    """True if the checkpoint has a fine-tuned head that is not used."""


def locate_checkpoint(model: Model, *, download: bool = True) -> Checkpoint:
    """Find a model's files in a local folder, in the hub's local cache, or on the hub.

    Args:
        model: The model.
        download: Whether to download from the hub if the files, or those of the tokenizer, are not on this machine.

    Raises:
        UnavailableError: The files cannot be found or downloaded, or a package for the model's text normalisation is
            missing. An unreachable hub is reported within seconds.
    """
    for package in model.requires:
        if importlib.util.find_spec(package) is None:
            raise UnavailableError(
                f"model {model.name!r} needs the package {package!r} for its authors' text normalisation; "
                f"install it with: {command_for_module(package)}"
            )
    if isinstance(model.checkpoint, Path):
        return _checkpoint_in(model.checkpoint, model.name, None)
    folder = cached_snapshot(model)
    if download and (folder is None or not has_tokenizer_files(folder)):
        try:
            folder = download_snapshot(model)
        except UnavailableError:
            if folder is None:
                raise
    if folder is None:
        raise UnavailableError(
            f"model {model.name!r} ({model.checkpoint}) is not in the hub cache; a run that names it (--model) "
            "downloads it"
        )
    return _checkpoint_in(folder, model.name, folder.name)


def _checkpoint_in(folder: Path, name: str, commit: str | None) -> Checkpoint:
    """Return the checkpoint in a folder, after checking its files.

    Args:
        folder: The folder.
        name: The model's name, for error messages.
        commit: The commit hash of a download from the hub, which becomes the digest; None for a user's folder, whose
            files are read to compute a digest.

    Raises:
        UnavailableError: The folder holds no complete checkpoint.
    """
    try:
        if not (folder / "config.json").is_file():
            if adapter_files(folder):
                raise UnavailableError(adapter_only_message_for(folder))
            what = "is not a folder" if not folder.is_dir() else "has no config.json"
            raise UnavailableError(f"{folder} {what}; name a folder saved with save_pretrained")
        check_fetched(folder)
        weights = find_weights(folder)
        if not weights.pickled:
            stored_tensors(weights)  # raises if a file is truncated
        digest = folder_digest(folder, weights) if commit is None else commit
    except UnavailableError as error:
        raise UnavailableError(f"model {name!r}: {error}") from error
    except OSError as error:
        where = error.filename or folder
        raise UnavailableError(f"model {name!r}: {where} cannot be read: {error.strerror}") from error
    adapter = adapter_files(folder)
    note = (
        f"the adapter beside the weights ({', '.join(adapter)}) is not used; to start from it, merge it into the "
        "weights with peft (merge_and_unload)"
    )
    return Checkpoint(folder, digest, weights.pickled, notes=(note,) if adapter else ())


def load_config(checkpoint: Checkpoint) -> Any:
    """Return the transformers configuration of a checkpoint.

    Raises:
        UnavailableError: transformers does not know the architecture in config.json, the file is damaged, or the
            weights are quantised.
    """
    from transformers import AutoConfig

    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # broken JSON, an unknown architecture, a field of a wrong type: no common base class
        raise UnavailableError(f"{checkpoint.folder}: config.json cannot be used: {short_message(error)}") from error
    if getattr(config, "quantization_config", None):
        raise UnavailableError(
            f"{checkpoint.folder}: config.json says that the weights are quantised, and quantised weights cannot be "
            "trained; use the original checkpoint, or save what the model's dequantize() returns"
        )
    return config


def fetch_config(model: Model) -> Any:
    """Return a model's configuration, from a local folder, the hub's cache, or the hub, without downloading weights.

    Raises:
        UnavailableError: The configuration cannot be found or downloaded. An unreachable hub is reported within
            seconds.
    """
    try:
        return load_config(locate_checkpoint(model, download=False))
    except UnavailableError:
        if isinstance(model.checkpoint, Path):
            raise
    return load_config(Checkpoint(download_config(model), "", pickled=False))


def encoder_shape(config: Any) -> EncoderShape:
    """Return the number of layers and the hidden size in a configuration; a missing hidden size becomes 0.

    Raises:
        UnavailableError: The configuration does not state the number of layers.
    """
    layers = getattr(config, "num_hidden_layers", None)
    if not isinstance(layers, int) or layers < 1:
        raise UnavailableError(f"the configuration of {config.model_type!r} does not say its number of encoder layers")
    return EncoderShape(layers, int(getattr(config, "hidden_size", 0)))


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return the checkpoint's tokenizer, with a padding token for which the model has an embedding.

    Raises:
        UnavailableError: The checkpoint has no tokenizer, or one that lacks ordinary tokens or a padding token.
    """
    return load_tokenizer_with_notes(checkpoint)[0]


def load_tokenizer_with_notes(checkpoint: Checkpoint) -> tuple[Any, tuple[str, ...]]:
    """Return the tokenizer, as `load_tokenizer` does, and sentences about its padding for readers of the results.

    Raises:
        UnavailableError: The checkpoint has no tokenizer, or one that lacks ordinary tokens or a padding token.
    """
    return read_tokenizer(checkpoint.folder, load_config(checkpoint))


def head_options(labels: Labels) -> dict[str, Any]:
    """Return the configuration fields from which transformers builds a classification head for these labels."""
    names = labels.names or ("value",)
    return {
        "num_labels": labels.outputs,
        "id2label": dict(enumerate(names)),
        "label2id": {n: i for i, n in enumerate(names)},
    }


def load_model(checkpoint: Checkpoint, labels: Labels, *, init_seed: int) -> Any:
    """Load an encoder with a classification head, in fp32, on the CPU.

    The head is newly initialised unless `checkpoint.keep_head` is True. An adapter in the same folder is not loaded.
    torch's global random state does not change.

    Args:
        checkpoint: The checkpoint.
        labels: The task's labels, which give the size of the head.
        init_seed: The seed of the weights that the checkpoint lacks, such as the head.

    Raises:
        UnavailableError: The weights cannot be loaded.
    """
    return load_model_with_report(checkpoint, labels, init_seed=init_seed)[0]


def load_model_with_report(
    checkpoint: Checkpoint, labels: Labels, *, init_seed: int, pad_id: int | None = None
) -> tuple[Any, set[str]]:
    """Load a model like `load_model`, and report which weights were initialised at random.

    Args:
        checkpoint: The checkpoint.
        labels: The task's labels, which give the size of the head.
        init_seed: The seed of the weights that the checkpoint lacks, such as the head.
        pad_id: The id of the padding token to use if config.json states none; None gets it from the tokenizer.

    Returns:
        The model; the names of the weights that were initialised at random.

    Raises:
        UnavailableError: The weights cannot be loaded.
    """
    import torch

    config = load_config(checkpoint)
    weights = find_weights(checkpoint.folder)
    with torch.random.fork_rng(devices=[]), _open_tensors(weights) as tensors:
        outline = classifier_outline(config, labels, checkpoint.folder)
        left_out = frozenset() if checkpoint.keep_head else head_names(outline)
        try:
            with quiet_transformers():
                torch.manual_seed(init_seed)
                # No path is given: with one, transformers would look for an adapter there and load it through peft.
                model, loading = type(outline).from_pretrained(
                    None,
                    config=_with_labels(config, labels),
                    state_dict={name: tensor for name, (tensor, _) in tensors.items() if name not in left_out},
                    output_loading_info=True,
                    dtype=torch.float32,
                    # A kept head has been compared with the labels already, and the encoder is checked below.
                    ignore_mismatched_sizes=True,
                )
        except (OSError, ValueError, RuntimeError, EOFError) as error:
            raise UnavailableError(
                f"{checkpoint.folder}: the weights cannot be loaded: {short_message(error)}"
            ) from error
        drawn = _drawn_at_random(loading)
        _check_encoder_was_loaded(model, drawn, checkpoint)
        if kept := sorted(left_out - drawn):
            raise UnavailableError(
                f"{checkpoint.folder}: {kept[0]} of the fine-tuned head cannot be told from the encoder's weights; "
                "start from the checkpoint that was fine-tuned"
            )
        _check_finite(model, drawn, {name: file for name, (_, file) in tensors.items()}, weights)
    model.config.name_or_path = model.name_or_path = str(checkpoint.folder)
    if getattr(model.config, "pad_token_id", None) is None and pad_id is None:
        with suppress(UnavailableError):  # without a tokenizer, nothing will be padded
            pad_id = load_tokenizer(checkpoint).pad_token_id
    if pad_id is not None:
        set_padding_token(model.config, pad_id)
    return model, drawn


@contextmanager
def _open_tensors(weights: Weights) -> Iterator[dict[str, tuple[Any, Path]]]:
    """Open the weight files for reading inside the `with` block.

    The context manager yields a dictionary with each tensor and its file, by the tensor's name. A tensor in a
    safetensors file is represented by a slice object, whose values are read when it is indexed.

    Raises:
        UnavailableError: A file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, tuple[Any, Path]] = {}
    with ExitStack() as stack:
        for file in weights.files:
            if weights.pickled:
                tensors.update({name: (tensor, file) for name, tensor in read_pickle(file, device="cpu").items()})
                continue
            try:
                opened = stack.enter_context(safe_open(file, framework="pt", device="cpu"))
            except (SafetensorError, OSError) as error:
                raise UnavailableError(f"{file}: the weights cannot be loaded: {short_message(error)}") from error
            tensors.update({name: (opened.get_slice(name), file) for name in opened.keys()})  # noqa: SIM118
        yield tensors


def classifier_outline(config: Any, labels: Labels, folder: Path) -> Any:
    """Build a checkpoint's classification model on the meta device, that is, without allocating its weights.

    Args:
        config: The checkpoint's configuration.
        labels: The labels, which give the size of the head.
        folder: The checkpoint's folder, for the error message.

    Raises:
        UnavailableError: transformers cannot build a model from the configuration.
    """
    try:
        return empty_model(config, labels)
    except Exception as error:  # sizes that do not divide, a field of a wrong type, no classifier: no common base class
        raise UnavailableError(
            f"{folder}: its config.json describes no usable {config.model_type!r} model for "
            f"{'classifying tokens' if labels.reads_tokens else 'text classification'}: {short_message(error)}"
        ) from error


def _drawn_at_random(loading: dict[str, Any]) -> set[str]:
    """Return the names of the weights that transformers initialised at random, because the checkpoint lacks them.

    A weight whose shape differs from that in the checkpoint is included.

    Args:
        loading: The loading info that transformers' `from_pretrained` returned.
    """
    mismatched = [entry if isinstance(entry, str) else entry[0] for entry in loading["mismatched_keys"]]
    return {*loading["missing_keys"], *mismatched}


def _check_encoder_was_loaded(model: Any, drawn: set[str], checkpoint: Checkpoint) -> None:
    """Check that no weights of the encoder, except its pooler, were initialised at random.

    Raises:
        UnavailableError: The checkpoint lacks weights of the encoder, or has them in another shape.
    """
    encoder = f"{model.base_model_prefix}."
    random = sorted(name for name in drawn if name.startswith(encoder) and not name.startswith(f"{encoder}pooler."))
    if random:
        raise UnavailableError(
            f"{checkpoint.folder} has no weights for {len(random)} parameters of the encoder that fit its config.json "
            f"({random[0]}, …); it is not a whole checkpoint of a {model.config.model_type!r} model"
        )


def _check_finite(model: Any, drawn: set[str], files: Mapping[str, Path], weights: Weights) -> None:
    """Check that the loaded weights are finite, since a model with NaN or infinite weights cannot be trained.

    Args:
        model: The loaded model.
        drawn: The names of the weights that were initialised at random, which are not checked.
        files: The file of each tensor in the checkpoint, by the tensor's name.
        weights: The weight files of the checkpoint.

    Raises:
        UnavailableError: A value is not finite. The message names the file and the parameter.
    """
    import torch

    for name, parameter in model.named_parameters():
        if name in drawn or not parameter.numel():
            continue
        if all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(parameter.detach())):
            continue
        stored = next((key for key in files if key == name or name.endswith(f".{key}") or key.endswith(f".{name}")), "")
        wrong = int((~torch.isfinite(parameter)).sum())
        raise UnavailableError(
            f"{files.get(stored, weights.files[0])}: {wrong} of the {parameter.numel()} values of {stored or name} are "
            "not finite (NaN or infinite), so that nothing can be computed with this checkpoint; take an earlier one, "
            "or download it again"
        )


def head_note(checkpoint: Checkpoint, config: Any) -> str | None:
    """Return a sentence for readers of the results, stating that the checkpoint's fine-tuned head is not used.

    The result is None if the checkpoint has no fine-tuned head, or if its weights cannot be read.

    Args:
        checkpoint: The checkpoint.
        config: The checkpoint's configuration.

    Raises:
        UnavailableError: The folder has no weights, or transformers cannot build a model from the configuration.
    """
    weights = find_weights(checkpoint.folder)
    try:
        stored = stored_tensors(weights)
    except UnavailableError:  # a pickle with more than weights: `load_model` raises an error for it
        return None
    names = sorted(head_names(classifier_outline(config, BINARY, checkpoint.folder)) & set(stored))
    if not names:
        return None
    return (
        f"the checkpoint has a fine-tuned head ({', '.join(names[:2])}{', …' if len(names) > 2 else ''}), which is not "
        "used: a fresh one is drawn from the seed; --keep-head keeps it"
    )


def check_keeps_head(subject: str, checkpoint: Checkpoint, config: Any, labels: Labels) -> None:
    """Check that a checkpoint has a fine-tuned head for these labels, so that `--keep-head` can be used.

    Args:
        subject: The name of the model, for the error message.
        checkpoint: The checkpoint.
        config: The checkpoint's configuration.
        labels: The task's labels.

    Raises:
        UsageError: The checkpoint has no fine-tuned head, or its head was trained for other labels.
        UnavailableError: The weights cannot be read, or transformers cannot build a model from the configuration.
    """
    outline = classifier_outline(config, labels, checkpoint.folder)
    check_head_fits(subject, config, outline, labels, stored_tensors(find_weights(checkpoint.folder)))


def declared_config(model: Model) -> Any:
    """Return the configuration that a model's plugin declares, for counting FLOPs before the files are downloaded.

    Raises:
        UnavailableError: The plugin declares no configuration, or one that transformers does not accept.
    """
    from transformers import AutoConfig

    fields = dict(model.architecture)
    if not fields:
        raise UnavailableError(f"model {model.name!r} is not here and its plugin does not declare its architecture")
    try:
        with quiet_transformers():
            return AutoConfig.for_model(str(fields.pop("model_type", "")), **fields)
    except Exception as error:  # an unknown architecture, a field of a wrong type: no common base class
        raise UnavailableError(
            f"model {model.name!r}: its plugin's architecture cannot be used: {short_message(error)}"
        ) from error


def empty_model(config: Any, labels: Labels = BINARY) -> Any:
    """Build a classification model on the meta device, without weights in memory, to count parameters and FLOPs.

    Args:
        config: The transformers configuration.
        labels: The labels, which give the size of the head.
    """
    import torch

    with torch.device("meta"):
        return _from_config(config, labels)


def random_model(config: Any, labels: Labels, *, seed: int) -> Any:
    """Build a classification model with random weights, to measure the time of a training step.

    Args:
        config: The transformers configuration.
        labels: The labels, which give the size of the head.
        seed: The seed of the weights. torch's global random state does not change.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _from_config(config, labels)


def _from_config(config: Any, labels: Labels) -> Any:
    """Build a classification model in fp32, even if the configuration names another number format.

    The head classifies whole texts, or each token in tasks that tag words or find spans.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    kind = AutoModelForTokenClassification if labels.reads_tokens else AutoModelForSequenceClassification
    with quiet_transformers():
        return kind.from_config(_with_labels(config, labels), dtype=torch.float32)


def _with_labels(config: Any, labels: Labels) -> Any:
    """Return a copy of a configuration whose fields for the classification head match these labels."""
    import copy

    config = copy.deepcopy(config)
    for name, value in head_options(labels).items():
        setattr(config, name, value)
    return config
