"""Checkpoints of a training run: its state, written to the disk every few minutes, so that it can be resumed.

    KEY.safetensors    the tensors: weights that have changed, optimiser state, weights of the best epoch, random
                       states, losses of the current epoch, dev logits. The metadata of the file hold everything else
                       as JSON (position in the epoch, curves, times, freeze plans) and a checksum of the file.
    KEY.choice.json    the layers that the strategy chose by a probe, if it did, with the cost of choosing. It is
                       written before the training begins, so that no later process chooses again.

KEY is a digest of everything that determines the trained weights. A checkpoint is written to a temporary file in the
same folder, flushed to the disk and renamed. So the file is always complete, and the previous checkpoint stays until
the new one replaces it. It contains no pickles.

A resumed training takes the same steps, with the same random numbers, as an uninterrupted training: it ends with the
same weights to the last bit. Its recorded time is the sum over all processes that worked on it. Steps after the last
checkpoint are repeated, and each step is counted once.
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

FORMAT = 4
"""The version of the content of checkpoint files. Increase it with a change of what `TrainingSession.state_dict`
returns."""
SUFFIX = ".safetensors"
TENSOR = "tensor"
"""The key that marks a reference to a tensor in the JSON metadata: `{"tensor": NAME}` stands for the tensor of that
name."""


def checkpoint_folder() -> Path:
    """Return the folder in which checkpoints are kept."""
    return cache_folder() / "checkpoints"


@dataclass(frozen=True)
class Checkpointing:
    """The folder in which checkpoints are written, and the interval between them."""

    folder: Path
    every_s: float
    """The seconds between two checkpoints; 0 writes a checkpoint after every step."""

    def of(self, key: str, on_problem: Callable[[str], None]) -> CheckpointFile:
        """Return the object that writes and reads the checkpoint of one training.

        Args:
            key: A digest of everything that determines the trained weights.
            on_problem: A function that is called with a message about a checkpoint that cannot be written or read.
        """
        import torch

        # Another release of torch may compute other bits from the same state.
        return CheckpointFile(self.folder / f"{key}-{torch.__version__}{SUFFIX}", self.every_s, on_problem)


@dataclass
class CheckpointFile:
    """The checkpoint of one training: writes it at intervals, reads it, and removes it."""

    path: Path
    every_s: float
    on_problem: Callable[[str], None]
    earlier_s: float = 0.0
    """The seconds that earlier processes spent on this training, up to the checkpoint that was loaded, or on the choice
    of layers if there is no checkpoint yet."""
    _last: float = field(default_factory=time.monotonic)
    _began: float = field(default_factory=time.monotonic)
    _told: bool = False

    def is_due(self) -> bool:
        """Return whether it is time to write a checkpoint."""
        return time.monotonic() - self._last >= self.every_s

    def remove(self) -> None:
        """Remove the files of this training's checkpoint, also incomplete ones. Call this when the training is over."""
        self._sweep()
        for path in (self.path, self._choice):
            with suppress(OSError):
                path.unlink()

    def save_choice(self, content: Mapping[str, Any]) -> None:
        """Write the strategy's choice of layers, as JSON; if this fails, call `on_problem`."""
        scratch = self._choice.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(content), encoding="utf-8")
            os.replace(scratch, self._choice)
        except OSError as error:
            with suppress(OSError):
                scratch.unlink()
            self.on_problem(f"the choice of layers was not written to {self.path.parent}: {error}")

    def load_choice(self) -> dict[str, Any] | None:
        """Return what `save_choice` wrote; None if there is no file. A damaged file is reported to `on_problem`."""
        try:
            content: dict[str, Any] = json.loads(self._choice.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self.on_problem(f"{self._choice} is damaged ({error}): the layers were chosen again")
            return None
        return content

    @property
    def _choice(self) -> Path:
        return self.path.with_name(self.path.name.removesuffix(SUFFIX) + ".choice.json")

    def _sweep(self) -> None:
        """Remove incomplete checkpoints of this training, left by processes that were killed while writing them."""
        for path in self.path.parent.glob(f".{self.path.name}.*"):
            with suppress(OSError):
                path.unlink()

    @property
    def _scratch(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{os.getpid()}")

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state of a training to the checkpoint file, replacing the previous checkpoint.

        If the file cannot be written, `on_problem` is called at the first failure only, and the training continues.

        Args:
            state: Nested dictionaries (with strings as keys) and lists that contain tensors and JSON values. No two
                tensors may share memory.
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
        """Return the state in the last checkpoint, with tensors on the CPU; None if there is no usable checkpoint.

        A damaged file is removed, and `on_problem` is called with a message.
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
    """Return a copy of a nested value in which each tensor is replaced by a reference to it.

    Args:
        value: A tensor, a JSON value, or nested dictionaries and lists of them.
        path: The name of the value within the whole state, with slashes: the names of its tensors begin with it.
        tensors: The dictionary to which each tensor is added by its name, on the CPU.
    """
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
    """Return a copy of a nested value in which each reference made by `_without_tensors` is replaced by its tensor."""
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
