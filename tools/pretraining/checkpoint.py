"""Checkpoints of pre-training: files with everything that is needed to resume a run.

A checkpoint is written under a temporary name and then renamed, so that no incomplete one is ever found. The latest two
are kept.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tools.pretraining.recipe import Recipe

KEPT = 2


@dataclass
class Checkpoint:
    """The state of a pre-training run after `step` steps and `tokens` tokens.

    No state of random generators is saved, because each step seeds a new generator: see `tools.pretraining.sampling`.
    """

    step: int
    tokens: int
    changed_at: int
    """The number of tokens after which the number of layers last changed, or 0 if it has not changed."""
    recipe: dict[str, Any]
    """The recipe, from `Recipe.as_dict`."""
    model: dict[str, Tensor]
    """The state dict of the model."""
    heads: dict[str, Tensor]
    """The state dict of the heads on the pooled state (`SequenceHeads`), which are not exported."""
    average: dict[str, Tensor]
    """The moving average of the model's weights, in the form of a state dict."""
    optimiser: dict[str, Any]
    """The state dict of the optimiser."""
    tracking_run: str | None = None
    """The id of the MLflow run, or None if there is no MLflow store."""

    def save(self, folder: Path) -> Path:
        """Write the checkpoint to `checkpoint-<step>.pt` in a folder, remove older checkpoints, and return the path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"checkpoint-{self.step:08d}.pt"
        partial = path.with_suffix(".partial")
        torch.save(vars(self), partial)
        os.replace(partial, path)
        for old in sorted(folder.glob("checkpoint-*.pt"))[:-KEPT]:
            old.unlink()
        return path


def newest(folder: Path) -> Path | None:
    """Return the latest checkpoint in a folder, or None if the folder has no checkpoint."""
    return max(folder.glob("checkpoint-*.pt"), default=None)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint of pre-training from a file.

    Raises:
        SystemExit: The file was written by a version of this program whose checkpoints or recipes have other fields.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    expected = {field.name for field in fields(Checkpoint)}
    if state.keys() != expected or state["recipe"].keys() != {field.name for field in fields(Recipe)}:
        raise SystemExit(
            f"{path} was written by another version of the recipe; export it with that version and start from the "
            "exported model (--warm-start)"
        )
    return Checkpoint(**state)
