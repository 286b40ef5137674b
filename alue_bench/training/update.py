"""One weight update: forward and backward pass, clipping, optimiser step; in parts if a batch exceeds the memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import TrainingError
from alue_bench.contract.spec import HyperParameters
from alue_bench.data.batches import Batch
from alue_bench.training.config import TrainingConfig
from alue_bench.training.device.cuda_graphs import CaptureError, GraphRecorder, GraphUse, StepGraphs
from alue_bench.training.device.errors import collect_and_release, is_out_of_memory, release_caches
from alue_bench.training.device.precision import Device, autocast
from alue_bench.training.device.resident import ResidentBatch, ResidentSplit
from alue_bench.training.forward import Forward
from alue_bench.training.optimizer import LearningRates, allocate_state, forget_state, loss_function
from alue_bench.training.prefix.frozen_prefix import Examples
from alue_bench.training.schedule import GradientWatch

if TYPE_CHECKING:
    from torch import Tensor, nn

ROW_LENGTH = 256
"""The row length of the matrix into which `_scale_each` copies all gradients, to scale them in one product."""
TIMED_STEPS = 5
"""The number of training steps in one measurement of time. Replayed and eager steps are measured twice each."""


@dataclass(frozen=True)
class BackwardPass:
    """A callable that runs the forward and backward pass for a batch.

    This is not a method of `Updater`, because the recorded CUDA graphs and the updater would then reference each other
    and would stay in memory until the next garbage collection.
    """

    forward: Forward
    depth: int
    """The number of lowest layers that are skipped because their outputs are stored."""
    loss_of: Callable[[Tensor, Tensor], Tensor]
    """A function that computes the mean loss from logits [batch, outputs] and targets."""
    scaler: Any
    """The `GradScaler` for the loss, which is enabled only in fp16."""
    device: Device

    def __call__(self, batch: Batch, states: Tensor | None, share: float = 1.0) -> Tensor:
        """Add the batch's gradients to the parameters' gradients; return the mean loss times `share`, on the device.

        Args:
            batch: A batch, or a part of a batch that is too large for the memory.
            states: The stored output of the lowest `depth` layers, [batch, tokens, hidden]; None if nothing is stored.
            share: The number of predictions in `batch`, divided by the number of predictions in the whole batch.
        """
        with autocast(self.device):
            logits = self.forward.logits(batch, self.depth, states)
        loss = self.loss_of(logits, batch.targets) * share
        self.scaler.scale(loss).backward()
        return loss.detach()


@dataclass(frozen=True)
class DeviceStep:
    """A training step that can be captured as a CUDA graph, or only the part of it that computes the gradients.

    This is not a method of `Updater`, so that captured graphs do not reference the updater; see `BackwardPass`.
    """

    backward: BackwardPass
    examples: Examples
    trained: Sequence[nn.Parameter]
    optimiser: Any
    hyper: HyperParameters
    split: ResidentSplit
    gradients: list[Tensor | None] | None = None
    """The tensors into which the step copies the gradients of `trained` instead of updating the weights; None to update
    the weights. `rehearse` sets an entry to None if its parameter gets no gradient."""

    def __call__(self, indices: Tensor, width: int, states: Tensor | None) -> Tensor:
        """Execute the training step for a batch.

        The parameters' gradients are allocated and freed within the step, so that they need not be set to zero.

        Args:
            indices: The indices of the examples: int64 [b], on the device.
            width: The padded length.
            states: The stored output of the frozen layers, [b, tokens, hidden]; None if there is none, or if the step
                gathers it.

        Returns:
            The mean loss and the gradient norm before clipping, [2]; only the loss, [1], if `gradients` is not None.
        """
        import torch

        loss = self.forward_and_backward(indices, width, states)
        if self.gradients is None:
            norm = clip_gradients(self.trained, self.hyper, self.backward.device)
            self.optimiser.step()
            reported = torch.stack([loss, norm])
        else:
            candidates = [(copy, p.grad) for copy, p in zip(self.gradients, self.trained, strict=True)]
            pairs = [(copy, gradient) for copy, gradient in candidates if copy is not None and gradient is not None]
            torch._foreach_copy_([copy for copy, _ in pairs], [gradient for _, gradient in pairs])
            reported = loss.reshape(1)
        self.optimiser.zero_grad(set_to_none=True)
        return reported

    def rehearse(self, indices: Tensor, width: int, states: Tensor | None) -> Tensor:
        """Execute the operations of the training step except the optimiser's update, to warm up before the capture.

        For the arguments and the result, see `__call__`.
        """
        import torch

        loss = self.forward_and_backward(indices, width, states)
        norm = clip_gradients(self.trained, self.hyper, self.backward.device)
        if self.gradients is not None:
            pairs = zip(self.gradients, self.trained, strict=True)
            self.gradients[:] = [copy if parameter.grad is not None else None for copy, parameter in pairs]
        self.optimiser.zero_grad(set_to_none=True)
        return torch.stack([loss, norm]) if self.gradients is None else loss.reshape(1)

    def forward_and_backward(self, indices: Tensor, width: int, states: Tensor | None) -> Tensor:
        """Gather a batch, compute the gradients of its mean loss, and return the loss.

        Args:
            indices: The indices of the examples: int64 [b], on the device.
            width: The padded length.
            states: The stored output of the frozen layers, [b, tokens, hidden]; None if there is none, or if this
                method gathers it.
        """
        batch = self.split.gather_batch(indices, width)
        prefix = self.examples.prefix
        if prefix is not None and prefix.resident:
            states = prefix.gather(indices, width)
        return self.backward(batch, states)


class Updater:
    """An object that updates the weights; it holds the optimiser, the gradient scaler and the micro-batch size.

    If a batch does not fit into memory, it is divided into parts, whose size is halved until they fit. The gradients of
    the parts are accumulated, so that the effective batch size does not change. The attribute `micro_batch` is the
    largest number of examples in a part.

    On a device that supports it, whole steps are captured as CUDA graphs: gathering, forward and backward pass,
    clipping and the optimiser's step. In two cases the graph contains only the computation of the gradients: in fp16,
    because the gradient scaler decides in Python whether to make each update, and with an adaptive strategy that uses
    the gradients, because they are read outside the graph.
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
        """Prepare weight updates: create the loss function and the gradient scaler.

        Args:
            forward: The implementation of the forward pass.
            examples: The train split, with the stored outputs of the frozen lower layers if they are available.
            optimiser: The optimiser over the trainable parameters.
            config: The settings, of which the labels, class weights, hyper-parameters and device are used.
            watch: The gradient sums that an adaptive strategy uses, to which each update adds its gradients; None if no
                strategy uses them.
            recorder: A function that creates a recorder, which captures the training step as a CUDA graph for each
                batch shape. It is called again whenever the set of trainable parameters changes. With None, steps are
                not captured.
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
        self._graphs: StepGraphs | None = None
        self._static: list[Tensor | None] | None = None
        self.graph_use: GraphUse | None = None
        """The decision whether training steps are replayed as CUDA graphs; None before the first call of `capture`, and
        always without a recorder."""
        self.scaler = torch.amp.GradScaler(self._device.name, enabled=self._device.precision == "fp16")
        self.micro_batch = self._hyper.batch_size
        self.continue_with(examples, optimiser)

    def continue_with(self, examples: Examples, optimiser: Any) -> None:
        """Continue after a change of the freeze plan, with a new optimiser; release the captured steps.

        Args:
            examples: The train split, possibly with stored outputs of more layers than before.
            optimiser: The optimiser over the new set of trainable parameters.
        """
        self._release_graphs()
        self._examples = examples
        self.optimiser = optimiser
        self._rates = LearningRates(optimiser, on_device=self._recorder is not None)
        self._trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        self._backward = BackwardPass(self._forward, examples.depth, self._loss_of, self.scaler, self._device)

    def state_dict(self) -> dict[str, Any]:
        """Return the micro-batch size and the state of the gradient scaler, but not the state of the optimiser."""
        return {"micro_batch": self.micro_batch, "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.micro_batch = state["micro_batch"]
        self.scaler.load_state_dict(state["scaler"])

    def release(self) -> None:
        """Release the captured CUDA graphs and the parameters' gradients."""
        self._release_graphs()
        self.optimiser.zero_grad(set_to_none=True)

    @property
    def recorded_shapes(self) -> int:
        """The number of batch shapes for which the training step is captured as a CUDA graph."""
        return len(self._graphs) if self._graphs is not None else 0

    def update(self, batch: Batch | ResidentBatch, lr: float) -> tuple[Tensor, Tensor]:
        """Update the weights with one batch; return the mean loss and the gradient norm before clipping.

        Both are tensors on the device, so that nothing waits for it.

        Args:
            batch: A `Batch` on the CPU, or a `ResidentBatch`, whose examples are gathered on the device.
            lr: The learning rate of this step.

        Raises:
            TrainingError: The memory is too small for a single example.
        """
        self._rates.set(lr)
        if self._graphs is not None and isinstance(batch, ResidentBatch) and batch.shape in self._graphs:
            return self._replay(batch, self._graphs)
        return self._finish(self._gradients(batch))

    def warm_up(self, batch: Batch | ResidentBatch) -> None:
        """Find the micro-batch size that fits into memory, by a trial step with this batch that changes no weights.

        The trial step also incurs one-off costs. The memory for the optimiser's state is allocated before the memory
        for the batch, as in training.
        """
        self._rates.set(0.0)
        allocate_state(self.optimiser)
        self._gradients(batch)
        clip_gradients(self._trained, self._hyper, self._device)
        self._clear_gradients()

    def capture(self, draws: Sequence[ResidentBatch], typical: ResidentBatch | None = None) -> None:
        """Capture the training step for the shapes of these batches, unless this object has no recorder.

        If CUDA graphs turn out to be impossible or slower, the recorder is dropped, so that later calls do nothing.
        Weights, the optimiser's state and the scaler do not change; random numbers are drawn. Call this whenever the
        set of trainable parameters has changed. The model must be in training mode, and the optimiser's state must
        have been loaded.

        Args:
            draws: A batch of each shape, the longest first; empty if the train split is not on the device.
            typical: A batch of the most frequent shape. If it is given, and the user does not require graphs, replayed
                and eager steps are measured with it, and the graphs are used only if a replayed step is faster. The
                optimiser must not have made a step yet. None uses the graphs without a measurement.

        Raises:
            TrainingError: The step cannot be captured, and the user requires graphs (`--cuda-graphs on`).
        """
        self._release_graphs()
        if self._recorder is None:
            return
        if not draws:
            self._do_without_graphs("the train split takes too much of the device's memory")
            return
        if self.micro_batch < len(draws[0].indices):
            self._do_without_graphs("a batch does not fit into memory as a whole")
            return
        self._rates.set(0.0)
        allocate_state(self.optimiser)
        problem = ""
        try:
            self._graphs = self._captured(draws, self._recorder())
        except CaptureError as error:
            if self._device.graphs == "on":
                raise TrainingError(
                    f"a training step cannot be recorded as a CUDA graph ({error}); leave out --cuda-graphs on"
                ) from error
            problem = f"a training step cannot be recorded as a CUDA graph ({error})"
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            problem = "memory was too short to record a step"
        if problem:  # outside the handlers, because the error's traceback refers to the tensors that filled the memory
            self._do_without_graphs(problem)
            self._clear_gradients()
            collect_and_release(self._device.name)
            self._device.reset_peak()  # the memory peak of the failed attempt
        elif self._device.graphs == "on":
            self.graph_use = GraphUse(True, "--cuda-graphs on")
        elif typical is not None:
            self._use_graphs_if_faster(typical)
        if self._graphs is not None:  # replayed steps do not use the cached memory of the eager ones
            release_caches(self._device.name)

    def _captured(self, draws: Sequence[ResidentBatch], recorder: GraphRecorder) -> StepGraphs:
        """Return the training step, captured as a CUDA graph for the shape of each of these batches."""
        import torch

        whole = self._watch is None and not self.scaler.is_enabled()
        self._static = None if whole else [torch.zeros_like(parameter) for parameter in self._trained]
        step = DeviceStep(
            self._backward, self._examples, self._trained, self.optimiser, self._hyper, draws[0].split, self._static
        )
        graphs = StepGraphs(step, recorder)
        for draw in draws:
            states = self._states_outside(draw)
            graphs.capture(draw, states, partial(step.rehearse, draw.device_indices, draw.width, states))
        return graphs

    def _use_graphs_if_faster(self, typical: ResidentBatch) -> None:
        """Measure eager and replayed steps for a typical batch, and release the graphs unless they are faster."""
        scaler = self.scaler.state_dict()
        eager_s, replayed_s = math.inf, math.inf
        for _ in range(2):
            eager_s = min(
                eager_s, self._seconds_per_step(lambda: self._finish(self._gradients(typical), watched=False))
            )
            if self._graphs is None:  # an eager step did not fit into memory beside the graphs
                break
            replayed_s = min(
                replayed_s, self._seconds_per_step(partial(self._replay, typical, self._graphs, watched=False))
            )
        forget_state(self.optimiser)
        self.scaler.load_state_dict(scaler)
        if self._graphs is None:
            return
        if replayed_s < eager_s:
            self.graph_use = GraphUse(True, "a replayed step is faster", eager_s, replayed_s)
        else:
            self._do_without_graphs("a replayed step is not faster", eager_s, replayed_s)

    def _seconds_per_step(self, step: Callable[[], object]) -> float:
        """Return the mean seconds per call of a training step; the learning rate must be 0, to keep the weights."""
        self._device.synchronise()
        started = time.perf_counter()
        for _ in range(TIMED_STEPS):
            step()
        self._device.synchronise()
        return (time.perf_counter() - started) / TIMED_STEPS

    def _do_without_graphs(self, reason: str, *seconds: float) -> None:
        self.graph_use = GraphUse(False, reason, *seconds)
        self._recorder = None
        self._release_graphs()

    def _release_graphs(self) -> None:
        """Release the captured steps and their memory, which torch's allocator would not reuse otherwise."""
        self._static = None
        if self._graphs is not None:
            self._graphs = None
            release_caches(self._device.name)

    def _replay(self, draw: ResidentBatch, graphs: StepGraphs, *, watched: bool = True) -> tuple[Tensor, Tensor]:
        """Replay the captured step for a batch; if the graph contains only the gradients, also update the weights.

        Args:
            draw: The batch.
            graphs: The captured steps.
            watched: Whether to add the gradients to the sums that an adaptive strategy uses.

        Returns:
            The mean loss and the gradient norm before clipping, on the device.
        """
        reported = graphs.replay(draw, self._states_outside(draw))
        if self._static is None:
            loss, norm = reported.unbind()
            return loss, norm
        for parameter, gradient in zip(self._trained, self._static, strict=True):
            parameter.grad = gradient
        return self._finish(reported.squeeze(0), watched=watched)

    def _finish(self, loss: Tensor, *, watched: bool = True) -> tuple[Tensor, Tensor]:
        """Update the weights with the computed gradients; return the loss and the gradient norm before clipping.

        Args:
            loss: The mean loss, which is returned unchanged.
            watched: Whether to add the gradients to the sums that an adaptive strategy uses.
        """
        self.scaler.unscale_(self.optimiser)
        if self._watch is not None and watched:
            self._watch.add(skipping_overflows=self.scaler.is_enabled())
        norm = clip_gradients(self._trained, self._hyper, self._device)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self._clear_gradients()
        return loss, norm

    def _states_outside(self, draw: ResidentBatch) -> Tensor | None:
        """Return the stored output of the frozen layers for a batch, to be passed to the captured step.

        The result is None if no output is stored, or if the captured step gathers it itself.
        """
        prefix = self._examples.prefix
        return None if prefix is None or prefix.resident else prefix.of(draw.to(self._device.name))

    def _gradients(self, batch: Batch | ResidentBatch) -> Tensor:
        """Compute the gradients of a batch's mean loss, in parts if memory requires it, and return the mean loss.

        If memory is exhausted, the CUDA graphs are released, or, if there are none, the size of the parts
        (`micro_batch`) is halved. Then the computation is repeated.

        Raises:
            TrainingError: The memory is too small for a single example.
        """
        while True:
            try:
                return sum(self._backward_of(part, batch) for part in _parts(batch, self.micro_batch))  # type: ignore[return-value]
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self.micro_batch == 1 and self._graphs is None:
                    raise TrainingError(
                        f"one example of {batch.width} tokens does not fit into memory; try a "
                        "smaller --max-length, or freeze more layers"
                    ) from error
            # This is outside the handler, because the error's traceback refers to the tensors that filled the memory.
            if self._graphs is not None:  # without the graphs, the memory may suffice
                self._do_without_graphs("memory was too short to keep recorded steps")
            else:
                self.micro_batch = math.ceil(min(self.micro_batch, len(batch.indices)) / 2)
            self._clear_gradients()
            collect_and_release(self._device.name)
            self._device.reset_peak()  # the memory peak of the failed attempt

    def _backward_of(self, part: Batch | ResidentBatch, batch: Batch | ResidentBatch) -> Tensor:
        moved = part.to(self._device.name, pinned=self._device.pins_memory)
        states = self._examples.states(moved)
        return self._backward(moved, states, 1.0 if part is batch else part.predictions / max(1, batch.predictions))

    def _clear_gradients(self) -> None:
        self.optimiser.zero_grad(set_to_none=True)


def clip_gradients(parameters: Sequence[nn.Parameter], hyper: HyperParameters, device: Device) -> Tensor:
    """Clip the gradients in place, and return their global norm before clipping. Nothing waits for an accelerator.

    Args:
        parameters: The parameters; a parameter without a gradient is ignored.
        hyper: The hyper-parameters: the largest norm, `clip` (0 for no clipping), and `clip_by`. If this is
            "component", each parameter's gradient is clipped separately, otherwise all gradients by a common factor.
        device: The device that holds the parameters.
    """
    import torch

    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = _norms(gradients, device)
    norm: Tensor = torch.linalg.vector_norm(norms)
    if hyper.clip:
        # Either the norm of each parameter's gradient (Yang & Ma 2022, section 3), or of all gradients together.
        limited = norms if hyper.clip_by == "component" else norm
        factors = (hyper.clip / (limited + 1e-6)).clamp(max=1.0)
        if not device.accelerated and bool((factors == 1).all()):
            return norm  # on an accelerator, reading the factors would cost more than multiplying by them
        if not factors.ndim:
            torch._foreach_mul_(gradients, factors)
        elif device.accelerated:
            _scale_each(gradients, factors)
        else:
            torch._foreach_mul_(gradients, list(factors.unbind()))
    return norm


def _scale_each(gradients: list[Tensor], factors: Tensor) -> None:
    """Multiply each gradient by its factor, with few kernels instead of one for each gradient.

    The gradients are copied into the rows of one matrix and back, so that one product scales all of them.

    Args:
        gradients: The gradients, which are changed in place.
        factors: One factor for each gradient: [number of gradients].
    """
    import torch

    rows = [-(-gradient.numel() // ROW_LENGTH) for gradient in gradients]
    matrix = torch.empty(sum(rows), ROW_LENGTH, dtype=factors.dtype, device=factors.device)
    blocks: tuple[Tensor, ...] = torch.split(matrix, rows)
    parts = [block.flatten()[: g.numel()].view(g.shape) for block, g in zip(blocks, gradients, strict=True)]
    torch._foreach_copy_(parts, gradients)
    matrix.mul_(torch.cat([factors[index].expand(count) for index, count in enumerate(rows)])[:, None])
    torch._foreach_copy_(gradients, parts)


def _norms(gradients: Sequence[Tensor], device: Device) -> Tensor:
    """Return the L2 norm of each gradient, as one tensor: [number of gradients]."""
    import torch

    if not device.accelerated:  # on a CPU core, torch's norm takes twice as long and is less exact
        flat = [gradient.flatten() for gradient in gradients]
        return torch.stack([torch.dot(gradient, gradient) for gradient in flat]).sqrt_()
    return torch.stack(torch._foreach_norm(list(gradients)))


def _parts(batch: Batch | ResidentBatch, size: int) -> Iterator[Batch | ResidentBatch]:
    """Divide a batch into parts of at most `size` examples, each padded only to its longest example, and yield them."""
    if len(batch.indices) <= size:
        yield batch
        return
    for start in range(0, len(batch.indices), size):
        yield batch.rows(slice(start, start + size))
