"""The device of a computation with its number format, and the batch sizes that suit both."""

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
"""The use of CUDA graphs for training steps; "auto" uses them if a replayed step is measured to be faster."""


def resolve_graphs(wanted: Graphs, device: str) -> Graphs:
    """Return whether to use CUDA graphs on a device: `wanted`, but "off" on a device that cannot record.

    Raises:
        UsageError: CUDA graphs are wanted ("on"), but the device cannot record them.
    """
    if Hardware(device).can_record:
        return wanted
    if wanted == "on":
        where = "on the CPU" if device == "cpu" else f"on {device}"
        raise UsageError(f"--cuda-graphs on needs a CUDA device; leave it out {where}")
    return "off"


@dataclass(frozen=True)
class Device(Hardware):
    """The hardware and the number format of a computation."""

    precision: Precision
    graphs: Graphs = "off"
    """The use of CUDA graphs for training steps, if the forward pass allows it."""

    @property
    def compute(self) -> torch.dtype:
        """The number format of matrix products. Parameters, residual sums, layer norms and losses stay in fp32.

        TF32 is no storage format: its products are computed from fp32 numbers.
        """
        import torch

        formats = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        return formats[self.precision]

    @property
    def is_narrow(self) -> bool:
        """True if matrix products read numbers of 16 bits (bf16, fp16)."""
        return self.precision in ("bf16", "fp16")

    @property
    def records(self) -> bool:
        """True if training steps are to be captured as graphs, if the forward pass allows it."""
        return self.can_record and self.graphs in ("auto", "on")

    @property
    def few_lengths(self) -> bool:
        """True if padding batches to few different lengths saves time.

        On a CPU, the library that computes low-precision (bf16) matrix products prepares each new shape separately:
        1 to 2 ms and about a megabyte per shape, a dozen shapes per length, kept until a thousand newer shapes have
        been used. A hundred lengths would cost seconds and gigabytes; a few per cent of padding costs less.
        """
        return self.is_narrow and not self.accelerated

    @property
    def tokens_at_once(self) -> int:
        """The number of tokens, with padding, in an inference batch: it keeps the device busy and fits into its memory.

        On a CPU in fp32, a layer's output for about a thousand tokens fits the processor's caches: inference takes 0.6
        times as long as with eight thousand tokens (docs/notes/performance-diary.md). Low-precision formats on a CPU
        need few different shapes instead, see `few_lengths`. An accelerator is given so many tokens that computing
        them takes longer than launching the kernels; if they do not fit into its memory, the batches are halved.
        """
        if self.accelerated:
            return 32_768
        return 8192 if self.is_narrow else 1024


def autocast(device: Device) -> AbstractContextManager[Any]:
    """Return a context manager for mixed-precision forward passes, which does nothing in fp32 and TF32."""
    import torch

    return torch.autocast(device.name, device.compute) if device.is_narrow else nullcontext()


@contextmanager
def number_format(device: Device) -> Iterator[None]:
    """Set torch to compute in the device's number format, without cuDNN's attention, inside the block.

    The settings are global to the process and are restored afterwards.
    """
    with _tf32_products(device), _no_cudnn_attention(device):
        yield


@contextmanager
def _no_cudnn_attention(device: Device) -> Iterator[None]:
    """Keep torch from choosing cuDNN's attention on an NVIDIA GPU inside the block.

    torch prefers it on GPUs of compute capability 9.0 and 10.0 from version 2.11 on. cuDNN takes about half a second to
    prepare each new shape of a batch, and some of its results are wrong (pytorch issues 193893 and 196678).
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
    """Let the GPU compute fp32 matrix products in TF32 inside the block if that is the device's number format.

    Otherwise torch's own setting applies, which is fp32 unless the user has changed it.
    """
    if device.precision != "tf32" or computes_tf32():
        yield
        return
    import torch

    products: Any = torch.backends.cuda.matmul
    before = getattr(products, "fp32_precision", None)  # since torch 2.9
    products.allow_tf32 = True  # the older setting: once the newer one is changed, torch refuses to read the older
    try:
        yield
    finally:
        products.allow_tf32 = False
        if before is not None:
            products.fp32_precision = before


def computes_tf32() -> bool:
    """Return whether this process computes the fp32 matrix products of CUDA devices in TF32 at the moment."""
    import torch

    products: Any = torch.backends.cuda.matmul
    if hasattr(products, "fp32_precision"):
        return bool(products.fp32_precision == "tf32")
    return bool(products.allow_tf32)
