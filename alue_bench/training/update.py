"""One update of the weights: forward, backward, clip, step; in parts where the memory does not hold the batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import TrainingError
from alue_bench.contract.spec import HyperParameters
from alue_bench.data.batches import Batch
from alue_bench.training.device.cuda_graphs import GraphRecorder, RecordedBackward
from alue_bench.training.device.errors import is_out_of_memory, release
from alue_bench.training.device.precision import Device, autocast
from alue_bench.training.forward import Forward
from alue_bench.training.optimizer import set_rate
from alue_bench.training.prefix.frozen_prefix import Examples
from alue_bench.training.schedule import GradientWatch

if TYPE_CHECKING:
    from torch import Tensor

LossOf = Callable[["Tensor", "Tensor"], "Tensor"]
"""Mean loss of logits [b, outputs] against targets."""


class Updater:
    """Holds what the updates of a training share.

    Where a batch does not fit the memory, it is cut in half, and again, and the gradients of the parts are added up:
    the batch size of the recipe stays what it is. `micro_batch` tells how large the parts have become.
    """

    def __init__(
        self,
        forward: Forward,
        examples: Examples,
        optimiser: Any,
        loss_of: LossOf,
        hyper: HyperParameters,
        device: Device,
        watch: GradientWatch | None = None,
        recorder: Callable[[], GraphRecorder] | None = None,
    ) -> None:
        """watch: is shown the gradients of each update. recorder: gives what records steps, one for each shape of
        batch, of what trains at a time."""
        import torch

        self._forward = forward
        self._watch = watch
        self._loss_of = loss_of
        self._hyper = hyper
        self._device = device
        self._recorder = recorder
        self._recorded: RecordedBackward | None = None
        self.scaler = torch.amp.GradScaler(device.name, enabled=device.precision == "fp16")
        self.micro_batch = hyper.batch_size
        self.go_on_with(examples, optimiser)

    def go_on_with(self, examples: Examples, optimiser: Any) -> None:
        """Where what trains has changed: another optimiser, perhaps another start."""
        self._examples = examples
        self.optimiser = optimiser
        self._trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        # No method of this object's: recordings would hold it, and it them, for as long as nobody collects garbage.
        self._backward = partial(_backward, self._forward, examples.depth, self._loss_of, self.scaler, self._device)
        self._forget_recordings()
        if self._recorder is not None:
            self._recorded = RecordedBackward(self._backward, self._trained, self._recorder())

    def let_go(self) -> None:
        """Of recordings and gradients."""
        self._forget_recordings()
        self.optimiser.zero_grad(set_to_none=True)

    def _forget_recordings(self) -> None:
        if self._recorded is not None:
            self._recorded.let_go()
        self._recorded = None

    @property
    def recorded_shapes(self) -> int:
        """Of how many shapes a step is recorded."""
        return self._recorded.recorded if self._recorded else 0

    def update(self, batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        """Train on a batch; returns its mean loss and the norm of its gradient before clipping, both on the device.

        Raises TrainingError where the memory does not hold a single example.
        """
        set_rate(self.optimiser, lr)
        loss = self._gradients(batch)
        self.scaler.unscale_(self.optimiser)
        if self._watch is not None:
            self._watch.add(skipping_overflows=self.scaler.is_enabled())
        norm = self._clip()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self._clear_gradients()
        return loss, norm

    def warm_up(self, batch: Batch) -> None:
        """Find out what of a batch fits the memory, and pay one-off costs; weights stay as they are.

        The optimiser's state is there before the batch, as it will be in training.
        """
        import torch

        for parameter in self._trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for group in self.optimiser.param_groups:
            group["lr"] = 0.0
        self.optimiser.step()
        for state in self.optimiser.state.values():
            state["step"].zero_()
        self._clear_gradients()
        self._gradients(batch)
        if self._recorded is not None:  # now, the longest first: smaller recordings fit into its memory
            self._gradients(batch)
        self._clip()
        self._clear_gradients()

    def _gradients(self, batch: Batch) -> Tensor:
        """Add up the gradients of a batch's mean loss over its parts."""
        while True:
            try:
                return sum(self._backward_of(part, batch) for part in _parts(batch, self.micro_batch))  # type: ignore[return-value]
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self.micro_batch == 1 and self._recorded is None:
                    raise TrainingError(
                        f"one example of {batch.attention_mask.shape[1]} tokens does not fit the memory; "
                        "try a smaller --max-length, or freeze more layers"
                    ) from error
            # Outside the handler: the error's traceback holds on to the tensors that filled the memory.
            if self._recorded is not None:  # a recording takes more than a step
                self._forget_recordings()
                self._recorder = None
            else:
                self.micro_batch = math.ceil(min(self.micro_batch, len(batch.indices)) / 2)
            self._clear_gradients()
            release(self._device.name)
            self._device.forget_peak()  # that of the attempt

    def _backward_of(self, part: Batch, whole: Batch) -> Tensor:
        moved = part.to(self._device.name)
        states = self._examples.states(moved)
        if self._recorded is not None and part is whole:
            return self._recorded(moved, states)
        return self._backward(moved, states, len(part.indices) / len(whole.indices))

    def _clear_gradients(self) -> None:
        if self._recorded is not None:
            self._recorded.clear_gradients()
        else:
            self.optimiser.zero_grad(set_to_none=True)

    def _clip(self) -> Tensor:
        """Scale gradients that are too long; returns the global norm before that."""
        import torch

        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        norms = _norms(gradients, self._device.name)
        norm: Tensor = torch.linalg.vector_norm(norms)
        if self._hyper.clip:
            # Of all gradients together, or of each parameter's alone (Yang & Ma 2022, section 3).
            lengths = norms if self._hyper.clip_by == "component" else norm
            factors = (self._hyper.clip / (lengths + 1e-6)).clamp(max=1.0)
            if self._device.name == "cpu" and bool((factors == 1).all()):
                return norm  # on a GPU, to look would cost more than to multiply
            if factors.ndim:
                torch._foreach_mul_(gradients, list(factors.unbind()))
            else:
                torch._foreach_mul_(gradients, factors)
        return norm


def _norms(gradients: list[Tensor], device: str) -> Tensor:
    """Of each."""
    import torch

    if device == "cpu":  # where the library's norm takes twice as long, on one core, and is less exact
        flat = [gradient.flatten() for gradient in gradients]
        return torch.stack([torch.dot(gradient, gradient) for gradient in flat]).sqrt_()
    return torch.stack(torch._foreach_norm(gradients))


def _backward(
    forward: Forward,
    depth: int,
    loss_of: LossOf,
    scaler: Any,
    device: Device,
    batch: Batch,
    states: Tensor | None,
    share: float = 1.0,
) -> Tensor:
    """Mean loss of a batch; adds to the gradients. share: the part of it that counts, for a part of a batch."""
    with autocast(device):
        logits = forward.logits(batch, depth, states)
    loss = loss_of(logits, batch.targets) * share
    scaler.scale(loss).backward()
    return loss.detach()


def _parts(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch in parts of at most `size` examples, each padded to the longest of its own."""
    if len(batch.indices) <= size:
        yield batch
        return
    for start in range(0, len(batch.indices), size):
        yield batch.rows(slice(start, start + size))
