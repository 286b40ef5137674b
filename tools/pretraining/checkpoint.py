"""Checkpoints: everything a run needs to go on, one file, written atomically; the latest two are kept."""

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
    """State after `step` steps and `tokens` tokens. There is no random state: see `tools.pretraining.sampling`."""

    step: int
    tokens: int
    changed_at: int
    """Tokens at the start or at the last change of depth."""
    recipe: dict[str, Any]
    model: dict[str, Tensor]
    heads: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict[str, Any]
    tracking_run: str | None = None

    def save(self, folder: Path) -> Path:
        """Write as `checkpoint-<step>.pt` into `folder`, then remove older ones."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"checkpoint-{self.step:08d}.pt"
        partial = path.with_suffix(".partial")
        torch.save(vars(self), partial)
        os.replace(partial, path)
        for old in sorted(folder.glob("checkpoint-*.pt"))[:-KEPT]:
            old.unlink()
        return path


def newest(folder: Path) -> Path | None:
    """The latest checkpoint in `folder`."""
    return max(folder.glob("checkpoint-*.pt"), default=None)


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; ends the process with a message where another version of the recipe wrote it."""
    found = torch.load(path, map_location="cpu", weights_only=True)
    expected = {field.name for field in fields(Checkpoint)}
    if found.keys() != expected or found["recipe"].keys() != {field.name for field in fields(Recipe)}:
        raise SystemExit(
            f"{path} is of another version of the recipe; export it with that one, then go on from what it exports "
            "(--warm-start)"
        )
    return Checkpoint(**found)
