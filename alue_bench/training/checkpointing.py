"""Checkpoints: the state of a fine-tuning run, written to disk every few minutes, so that the run can be resumed.

    KEY.safetensors    the tensors: trainable weights (all weights if the strategy may change what is frozen),
                       optimiser state, weights of the best evaluation, random states, losses of the current epoch, dev
                       logits. The metadata of the file hold everything else as JSON (position in the epoch, curves,
                       times, freeze plans), and a checksum of the tensors and the JSON text.
    KEY.choice.json    only for a strategy that chooses the layers to train by examining the loaded model: its choice,
                       and the time that choosing took. The file is written before training begins, so that a resumed
                       run does not choose again.

KEY is a digest of everything that determines the trained weights, followed by the version of torch. A checkpoint is
written to a temporary file in the same folder, flushed to disk and renamed. So the file is always complete, and the
previous checkpoint stays until the new one replaces it. A checkpoint contains no pickles.

A resumed run takes the same steps, with the same random numbers, as an uninterrupted run, and ends with the same
weights to the last bit. Steps that an interrupted process made after its last checkpoint are repeated. The recorded
number of steps and the training time then include only the repetition.
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
"""The version of the checkpoint format. Increase it whenever the structure of the dictionary that
`TrainingSession.state_dict` returns is changed."""
SUFFIX = ".safetensors"
TENSOR = "tensor"
"""The key that marks a reference to a tensor in the JSON metadata: `{"tensor": NAME}` stands for the tensor of that
name."""


def checkpoint_folder() -> Path:
    """Return the folder in which checkpoints are stored."""
    return cache_folder() / "checkpoints"


@dataclass(frozen=True)
class Checkpointing:
    """The folder in which checkpoints are written, and the interval between them."""

    folder: Path
    every_s: float
    """The seconds between two checkpoints; 0 writes a checkpoint after every step."""

    def of(self, key: str, on_problem: Callable[[str], None]) -> CheckpointFile:
        """Return the checkpoint file of one fine-tuning run, which need not exist yet.

        Args:
            key: A digest of everything that determines the trained weights.
            on_problem: A function that is called with an error message if the checkpoint cannot be written or read.
        """
        import torch

        # With another version of torch, the same state may lead to slightly different weights.
        return CheckpointFile(self.folder / f"{key}-{torch.__version__}{SUFFIX}", self.every_s, on_problem)


@dataclass
class CheckpointFile:
    """The checkpoint file of one fine-tuning run, with methods to write, read and remove it."""

    path: Path
    every_s: float
    on_problem: Callable[[str], None]
    earlier_s: float = 0.0
    """The wall-clock seconds that earlier processes spent on this run, up to the checkpoint that was loaded. If no
    checkpoint was loaded: the seconds that it took to choose the layers (see `save_choice`), or 0 without a choice."""
    _last_written: float = field(default_factory=time.monotonic)
    _started: float = field(default_factory=time.monotonic)
    _failure_reported: bool = False

    def is_due(self) -> bool:
        """Return whether it is time to write a checkpoint."""
        return time.monotonic() - self._last_written >= self.every_s

    def remove(self) -> None:
        """Remove the checkpoint, the choice of layers and incomplete files. Call this when training is over."""
        self._remove_incomplete()
        for path in (self.path, self._choice):
            with suppress(OSError):
                path.unlink()

    def save_choice(self, content: Mapping[str, Any]) -> None:
        """Write the strategy's choice of layers to a JSON file beside the checkpoint.

        If the file cannot be written, `on_problem` is called with a message.

        Args:
            content: The choice and the time that it took, as JSON values.
        """
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
        """Return the content that `save_choice` wrote; None if the file is missing or damaged.

        If the file is damaged, `on_problem` is called with a message.
        """
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

    def _remove_incomplete(self) -> None:
        """Remove incomplete checkpoints of this run, which remain if a process is killed while it writes one."""
        for path in self.path.parent.glob(f".{self.path.name}.*"):
            with suppress(OSError):
                path.unlink()

    @property
    def _scratch(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{os.getpid()}")

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the training state to the checkpoint file, replacing the previous checkpoint.

        No error is raised if the file cannot be written. At the first such failure, `on_problem` is called with a
        message; further failures are ignored.

        Args:
            state: The training state: nested dictionaries (with strings as keys) and lists that contain tensors and
                JSON values. No two tensors may share memory.
        """
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        content = {
            "format": FORMAT,
            "seconds": self.earlier_s + time.monotonic() - self._started,
            "state": _without_tensors(state, "", tensors),
        }
        text = json.dumps(content)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, self._scratch, metadata={"content": text, "checksum": _checksum(tensors, text)})
            with self._scratch.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self._scratch, self.path)
        except Exception as error:  # SafetensorError or OSError, such as a full disk or a read-only folder
            with suppress(OSError):
                self._scratch.unlink()
            if not self._failure_reported:
                self._failure_reported = True
                self.on_problem(f"no checkpoint was written to {self.path.parent}: {error}")
        self._last_written = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the state in the last checkpoint, with tensors on the CPU; None if there is no usable checkpoint.

        The method also sets `earlier_s`, and removes incomplete files. If the checkpoint is damaged or has another
        format, it is removed, and `on_problem` is called with a message.
        """
        from safetensors import safe_open

        self._remove_incomplete()
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
        except Exception as error:  # for a damaged file, safetensors may raise any error
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
        path: The path of the value in the whole state: the dictionary keys and list indices that lead to it, each
            preceded by a slash. A tensor's path becomes its name.
        tensors: The dictionary to which each tensor is added, on the CPU, with its name as key.
    """
    import torch

    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().contiguous().cpu()
        return {TENSOR: path}
    if isinstance(value, Mapping):
        return {name: _without_tensors(part, f"{path}/{name}", tensors) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(part, f"{path}/{index}", tensors) for index, part in enumerate(value)]
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
