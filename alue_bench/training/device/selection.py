"""The choice of the device and the number format, from `--device`, `--precision` and this machine's hardware."""

from __future__ import annotations

import re
from collections.abc import Iterator

from alue_bench.contract.errors import UsageError
from alue_bench.training.device.hardware import ACCELERATORS, Hardware, Precision

DEVICES = ("auto", "cpu", "gpu", "cuda", "cuda:N", "mps", "xpu")
"""The values that `--device` accepts, for help and messages; N is the number of a CUDA device."""
NUMBERED = r"cuda:([0-9]{1,4})"
"""The regular expression for a value of `--device` that selects one of several CUDA devices, such as "cuda:1"."""
KINDS = {"cuda": "CUDA device", "mps": "Apple GPU (MPS)", "xpu": "Intel GPU (XPU)"}
"""The kinds of accelerators, as named in messages."""


def resolve_device(wanted: str) -> str:
    """Return the kind of device to use: "cpu", "cuda", "mps" or "xpu".

    "cuda:N" also makes that GPU torch's current device in this thread. The number does not affect the results of a run,
    so it is not part of the run's specification.

    Args:
        wanted: One of DEVICES. "auto" selects a CUDA device if there is one, else the CPU; "gpu" selects the
            accelerator of this machine, of any kind.

    Raises:
        UsageError: The device is unknown or not available. The message lists the available devices.
    """
    number = gpu_number(wanted)
    name = "cuda" if number is not None else wanted
    if name not in DEVICES or name == "cuda:N":
        raise UsageError(f"--device {wanted!r} is not one of {', '.join(DEVICES)}")
    if name == "auto":
        return "cuda" if Hardware("cuda").available else "cpu"
    if name == "gpu":
        name = next(_accelerators(), name)
    if name == "gpu" or not Hardware(name).available:
        raise UsageError(f"--device {wanted}: torch {_not_found_message(name)} here; {_available_devices()}")
    if number is not None:
        _make_current(number)
    return name


def gpu_number(wanted: str) -> int | None:
    """Return N if the value of `--device` is "cuda:N", else None."""
    match = re.fullmatch(NUMBERED, wanted)
    return int(match[1]) if match else None


def device_remarks(wanted: str, device: str) -> list[str]:
    """Return messages about the chosen device that users should read before the runs begin.

    Args:
        wanted: The value of `--device`.
        device: The kind of device that `resolve_device` returned for it.
    """
    if Hardware(device).experimental:
        return [
            f"--device {device} is experimental: alue-bench has never been run on an {KINDS[device]}; compare a short "
            "run (--limit-train 200) with --device cpu first"
        ]
    unused = [name for name in _accelerators() if name != device] if wanted == "auto" else []
    return [f"there is an {KINDS[name]}, which auto does not choose; try --device {name}" for name in unused]


def resolve_precision(wanted: str, device: str) -> Precision:
    """Return the number format of matrix products, as chosen by `--precision`.

    Args:
        wanted: "auto", "fp32", "tf32", "bf16" or "fp16". "auto" means bf16 if the hardware computes it faster than
            fp32; else fp16 on GPUs with tensor cores for it (V100, T4); else fp32.
        device: "cpu", "cuda", "mps" or "xpu".

    Raises:
        UsageError: The format is unknown, or the device does not support it.
    """
    hardware = Hardware(device)
    where = "the CPU" if device == "cpu" else device
    if wanted == "auto":
        return "bf16" if hardware.has_fast_bf16 else "fp16" if hardware.has_fast_fp16 else "fp32"
    if wanted not in ("fp32", "tf32", "bf16", "fp16"):
        raise UsageError(f"--precision {wanted!r} is not one of auto, fp32, tf32, bf16, fp16")
    if wanted == "fp16" and not hardware.scales_losses:
        raise UsageError(f"--precision fp16 needs a CUDA device or an Intel GPU; on {where} use bf16 or fp32")
    if wanted == "tf32" and not hardware.has_tf32:
        narrow = "bf16" if hardware.is_rocm else "fp16"
        here = (
            f"{hardware.model_name} has none; use {narrow} or fp32"
            if device == "cuda"
            else f"on {where} use bf16 or fp32"
        )
        raise UsageError(f"--precision tf32 needs an NVIDIA GPU of compute capability 8.0 or higher; {here}")
    return wanted  # type: ignore[return-value]


def _accelerators() -> Iterator[str]:
    """Yield the kinds of accelerators that are available on this machine: "cuda", "mps", "xpu"."""
    return (name for name in ACCELERATORS if Hardware(name).available)


def _not_found_message(name: str) -> str:
    """Return the end of an error message that begins with "torch" and says that it finds no device of this kind."""
    import torch

    built = torch.version.cuda is not None or torch.version.hip is not None
    reason = f" (torch {torch.__version__} is built without CUDA)" if name in ("cuda", "gpu") and not built else ""
    return f"finds no {KINDS.get(name, 'GPU')}{reason}"


def _available_devices() -> str:
    """Return the end of an error message: the values of `--device` that this machine supports."""
    options = ["--device cpu", *(f"--device {name} ({KINDS[name]})" for name in _accelerators())]
    return f"use {' or '.join(options)}"


def _make_current(number: int) -> None:
    """Make the CUDA device with this number torch's current one; raise `UsageError` if there is none."""
    import torch

    count = Hardware("cuda").count
    if number >= count:
        valid = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise UsageError(
            f"--device cuda:{number}: this process sees {count} CUDA device{'s' if count > 1 else ''}; use {valid} "
            "(CUDA_VISIBLE_DEVICES chooses which GPUs it sees)"
        )
    torch.cuda.set_device(number)
