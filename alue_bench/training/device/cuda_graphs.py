"""Forward and backward passes recorded once for each shape of batch and replayed: CUDA graphs.

A step of a small model is hundreds of short kernels, each launched by Python. A recording launches all of them at once;
but it is of fixed shapes, and of fixed places in memory. So batches come in few lengths, what a step reads is copied to
where the recording reads it, gradients are added to tensors that stay, and dropout masks are drawn within the
recording, from a generator that it knows of.

A shape's first batch is computed as ever, which also prepares the libraries; at its second one the step is recorded.
Random numbers are those of the plain way, so that a training goes on from a checkpoint as if never cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from alue_bench.contract.errors import TrainingError
from alue_bench.data.batches import Batch
from alue_bench.training.device.errors import is_out_of_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Work = Callable[[], None]
Backward = Callable[[Batch, "Tensor | None"], "Tensor"]
"""From a batch, and the states behind its frozen prefix, to its mean loss; adds to the parameters' gradients."""
Shape = tuple[int, int, bool]
"""Examples, tokens of each, and whether any of them is padding."""


class GraphRecorder(Protocol):
    """Of work on tensors that stay where they are."""

    def run(self, work: Work) -> None:
        """Do it, as it will be recorded."""
        ...

    def record(self, work: Work) -> Work:
        """What does it again. Recording does not do it."""
        ...


@dataclass(frozen=True)
class Recording:
    """A step of one shape: what it reads, what does it, and where its loss then lies."""

    batch: Batch
    states: Tensor | None
    replay: Work
    loss: list[Tensor]
    """One, written by the work itself."""


class RecordedBackward:
    """A `Backward` that records another one.

    What the other one reads of a batch is its tensors, and of its numbers only what `Shape` tells. Set up for given
    parameters that train: where others do, it takes a new one.
    """

    def __init__(self, backward: Backward, parameters: Sequence[nn.Parameter], recorder: GraphRecorder) -> None:
        import torch

        self._backward = backward
        self._recorder = recorder
        self._parameters = parameters
        self._seen: dict[Shape, Recording | None] = {}
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)

    @property
    def recorded(self) -> int:
        """How many shapes are."""
        return sum(recording is not None for recording in self._seen.values())

    def __call__(self, batch: Batch, states: Tensor | None) -> Tensor:
        """Raises TrainingError where a step cannot be recorded."""
        examples, tokens = batch.attention_mask.shape
        shape = (examples, tokens, batch.tokens < examples * tokens)
        if shape not in self._seen:
            losses: list[Tensor] = []
            self._recorder.run(lambda: losses.append(self._backward(batch, states)))
            self._seen[shape] = None
            return losses[0]
        recording = self._seen[shape]
        if recording is None:
            recording = self._seen[shape] = self._recording_of(batch, states)
        for name in ("input_ids", "attention_mask", "token_type_ids", "targets"):
            if (place := getattr(recording.batch, name)) is not None:
                place.copy_(getattr(batch, name), non_blocking=True)
        if recording.states is not None and states is not None:
            recording.states.copy_(states, non_blocking=True)
        recording.replay()
        return recording.loss[0].clone()  # the next replay, of whatever shape, may write over it

    def clear_gradients(self) -> None:
        """To zero, where they are."""
        import torch

        torch._foreach_zero_([parameter.grad for parameter in self._parameters if parameter.grad is not None])

    def let_go(self) -> None:
        """Of recordings and gradients."""
        self._seen.clear()
        for parameter in self._parameters:
            parameter.grad = None

    def _recording_of(self, batch: Batch, states: Tensor | None) -> Recording:
        stays = batch.with_each(lambda tensor: tensor.clone())
        states_stay = None if states is None else states.clone()
        loss: list[Tensor] = []

        def work() -> None:
            loss[:] = [self._backward(stays, states_stay)]

        try:
            return Recording(stays, states_stay, self._recorder.record(work), loss)
        except RuntimeError as error:
            # What goes wrong within a recording is followed by an error of its end.
            first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if is_out_of_memory(first):
                raise first from None
            raise TrainingError(
                f"a training step cannot be recorded as a CUDA graph ({first}); leave out --cuda-graphs"
            ) from error


class CudaRecorder:
    """All its graphs share their memory: one is replayed at a time, and its loss is read before the next."""

    def __init__(self, generators: Callable[[], Sequence[torch.Generator]]) -> None:
        """generators: those that the work draws from at a time, beside the device's default one."""
        import torch

        self._generators = generators
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._stream = _recording_stream()

    def run(self, work: Work) -> None:
        import torch

        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):
                work()
        finally:
            torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, work: Work) -> Work:
        import torch

        graph = torch.cuda.CUDAGraph()
        for generator in self._generators():
            graph.register_generator_state(generator)
        before = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                work()
        finally:
            torch.cuda.set_stream(before)  # a recording that fails leaves its own
        return graph.replay


@cache
def _recording_stream() -> Any:
    """Not the default stream: nodes of autograd's graph that belong to that one cannot be recorded. One for the whole
    process: the libraries keep workspaces for each."""
    import torch

    return torch.cuda.Stream()  # type: ignore[no-untyped-call]
