"""The random copy of a model: the same architecture with random weights, as a base for comparisons."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import UnavailableError, UsageError
from alue_bench.contract.model import Model

if TYPE_CHECKING:
    from alue_bench.training.pretrained.loading import Checkpoint

RANDOM_SEED = 20_201_124
"""The seed of the random copy's weights."""


def random_copy(model: Model) -> Model:
    """Return a copy of the model whose weights are randomly initialised by transformers.

    The copy is made once and kept in the cache folder. Its class is the one that config.json names, so that it has a
    pooler if the original has one. The name of its folder, its weights, and thus the fingerprints of its runs depend
    only on the configuration and the tokenizer.

    Raises:
        UnavailableError: The model has no checkpoint, or the cache folder is not writable.
        UsageError: config.json names a class that transformers does not know.
    """
    from alue_bench.contract.spec import digest_of
    from alue_bench.data.cache_folder import cache_folder
    from alue_bench.training.pretrained.loading import locate_checkpoint

    checkpoint = locate_checkpoint(model)
    described = _description_files(checkpoint)
    content = {path.name: path.read_bytes().hex() for path in described}
    folder = cache_folder() / f"random-{digest_of([RANDOM_SEED, content])[:12]}"
    if not folder.is_dir():
        _write_random_copy(checkpoint, described, folder)
    return replace(
        model,
        name=f"{model.name}-random",
        title=f"the architecture of {model.name} with random weights",
        checkpoint=folder,
        revision=None,
    )


def _description_files(checkpoint: Checkpoint) -> list[Path]:
    """Return the paths of a checkpoint's configuration and tokenizer files."""
    paths = (path for path in checkpoint.folder.iterdir() if path.suffix in (".json", ".txt", ".model"))
    return sorted(path for path in paths if not path.name.endswith(".index.json"))


def _write_random_copy(checkpoint: Checkpoint, described: Iterable[Path], folder: Path) -> None:
    """Write the random copy of a checkpoint atomically, so that an interruption leaves no incomplete copy.

    Args:
        checkpoint: The checkpoint.
        described: The checkpoint's configuration and tokenizer files, which are copied.
        folder: The folder to create.
    """
    import torch

    from alue_bench.training.pretrained.library import quiet_transformers
    from alue_bench.training.pretrained.loading import load_config

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    except OSError as error:
        raise UnavailableError(f"the cache folder {folder.parent} is not writable ({error.strerror})") from error
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(RANDOM_SEED)
        fresh_model(load_config(checkpoint)).save_pretrained(scratch)
    for path in described:
        shutil.copyfile(path, scratch / path.name)  # overwrites config.json with the original, byte by byte
    try:
        os.replace(scratch, folder)
    except OSError:  # another process was faster, and its copy is equal
        shutil.rmtree(scratch, ignore_errors=True)


def fresh_model(config: Any) -> Any:
    """Return a randomly initialised model, in fp32, of the class that a configuration names.

    Raises:
        UsageError: transformers does not know the class.
    """
    import torch
    import transformers

    names = getattr(config, "architectures", None) or ["none"]
    architecture = getattr(transformers, names[0], None)
    if architecture is None:
        raise UsageError(f"config.json names the architecture {names[0]!r}, which transformers does not know")
    return architecture(config).to(torch.float32)
