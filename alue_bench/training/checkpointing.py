"""A long training can be cut off and go on: what it is made of is written to the disk every few minutes.

    KEY.safetensors    the tensors: weights that have changed, the optimiser's state, the best epoch's weights, random
                       states, losses of the epoch at hand, logits of the dev split; and as metadata, in JSON, all else:
                       position, curves, times, what was frozen when; with a checksum of everything

KEY stands for all that determines the trained weights. A file is written beside its place, flushed to the disk and
renamed, so that one is there whole or not at all, and the last one until then. There are no pickles in it.

A training that goes on takes the same steps, with the same random numbers, as one that was never cut off: it ends with
the same weights to the last bit. What its clocks say adds up over the processes; what was done after the last
checkpoint, and is done again, is not counted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.spec import CurvePoint, FreezeEvent
from alue_bench.contract.strategy import BlockNorms, FreezePlan
from alue_bench.data.location import cache_folder
from alue_bench.training.freezing import apply_plan
from alue_bench.training.schedule import FreezeSchedule, Segment

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from alue_bench.training.architecture.encoder_stack import EncoderStack
    from alue_bench.training.forward import Forward
    from alue_bench.training.update import Updater

FORMAT = 1
SUFFIX = ".safetensors"


def checkpoint_folder() -> Path:
    return cache_folder() / "checkpoints"


@dataclass(frozen=True)
class Checkpointing:
    """Where checkpoints of trainings are kept, and how often one is written."""

    folder: Path
    every_s: float
    """Seconds between two; 0 for one after every step."""

    def of(self, key: str, on_problem: Callable[[str], None]) -> CheckpointFile:
        """key: of all that determines the trained weights."""
        import torch

        # Another release of torch may compute other bits from the same state.
        return CheckpointFile(self.folder / f"{key}-{torch.__version__}{SUFFIX}", self.every_s, on_problem)


@dataclass
class Position:
    """Where a training is, beside what its own values say."""

    epoch: int
    """From 1."""
    place: int
    """Batches of the epoch that are done."""
    order_state: dict[str, Any]
    """Of the generator of the data's order, before the epoch's order was drawn."""
    losses: list[Tensor]
    norms: list[Tensor]
    """Of the epoch's batches so far."""
    best: tuple[float, dict[str, Any]] | None
    """The best score so far, and its weights."""


@dataclass
class CheckpointFile:
    """The checkpoint of one training."""

    path: Path
    every_s: float
    on_problem: Callable[[str], None]
    _last: float = field(default_factory=time.monotonic)
    resumed_at: int | None = None
    """The step that this process went on from."""
    earlier_s: float = 0.0
    """Seconds that earlier processes took, up to the checkpoint that this one went on from."""
    _began: float = field(default_factory=time.monotonic)
    _told: bool = False

    def is_due(self) -> bool:
        return time.monotonic() - self._last >= self.every_s

    def remove(self) -> None:
        """The training is over."""
        self._sweep()
        with suppress(OSError):
            self.path.unlink()

    def _sweep(self) -> None:
        """Remove what a process that was killed as it wrote has left of this training: it may take gigabytes."""
        for path in self.path.parent.glob(f".{self.path.name}.*"):
            with suppress(OSError):
                path.unlink()

    @property
    def _scratch(self) -> Path:
        return self.path.with_name(f".{self.path.name}.{os.getpid()}")

    def write(self, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """A disk that takes no checkpoint is told to `on_problem`, and costs the training nothing else."""
        from safetensors.torch import save_file

        whole = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
        text = json.dumps(state | {"format": FORMAT, "seconds": self.earlier_s + time.monotonic() - self._began})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(whole, self._scratch, metadata={"state": text, "checksum": _checksum(whole, text)})
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

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last checkpoint; None where there is none. A damaged one is told to `on_problem` and removed."""
        from safetensors import safe_open

        self._sweep()
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            text = metadata["state"]
            if _checksum(tensors, text) != metadata["checksum"]:
                raise ValueError("its checksum does not fit")
            state: dict[str, Any] = json.loads(text)
            if state["format"] != FORMAT:
                raise ValueError(f"its format is {state['format']}")
        except Exception as error:  # whatever a damaged file makes the library raise
            self.on_problem(f"the checkpoint {self.path} is damaged ({error}): the training began anew")
            with suppress(OSError):
                self.path.unlink()
            return None
        return tensors, state


def save(
    file: CheckpointFile, position: Position, training: Any, stack: EncoderStack, forward: Forward, updater: Updater
) -> None:
    """Write down a training between two steps. training: of the loop, its clocks stopped."""
    import torch

    schedule: FreezeSchedule = training.schedule
    names = {id(parameter): name for name, parameter in stack.model.named_parameters()}
    tensors: dict[str, Tensor] = {
        f"weights/{name}": parameter
        for name, parameter in stack.model.named_parameters()
        if parameter.requires_grad or schedule.revisions is not None  # what is frozen now may have trained before
    }
    for parameter, kept in updater.optimiser.state.items():
        tensors |= {f"optimiser/{names[id(parameter)]}/{part}": value for part, value in kept.items()}
    if position.best is not None:
        tensors |= {f"best/{name}": weights for name, weights in position.best[1].items()}
    tensors |= {f"random/{name}": value for name, value in forward.random_state().items()}
    tensors["losses"] = torch.stack(position.losses) if position.losses else torch.zeros(0)
    tensors["norms"] = torch.stack(position.norms) if position.norms else torch.zeros(0)
    tensors |= {f"dev/{epoch}": torch.from_numpy(logits) for epoch, logits in enumerate(training.dev_logits)}
    if schedule.watch is not None:
        tensors |= {f"watch/{names[id(parameter)]}": value for parameter, value in schedule.watch.sums.items()}
    for number, segment in enumerate(schedule.segments):
        tensors[f"segment/{number}"] = torch.from_numpy(segment.indices)
    state = {
        "epoch": position.epoch,
        "place": position.place,
        "order_state": position.order_state,
        "best": None if position.best is None else position.best[0],
        "training": {name: getattr(training, name) for name in COUNTED},
        "curves": [[point.metric, point.value, point.step] for point in training.curves],
        "micro_batch": updater.micro_batch,
        "scaler": updater.scaler.state_dict(),
        "schedule": {
            "plan": _plan_as_json(schedule.plan),
            "segments": [[_plan_as_json(segment.plan), segment.depth] for segment in schedule.segments],
            "batches": [[len(batch) for batch in segment.batches] for segment in schedule.segments],
            "events": [asdict(event) for event in schedule.events],
            "norms": [[norms.embeddings, list(norms.layers)] for norms in schedule.norms],
        },
    }
    file.write(tensors, state)


COUNTED = (
    "loop_s", "dev_s", "steps", "samples", "tokens", "padded_tokens", "skipped_updates", "dev_scores", "selected_epoch",
)  # fmt: skip
"""What of a Training is restored as it was."""


def restore(
    file: CheckpointFile,
    training: Any,
    stack: EncoderStack,
    forward: Forward,
    updater: Updater,
    follow: Callable[[], None],
) -> Position | None:
    """Put a training back to where its last checkpoint was written; None, and nothing changed, where there is none.

    follow: makes optimiser and prefix fit what the schedule says.
    """
    import torch

    found = file.read()
    if found is None:
        return None
    tensors, state = found
    schedule: FreezeSchedule = training.schedule
    with torch.no_grad():
        for name, parameter in stack.model.named_parameters():
            if f"weights/{name}" in tensors:
                parameter.copy_(tensors[f"weights/{name}"])
    before = schedule.plan
    kept = state["schedule"]
    schedule.plan = _plan_from_json(kept["plan"], before)
    schedule.segments = [
        Segment(_plan_from_json(plan, before), depth, _split(tensors[f"segment/{number}"].numpy(), sizes))
        for number, ((plan, depth), sizes) in enumerate(zip(kept["segments"], kept["batches"], strict=True))
    ]
    schedule.events = [FreezeEvent(**event) for event in kept["events"]]
    schedule.norms = [BlockNorms(embeddings, tuple(layers)) for embeddings, layers in kept["norms"]]
    if schedule.plan != before:
        apply_plan(stack, schedule.plan)
    follow()
    forward.follow()
    parameters = dict(stack.model.named_parameters())
    updater.optimiser.state.clear()
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimiser":
            place, _, part = rest.rpartition("/")
            parameter = parameters[place]
            updater.optimiser.state[parameter][part] = value.to(parameter.device)
        elif kind == "watch" and schedule.watch is not None:
            schedule.watch.sums[parameters[rest]] = value.to(parameters[rest].device)
    device = next(stack.model.parameters()).device
    forward.set_random_state({name[7:]: value for name, value in tensors.items() if name.startswith("random/")})
    updater.micro_batch = state["micro_batch"]
    updater.scaler.load_state_dict(state["scaler"])
    for name in COUNTED:
        setattr(training, name, state["training"][name])
    training.curves = [CurvePoint(*point) for point in state["curves"]]
    training.dev_logits = [tensors[f"dev/{epoch}"].numpy() for epoch in range(len(training.dev_scores))]
    file.resumed_at, file.earlier_s = training.steps, state["seconds"]
    best = {name[5:]: value.to(device) for name, value in tensors.items() if name.startswith("best/")}
    return Position(
        epoch=state["epoch"],
        place=state["place"],
        order_state=state["order_state"],
        losses=list(tensors["losses"].to(device).unbind()),
        norms=list(tensors["norms"].to(device).unbind()),
        best=None if state["best"] is None else (state["best"], best),
    )


def _plan_as_json(plan: FreezePlan) -> dict[str, Any]:
    return {
        "frozen_layers": sorted(plan.frozen_layers),
        "embeddings": plan.embeddings,
        "pooler": plan.pooler,
    }


def _plan_from_json(content: dict[str, Any], like: FreezePlan) -> FreezePlan:
    return replace(
        like,
        frozen_layers=frozenset(content["frozen_layers"]),
        embeddings=content["embeddings"],
        pooler=content["pooler"],
    )


def _split(indices: np.ndarray[Any, Any], sizes: list[int]) -> list[np.ndarray[Any, Any]]:
    import numpy as np

    return np.split(indices, np.cumsum(sizes)[:-1]) if sizes else []


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    import torch
    import xxhash

    digest = xxhash.xxh3_128(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
