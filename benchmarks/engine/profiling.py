"""A profile of our engine's training step: the time for each kind of operation (option `--profile`)."""

from __future__ import annotations

import argparse
import math
import re
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alue_bench.contract.strategy import FreezePlan
from benchmarks.tables import Sheet, number, show
from benchmarks.timing.fitting import fine_tune, with_prefix
from benchmarks.timing.rows import chosen_rows
from benchmarks.timing.starting_point import StartingPoint, encoder_shape, freeze_plan, prepared

if TYPE_CHECKING:
    from alue_bench.training.architecture.encoder_stack import EncoderStack, LastLayer
    from alue_bench.training.device.precision import Device

PROFILED_STEPS = 20
LAST_STEP = 1 + 2 * PROFILED_STEPS
"""The number of steps to train: one for warm-up, `PROFILED_STEPS` timed without the profiler, and as many with the
profiler."""
KINDS: Mapping[str, str] = {
    "matrix products": r"(add|b|baddb)?mm|addbmm|baddbmm|matmul|linear|mkldnn_linear\w*|_?scaled_dot_product\w*",
    "normalisation": r"(native_)?layer_norm(_backward)?",
    "GELU": r"gelu(_backward)?",
    "softmax": r"_?(log_)?softmax(_backward_data)?",
    "dropout masks": r"random_|bernoulli_?|ge_?|(native_)?dropout(_backward)?",
    "copies and casts": r"copy_|_?to(_copy)?|clone|contiguous|cat|_foreach_copy_|_local_scalar_dense|pin_memory",
    "optimiser and clipping": r"_fused_adamw?_|_foreach_(norm|mul_)|linalg_vector_norm|dot|sqrt_|_amp_\w+",
    "embedding and look-up": r"embedding\w*|index_select\w*|index",
    "sums and elementwise products": r"(add|sub|mul|div|addcmul|sum|neg|where)_?",
    "allocating and filling": r"(fill|zero)_|(new_)?(zeros|ones|empty|full)\w*|resize_",
}
"""The kinds of operation, each with the pattern of its torch operations' names, from which the prefix "aten::" was
removed."""
ELSE = "everything else"


def kind_of(operation: str) -> str:
    """Return the kind of operation (see `KINDS`) to which an operation belongs, from its name in the profiler."""
    if operation.startswith("Optimizer."):
        return "optimiser and clipping"
    name = operation.removeprefix("aten::")
    return next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, name)), ELSE)


def profile(options: argparse.Namespace) -> int:
    """Time and profile training steps of our engine, print the share of each kind of operation, and return exit code 0.

    Args:
        options: The parsed options. Only the first strategy and the first number format are used.
    """
    from alue_bench.measure.peak import attainable_flops_per_s
    from alue_bench.training.device.precision import Device

    rows, setup = chosen_rows(options)
    strategy, precision = (options.strategy or ["bottom3top4"])[0], (options.precision or ["fp32"])[0]
    plan = freeze_plan(strategy, encoder_shape(setup))
    epochs = math.ceil(LAST_STEP / math.ceil(setup.rows / setup.batch_size))
    start = prepared(replace(setup, epochs=epochs), rows)
    device = Device(setup.device, precision)
    result = profiled(start, plan, device)
    attainable = attainable_flops_per_s(device.name, device.compute)
    title = f"{strategy}, {precision}, {device.name}: own time of operations over {PROFILED_STEPS} steps"
    show([kinds_sheet(result, title)], closing_lines(result, attainable))
    return 0


@dataclass(frozen=True)
class Profile:
    """The mean time of a training step, and the mean times of its operations by kind."""

    clock_s: float
    """The mean seconds of a step, timed without the profiler."""
    kinds: list[tuple[str, float, str]]
    """A triple for each kind of operation, the most expensive kind first: the name of the kind, its seconds per step
    with the profiler, and the name of its most expensive operation."""
    flops: float
    """The mean FLOPs of a training step, computed by a formula."""

    @property
    def operations_s(self) -> float:
        """The seconds per step in all operations, measured with the profiler."""
        return sum(own for _, own, _ in self.kinds)


def profiled(start: StartingPoint, plan: FreezePlan, device: Device) -> Profile:
    """Train for `LAST_STEP` steps and return the profile of an average step.

    Args:
        start: The initial model and data.
        plan: The freeze plan.
        device: The device and the number format.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    from alue_bench.training.forward import choose_forward

    stack = start.fresh_stack(plan)
    forward = choose_forward(stack, device.compute)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.accelerated else [])]
    watch, marks = profiler(activities=activities), []

    def on_step(done: int, total: int) -> None:
        if done in (1, 1 + PROFILED_STEPS, LAST_STEP):
            device.synchronise()
            marks.append(time.perf_counter())
        if done == 1 + PROFILED_STEPS:
            watch.start()
        if done == LAST_STEP:
            raise _Enough

    with tempfile.TemporaryDirectory() as folder:
        examples = with_prefix(start, stack, forward, plan, device, start.train, Path(folder))
        try:
            fine_tune(start, plan, stack, forward, examples, 1, device, on_step)
        except _Enough:
            watch.stop()
    cached, last_layer = examples.prefix is not None, forward.last_layer
    return Profile(
        clock_s=(marks[1] - marks[0]) / PROFILED_STEPS,
        kinds=[(kind, own / PROFILED_STEPS, most) for kind, own, most in own_times(watch.key_averages(), device)],
        flops=flops_of_step(start, stack, plan, cached=cached, last_layer=last_layer),
    )


class _Enough(Exception):
    """The exception that ends the training after the last profiled step."""


def own_times(events: Iterable[Any], device: Device) -> list[tuple[str, float, str]]:
    """Sum the profiled time of operations by kind, the most expensive kind first.

    The time of an operation excludes the time of operations that it calls.

    Args:
        events: The profiler's averaged events (`key_averages()`).
        device: The device whose time is summed.

    Returns:
        For each kind: its name, its seconds, and the name of its most expensive operation.
    """
    times: dict[str, dict[str, float]] = {}
    for event in events:
        if event.device_type.name == "CPU":  # kernels are counted for the operation that launched them
            own = event.self_device_time_total if device.accelerated else event.self_cpu_time_total
            times.setdefault(kind_of(event.key), {})[event.key] = own / 1e6
    rows = [(kind, sum(own.values()), max(own, key=lambda name: own[name])) for kind, own in times.items()]
    return sorted(rows, key=lambda row: -row[1])


def flops_of_step(
    start: StartingPoint, stack: EncoderStack, plan: FreezePlan, *, cached: bool, last_layer: LastLayer
) -> float:
    """Return the mean FLOPs of a training step, by a formula.

    Args:
        start: The initial model and data.
        stack: The model.
        plan: The freeze plan.
        cached: Whether the output of the frozen bottom layers is cached, so that their FLOPs do not count.
        last_layer: The tokens for which the last layer is computed, such as "whole" for all of them; see `LastLayer`.
    """
    from alue_bench.measure.flops import training_flops

    one_epoch, two_epochs = (
        training_flops(stack, plan, start.train.lengths, epochs, prefix_cached=cached, last_layer=last_layer)
        for epochs in (1, 2)
    )
    return (two_epochs - one_epoch) / math.ceil(len(start.train) / start.setup.batch_size)


def kinds_sheet(profile: Profile, title: str) -> Sheet:
    """Return the table of a profile: the milliseconds per step and the share of each kind of operation."""
    return Sheet(
        title=title,
        columns=("kind", "most of it", "ms a step", "share"),
        rows=tuple(
            (kind, most, number(own * 1000, ".2f"), number(own / profile.operations_s, ".1%"))
            for kind, own, most in profile.kinds
        ),
    )


def closing_lines(profile: Profile, attainable: float) -> list[str]:
    """Return sentences, for the end of the report, on the time of a training step and the achieved FLOP/s.

    Args:
        profile: The profile.
        attainable: The FLOP/s of a single large matrix product on the device.
    """
    reached = profile.flops / profile.clock_s
    return [
        f"{profile.clock_s * 1000:.2f} ms a step by the clock, "
        f"{profile.operations_s * 1000:.2f} ms in operations while profiled.",
        f"{reached / 1e9:.1f} GFLOP/s in training steps, {reached / attainable:.0%} of the {attainable / 1e9:.1f} "
        f"GFLOP/s that one large product attains.",
    ]
