"""torch's own names, which lead to the simulation while it is active."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.utils._device

from simulated_cuda.active import current, running
from simulated_cuda.gpu import H200, Gpu
from simulated_cuda.gpu_only import fused_attention
from simulated_cuda.graphs import CUDAGraph, DefaultStream, Event, GraphContext, Stream, StreamContext, set_stream
from simulated_cuda.machine import Machine
from simulated_cuda.tensors import DeviceTensor, Generator, PlainGenerator

_to = torch.Tensor.to
_dropout = torch.nn.functional.dropout
_grouped = torch._C._group_tensors_by_device_and_dtype
_autocast_enabled, _autocast_dtype = torch.is_autocast_enabled, torch.get_autocast_dtype


@contextmanager
def simulated(gpu: Gpu = H200) -> Iterator[Machine]:
    """Give a simulated CUDA device within the `with` block. Wherever torch finds CUDA, it finds this device."""
    machine = Machine(gpu)
    torch.utils._device._device_constructors()  # remembers torch's own functions, as `with torch.device(...)` needs
    _forget_what_was_found()
    try:
        with pytest.MonkeyPatch.context() as patch, running(machine):
            for owner, names in _names(machine):
                for name, value in names.items():
                    patch.setattr(owner, name, value)
            yield machine
    finally:
        _forget_what_was_found()


def _forget_what_was_found() -> None:
    """Clear what functions of the training engine remember about a device, which another device must not get."""
    import sys

    for name, module in list(sys.modules.items()):
        if name.startswith(("alue_bench.training.device", "alue_bench.measure")):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def _names(machine: Machine) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield the modules and classes of torch, each with its replaced attributes."""
    yield (
        torch.Tensor,
        {
            "to": tensor_to,
            "cpu": lambda self, memory_format=torch.preserve_format: tensor_to(self, "cpu"),
            "cuda": lambda self, device="cuda", non_blocking=False, **_: tensor_to(
                self, device, non_blocking=non_blocking
            ),
            "pin_memory": pin_memory,
            "is_pinned": lambda self, device=None: not isinstance(self, DeviceTensor) and self in current().pinned,
        },
    )
    yield (
        torch,
        {
            "Generator": Generator,
            "tensor": new_tensor(torch.tensor),
            "as_tensor": new_tensor(torch.as_tensor),
            "autocast": Autocast,
            "is_autocast_enabled": lambda device="cpu": _autocast_enabled(_for_autocast(device)),
            "get_autocast_dtype": lambda device: _autocast_dtype(_for_autocast(device)),
        },
    )
    yield torch.amp, {"autocast": Autocast}
    yield torch.nn.functional, {"dropout": dropout, "scaled_dot_product_attention": fused_attention}
    yield torch._C, {"_group_tensors_by_device_and_dtype": group_tensors, **_pools(machine)}
    yield torch.version, {"cuda": "12.8"}
    yield torch.backends.cuda, {"is_built": lambda: True}
    yield torch.cuda, {**_devices(machine), **_work(machine), **_random(machine), **_memory(machine)}
    yield torch.accelerator, _accelerator(machine)


def _number(device: Any) -> int:
    """Return the number of a device, which torch's functions take as None, a number, a text or a torch.device."""
    machine = current()
    if device is None:
        return machine.index
    index = device if isinstance(device, int) else torch.device(device).index
    number = machine.index if index is None else index
    machine.check_ordinal(number)
    return number


def _devices(machine: Machine) -> dict[str, Any]:
    gpu = machine.gpu

    def set_device(device: Any) -> None:
        machine.index = _number(device)

    def exchange(index: int) -> int:
        before = machine.index
        if index >= 0:
            set_device(index)
        return before

    def properties(device: Any = None) -> Any:
        return SimpleNamespace(
            name=gpu.name,
            total_memory=gpu.memory,
            uuid=f"00000000-0000-0000-0000-00000000000{_number(device)}",
            major=gpu.capability[0],
            minor=gpu.capability[1],
            multi_processor_count=100,
        )

    def has_bf16(including_emulation: bool = True) -> bool:
        return including_emulation or gpu.capability >= (8, 0)

    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "init": lambda: None,
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: gpu.count,
        "current_device": lambda: machine.index,
        "set_device": set_device,
        "_exchange_device": exchange,
        "_maybe_exchange_device": exchange,
        "get_device_capability": lambda device=None: gpu.capability,
        "get_device_name": lambda device=None: gpu.name,
        "get_device_properties": properties,
        "is_bf16_supported": has_bf16,
    }


def _work(machine: Machine) -> dict[str, Any]:
    default = DefaultStream()
    return {
        "synchronize": lambda device=None: machine.wait("synchronize"),
        "Stream": Stream,
        "Event": Event,
        "stream": StreamContext,
        "StreamContext": StreamContext,
        "set_stream": set_stream,
        "current_stream": lambda device=None: machine.stream or default,
        "default_stream": lambda device=None: default,
        "is_current_stream_capturing": lambda: machine.capture is not None,
        "graph_pool_handle": lambda: (0, 1),
        "CUDAGraph": CUDAGraph,
        "graph": GraphContext,
    }


def _pools(machine: Machine) -> dict[str, Any]:
    def end(device: int, pool: tuple[int, int]) -> None:
        if device not in machine.pools:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        machine.pools.remove(device)

    # The first name is that of newer versions of torch, the second that of older ones.
    names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")
    return {**{name: end for name in names if hasattr(torch._C, name)}, "_cuda_releasePool": lambda device, pool: None}


def _random(machine: Machine) -> dict[str, Any]:
    def get_state(device: Any = "cuda") -> torch.Tensor:
        return machine.random[_number(device)].clone()

    def set_state(state: torch.Tensor, device: Any = "cuda") -> None:
        machine.refuse_within_a_capture()
        if isinstance(state, DeviceTensor):
            raise TypeError("RNG state must be a torch.ByteTensor")
        machine.random[_number(device)] = state.clone()

    def seed_all(seed: int) -> None:
        for index in range(machine.gpu.count):
            set_state(PlainGenerator("cpu").manual_seed(int(seed)).get_state(), index)

    return {
        "get_rng_state": get_state,
        "set_rng_state": set_state,
        "get_rng_state_all": lambda: [get_state(index) for index in range(machine.gpu.count)],
        "set_rng_state_all": lambda states: [set_state(state, index) for index, state in enumerate(states)],
        "manual_seed": lambda seed: set_state(PlainGenerator("cpu").manual_seed(int(seed)).get_state(), None),
        "manual_seed_all": seed_all,
    }


def _memory(machine: Machine) -> dict[str, Any]:
    def memory(device: Any = None) -> Any:
        return machine.memories[_number(device)]

    def empty_cache() -> None:
        for each in machine.memories:
            each.reserved = each.allocated

    def forget_peak(device: Any = None) -> None:
        memory(device).peak = memory(device).allocated

    def statistics(device: Any = None) -> dict[str, int]:
        each = memory(device)
        return {
            "allocated_bytes.all.current": each.allocated,
            "allocated_bytes.all.peak": each.peak,
            "reserved_bytes.all.current": each.reserved,
            "reserved_bytes.all.peak": each.reserved,
        }

    return {
        "empty_cache": empty_cache,
        "memory_stats": statistics,
        "reset_peak_memory_stats": forget_peak,
        "memory_allocated": lambda device=None: memory(device).allocated,
        "max_memory_allocated": lambda device=None: memory(device).peak,
        "memory_reserved": lambda device=None: memory(device).reserved,
        "max_memory_reserved": lambda device=None: memory(device).reserved,
        "mem_get_info": lambda device=None: (memory(device).limit - memory(device).reserved, memory(device).total),
    }


def _accelerator(machine: Machine) -> dict[str, Any]:
    """Return the functions of torch.accelerator, of which torch's older releases have some only."""
    cuda = {**_devices(machine), **_work(machine), **_memory(machine)}
    names = {
        "is_available": lambda: True,
        "current_accelerator": lambda check_available=False: torch.device("cuda"),
        "device_count": cuda["device_count"],
        "current_device_index": cuda["current_device"],
        "current_device_idx": cuda["current_device"],
        "set_device_index": cuda["set_device"],
        "set_device_idx": cuda["set_device"],
        "current_stream": lambda device=None: torch.cuda.current_stream(device),
        "set_stream": set_stream,
        "synchronize": cuda["synchronize"],
        "empty_cache": cuda["empty_cache"],
        "reset_peak_memory_stats": cuda["reset_peak_memory_stats"],
        "memory_stats": cuda["memory_stats"],
        "memory_allocated": cuda["memory_allocated"],
        "max_memory_allocated": cuda["max_memory_allocated"],
        "memory_reserved": cuda["memory_reserved"],
        "max_memory_reserved": cuda["max_memory_reserved"],
        "get_memory_info": cuda["mem_get_info"],
    }
    return {name: value for name, value in names.items() if hasattr(torch.accelerator, name)}


def tensor_to(self: torch.Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> torch.Tensor:
    """Tensor.to, which here also moves tensors between the host and the device."""
    machine = current()
    if args and isinstance(args[0], torch.Tensor):
        args = (args[0].device, args[0].dtype, *args[1:])
    if [type(value) for value in args[-2:]] == [bool, bool]:  # non_blocking and copy, given by position
        args, copy = args[:-1], args[-1]
    device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
    target = self.device if device is None else device
    layout = {} if memory_format is None else {"memory_format": memory_format}
    here = isinstance(self, DeviceTensor)
    if target.type == "cuda":
        index = machine.index if target.index is None else target.index
        machine.check_ordinal(index)
        if isinstance(self, DeviceTensor) and self.index == index:
            return _to(self, dtype or self.dtype, copy=copy, **layout)
        if isinstance(self, DeviceTensor):
            moved: torch.Tensor = DeviceTensor(self.values.clone(), index)
        else:
            _check_no_gradient(self)
            moved = machine.to_device(self, index, non_blocking)
        return moved if dtype in (None, moved.dtype) else _to(moved, dtype)
    if not here:
        return _to(self, target, dtype or self.dtype, non_blocking, copy, **layout)
    _check_no_gradient(self)
    if target.type != "cpu":
        raise NotImplementedError(f"a copy to {target} is not simulated")
    # torch converts on the device, and copies then.
    converted = self if dtype in (None, self.dtype) else _to(self.detach(), dtype)
    return machine.to_host(converted, non_blocking)  # type: ignore[arg-type]


def new_tensor(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Return `torch.tensor` or `torch.as_tensor`, which copies to the device what it has made on the host."""

    def made(data: Any, *args: Any, device: Any = None, requires_grad: bool = False, **kwargs: Any) -> torch.Tensor:
        if isinstance(data, DeviceTensor):
            copied = data.detach().clone() if make is torch.tensor else data
            return copied.to(device or data.device, *args, **kwargs)
        if device is None or torch.device(device).type != "cuda":
            more = {"requires_grad": True} if requires_grad else {}
            return make(data, *args, device=device, **more, **kwargs)
        return make(data, *args, **kwargs).to(device).requires_grad_(requires_grad)

    return made


def _check_no_gradient(tensor: torch.Tensor) -> None:
    if tensor.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError("gradients through copies between host and device are not simulated")


def pin_memory(self: torch.Tensor, device: Any = None) -> torch.Tensor:
    """Tensor.pin_memory."""
    machine = current()
    if isinstance(self, DeviceTensor):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
    if self in machine.pinned:
        return self
    pinned = self.detach().clone()
    machine.pinned.add(pinned)
    return pinned


def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """torch.nn.functional.dropout, which is one kernel on a GPU and three on a CPU."""
    if isinstance(input, DeviceTensor) and training and 0 < p < 1 and not inplace:
        return torch.native_dropout(input, p, True)[0]
    return _dropout(input, p, training, inplace)


def group_tensors(lists: Any, *args: Any) -> Any:
    """Group tensors by device and dtype, as torch's C++ function does, which sees tensors of the CPU only."""
    groups = _grouped(lists, *args)
    device = next((t.device for tensors in lists for t in tensors if isinstance(t, DeviceTensor)), None)
    return groups if device is None else {(device, dtype): group for (_, dtype), group in groups.items()}


def _for_autocast(device: str) -> str:
    return "cpu" if device == "cuda" else device


class Autocast(torch.amp.autocast_mode.autocast):
    """torch.autocast. Under "cuda", operations are chosen as on the CPU."""

    def __init__(
        self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        if device_type == "cuda" and dtype is None:
            dtype = torch.float16
        super().__init__(_for_autocast(device_type), dtype, enabled, cache_enabled)
