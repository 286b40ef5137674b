"""The simulated device: all operations go through it, and it counts what they cost."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from simulated_cuda.gpu import Gpu
from simulated_cuda.memory import DeviceMemory, PinnedMemory
from simulated_cuda.operations import INDEXING, Kind, aten, kind_of, tensors_in, with_each
from simulated_cuda.tensors import DeviceTensor, PlainGenerator

if TYPE_CHECKING:
    from simulated_cuda.graphs import CUDAGraph, Stream

CAPTURING = "CUDA error: operation not permitted when stream is capturing"
REPOSITORY = Path(__file__).parents[2]


@dataclass
class Activity:
    """The costs of some work: what the host and the device have done for it."""

    waits: Counter[str] = field(default_factory=Counter)
    """The times that the host waited for the device, by operation and place in the code."""
    unpinned: Counter[str] = field(default_factory=Counter)
    """The copies between the device and memory of the host that is not pinned, by place in the code."""
    kernels: Counter[str] = field(default_factory=Counter)
    """The kernels launched one by one, by operation. Those in a replayed graph do not count."""
    copies: int = 0
    """The number of copies between host and device."""
    captures: int = 0
    replays: int = 0

    @property
    def launches(self) -> int:
        """The number of kernels launched one by one."""
        return self.kernels.total()

    def __sub__(self, earlier: Activity) -> Activity:
        return Activity(**{f.name: getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)})

    def __add__(self, other: Activity) -> Activity:
        return Activity(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def copy(self) -> Activity:
        return self + Activity()


class Machine(TorchDispatchMode):
    """The simulated device or devices of one kind."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self.gpu = gpu
        self.index = 0
        """The number of the current device."""
        self.memories = [DeviceMemory(gpu.memory) for _ in range(gpu.count)]
        self.pinned = PinnedMemory()
        self.activity = Activity()
        self.generators: dict[int, Any] = {}
        """The generators of the device, by the address of torch's own object."""
        self.random = [PlainGenerator("cpu").manual_seed(0).get_state() for _ in range(gpu.count)]
        """The state of the default generator of each device."""
        self.capture: CUDAGraph | None = None
        """The graph that is being captured."""
        self.refuses_capture = ""
        """If not empty, the message of the error in which each capture ends."""
        self.pools: list[int] = []
        """The numbers of the devices whose allocator takes memory from the pool of a graph, once for each capture."""
        self.stream: Stream | None = None
        """The current stream; None for the default stream."""
        self._uploads: list[tuple[torch.Tensor, int]] = []
        self._downloads: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def memory(self) -> DeviceMemory:
        """The memory of the first device."""
        return self.memories[0]

    # -- costs

    @contextmanager
    def watch(self) -> Iterator[Activity]:
        """Give the costs of the work in the `with` block, after it."""
        before, seen = self.activity.copy(), Activity()
        try:
            yield seen
        finally:
            vars(seen).update(vars(self.activity - before))

    def wait(self, why: str) -> None:
        """Let the host wait for the device: asynchronous copies are complete afterwards."""
        self.refuse_within_a_capture()
        self.activity.waits[f"{why} at {_place()}"] += 1
        self.complete_copies()

    def complete_copies(self) -> None:
        """Complete the asynchronous copies.

        Raises:
            RuntimeError: The host has changed the source of a copy, which may not have been read by then.
        """
        uploads, downloads = self._uploads, self._downloads
        self._uploads, self._downloads = [], []
        with torch.utils._python_dispatch._disable_current_modes():
            for target, values in downloads:
                target.copy_(values)
        if any(tensor._version != version for tensor, version in uploads):
            raise RuntimeError("pinned memory was written to while a copy of it to the device was under way")

    def refuse_within_a_capture(self) -> None:
        """Raise the error of an operation that a capture forbids, if there is one."""
        if self.capture is not None:
            self.capture.invalid = True
            raise RuntimeError(f"{CAPTURING} ({_place()})")

    # -- copies

    def to_device(self, tensor: torch.Tensor, index: int, non_blocking: bool) -> DeviceTensor:
        """Return a copy of a tensor of the host on a device."""
        self._count_upload(tensor, non_blocking)
        return DeviceTensor(tensor.detach().clone(memory_format=torch.preserve_format), index)

    def to_host(self, tensor: DeviceTensor, non_blocking: bool) -> torch.Tensor:
        """Return a copy of a tensor of the device on the host; asynchronous copies go to pinned memory, as torch's."""
        copied = tensor.values.detach().clone()
        if non_blocking:
            self.pinned.add(copied)
        self._download(copied, tensor, non_blocking)
        return copied

    def _count_upload(self, tensor: torch.Tensor, non_blocking: bool) -> None:
        self.activity.copies += 1
        if tensor not in self.pinned:
            self.refuse_within_a_capture()
            self.activity.unpinned[f"copy to the device at {_place()}"] += 1
        elif not non_blocking:
            self.wait("blocking copy to the device")
        elif self.capture is None:
            self._uploads.append((tensor, tensor._version))

    def _download(self, target: torch.Tensor, source: DeviceTensor, non_blocking: bool) -> None:
        """Copy to a tensor of the host. Until the host has waited, the result of an asynchronous copy is garbage."""
        self.activity.copies += 1
        if non_blocking and target in self.pinned:
            self.refuse_within_a_capture()  # allowed by CUDA, but not simulated
            self._downloads.append((target, source.values.clone()))
            spoil(target)
            return
        if non_blocking:
            self.activity.unpinned[f"copy to the host at {_place()}"] += 1
        self.wait("copy to the host")
        target.copy_(source.values)

    # -- operations

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.operate(operation, args, kwargs or {})

    def operate(self, operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Do an operation of torch, on the host or on the device."""
        tensors = list(tensors_in((args, tuple(kwargs.values()))))
        ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        asked = kwargs.get("device")
        if not ours and (asked is None or asked.type != "cuda"):
            return self._on_host(operation, args, kwargs)
        if ours:
            index = ours[0].index
        else:
            index = self.index if asked.index is None else asked.index
            self.check_ordinal(index)
        if operation is aten._to_copy.default and not ours:  # called by torch itself, such as by torch.tensor
            return self._uploaded(args[0], index, kwargs)
        if operation is aten.copy_.default and len(ours) < 2:
            return self._copied(args, kwargs)
        kind = kind_of(operation)
        self._check(kind, operation, args, kwargs, tensors)
        return self._run(kind, operation, args, kwargs, index)

    def check_ordinal(self, index: int) -> None:
        """Raise an error if there is no device of this number."""
        if not 0 <= index < self.gpu.count:
            raise RuntimeError("CUDA error: invalid device ordinal")

    def _on_host(self, operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if not kwargs.get("pin_memory"):
            return operation(*args, **kwargs)
        made = operation(*args, **{**kwargs, "pin_memory": False})
        self.pinned.add(made)
        return made

    def _uploaded(self, source: torch.Tensor, index: int, kwargs: dict[str, Any]) -> Any:
        copied = self.to_device(source, index, bool(kwargs.get("non_blocking")))
        rest = {name: value for name, value in kwargs.items() if name not in ("device", "non_blocking", "pin_memory")}
        if rest.get("dtype") in (None, copied.dtype):
            return copied
        return self.operate(aten._to_copy.default, (copied,), rest)

    def _copied(self, args: Any, kwargs: dict[str, Any]) -> Any:
        """Copy between a tensor of the host and one of the device."""
        target, source = args[:2]
        non_blocking = bool(args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        if isinstance(source, DeviceTensor):
            self._download(target, source, non_blocking)
            return target
        self._count_upload(source, non_blocking)
        if self.capture is not None:
            kind, plain = kind_of(aten.copy_.default), (target.values, source)
            self.capture.keep(kind, plain, {})
            self.capture.record(kind, aten.copy_.default, plain, {}, None)
        target.values.copy_(source)
        return target

    def _check(
        self, kind: Kind, operation: Any, args: Any, kwargs: dict[str, Any], tensors: list[torch.Tensor]
    ) -> None:
        """Count waits, and raise the errors that CUDA raises."""
        host = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor)]
        if kind.name in INDEXING:
            indices = [place for place in args[1] if place is not None]
            fills = kind.name != "index" and len(indices) == 1 and args[2].numel() == 1  # becomes masked_fill_
            if any(place.dtype in (torch.bool, torch.uint8) for place in indices) and not fills:
                self.wait("indexing by a mask")
            if any(not isinstance(place, DeviceTensor) for place in indices):
                self.wait("indexing by numbers of the host")
            host = [tensor for tensor in host if not any(tensor is place for place in indices)]
        if kind.waits:
            self.wait(kind.name)
        written = list(kind.targets(args, kwargs))
        ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
        foreign = [t for t in host if t.dim() > 0 or any(t is target for target in written)]
        foreign += [tensor for tensor in ours if tensor.index != ours[0].index]
        if ours and foreign:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {ours[0].device} and "
                f"{foreign[0].device}! ({operation}, {[tuple(t.shape) for t in foreign]} at {_place()})"
            )
        given = kwargs.get("generator")
        if given is not None and given._cdata not in self.generators:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")

    def _run(self, kind: Kind, operation: Any, args: Any, kwargs: dict[str, Any], index: int) -> Any:
        """Do an operation on the values of its arguments, and return the results as tensors of the device."""
        wrappers: dict[int, DeviceTensor] = {}

        def value_of(argument: Any) -> Any:
            if isinstance(argument, DeviceTensor):
                wrappers[id(argument.values)] = argument
                return argument.values
            if isinstance(argument, torch.device):
                return torch.device("cpu")
            if isinstance(argument, torch.Tensor) and self.capture is not None:
                return argument.clone()  # a number of the host becomes a part of the graph
            return argument

        def on_device(result: Any) -> Any:
            if not isinstance(result, torch.Tensor):
                return result
            wrapper = wrappers.get(id(result))
            return DeviceTensor(result, index) if wrapper is None else wrapper

        plain_args = with_each(value_of, args)
        plain_kwargs = with_each(value_of, {name: value for name, value in kwargs.items() if name != "pin_memory"})
        if self.capture is not None:
            self.capture.before(kind, plain_args, plain_kwargs, wrappers.values())
        results = self.do(kind, operation, plain_args, plain_kwargs, index)
        returned = with_each(on_device, results)
        if any(wrapper.shape != wrapper.values.shape for wrapper in wrappers.values()):
            raise NotImplementedError(f"{operation} changes the shape of its argument, which is not simulated")
        if self.capture is not None:
            self.capture.record(kind, operation, plain_args, plain_kwargs, results)
        elif kind.launches:
            self.activity.kernels[kind.name] += 1
        return returned

    def do(self, kind: Kind, operation: Any, args: Any, kwargs: dict[str, Any], index: int) -> Any:
        """Do an operation on plain values. It draws from the generator that it is given, or from the device's own."""
        if not kind.draws or kwargs.get("generator") is not None:
            return operation(*args, **kwargs)
        before = torch.get_rng_state()
        torch.set_rng_state(self.random[index])
        try:
            return operation(*args, **kwargs)
        finally:
            self.random[index] = torch.get_rng_state()
            torch.set_rng_state(before)


def spoil(tensor: torch.Tensor) -> None:
    """Overwrite a tensor with values that nobody can take for a result."""
    if tensor.is_floating_point():
        tensor.fill_(float("nan"))
    elif tensor.dtype != torch.bool:
        tensor.fill_(torch.iinfo(tensor.dtype).max)


def _place() -> str:
    """Return the places of the two innermost calls within this repository, and the innermost one in transformers."""
    ours: list[str] = []
    library = ""
    frame: Any = sys._getframe(2)
    while frame is not None and len(ours) < 2:
        file, in_library = _told(frame.f_code.co_filename)
        if file and not in_library:
            ours.append(f"{file}:{frame.f_lineno}")
        elif file and not library:
            library = f" (by transformers, {file}:{frame.f_lineno})"
        frame = frame.f_back
    return " < ".join(ours) + library


@cache
def _told(path: str) -> tuple[str, bool]:
    """Return how a file of this repository or of transformers is told, and whether it is one of transformers."""
    file = Path(path)
    if file.is_relative_to(REPOSITORY) and "site-packages" not in file.parts:  # of an environment in the checkout
        return ("" if file.parent == Path(__file__).parent else str(file.relative_to(REPOSITORY))), False
    return (file.name, True) if "transformers" in file.parts else ("", False)
