"""Where a model's weights lie, what determines them, and loading them.

Never runs code from a checkpoint, and takes safetensors before pickles.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.errors import UnavailableError
from alue_bench.extras import command_for_module
from alue_bench.model import Model
from alue_bench.strategy import EncoderShape
from alue_bench.task import Labels

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

BINARY = Labels.binary("no", "yes")
"""For models of which nothing but the shape is asked."""
HUB_TIMEOUT = 5.0
"""Seconds to wait for the hub to answer at all before calling it unreachable."""

WANTED = ("*.json", "*.txt", "*.model", "*.safetensors")
PICKLED_WEIGHTS = "pytorch_model*.bin"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's files on this machine."""

    folder: Path
    digest: str
    """Of the files' content; for a hub checkpoint, the commit."""
    pickled: bool
    """Whether the only weights there are pickles (read without running code from them)."""


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
        return _local(model.name, model.checkpoint)
    folder = _cached(model) or (_downloaded(model) if download else None)
    if folder is None:
        raise UnavailableError(
            f"model {model.name!r} ({model.checkpoint}) is not in the hub cache; a run that names it (--model) "
            "downloads it"
        )
    weights = list(folder.glob("*.safetensors"))
    return Checkpoint(folder, folder.name, pickled=not weights)


def _local(name: str, folder: Path) -> Checkpoint:
    if not (folder / "config.json").is_file():
        what = "is not a folder" if not folder.is_dir() else "has no config.json"
        raise UnavailableError(f"model {name!r}: {folder} {what}; name a folder saved with save_pretrained")
    safe, pickles = sorted(folder.glob("*.safetensors")), sorted(folder.glob(PICKLED_WEIGHTS))
    if not safe and not pickles:
        raise UnavailableError(f"model {name!r}: {folder} has no weights (model.safetensors)")
    digest = hashlib.sha256()
    described = [path for path in folder.iterdir() if path.suffix in (".json", ".txt", ".model")]
    for path in sorted(described) + (safe or pickles):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return Checkpoint(folder, digest.hexdigest()[:32], pickled=not safe)


def _cached(model: Model) -> Path | None:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return None
    for repo in repos:
        if repo.repo_id != model.checkpoint or repo.repo_type != "model":
            continue
        for revision in sorted(repo.revisions, key=lambda r: r.last_modified, reverse=True):
            wanted = model.revision
            if wanted and not (revision.commit_hash.startswith(wanted) or wanted in revision.refs):
                continue
            names = {file.file_name for file in revision.files}
            if "config.json" in names and any(n.endswith(".safetensors") or n.endswith(".bin") for n in names):
                return Path(revision.snapshot_path)
    return None


def _downloaded(model: Model) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download

    hub_id = str(model.checkpoint)
    named = f"model {model.name!r} ({hub_id}{'@' + model.revision if model.revision else ''})"
    if constants.HF_HUB_OFFLINE:
        raise UnavailableError(f"{named} is not in the hub cache, and HF_HUB_OFFLINE forbids asking the hub")
    try:
        info = HfApi().model_info(hub_id, revision=model.revision, timeout=HUB_TIMEOUT, files_metadata=True)
    except Exception as error:  # the hub client's errors share no base: network, HTTP and validation errors
        raise UnavailableError(f"{named} cannot be had from the hub: {_reason(error)}") from error
    names = [sibling.rfilename for sibling in info.siblings or ()]
    patterns = [*WANTED, *([] if any(n.endswith(".safetensors") for n in names) else [PICKLED_WEIGHTS])]
    try:
        folder = Path(snapshot_download(hub_id, revision=info.sha, allow_patterns=patterns))
    except Exception as error:  # as above
        raise UnavailableError(
            f"{named}: the download broke off ({_reason(error)}); the same command goes on"
        ) from error
    if altered := removed_if_altered(folder, info.siblings or ()):
        raise UnavailableError(
            f"{named}: {', '.join(altered)} arrived with another digest than the hub tells, and was removed; the same "
            "command downloads it again"
        )
    return folder


def removed_if_altered(folder: Path, siblings: Iterable[RepoSibling]) -> list[str]:
    """Compare downloaded files with the digests that the hub tells of them (its client compares sizes alone), and
    remove those that differ from the cache. Returns their names."""
    told = {sibling.rfilename: sibling for sibling in siblings}
    altered = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        sibling = told.get(name)
        if sibling is not None and not _is_intact(path, sibling):
            path.resolve().unlink()  # a snapshot is made of links
            path.unlink(missing_ok=True)
            altered.append(name)
    return altered


def _is_intact(path: Path, sibling: RepoSibling) -> bool:
    with path.open("rb") as file:
        if sibling.lfs is not None:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == sibling.lfs.sha256)
        if sibling.blob_id is None:  # a mirror that tells no digests
            return True
        content = file.read()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    return bool(git == sibling.blob_id)


def _reason(error: Exception) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "RepositoryNotFoundError" in kinds:
        return "there is no such repository, or it is private"
    if "RevisionNotFoundError" in kinds:
        return "there is no such revision"
    if kinds & {
        "ConnectError",
        "ConnectTimeout",
        "ReadTimeout",
        "TimeoutException",
        "ConnectionError",
        "Timeout",
    }:
        return "it does not answer; check the network, or name a local folder with --model"
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps the library's advice (on newly initialised heads, say) off the terminal: here it is meant so."""
    import logging

    import transformers

    bars = transformers.utils.logging.is_progress_bar_enabled()
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.utils.logging.set_verbosity(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def load_config(checkpoint: Checkpoint) -> Any:
    """The library's configuration object.

    Raises UnavailableError where config.json names an architecture that the library does not know.
    """
    from transformers import AutoConfig

    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # broken JSON, an unknown architecture, a field of a wrong type: no base in common
        raise UnavailableError(
            f"{checkpoint.folder}: config.json cannot be used: {next(iter(str(error).splitlines()), error)}"
        ) from error


def fetch_config(model: Model) -> Any:
    """A model's configuration without its weights: from its folder, the hub's cache, or the hub.

    Raises UnavailableError, within seconds, where it cannot be had.
    """
    try:
        return load_config(locate_checkpoint(model, download=False))
    except UnavailableError:
        if isinstance(model.checkpoint, Path):
            raise
    from huggingface_hub import hf_hub_download

    try:
        file = hf_hub_download(str(model.checkpoint), "config.json", revision=model.revision, etag_timeout=HUB_TIMEOUT)
    except Exception as error:  # as in _downloaded
        raise UnavailableError(
            f"model {model.name!r} ({model.checkpoint}) cannot be had from the hub: {_reason(error)}"
        ) from error
    return load_config(Checkpoint(Path(file).parent, "", pickled=False))


def encoder_shape(config: Any) -> EncoderShape:
    """Raises UnavailableError where the configuration does not say how many layers there are."""
    layers = getattr(config, "num_hidden_layers", None)
    if not isinstance(layers, int) or layers < 1:
        raise UnavailableError(f"the configuration of {config.model_type!r} does not say its number of encoder layers")
    return EncoderShape(layers, int(getattr(config, "hidden_size", 0)))


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Raises UnavailableError where the checkpoint has no usable tokeniser."""
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # missing files, broken JSON, a missing optional package: the causes share no base
        raise UnavailableError(
            f"{checkpoint.folder}: the tokeniser cannot be loaded: {next(iter(str(error).splitlines()), error)}"
        ) from error
    if tokenizer.pad_token_id is None:
        raise UnavailableError(f"{checkpoint.folder}: the tokeniser has no padding token")
    return tokenizer


def head_options(labels: Labels) -> dict[str, Any]:
    """What the library must know to put the right head on an encoder."""
    names = labels.names or ("value",)
    return {
        "num_labels": labels.outputs,
        "id2label": dict(enumerate(names)),
        "label2id": {n: i for i, n in enumerate(names)},
    }


def load_model(checkpoint: Checkpoint, labels: Labels, *, init_seed: int) -> Any:
    """The encoder with a fresh classification head, in fp32, on the CPU.

    Whatever the checkpoint has no weights for is initialised from `init_seed` alone; torch's global random state is
    left as it was. Raises UnavailableError where the weights cannot be loaded.
    """
    return load_model_with_report(checkpoint, labels, init_seed=init_seed)[0]


def load_model_with_report(checkpoint: Checkpoint, labels: Labels, *, init_seed: int) -> tuple[Any, set[str]]:
    """As `load_model`, with the names of what was initialised at random."""
    import torch
    from transformers import AutoModelForSequenceClassification

    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(init_seed)
        try:
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                checkpoint.folder,
                output_loading_info=True,
                dtype=torch.float32,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=not checkpoint.pickled,
                # A checkpoint that was fine-tuned elsewhere may carry a head of another size: ours is fresh.
                ignore_mismatched_sizes=True,
                **head_options(labels),
            )
        except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise UnavailableError(
                f"{checkpoint.folder}: the weights cannot be loaded: {next(iter(str(error).splitlines()), error)}"
            ) from error
    drawn = _drawn_at_random(loading)
    _check_encoder_was_loaded(model, drawn, checkpoint)
    return model, drawn


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
            f"model {model.name!r}: its plugin's architecture cannot be used: {next(iter(str(error).splitlines()), '')}"
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
    import copy

    import torch
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(config)
    for name, value in head_options(labels).items():
        setattr(config, name, value)
    with quiet_transformers():
        return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
