"""The checkpoint and the tokenizer of the training runs; a model with random weights needs only the tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.timing.settings import Setup

if TYPE_CHECKING:
    from alue_bench.training.pretrained.loading import Checkpoint


def checkpoint_in(folder: Path) -> Checkpoint:
    """Locate the checkpoint in a folder, without loading its weights.

    Raises:
        UnavailableError: There is no checkpoint in the folder.
    """
    from alue_bench.contract.model import Model
    from alue_bench.training.pretrained.loading import locate_checkpoint

    return locate_checkpoint(Model(name="checkpoint", title=str(folder), checkpoint=folder))


def tokenizer_of(setup: Setup) -> Any:
    """Load the tokenizer of the checkpoint that the settings name, or of the bundled model if they name none."""
    from alue_bench.training.pretrained.loading import load_tokenizer

    return load_tokenizer(checkpoint_in(setup.checkpoint or _mini()))


def _mini() -> Path:
    from alue_bench_models.mini import MODEL

    return Path(MODEL.checkpoint)
