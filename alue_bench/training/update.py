"""One weight update: forward and backward pass, clipping, optimiser step; in parts if a batch exceeds the memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import TrainingError
from alue_bench.data.batches import Batch
from alue_bench.training.config import TrainingConfig
from alue_bench.training.device.cuda_graphs import GraphRecorder, RecordedBackward
from alue_bench.training.device.errors import is_out_of_memory, release
from alue_bench.training.device.precision import Device, autocast
from alue_bench.training.forward import Forward
from alue_bench.training.optimizer import loss_function, set_rate
from alue_bench.training.prefix.frozen_prefix import Examples
from alue_bench.training.schedule import GradientWatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class BackwardPass:
    """The forward and backward pass of a batch.

    This is not a method of `Updater`, because the recorded CUDA graphs and the updater would then reference each other
    and would stay in memory until the next garbage collection.
    """

    forward: Forward
    depth: int
    """The number of lowest layers that are skipped, because their outputs are stored."""
    loss_of: Callable[[Tensor, Tensor], Tensor]
    """A function that computes the mean loss from logits [batch, outputs] and targets."""
    scaler: Any
    """The `GradScaler`, which is enabled only in fp16."""
    device: Device

    def __call__(self, batch: Batch, states: Tensor | None, share: float = 1.0) -> Tensor:
        """Run both passes: add to the parameters' gradients, and return the mean loss times `share`, on the device.

        Args:
            batch: A batch, or a part of a batch that is too large for the memory.
            states: The stored output of the lowest `depth` layers, [batch, tokens, hidden]; None if nothing is stored.
            share: The number of examples in `batch`, divided by that in the whole batch.
        """
        with autocast(self.device):
            logits = self.forward.logits(batch, self.depth, states)
        loss = self.loss_of(logits, batch.targets) * share
        self.scaler.scale(loss).backward()
        return loss.detach()


class Updater:
    """A performer of weight updates, with the optimiser, the gradient scaler and the current micro-batch size.

    If a batch does not fit into memory, it is divided into parts, whose size is halved until they fit. The gradients of
    the parts are accumulated, so that the effective batch size does not change. `micro_batch` is the size of the parts.
    """

    def __init__(
        self,
        forward: Forward,
        examples: Examples,
        optimiser: Any,
        config: TrainingConfig,
        watch: GradientWatch | None = None,
        recorder: Callable[[], GraphRecorder] | None = None,
    ) -> None:
        """Create the loss function and the gradient scaler.

        Args:
            forward: The implementation of the forward pass.
            examples: The train split, with the stored outputs of the frozen lower layers if they are available.
            optimiser: The optimiser over the trainable parameters.
            config: The label space, class weights, batch size, clipping and device.
            watch: The gradient sums that an adaptive strategy uses, to which each update adds its gradients; None if no
                strategy uses them.
            recorder: A factory of recorders, which capture the training step as a CUDA graph for each batch shape. It
                is called again whenever the set of trainable parameters changes. None: no step is captured.
        """
        import torch

        self._forward = forward
        self._watch = watch
        weights = config.class_weights
        self._loss_of = loss_function(
            config.labels, None if weights is None else torch.tensor(weights, device=config.device.name)
        )
        self._hyper = config.hyper
        self._device = config.device
        self._recorder = recorder
        self._recorded: RecordedBackward | None = None
        self.scaler = torch.amp.GradScaler(self._device.name, enabled=self._device.precision == "fp16")
        self.micro_batch = self._hyper.batch_size
        self.continue_with(examples, optimiser)

    def continue_with(self, examples: Examples, optimiser: Any) -> None:
        """Continue after a change of the freeze plan.

        Args:
            examples: The train split, possibly with stored outputs of more layers than before.
            optimiser: The optimiser over the new set of trainable parameters.
        """
        self._examples = examples
        self.optimiser = optimiser
        self._trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        self._backward = BackwardPass(self._forward, examples.depth, self._loss_of, self.scaler, self._device)
        self._forget_recordings()
        if self._recorder is not None:
            self._recorded = RecordedBackward(self._backward, self._trained, self._recorder())

    def state_dict(self) -> dict[str, Any]:
        """Return the micro-batch size and the state of the gradient scaler, but not the state of the optimiser."""
        return {"micro_batch": self.micro_batch, "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.micro_batch = state["micro_batch"]
        self.scaler.load_state_dict(state["scaler"])

    def release(self) -> None:
        """Release the recorded CUDA graphs and the gradients."""
        self._forget_recordings()
        self.optimiser.zero_grad(set_to_none=True)

    def _forget_recordings(self) -> None:
        if self._recorded is not None:
            self._recorded.let_go()
        self._recorded = None

    @property
    def recorded_shapes(self) -> int:
        """The number of batch shapes for which the training step is recorded as a CUDA graph."""
        return self._recorded.recorded if self._recorded else 0

    def update(self, batch: Batch, lr: float) -> tuple[Tensor, Tensor]:
        """Update the weights by one batch; return the mean loss and the gradient norm before clipping, on the device.

        Args:
            batch: The batch, on the CPU.
            lr: The learning rate of this step.

        Raises:
            TrainingError: The memory is too small for a single example.
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
        """Find the micro-batch size that fits into memory, by a trial step on this batch that changes no weights.

        This also incurs one-off costs. The memory for the optimiser's state is allocated before the memory for the
        batch, as in training.
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
        """Compute the gradients of the mean loss of a batch, in parts if necessary, and return the mean loss."""
        while True:
            try:
                return sum(self._backward_of(part, batch) for part in _parts(batch, self.micro_batch))  # type: ignore[return-value]
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self.micro_batch == 1 and self._recorded is None:
                    raise TrainingError(
                        f"one example of {batch.attention_mask.shape[1]} tokens does not fit into memory; try a "
                        "smaller --max-length, or freeze more layers"
                    ) from error
            # This is outside the handler, because the error's traceback refers to the tensors that filled the memory.
            if self._recorded is not None:  # a recording takes more than a step
                self._forget_recordings()
                self._recorder = None
            else:
                self.micro_batch = math.ceil(min(self.micro_batch, len(batch.indices)) / 2)
            self._clear_gradients()
            release(self._device.name)
            self._device.forget_peak()  # reached by the failed attempt

    def _backward_of(self, part: Batch, whole: Batch) -> Tensor:
        moved = part.to(self._device.name, pinned=self._device.pins_memory)
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
        """Clip the gradients as the hyper-parameters say, and return the global gradient norm before clipping."""
        import torch

        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        norms = _norms(gradients, self._device.name)
        norm: Tensor = torch.linalg.vector_norm(norms)
        if self._hyper.clip:
            # The norm of all gradients together, or of each parameter's gradient (Yang & Ma 2022, section 3).
            lengths = norms if self._hyper.clip_by == "component" else norm
            factors = (self._hyper.clip / (lengths + 1e-6)).clamp(max=1.0)
            if self._device.name == "cpu" and bool((factors == 1).all()):
                return norm  # on a GPU, reading the factors would cost more than multiplying by them
            if factors.ndim:
                torch._foreach_mul_(gradients, list(factors.unbind()))
            else:
                torch._foreach_mul_(gradients, factors)
        return norm


def _norms(gradients: list[Tensor], device: str) -> Tensor:
    """Return the L2 norm of each gradient, as one tensor: [gradients]."""
    import torch

    if device == "cpu":  # torch's norm takes twice as long there on one core, and is less exact
        flat = [gradient.flatten() for gradient in gradients]
        return torch.stack([torch.dot(gradient, gradient) for gradient in flat]).sqrt_()
    return torch.stack(torch._foreach_norm(gradients))


def _parts(batch: Batch, size: int) -> Iterator[Batch]:
    """Yield parts of the batch of at most `size` examples, each part padded only to its longest example."""
    if len(batch.indices) <= size:
        yield batch
        return
    for start in range(0, len(batch.indices), size):
        yield batch.rows(slice(start, start + size))
