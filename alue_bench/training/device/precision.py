"""The device and the number format of a computation, and the batch sizes that suit both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alue_bench.contract.errors import UsageError
from alue_bench.training.device.hardware import Hardware, Precision

if TYPE_CHECKING:
    import torch

Graphs = Literal["auto", "on", "off"]
"""The use of CUDA graphs in training steps; "auto" uses them if a replayed step is measured to be faster."""


def resolve_graphs(wanted: Graphs, device: str) -> Graphs:
    """Return the setting for CUDA graphs: `wanted`, but "off" in place of "auto" if the device cannot capture them.

    Args:
        wanted: The value of `--cuda-graphs`.
        device: The kind of device: "cpu", "cuda", "mps" or "xpu".

    Raises:
        UsageError: CUDA graphs are wanted ("on"), but the device cannot capture them.
    """
    if Hardware(device).supports_graphs:
        return wanted
    if wanted == "on":
        where = "on the CPU" if device == "cpu" else f"on {device}"
        raise UsageError(f"--cuda-graphs on needs a CUDA device; leave it out {where}")
    return "off"


@dataclass(frozen=True)
class Device(Hardware):
    """The device of a computation, together with its number format and the use of CUDA graphs."""

    precision: Precision
    """The number format of matrix products."""
    graphs: Graphs = "off"
    """The use of CUDA graphs in training steps; has no effect if the forward pass does not support them."""

    @property
    def compute(self) -> torch.dtype:
        """The number format of matrix products. Parameters, residual sums, layer norms and losses stay in fp32.

        For TF32 this is fp32, because products in TF32 are computed from tensors stored as fp32.
        """
        import torch

        formats = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        return formats[self.precision]

    @property
    def is_16_bit(self) -> bool:
        """True if matrix products read numbers of 16 bits (bf16, fp16)."""
        return self.precision in ("bf16", "fp16")

    @property
    def captures_graphs(self) -> bool:
        """True if training steps may be captured as CUDA graphs, provided that the forward pass supports it."""
        return self.supports_graphs and self.graphs in ("auto", "on")

    @property
    def rounds_lengths(self) -> bool:
        """True if it saves time to pad batches to only a few different lengths.

        On a CPU, the library that computes low-precision (bf16) matrix products prepares each new matrix shape
        separately. This takes 1 to 2 ms and about a megabyte per shape, which is kept until a thousand newer shapes
        have been used. With a dozen shapes per batch length, a hundred lengths would cost seconds and gigabytes; a few
        per cent of additional padding costs less.
        """
        return self.is_16_bit and not self.accelerated

    @property
    def tokens_per_inference_batch(self) -> int:
        """The largest number of tokens, with padding, in an inference batch.

        The number is chosen for speed. On a CPU in fp32, a layer's output for about a thousand tokens fits the
        processor's caches: inference takes 0.6 times as long as with eight thousand tokens
        (docs/notes/performance-diary.md). In low-precision formats on a CPU, the number is larger, because it matters
        more that there are few different shapes; see `rounds_lengths`. On an accelerator, the number is large enough
        for the computation to take longer than launching the kernels. If a batch does not fit into memory, the batches
        are halved.
        """
        if self.accelerated:
            return 32_768
        return 8192 if self.is_16_bit else 1024


def autocast(device: Device) -> AbstractContextManager[Any]:
    """Return torch's autocast context for mixed-precision forward passes.

    In fp32 and TF32, the context does nothing.
    """
    import torch

    return torch.autocast(device.name, device.compute) if device.is_16_bit else nullcontext()


@contextmanager
def number_format(device: Device) -> Iterator[None]:
    """Make torch compute in the device's number format, and not use cuDNN's attention, inside the `with` block.

    The settings are global to the process and are restored afterwards.
    """
    with _tf32_products(device), _no_cudnn_attention(device):
        yield


@contextmanager
def _no_cudnn_attention(device: Device) -> Iterator[None]:
    """Prevent torch from using cuDNN's attention kernel on an NVIDIA GPU inside the `with` block.

    From version 2.11 on, torch prefers this kernel on GPUs of compute capability 9.0 and 10.0. cuDNN takes about half a
    second to prepare each new shape of a batch, and some of its results are wrong (pytorch issues 193893 and 196678).
    """
    import torch

    settings: Any = torch.backends.cuda
    if not device.is_nvidia or not settings.cudnn_sdp_enabled():
        yield
        return
    settings.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        settings.enable_cudnn_sdp(True)


@contextmanager
def _tf32_products(device: Device) -> Iterator[None]:
    """Make the GPU compute fp32 matrix products in TF32 inside the `with` block, if the device's format is TF32.

    Otherwise torch's own setting applies, which is fp32 unless the user has changed it.
    """
    if device.precision != "tf32" or computes_tf32():
        yield
        return
    import torch

    products: Any = torch.backends.cuda.matmul
    before = getattr(products, "fp32_precision", None)  # since torch 2.9
    products.allow_tf32 = True  # the older setting: torch raises an error on reading it once the newer one was set
    try:
        yield
    finally:
        products.allow_tf32 = False
        if before is not None:
            products.fp32_precision = before


def computes_tf32() -> bool:
    """Return whether torch currently computes the fp32 matrix products of CUDA devices in TF32."""
    import torch

    products: Any = torch.backends.cuda.matmul
    if hasattr(products, "fp32_precision"):
        return bool(products.fp32_precision == "tf32")
    return bool(products.allow_tf32)
