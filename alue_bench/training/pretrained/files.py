"""The files in a checkpoint's folder: finding the weights, separating used from unused files, computing a digest.

Subfolders (`onnx/`, `checkpoint-500/`, `1_Pooling/`) are ignored: neither transformers nor alue-bench reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UnavailableError

SAFE_WEIGHTS = "model.safetensors"
PICKLED_WEIGHTS = "pytorch_model.bin"
INDEX = ".index.json"
"""The suffix of an index file, which lists the files (shards) that the weights are divided into."""
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = (ADAPTER_CONFIG, "adapter_model.*", "pytorch_adapter.bin")
TEXT_SUFFIXES = (".json", ".txt", ".model")
"""The suffixes of configuration and vocabulary files, which are always read (except an adapter's configuration)."""

IGNORED_PATTERNS = (
    *ADAPTER,
    # weights of other formats, precisions and frameworks
    "*.safetensors", "pytorch_model*", "consolidated*", "tf_model*", "flax_model*", "rust_model*", "*.h5", "*.msgpack",
    "*.ot", "*.onnx", "*.onnx_data", "*.gguf", "*.tflite", "*.mlmodel", "*.pb", "*.ckpt*", "*.pt", "*.pth",
    # states and logs of a training
    "optimizer*", "scheduler*", "scaler*", "rng_state*", "random_states*", "training_args.bin", "events.out.tfevents*",
    "*.log",
    # texts, pictures and code for people
    ".*", "readme*", "license*", "licence*", "notice*", "*.md", "*.py", "*.ipynb", "*.png", "*.jpg", "*.jpeg", "*.svg",
    "*.pdf",
)  # fmt: skip
"""Patterns, in lower case, of files in a checkpoint's folder that are ignored, except the weights to load. For files
with a suffix in `TEXT_SUFFIXES`, only the patterns of `ADAPTER` apply. A file that matches no pattern counts as part of
the tokenizer or the model, because not all names of such files are known."""
NOT_TOKENIZER_PATTERNS = ("config.json", "generation_config.json", "*.index.json", "*.safetensors", "pytorch_model*")
"""Patterns of files that may be read, but never belong to a tokenizer."""
LFS_POINTER = b"version https://git-lfs"
"""The first bytes of a Git LFS pointer, a small text file in place of a file that has not been downloaded."""
LARGEST_HEADER = 100_000_000
"""The largest accepted header of a safetensors file, in bytes; the safetensors library has the same limit."""


@dataclass(frozen=True)
class Weights:
    """The files that contain a checkpoint's weights."""

    files: tuple[Path, ...]
    pickled: bool
    """True if the files are pickles (pytorch_model.bin), False if they are safetensors."""


@dataclass(frozen=True)
class StoredTensor:
    """The file and the shape of a tensor in a checkpoint."""

    file: Path
    shape: tuple[int, ...]


def check_fetched(folder: Path) -> None:
    """Check that no file in a folder is a Git LFS pointer, that is, a short text in place of the real file.

    Without this check, such a text could be read as a tiny vocabulary.

    Raises:
        UnavailableError: A file is a pointer. The message names it and the command that fetches the real file.
    """
    for path in sorted(path for path in _files(folder) if is_read(path.name) or _is_weights(path.name)):
        with path.open("rb") as stream:
            if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                raise UnavailableError(
                    f"{path} is a pointer of Git LFS, not the file itself; fetch it with: git lfs pull"
                )


def find_weights(folder: Path) -> Weights:
    """Return the files that contain a checkpoint's weights: safetensors (one file or shards) if any, else pickles.

    Raises:
        UnavailableError: The folder has no weights, or only an adapter; or an index file is damaged, or names a shard
            that the folder lacks.
    """
    for name, pickled in ((SAFE_WEIGHTS, False), (PICKLED_WEIGHTS, True)):
        if (folder / name).is_file():
            return Weights((folder / name,), pickled)
        if (folder / f"{name}{INDEX}").is_file():
            return Weights(_shards(folder / f"{name}{INDEX}"), pickled)
    if adapter_files(folder):
        raise UnavailableError(adapter_only_message_for(folder))
    others = sorted(path.name for path in _files(folder) if _is_other_weights(path.name))
    unread = f"; of {', '.join(others[:3])}{', …' if len(others) > 3 else ''} it reads none" if others else ""
    raise UnavailableError(
        f"{folder} has no weights that alue-bench reads (model.safetensors, or shards with "
        f"model.safetensors.index.json){unread}; save the model there with save_pretrained"
    )


def _shards(index: Path) -> tuple[Path, ...]:
    """Return the weight files (shards) that an index file names.

    Raises:
        UnavailableError: The index is damaged, or a file that it names is not in the same folder.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("weight_map must name files of the same folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        cause = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UnavailableError(f"{index} cannot be read as an index of weights ({cause}); download it again") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise UnavailableError(
            f"{index.parent} lacks {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''} "
            f"({len(missing)} of the {len(names)} files of weights that {index.name} names); copy what is missing there"
        )
    return tuple(index.parent / name for name in names)


def _is_weights(name: str) -> bool:
    return _matches(name, ("model*.safetensors", "pytorch_model*.bin"))


def _is_other_weights(name: str) -> bool:
    return _matches(name, IGNORED_PATTERNS[len(ADAPTER) : IGNORED_PATTERNS.index("optimizer*")])


def adapter_files(folder: Path) -> list[str]:
    """Return the names of the files of a `peft` adapter in a folder; an empty list if there is no adapter.

    The folder may also contain a full checkpoint.
    """
    return sorted(path.name for path in _files(folder) if _matches(path.name, ADAPTER))


def adapter_only_message(where: str, base: str | None) -> str:
    """Return an error message for a folder or repository that has only an adapter and no model, with the remedy.

    Args:
        where: The folder or repository.
        base: The name of the adapter's base model, if known.
    """
    model = f"its base model {base!r}" if base else "its base model"
    return (
        f"{where} holds an adapter alone ({ADAPTER_CONFIG}), not a whole checkpoint; load it on {model} with peft, "
        "call merge_and_unload() on the model, and save what that returns, and the tokenizer, to a new folder with "
        "save_pretrained"
    )


def adapter_only_message_for(folder: Path) -> str:
    """Return an error message for a folder that has only an adapter; it names the adapter's base model if known."""
    try:
        base = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        base = None
    return adapter_only_message(str(folder), base if isinstance(base, str) else None)


def stored_tensors(weights: Weights) -> dict[str, StoredTensor]:
    """Return the file and shape of each tensor of a checkpoint, by name, without reading the tensors' values.

    Raises:
        UnavailableError: A file is truncated or damaged.
    """
    tensors = {}
    for file in weights.files:
        shapes = _pickled_shapes(file) if weights.pickled else safetensors_shapes(file)
        tensors.update({name: StoredTensor(file, shape) for name, shape in shapes.items()})
    return tensors


def safetensors_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors in a safetensors file, by name, from the file's header.

    Raises:
        UnavailableError: The file is truncated, damaged, or not a safetensors file.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            start = stream.read(8)
            length = int.from_bytes(start, "little")
            if not 0 < length <= min(size - 8, LARGEST_HEADER):
                raise ValueError("its header is cut off")
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        shapes = {name: tuple(int(side) for side in entry["shape"]) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UnavailableError(f"{file} is no safetensors file, or damaged ({error}); download it again") from error
    if size != 8 + length + end:
        raise UnavailableError(
            f"{file} has {size} bytes instead of the {8 + length + end} that its header tells; download it again"
        )
    return shapes


def _pickled_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in read_pickle(file, device="meta").items()}


def read_pickle(file: Path, *, device: str) -> dict[str, Any]:
    """Return the tensors of a pickled file, by name, without running code from the file.

    Args:
        file: The file.
        device: The torch device for the tensors; "meta" reads no values.

    Raises:
        UnavailableError: The file cannot be read without running code from it, or is damaged.
    """
    import pickle

    import torch

    try:
        content = torch.load(file, map_location=device, weights_only=True)
        return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, torch.Tensor)}
    except (OSError, ValueError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        raise UnavailableError(
            f"{file}: the weights cannot be loaded without running code from the file, or it is damaged; take a "
            "revision with safetensors"
        ) from error


def is_read(name: str) -> bool:
    """Return whether a file of this name, other than the weights, may be read for the model or the tokenizer."""
    return not _matches(name, ADAPTER if Path(name).suffix in TEXT_SUFFIXES else IGNORED_PATTERNS)


def has_tokenizer_files(folder: Path) -> bool:
    """Return whether any file in a folder may belong to a tokenizer; False if only a model was saved there."""
    return any(is_read(path.name) and not _matches(path.name, NOT_TOKENIZER_PATTERNS) for path in _files(folder))


def wanted_names(names: Iterable[str]) -> list[str]:
    """Return the files of a hub repository that must be downloaded: the weights, and all other files that may be read.

    Args:
        names: The names of all files in the repository. Files in subfolders are never selected.
    """
    here = [name for name in names if "/" not in name]
    if SAFE_WEIGHTS in here:
        weights = [SAFE_WEIGHTS]
    elif f"{SAFE_WEIGHTS}{INDEX}" in here:
        weights = [name for name in here if fnmatchcase(name, "model*.safetensors")]
    elif PICKLED_WEIGHTS in here:
        weights = [PICKLED_WEIGHTS]
    else:
        weights = [name for name in here if fnmatchcase(name, "pytorch_model-*.bin")]
    return [*weights, *(name for name in here if is_read(name))]


def folder_digest(folder: Path, weights: Weights) -> str:
    """Return a digest of a checkpoint: of the names and contents of its weight files and all other files to read."""
    read = sorted(path for path in _files(folder) if is_read(path.name) and path not in weights.files)
    described = [path for path in read if path.suffix in TEXT_SUFFIXES]
    others = [path for path in read if path.suffix not in TEXT_SUFFIXES]
    digest = hashlib.sha256()
    for path in [*described, *weights.files, *others]:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in patterns)
