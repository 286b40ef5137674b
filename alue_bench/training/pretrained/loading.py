"""Where a model's weights lie, what determines them, and loading them.

Never runs code from a checkpoint, and takes safetensors before pickles.
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
    adapter_alone_in,
    adapter_files,
    check_fetched,
    find_weights,
    folder_digest,
    has_tokenizer_files,
    read_pickle,
    stored_tensors,
)
from alue_bench.training.pretrained.head import check_head_fits, head_names
from alue_bench.training.pretrained.hub import cached_snapshot, download_config, download_snapshot
from alue_bench.training.pretrained.library import first_line, quiet_transformers
from alue_bench.training.pretrained.tokenizer import pads_with, read_tokenizer

BINARY = Labels.binary("no", "yes")
"""For models of which nothing but the shape is asked."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's files on this machine, and how they are loaded."""

    folder: Path
    digest: str
    """Of the files' content; for a hub checkpoint, the commit."""
    pickled: bool
    """Whether the only weights there are pickles (read without running code from them)."""
    keep_head: bool = False
    """Whether a fine-tuned head that the checkpoint has is where training starts from; else a fresh one is drawn."""
    notes: tuple[str, ...] = ()
    """What in the folder is left aside."""
    head_left_aside: bool = False
    """Whether that is a fine-tuned head."""


def locate_checkpoint(model: Model, *, download: bool = True) -> Checkpoint:
    """Find a model's files, in its folder, in the hub's cache, or (with `download`) on the hub.

    Raises UnavailableError, within seconds, where they cannot be had or a package for the normalisation is missing.
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
    """commit: of the hub; None for a folder of the user's, whose files are digested."""
    try:
        if not (folder / "config.json").is_file():
            if adapter_files(folder):
                raise UnavailableError(adapter_alone_in(folder))
            what = "is not a folder" if not folder.is_dir() else "has no config.json"
            raise UnavailableError(f"{folder} {what}; name a folder saved with save_pretrained")
        check_fetched(folder)
        weights = find_weights(folder)
        if not weights.pickled:
            stored_tensors(weights)  # refuses files that are cut off
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
    """The library's configuration object.

    Raises UnavailableError where config.json names an architecture that the library does not know, or weights are
    quantised.
    """
    from transformers import AutoConfig

    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # broken JSON, an unknown architecture, a field of a wrong type: no base in common
        raise UnavailableError(f"{checkpoint.folder}: config.json cannot be used: {first_line(error)}") from error
    if getattr(config, "quantization_config", None):
        raise UnavailableError(
            f"{checkpoint.folder}: config.json says that the weights are quantised, and such cannot be trained; take "
            "the checkpoint that was quantised, or save what the model's dequantize() returns"
        )
    return config


def fetch_config(model: Model) -> Any:
    """A model's configuration without its weights: from its folder, the hub's cache, or the hub.

    Raises UnavailableError, within seconds, where it cannot be had.
    """
    try:
        return load_config(locate_checkpoint(model, download=False))
    except UnavailableError:
        if isinstance(model.checkpoint, Path):
            raise
    return load_config(Checkpoint(download_config(model), "", pickled=False))


def encoder_shape(config: Any) -> EncoderShape:
    """Raises UnavailableError where the configuration does not say how many layers there are."""
    layers = getattr(config, "num_hidden_layers", None)
    if not isinstance(layers, int) or layers < 1:
        raise UnavailableError(f"the configuration of {config.model_type!r} does not say its number of encoder layers")
    return EncoderShape(layers, int(getattr(config, "hidden_size", 0)))


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return the checkpoint's tokeniser, whose padding token the model has an embedding for.

    Raises UnavailableError where the checkpoint has none, or one that knows no text.
    """
    return load_tokenizer_with_notes(checkpoint)[0]


def load_tokenizer_with_notes(checkpoint: Checkpoint) -> tuple[Any, tuple[str, ...]]:
    """As `load_tokenizer`, with what is to be said of its padding."""
    return read_tokenizer(checkpoint.folder, load_config(checkpoint))


def head_options(labels: Labels) -> dict[str, Any]:
    """What the library must know to put the right head on an encoder."""
    names = labels.names or ("value",)
    return {
        "num_labels": labels.outputs,
        "id2label": dict(enumerate(names)),
        "label2id": {n: i for i, n in enumerate(names)},
    }


def load_model(checkpoint: Checkpoint, labels: Labels, *, init_seed: int) -> Any:
    """Return the encoder with a classification head, in fp32, on the CPU.

    The head is fresh, unless the checkpoint's own is to be kept. It and whatever else the checkpoint has no weights for
    is initialised from `init_seed` alone; torch's global random state is left as it was. An adapter beside the weights
    is not loaded. Raises UnavailableError where the weights cannot be loaded.
    """
    return load_model_with_report(checkpoint, labels, init_seed=init_seed)[0]


def load_model_with_report(
    checkpoint: Checkpoint, labels: Labels, *, init_seed: int, pad_id: int | None = None
) -> tuple[Any, set[str]]:
    """As `load_model`, with the names of what was initialised at random.

    pad_id: what batches are padded with where config.json does not say it; None asks the tokeniser.
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
                # No path is given: with one, the library looks for an adapter there, and loads it where peft is here.
                model, loading = type(outline).from_pretrained(
                    None,
                    config=_with_labels(config, labels),
                    state_dict={name: tensor for name, (tensor, _) in tensors.items() if name not in left_out},
                    output_loading_info=True,
                    dtype=torch.float32,
                    # A head that is kept has been compared with the labels; nothing else may differ in size.
                    ignore_mismatched_sizes=True,
                )
        except (OSError, ValueError, RuntimeError, EOFError) as error:
            raise UnavailableError(f"{checkpoint.folder}: the weights cannot be loaded: {first_line(error)}") from error
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
        with suppress(UnavailableError):  # without a tokeniser, nothing will be padded
            pad_id = load_tokenizer(checkpoint).pad_token_id
    if pad_id is not None:
        pads_with(model.config, pad_id)
    return model, drawn


@contextmanager
def _open_tensors(weights: Weights) -> Iterator[dict[str, tuple[Any, Path]]]:
    """The tensors of the files, by name, each with its file; of safetensors files, what reads them when indexed."""
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
                raise UnavailableError(f"{file}: the weights cannot be loaded: {first_line(error)}") from error
            tensors.update({name: (opened.get_slice(name), file) for name in opened.keys()})  # noqa: SIM118
        yield tensors


def classifier_outline(config: Any, labels: Labels, folder: Path) -> Any:
    """Return a checkpoint's model on the meta device.

    Raises UnavailableError where the library makes no model of the configuration.
    """
    try:
        return empty_model(config, labels)
    except Exception as error:  # sizes that do not divide, a field of a wrong type, no classifier: no base in common
        raise UnavailableError(
            f"{folder}: its config.json makes no {config.model_type!r} model that classifies texts: {first_line(error)}"
        ) from error


def _drawn_at_random(loading: dict[str, Any]) -> set[str]:
    """Names of the weights that the checkpoint lacks or has in another size."""
    mismatched = [entry if isinstance(entry, str) else entry[0] for entry in loading["mismatched_keys"]]
    return {*loading["missing_keys"], *mismatched}


def _check_encoder_was_loaded(model: Any, drawn: set[str], checkpoint: Checkpoint) -> None:
    """The library fills in at random what a checkpoint lacks, which is meant for the head and the pooler alone.

    Raises UnavailableError where it did so in the encoder.
    """
    encoder = f"{model.base_model_prefix}."
    random = sorted(name for name in drawn if name.startswith(encoder) and not name.startswith(f"{encoder}pooler."))
    if random:
        raise UnavailableError(
            f"{checkpoint.folder} has no weights for {len(random)} parameters of the encoder that fit its config.json "
            f"({random[0]}, …); it is not a whole checkpoint of a {model.config.model_type!r} model"
        )


def _check_finite(model: Any, drawn: set[str], files: Mapping[str, Path], weights: Weights) -> None:
    """Refuse weights with NaN or Inf in them: no learning rate makes anything of these.

    Raises UnavailableError naming file and parameter.
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
    """Return a sentence on the fine-tuned head that a checkpoint has and a run does not use; None where it has none.

    config: the checkpoint's.
    """
    weights = find_weights(checkpoint.folder)
    try:
        stored = stored_tensors(weights)
    except UnavailableError:  # a pickle that holds more than weights: refused when it is loaded
        return None
    found = sorted(head_names(classifier_outline(config, BINARY, checkpoint.folder)) & set(stored))
    if not found:
        return None
    return (
        f"the checkpoint has a fine-tuned head ({', '.join(found[:2])}{', …' if len(found) > 2 else ''}), which is not "
        "used: a fresh one is drawn from the seed; --keep-head keeps it"
    )


def check_keeps_head(subject: str, checkpoint: Checkpoint, config: Any, labels: Labels) -> None:
    """Raises UsageError where the checkpoint has no fine-tuned head for these labels.

    subject: names the model in the message. config: the checkpoint's.
    """
    outline = classifier_outline(config, labels, checkpoint.folder)
    check_head_fits(subject, config, outline, labels, stored_tensors(find_weights(checkpoint.folder)))


def declared_config(model: Model) -> Any:
    """The configuration that a model's plugin declares, for counting before its files are here.

    Raises UnavailableError where it declares none or one that the library does not take.
    """
    from transformers import AutoConfig

    fields = dict(model.architecture)
    if not fields:
        raise UnavailableError(f"model {model.name!r} is not here and its plugin does not declare its architecture")
    try:
        with quiet_transformers():
            return AutoConfig.for_model(str(fields.pop("model_type", "")), **fields)
    except Exception as error:  # an unknown architecture, a field of a wrong type: no base in common
        raise UnavailableError(
            f"model {model.name!r}: its plugin's architecture cannot be used: {first_line(error)}"
        ) from error


def empty_model(config: Any, labels: Labels = BINARY) -> Any:
    """The same architecture without memory for weights: enough to count parameters and FLOPs."""
    import torch

    with torch.device("meta"):
        return _from_config(config, labels)


def random_model(config: Any, labels: Labels, *, seed: int) -> Any:
    """The same architecture with random weights: enough to take the time of a step."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _from_config(config, labels)


def _from_config(config: Any, labels: Labels) -> Any:
    """Build a model in fp32, as runs load theirs: a configuration names the format that its checkpoint is saved in."""
    import torch
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers():
        return AutoModelForSequenceClassification.from_config(_with_labels(config, labels), dtype=torch.float32)


def _with_labels(config: Any, labels: Labels) -> Any:
    import copy

    config = copy.deepcopy(config)
    for name, value in head_options(labels).items():
        setattr(config, name, value)
    return config
