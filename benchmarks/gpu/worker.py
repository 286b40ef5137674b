"""The work of a measuring process: one measurement after the other, until the time is used up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from alue_bench.measure.best_effort import cause_of
from alue_bench.training.device.errors import collect_and_release
from benchmarks.command_line import say
from benchmarks.gpu.arms import Arm
from benchmarks.gpu.catalogue import COMPILE_S, Item
from benchmarks.gpu.checks import all_checks, attainable
from benchmarks.gpu.kernels import counted
from benchmarks.gpu.record import ATTAINABLE, DONE, NOT_DONE, PARTLY, Record
from benchmarks.gpu.sizes import Scale
from benchmarks.gpu.training import timed

PACES = (0.2, 5.0)
"""The smallest and the largest factor by which estimated times are corrected. The factor is the time that the previous
measurements (without the device checks) took, divided by their estimated time."""
LEAST_LIMIT_S, TIMES_ESTIMATE = 90.0, 12.0
"""The time limit of one training: `LEAST_LIMIT_S` seconds, or `TIMES_ESTIMATE` times its estimated time if that is
longer. If torch.compile compiles the model, twice `COMPILE_S` is added. A training that exceeds the limit is given up.
"""


class DeviceUnusable(Exception):
    """The error that ends a process whose GPU context no longer works; another process continues."""


@dataclass(frozen=True)
class Work:
    """The measurements that a process has to make, the device, and the time at which to stop."""

    items: Sequence[Item]
    scale: Scale
    device: str
    accelerated: bool
    can_record: bool
    """True if the device supports CUDA graphs."""
    until: float
    """The time, in seconds since 1970, after which no further training begins."""
    parent: int
    """The id of the process that waits for this one; if it has ended, no further round of training runs begins."""


def work_off(work: Work, record: Record, after_each: Callable[[], None]) -> None:
    """Make the measurements that fit into the time and record each result; record the remaining ones as not done.

    Args:
        work: The measurements.
        record: The file of results.
        after_each: A function that is called after each measurement.

    Raises:
        DeviceUnusable: An error has left the GPU unusable for this process.
    """
    estimated = spent = 0.0
    for item in work.items:
        entry = record.entry(item)
        if entry["state"] == DONE or item.name in entry["problems"]:
            continue
        pace = min(max(spent / estimated, PACES[0]), PACES[1]) if estimated else 1.0
        estimate = item.estimate(work.scale, accelerated=work.accelerated) * pace
        left_s = work.until - time.time() if os.getppid() == work.parent else 0.0
        if estimate / max(1, item.repetitions) > left_s:
            record.finish(item, NOT_DONE, f"{max(left_s, 0):.0f} s were left, and it takes about {estimate:.0f} s")
            continue
        say(f"{item.name}: {item.question} (about {estimate:.0f} s, {left_s:.0f} s are left)")
        began = time.time()
        _measure(item, work, record)
        after_each()
        if item.kind != "checks":  # the time of the checks does not predict that of training runs
            spent += time.time() - began
            estimated += item.estimate(work.scale, accelerated=work.accelerated)


def _measure(item: Item, work: Work, record: Record) -> None:
    """Make one measurement: the device checks, or several rounds of training runs.

    A round trains each arm (way of training) once. Every second round trains the arms in reverse order.

    Raises:
        DeviceUnusable: An error has left the GPU unusable for this process.
    """
    if item.kind == "checks":
        record.begin(item, item.name, 3 * item.estimate(work.scale, accelerated=work.accelerated) + LEAST_LIMIT_S)
        results = record.entry(item)["results"] = []
        for check in all_checks(work.device, can_record=work.can_record):
            results.append(asdict(check))
            record.write()
        record.entry(item).pop("running", None)
        record.finish(item, DONE)
        return
    if item.kind == "steps" and ATTAINABLE not in record.content:
        record.content[ATTAINABLE] = attainable(work.device)
    rounds = min(item.repetitions, work.scale.repetitions)
    longest = 0.0
    for repetition in range(1, rounds + 1):
        left_s = work.until - time.time() if os.getppid() == work.parent else 0.0
        if repetition > 1 and longest > left_s:
            record.finish(item, PARTLY, f"{repetition - 1} of {rounds} rounds")
            return
        began = time.time()
        for arm in item.arms if repetition % 2 else item.arms[::-1]:
            if not record.has(item, arm.name, repetition) and arm.name not in record.entry(item)["problems"]:
                _measure_arm(item, arm, repetition, work, record)
        longest = max(longest, time.time() - began)
    record.finish(item, DONE)


def _measure_arm(item: Item, arm: Arm, repetition: int, work: Work, record: Record) -> None:
    """Train one arm (way of training) of a measurement once, and record the result or the reason for a failure.

    Raises:
        DeviceUnusable: An error has left the GPU unusable for this process.
    """
    estimate = item.estimate(work.scale, accelerated=work.accelerated) / (len(item.arms) * item.repetitions)
    compiling = COMPILE_S if arm.compiled else 0.0
    record.begin(item, arm.name, max(LEAST_LIMIT_S, TIMES_ESTIMATE * estimate) + 2 * compiling)
    make: Callable[[], Any] = {
        "steps": lambda: timed(arm, work.scale, work.device, repetition),
        "whole": lambda: timed(arm, work.scale, work.device, repetition, whole=True),
        "kernels": lambda: counted(arm, work.scale, work.device),
    }[item.kind]
    try:
        result = make()
    except Exception as error:  # whatever the error, the other arms must still be measured
        record.give_up(item, arm.name, cause_of(error))
        say(f"{item.name}: {arm.name}: {cause_of(error)}")
        _check_usable(work, error)
    else:
        record.add(item, result)
    if work.accelerated:
        collect_and_release(
            work.device
        )  # so that the next training's peak memory does not include memory cached by this one


def _check_usable(work: Work, error: Exception) -> None:
    """Raise DeviceUnusable if an error has left the GPU unusable, for example after an access outside its memory."""
    if not work.accelerated:
        return
    import torch

    try:
        torch.ones(1, device=work.device).item()
    except RuntimeError as broken:
        raise DeviceUnusable(cause_of(broken)) from error
