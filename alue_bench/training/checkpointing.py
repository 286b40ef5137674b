"""Checkpoints: the state of a training, written to the disk every few minutes, from which it can be continued.

    KEY.safetensors    the tensors: weights that have changed, optimiser state, weights of the best epoch, random
                       states, losses of the current epoch, dev logits; and as metadata, in JSON, all else: the place
                       in the epoch, curves, times, what was frozen when; with a checksum of everything

KEY stands for all that determines the trained weights. A file is written beside its place, flushed to the disk and
renamed, so that it is there whole or not at all, and the previous one stays until then. It contains no pickles.

A continued training takes the same steps, with the same random numbers, as one that was never cut off: it ends with the
same weights to the last bit. Its times add up over the processes. Steps after the last checkpoint are done again, and
count once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.data.cache_folder import cache_folder

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 3
"""The version of the file's content. Increase it when a session's `state_dict` changes."""
SUFFIX = ".safetensors"
TENSOR = "tensor"
"""The key under which the JSON names a tensor of the file, in the tensor's place."""


def checkpoint_folder() -> Path:
    """Return the folder in which checkpoints are kept."""
    return cache_folder() / "checkpoints"


@dataclass(frozen=True)
class Checkpointing:
    """The place of checkpoints, and how often one is written."""

    folder: Path
    every_s: float
    """The seconds between two checkpoints; 0 for one after every step."""

    def of(self, key: str, on_problem: Callable[[str], None]) -> CheckpointFile:
        """Return the checkpoint file of a training.

        Args:
            key: A key of all that determines the trained weights.
            on_problem: A function that is called with a message about a checkpoint that cannot be written or read.
        """
        import torch

        # Another release of torch may compute other bits from the same state.
        return CheckpointFile(self.folder / f"{key}-{torch.__version__}{SUFFIX}", self.every_s, on_problem)


@dataclass
class CheckpointFile:
    """The checkpoint of one training."""

    path: Path
    every_s: float
    on_problem: Callable[[str], None]
    earlier_s: float = 0.0
    """Seconds that earlier processes took, up to the checkpoint that this one continued from."""
    _last: float = field(default_factory=time.monotonic)
    _began: float = field(default_factory=time.monotonic)
    _told: bool = False

    def is_due(self) -> bool:
        """Return whether it is time to write a checkpoint."""
        return time.monotonic() - self._last >= self.every_s

    def remove(self) -> None:
        """Remove the file, since the training is over."""
        self._sweep()
        with suppress(OSError):
            self.path.unlink()

    def _sweep(self) -> None:
        """Remove incomplete checkpoints of this training, left by processes that were killed while writing them."""
        for path in self.path.parent.glob(f".{self.path.name}.*"):
            with suppress(OSError):
                path.unlink()

    @property
    def _scratch(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{os.getpid()}")

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state of a training in place of the last checkpoint.

        If the disk does not take it, `on_problem` is called once, and the training continues.

        Args:
            state: Dictionaries and lists of tensors and of values for JSON. Keys are strings; no two tensors share
                their memory.
        """
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        content = {
            "format": FORMAT,
            "seconds": self.earlier_s + time.monotonic() - self._began,
            "state": _without_tensors(state, "", tensors),
        }
        text = json.dumps(content)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, self._scratch, metadata={"content": text, "checksum": _checksum(tensors, text)})
            with self._scratch.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self._scratch, self.path)
        except Exception as error:  # the library's own error and OSError: a full disk, a folder that is not writable
            with suppress(OSError):
                self._scratch.unlink()
            if not self._told:
                self._told = True
                self.on_problem(f"no checkpoint was written to {self.path.parent}: {error}")
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the state of the last checkpoint, its tensors on the CPU; None if there is none.

        A damaged file is removed, and `on_problem` is called.
        """
        from safetensors import safe_open

        self._sweep()
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            text = metadata["content"]
            if _checksum(tensors, text) != metadata["checksum"]:
                raise ValueError("its checksum does not match")
            content: dict[str, Any] = json.loads(text)
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']}")
            state: dict[str, Any] = _with_tensors(content["state"], tensors)
        except Exception as error:  # whatever a damaged file makes the library raise
            self.on_problem(
                f"the checkpoint {self.path} is damaged ({error}): the training was started from the beginning"
            )
            with suppress(OSError):
                self.path.unlink()
            return None
        self.earlier_s = content["seconds"]
        return state


def _without_tensors(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return the value with a reference in place of each tensor; put the tensors, on the CPU, into `tensors`."""
    import torch

    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().contiguous().cpu()
        return {TENSOR: path}
    if isinstance(value, Mapping):
        return {name: _without_tensors(part, f"{path}/{name}", tensors) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(part, f"{path}/{place}", tensors) for place, part in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the value with the tensors in place of the references to them."""
    if isinstance(value, dict):
        if value.keys() == {TENSOR}:
            return tensors[value[TENSOR]]
        return {name: _with_tensors(part, tensors) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_tensors(part, tensors) for part in value]
    return value


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    """Return a checksum of the names, shapes and values of the tensors, and of the text."""
    import torch
    import xxhash

    digest = xxhash.xxh3_128(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
