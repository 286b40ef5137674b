"""CUDA graphs: forward and backward passes captured once for each batch shape and then replayed.

A training step of a small model consists of hundreds of short kernels, each launched from Python. A CUDA graph launches
all of them at once, but it has fixed shapes and fixed memory addresses. Therefore batches are padded to few different
lengths, the inputs of a step are copied into the tensors that the graph reads, gradients accumulate in tensors that
stay allocated, and dropout masks are drawn inside the graph from a registered random generator.

The first batch of a shape runs without a graph, which also initialises the libraries; the step is captured at the
second batch of that shape. The random numbers are the same as without graphs, so that a training resumed from a
checkpoint continues as if it had never stopped.
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
"""A function that runs forward and backward pass: it adds to the parameters' gradients and returns the mean loss as a
scalar tensor. Its arguments are a batch and the stored output of the frozen lower layers for it (`[batch, tokens,
hidden]`, or None to start from the token ids)."""
Shape = tuple[int, int, bool]
"""The shape of a batch: number of examples, tokens per example, and whether any token is padding."""


class GraphRecorder(Protocol):
    """A recorder of work on tensors whose memory addresses do not change."""

    def run(self, work: Work) -> None:
        """Execute `work` without capturing it, under the same conditions (such as the CUDA stream) as in a capture."""
        ...

    def record(self, work: Work) -> Work:
        """Capture `work` and return a callable that replays it. Capturing does not execute it."""
        ...


@dataclass(frozen=True)
class Recording:
    """The captured forward and backward pass for one batch shape."""

    batch: Batch
    """The tensors that the graph reads; the next batch is copied into them."""
    states: Tensor | None
    """The tensor from which the graph reads the stored output of the frozen lower layers, `[batch, tokens, hidden]`;
    None if the graph starts from the token ids."""
    replay: Work
    loss: list[Tensor]
    """A list of one scalar tensor, the loss, which the captured step writes."""


class RecordedBackward:
    """A `Backward` function that captures another `Backward` function as CUDA graphs, one for each batch shape.

    The captured function may depend only on the tensors of a batch and on its `Shape`. If the set of trainable
    parameters changes, a new object must be built.
    """

    def __init__(self, backward: Backward, parameters: Sequence[nn.Parameter], recorder: GraphRecorder) -> None:
        """Allocate the gradients of the trainable parameters.

        Args:
            backward: The function to capture.
            parameters: The trainable parameters.
            recorder: The recorder that captures and replays.
        """
        import torch

        self._backward = backward
        self._recorder = recorder
        self._parameters = parameters
        self._seen: dict[Shape, Recording | None] = {}
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)

    @property
    def recorded(self) -> int:
        """The number of batch shapes that have been captured."""
        return sum(recording is not None for recording in self._seen.values())

    def __call__(self, batch: Batch, states: Tensor | None) -> Tensor:
        """Run forward and backward for a batch, by replaying its graph if there is one.

        Args:
            batch: The examples, on the GPU.
            states: The stored output of the frozen lower layers, `[batch, tokens, hidden]`; None to start from the
                token ids.

        Returns:
            The mean loss, a scalar tensor.

        Raises:
            TrainingError: The step cannot be captured.
        """
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
        return recording.loss[0].clone()  # the next replay, of any shape, may overwrite it

    def clear_gradients(self) -> None:
        """Set all gradients to zero without moving them in memory."""
        import torch

        torch._foreach_zero_([parameter.grad for parameter in self._parameters if parameter.grad is not None])

    def let_go(self) -> None:
        """Release all captured graphs and gradients."""
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
            # An error during a capture is followed by a second error when the capture ends.
            first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if is_out_of_memory(first):
                raise first from None
            raise TrainingError(
                f"a training step cannot be recorded as a CUDA graph ({first}); leave out --cuda-graphs"
            ) from error


class CudaRecorder:
    """A recorder of CUDA graphs.

    All graphs share one memory pool. This is safe because one graph is replayed at a time and its loss is copied before
    the next replay.
    """

    def __init__(self, generators: Callable[[], Sequence[torch.Generator]]) -> None:
        """Set up the memory pool and the stream for captures.

        Args:
            generators: A function that returns the random generators from which the captured work draws, in addition to
                the default generator of the device.
        """
        import torch

        self._generators = generators
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._stream = _recording_stream()

    def run(self, work: Work) -> None:
        """Execute `work` on the stream that is used for captures."""
        import torch

        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):
                work()
        finally:
            torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, work: Work) -> Work:
        """Capture `work` as a CUDA graph and return a callable that replays it."""
        import torch

        graph = torch.cuda.CUDAGraph()
        for generator in self._generators():
            graph.register_generator_state(generator)
        before = torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                work()
        finally:
            torch.cuda.set_stream(before)  # a failed capture leaves its own stream current
        return graph.replay


@cache
def _recording_stream() -> Any:
    """Return the stream for captures, one for the whole process.

    It is not the default stream, because autograd nodes that belong to the default stream cannot be captured. There is
    only one, because the CUDA libraries keep a workspace for each stream.
    """
    import torch

    return torch.cuda.Stream()  # type: ignore[no-untyped-call]
