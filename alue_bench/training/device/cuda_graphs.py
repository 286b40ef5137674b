"""CUDA graphs: training steps that are captured once for each batch shape and then replayed.

A training step of a small model consists of hundreds of short kernels, each launched from Python, which takes longer
than the GPU needs to compute them. A CUDA graph launches all of them at once, but it has fixed shapes and fixed memory
addresses. Therefore batches are padded to few different lengths (`padded_lengths`), and what differs from step to step
is written into tensors that the graph reads: the indices of the examples, from which the batch is gathered on the
device; the learning rates; the states of the random generators; and the stored outputs of frozen layers for the batch,
unless they are on the device, so that the graph can gather them by the indices.

All shapes are captured before the first step, the longest first, so that smaller graphs fit into the memory of larger
ones. A capture executes nothing. The random numbers are the same as without graphs, so that a training run resumed from
a checkpoint continues as if it had never stopped.

This module needs no newer torch than the project does: registered generators, fused AdamW with a learning rate in a
tensor, and capturable optimisers exist from torch 2.4 on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from alue_bench.training.device.resident import ResidentBatch, Shape

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Work = Callable[[], None]
"""A function that launches work on the GPU."""
Step = Callable[["Tensor", int, "Tensor | None"], "Tensor"]
"""A function that computes a training step, or a part of it, from tensors on the device: the indices of the examples
(int64 [b]), the padded length, and the stored output of the frozen layers ([b, tokens, hidden]; None if it is gathered
in the step, or if there is none). It returns the tensor of values that the step is to report."""


class GraphRecorder(Protocol):
    """An object that can capture GPU work once and replay it, on tensors whose memory addresses do not change."""

    def run(self, work: Work) -> None:
        """Execute `work` without capturing it, but under the same conditions as a capture (such as the CUDA stream)."""
        ...

    def record(self, work: Work) -> Work:
        """Capture `work` and return a callable that replays it. Capturing does not execute it."""
        ...


@dataclass(frozen=True)
class GraphUse:
    """The decision whether a run replays its training steps as CUDA graphs, and the reason, recorded with the run."""

    used: bool
    reason: str
    """The reason for the decision, as a sentence without a full stop at its end."""
    eager_step_s: float | None = None
    """The measured seconds of a training step whose kernels are launched one by one; None if it was not measured."""
    replayed_step_s: float | None = None
    """The measured seconds of a replayed training step with the same batch shape; None if it was not measured."""


class CaptureError(Exception):
    """The error for a training step that cannot be captured as a CUDA graph, though memory is not exhausted."""


@dataclass(frozen=True)
class _Graph:
    """The captured training step for one batch shape, with the tensors from which it reads its input."""

    indices: Tensor
    """The tensor from which the graph reads the indices of the examples: int64 [b]."""
    states: Tensor | None
    """The tensor from which the graph reads the stored output of the frozen layers; None if it reads none."""
    replay: Work
    """The function that executes the captured step on the current content of `indices` and `states`."""


class StepGraphs:
    """The captured training steps (CUDA graphs) of a run, one for each batch shape.

    The captured steps are valid for one set of trainable parameters. If the set changes, or the tensors of the
    optimiser's state are replaced, build a new object.
    """

    def __init__(self, step: Step, recorder: GraphRecorder) -> None:
        """Create an empty collection of captured steps.

        Args:
            step: The step to capture. It may depend only on its arguments and on tensors whose memory addresses do not
                change. It must not wait for the device or keep tensors that it allocated.
            recorder: The recorder that captures and replays.
        """
        self._step = step
        self._recorder = recorder
        self._graphs: dict[Shape, _Graph] = {}
        self._indices: dict[int, Tensor] = {}
        self._outcome: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of batch shapes whose step has been captured."""
        return len(self._graphs)

    def __contains__(self, shape: Shape) -> bool:
        """Return whether the training step for this batch shape has been captured."""
        return shape in self._graphs

    def capture(self, draw: ResidentBatch, states: Tensor | None, rehearsal: Callable[[], Tensor]) -> None:
        """Capture the training step for the shape of a batch.

        Args:
            draw: The indices of the examples and the padded length of a batch of this shape.
            states: The stored output of the frozen layers for this batch; None if there is none, or if the step gathers
                it.
            rehearsal: A function that executes the same kernels without lasting effects and returns values like those
                of the step. It runs before the capture, because libraries initialise themselves at the first call.

        Raises:
            CaptureError: The step cannot be captured.
            RuntimeError: Memory is exhausted.
        """
        import torch

        from alue_bench.training.device.errors import is_out_of_memory

        reported: list[Tensor] = []
        self._recorder.run(lambda: reported.append(rehearsal()))
        if self._outcome is None:  # outside the graphs' memory, which the next replay overwrites
            self._outcome = torch.zeros_like(reported.pop())
        reported.clear()
        indices = self._indices.setdefault(len(draw.indices), draw.device_indices.clone())
        graph_states = None if states is None else states.clone()
        step, width, outcome = self._step, draw.width, self._outcome

        def work() -> None:
            outcome.copy_(step(indices, width, graph_states))

        try:
            self._graphs[draw.shape] = _Graph(indices, graph_states, self._recorder.record(work))
        except RuntimeError as error:
            # An error during a capture is followed by a second error when the capture ends.
            first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if is_out_of_memory(first):
                raise first from None
            raise CaptureError(str(first)) from error

    def replay(self, draw: ResidentBatch, states: Tensor | None) -> Tensor:
        """Replay the captured step on a batch and return a copy of the values that the step reports, such as the loss.

        Args:
            draw: The indices of the examples and the padded length of the batch, whose shape must have been captured.
            states: The stored output of the frozen layers for this batch; None if there is none, or if the step gathers
                it.
        """
        assert self._outcome is not None
        graph = self._graphs[draw.shape]
        graph.indices.copy_(draw.device_indices, non_blocking=True)
        if graph.states is not None and states is not None:
            graph.states.copy_(states, non_blocking=True)
        graph.replay()
        return self._outcome.clone()  # the next replay overwrites it


def padded_lengths(batch_lengths: Sequence[int], max_lengths: int) -> tuple[int, ...]:
    """Choose at most `max_lengths` lengths to which batches are padded, such that the total amount of padding is least.

    Args:
        batch_lengths: For each of the batches for which the choice is made, the length to which it would be padded if
            any number of lengths were allowed. The longest of these lengths is always chosen.
        max_lengths: The largest number of lengths to choose.

    Returns:
        The chosen lengths, ascending.
    """
    counts: dict[int, int] = {}
    for length in batch_lengths:
        counts[length] = counts.get(length, 0) + 1
    lengths = sorted(counts)
    # best[i]: the least padding of all batches with one of the i smallest lengths, if k lengths are chosen and the
    # largest of these i is among them; and the chosen lengths. Each pass of the outer loop increases k by one.
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    final: tuple[int, tuple[int, ...]] | None = None
    for _ in range(min(max_lengths, len(lengths))):
        extended: dict[int, tuple[int, tuple[int, ...]]] = {}
        for end in range(1, len(lengths) + 1):
            longest = lengths[end - 1]
            options = (
                (padding + sum((longest - size) * counts[size] for size in lengths[begin:end]), (*chosen, longest))
                for begin, (padding, chosen) in best.items()
                if begin < end
            )
            if (least := min(options, default=None)) is not None:
                extended[end] = least
        best = extended
        candidate = best.get(len(lengths))
        if candidate is not None and (final is None or candidate < final):
            final = candidate
    return final[1] if final else ()


class CudaRecorder:
    """The recorder that captures GPU work as CUDA graphs.

    All graphs share one memory pool. This is safe because one graph is replayed at a time, and because no tensor in the
    pool is used after the replay: the values that a graph reports are copied to a tensor outside the pool.
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
        self._stream = _recording_stream(torch.cuda.current_device())

    def run(self, work: Work) -> None:
        """Execute `work` without capturing it, on the CUDA stream that is used for captures."""
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
        except RuntimeError:
            self._end_capture_of_generators()
            self._leave_pool()
            raise
        finally:
            torch.cuda.set_stream(before)  # a failed capture leaves its own stream current
        return graph.replay

    def _end_capture_of_generators(self) -> None:
        """Free the random generators from a failed capture, by giving each a new state object with the same state.

        torch notifies generators when a capture ends, but not when it fails. Every later dropout mask would then raise
        "Offset increment outside graph capture encountered unexpectedly".
        """
        import torch

        device = torch.cuda.current_device()
        for generator in (*torch.cuda.default_generators[device : device + 1], *self._generators()):
            with suppress(RuntimeError, AttributeError):  # the error of the capture is the one to report
                generator.graphsafe_set_state(generator.clone_state())

    def _leave_pool(self) -> None:
        """Make torch's allocator leave the graphs' memory pool after a failed capture.

        Some versions of torch (before pytorch pull request 180395) do not do this: later allocations on the stream
        would then be taken from the pool and never be freed.
        """
        import torch

        # The name differs between versions of torch.
        end = getattr(torch._C, "_cuda_endAllocateToPool", None) or getattr(
            torch._C, "_cuda_endAllocateCurrentStreamToPool", None
        )
        if end is None:
            return
        device = torch.cuda.current_device()
        with suppress(RuntimeError, TypeError):  # torch has ended it already, and the pool must not be released twice
            end(device, self._pool)
            torch._C._cuda_releasePool(device, self._pool)


@cache
def _recording_stream(device: int) -> Any:
    """Return the CUDA stream for captures on a device, which all captures of the process share.

    The stream is not the default stream, because autograd nodes that belong to the default stream cannot be captured.
    There is only one such stream, because the CUDA libraries keep a workspace for each stream.

    Args:
        device: The number of the device.
    """
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
