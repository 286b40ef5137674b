"""CUDA graphs, streams and events of the simulated device."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from simulated_cuda.active import current
from simulated_cuda.machine import spoil
from simulated_cuda.memory import Block
from simulated_cuda.operations import Kind, tensors_in
from simulated_cuda.tensors import DeviceTensor


class Stream:
    """A stream. Work on all streams is done at once, in the order of the calls."""

    def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
        self.device = torch.device("cuda", _number_of(device))
        self.cuda_stream = id(self)

    def wait_stream(self, other: Any) -> None: ...

    def wait_event(self, event: Any) -> None: ...

    def record_event(self, event: Any = None) -> Event:
        recorded = event or Event()
        recorded.record(self)
        return recorded

    def is_capturing(self) -> bool:
        return current().capture is not None

    def query(self) -> bool:
        current().complete_copies()
        return True

    def synchronize(self) -> None:
        current().wait("synchronize")


def _number_of(device: Any) -> int:
    index = device if device is None or isinstance(device, int) else torch.device(device).index
    return current().index if index is None else index


class DefaultStream(Stream):
    """The stream on which work runs unless another one is asked for. Nothing can be captured on it."""


class StreamContext:
    """`torch.cuda.stream(...)`: makes a stream the current one."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        self._before = current().stream
        if self.stream is not None:
            set_stream(self.stream)

    def __exit__(self, *_: Any) -> None:
        current().stream = self._before


def set_stream(stream: Stream) -> None:
    current().stream = None if isinstance(stream, DefaultStream) else stream


class Event:
    """A point in the work of the device."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self._recorded: float | None = None

    def record(self, stream: Any = None) -> None:
        self._recorded = time.perf_counter()

    def wait(self, stream: Any = None) -> None: ...

    def query(self) -> bool:
        if self._recorded is not None:
            current().complete_copies()
        return True

    def synchronize(self) -> None:
        if self._recorded is not None:
            current().wait("synchronize")

    def elapsed_time(self, end: Event) -> float:
        """Return the milliseconds between two events on this machine; the time of a GPU is not simulated."""
        if self._recorded is None or end._recorded is None:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        return 1000 * (end._recorded - self._recorded)


class CUDAGraph:
    """Operations, to be done again over the same memory, without Python.

    A capture does no work: what it wrote is put back when it ends, and what it made is garbage until the first replay.
    """

    def __init__(self, keep_graph: bool = False) -> None:
        self.kernels = 0
        """The number of kernels that a replay runs."""
        self.invalid = False
        """True after an operation that a capture forbids."""
        self._calls: list[tuple[Kind, Any, Any, Any, Any]] = []
        self._generators: list[Any] = []
        self._index = 0
        self._made: dict[int, torch.UntypedStorage] = {}
        self._kept: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self._reads: dict[int, weakref.ref[Block]] = {}
        self._pool: Block | None = None

    # -- capture

    def register_generator_state(self, generator: Any) -> None:
        if generator.device.type != "cuda":
            raise RuntimeError("Expected a CUDA generator")
        self._generators.append(generator)

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        machine = current()
        if machine.stream is None:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
        if machine.capture is not None:
            raise RuntimeError(
                "CUDA error: operation not permitted when stream is capturing (a capture within another)"
            )
        self._index = machine.index
        self._random = list(machine.random)
        self._states = [(generator, generator.get_state()) for generator in self._generators]
        memory = machine.memories[self._index]
        self._before, self._peak_before, memory.peak = memory.allocated, memory.peak, memory.allocated
        machine.pools.append(self._index)
        machine.capture = self

    def capture_end(self) -> None:
        machine = current()
        machine.capture = None
        memory = machine.memories[self._index]
        beyond = memory.peak - memory.allocated
        memory.peak = max(memory.peak, self._peak_before)
        machine.random = self._random
        for generator, state in self._states:
            generator.set_state(state)
        with _disable_current_modes():
            for storage, values in self._kept.values():
                storage.copy_(values)
            for call in self._calls:
                for result in tensors_in((call[-1],)):
                    if result.untyped_storage().data_ptr() in self._made:
                        spoil(result)
        self._kept.clear()
        refused = machine.refuses_capture
        if self.invalid or refused:
            self.reset()  # the allocator stays in the capture, as in torch before pull request 180395
            raise RuntimeError(refused or "CUDA error: operation failed due to a previous error during capture")
        machine.pools.remove(self._index)
        self._pool = memory.allocate(max(beyond, 0))
        machine.activity.captures += 1

    def before(self, kind: Kind, args: Any, kwargs: Any, read: Iterable[DeviceTensor]) -> None:
        """Prepare for an operation within the capture."""
        given = kwargs.get("generator")
        if given is not None and all(given._cdata != generator._cdata for generator in self._generators):
            self.invalid = True
            raise RuntimeError(
                "Attempt to increase offset for a CUDA generator not in capture mode: the graph does not know of it"
            )
        for tensor in read:
            address = tensor.values.untyped_storage().data_ptr()
            if address and address not in self._made and address not in self._reads:
                self._reads[address] = weakref.ref(tensor.block)
        self.keep(kind, args, kwargs)

    def record(self, kind: Kind, operation: Any, args: Any, kwargs: Any, results: Any) -> None:
        """Add an operation to the graph, with the tensors of its results."""
        given = {tensor.untyped_storage().data_ptr() for tensor in tensors_in((args, tuple(kwargs.values())))}
        for result in tensors_in((results,)):
            storage = result.untyped_storage()
            if storage.data_ptr() and storage.data_ptr() not in given:
                self._made[storage.data_ptr()] = storage
        if not kind.is_view:  # a view stays one: its memory is that of a tensor in the graph
            self._calls.append((kind, operation, args, kwargs, results))
            self.kernels += kind.launches

    def keep(self, kind: Kind, args: Any, kwargs: Any) -> None:
        """Keep what an operation is about to overwrite."""
        for target in kind.targets(args, kwargs):
            storage = target.untyped_storage()
            if storage.data_ptr() not in self._made and storage.data_ptr() not in self._kept:
                self._kept[storage.data_ptr()] = (storage, storage.clone())

    # -- replay

    def replay(self) -> None:
        machine = current()
        machine.refuse_within_a_capture()
        if any(block() is None for block in self._reads.values()):
            raise RuntimeError("a CUDA graph is replayed whose inputs have been freed: it would read garbage")
        machine.activity.replays += 1
        with _disable_current_modes():
            for kind, operation, args, kwargs, results in self._calls:
                again = machine.do(kind, operation, args, kwargs, self._index)
                if results is None:
                    continue
                for old, new in zip(tensors_in((results,)), tensors_in((again,)), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)

    def reset(self) -> None:
        self._calls.clear()
        self._made.clear()
        self._reads.clear()
        self._pool = None

    def pool(self) -> tuple[int, int]:
        return (0, 1)


class GraphContext:
    """`torch.cuda.graph(...)`: captures the work within its `with` block."""

    def __init__(
        self, cuda_graph: CUDAGraph, pool: Any = None, stream: Any = None, capture_error_mode: str = "global"
    ) -> None:
        self.graph = cuda_graph
        self._stream = StreamContext(stream or Stream())

    def __enter__(self) -> None:
        current().wait("synchronize before a capture")
        if self._stream.stream.device.index != current().index:
            raise RuntimeError("CUDA error: a graph is captured on a stream of another device than the current one")
        self._stream.__enter__()
        self.graph.capture_begin()

    def __exit__(self, *_: Any) -> None:
        try:
            self.graph.capture_end()
        finally:
            self._stream.__exit__()
