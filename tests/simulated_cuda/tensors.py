"""Tensors and random generators that say they are on the device."""

from __future__ import annotations

from typing import Any

import torch

from simulated_cuda.active import current


class DeviceTensor(torch.Tensor):
    """A tensor of the device.

    For torch's C++ code it is a CPU tensor without values of its own: autograd then needs no CUDA. Python code sees the
    device.
    """

    values: torch.Tensor
    """The values: a tensor of the CPU, which shares memory where the device's tensors would."""
    index: int
    """The number of the device."""
    block: Any
    """The allocation that the values lie in."""

    @staticmethod
    def __new__(cls, values: torch.Tensor, index: int = 0) -> DeviceTensor:
        assert type(values) is torch.Tensor, type(values)
        made: DeviceTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device="cpu",
            requires_grad=False,
        )
        return made

    def __init__(self, values: torch.Tensor, index: int = 0) -> None:
        self.values = values
        self.index = index
        self.block = current().memories[index].block_of(values)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return current().operate(operation, args, kwargs or {})

    # torch.nn.Module.to swaps a parameter with one of a class that has these two, so that it stays the same object.
    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return ["values"], self.index

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], index: Any, size: Any, stride: Any) -> DeviceTensor:
        return DeviceTensor(inner["values"], index)

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", self.index)

    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    def get_device(self) -> int:
        return self.index

    @property
    def data(self) -> DeviceTensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        if not isinstance(value, DeviceTensor):
            raise RuntimeError("incompatible tensor type: a tensor of the host given as data of one of the device")
        if value.shape != self.shape or value.dtype != self.dtype or value.stride() != self.stride():
            raise NotImplementedError("the simulation does not change the shape of a tensor's data")
        self.values, self.block, self.index = value.values, value.block, value.index

    def data_ptr(self) -> int:
        return self.values.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.values.untyped_storage()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
            "memory first."
        )

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def new_tensor(self, data: Any, **kwargs: Any) -> torch.Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **kwargs})

    def tolist(self) -> Any:
        current().wait("tolist")
        return self.values.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({self.values!r}, device='{self.device}')"

    def __deepcopy__(self, memo: dict[int, Any]) -> DeviceTensor:
        copied = DeviceTensor(self.values.detach().clone(), self.index)
        if isinstance(self, torch.nn.Parameter):
            copied._is_param = True  # type: ignore[attr-defined]
        copied.requires_grad_(self.requires_grad)
        memo[id(self)] = copied
        return copied


PlainGenerator = torch.Generator


class Generator(PlainGenerator):
    """torch.Generator, which may be one of the device."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        made: Generator = PlainGenerator.__new__(cls, "cpu")
        return made

    def __init__(self, device: Any = "cpu") -> None:
        wanted = torch.device(device)
        self._on = torch.device("cuda", wanted.index or 0) if wanted.type == "cuda" else wanted
        if self._on.type == "cuda":
            # Operations get another object for the same generator.
            current().generators[self._cdata] = self

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._on

    def manual_seed(self, seed: int) -> Generator:
        self._not_within_a_capture()
        super().manual_seed(seed)
        return self

    def set_state(self, state: torch.Tensor) -> Generator:  # type: ignore[override]
        self._not_within_a_capture()
        if isinstance(state, DeviceTensor):
            raise TypeError("RNG state must be a torch.ByteTensor")
        super().set_state(state)
        return self

    def _not_within_a_capture(self) -> None:
        if self._on.type == "cuda":
            current().refuse_within_a_capture()
