"""Checks that the device computes correct results, made before anything is timed.

Most checks train a small BERT and need only torch and transformers. The last one runs the GPU tests of the test suite,
if pytest and the packages that the tests import are installed.
"""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from alue_bench.contract.strategy import EncoderShape, FreezePlan
from alue_bench.measure.best_effort import best_effort, cause_of
from benchmarks.gpu.arms import Arm
from benchmarks.gpu.sizes import Scale
from benchmarks.gpu.training import RandomStart, device_of, settings_restored, starting_point, train
from benchmarks.processes import REPOSITORY, environment
from benchmarks.timing.starting_point import freeze_plan

if TYPE_CHECKING:
    import torch

GPU_TESTS = ("tests/test_cuda_graphs.py",)
"""The test files that contain tests with "gpu" in their names, which need a GPU."""
NEEDED_BY_TESTS = ("pytest", "hypothesis", "mlflow", "datasets", "pydantic", "xdist")
TESTS_LIMIT_S = 90
SMALL = Scale(
    layers=4,
    hidden=64,
    heads=4,
    vocabulary=500,
    batch_size=8,
    steps={"engine": 4},
    whole_rows=None,
    whole_epochs=1,
    repetitions=1,
)
"""The size of the small model that the checks train."""
LEARNING_RATE = 1e-3
EXACT, ROUNDED = 1e-3, 1e-2
"""The largest accepted difference between losses that should agree, in fp32 and in bf16. `EXACT` is also the largest
accepted difference between logits or gradients in fp32, as a share of the largest value."""


@dataclass(frozen=True)
class Check:
    """The result of one check of the device."""

    arm: str
    """The property that is checked; the field is called `arm` as in the other results of the record."""
    passed: bool | None
    """True if the check passed, False if it failed, None if it could not be made."""
    said: str
    """The measured difference, or the reason for a failure, as text."""


def all_checks(device: str, *, can_record: bool) -> Iterator[Check]:
    """Make all checks of the device and yield their results; a check that raises an error has failed.

    Args:
        device: The name of the device.
        can_record: Whether the device supports CUDA graphs.
    """
    checks: Mapping[str, Callable[[], tuple[bool | None, str]]] = {
        "fp32: our forward and backward pass equal the library's": lambda: _lean_equals_library(device),
        "fp32: a training ends where it ends on the CPU": lambda: _equal(
            _trained(Arm(precision="fp32"), device), _trained(Arm(precision="fp32"), "cpu"), EXACT
        ),
        "fp32: stored outputs of frozen layers change nothing": lambda: _equal(
            _trained(Arm(strategy="bottom2", precision="fp32"), device),
            _trained(Arm(strategy="bottom2", precision="fp32", cached=False), device),
            EXACT,
        ),
        "bf16: losses are finite and near those of fp32": lambda: _equal(
            _trained(Arm(), device), _trained(Arm(precision="fp32"), device), ROUNDED
        ),
    }
    if can_record:
        for precision, tolerance in (("fp32", EXACT), ("bf16", ROUNDED)):
            for strategy in ("full", "bottom2"):
                arm = Arm(strategy=strategy, precision=precision)
                name = f"{precision}: {strategy} with CUDA graphs equals {strategy} without"
                checks = {**checks, name: partial(_with_graphs, arm, device, tolerance)}
        checks = {**checks, "CUDA graphs draw new dropout masks at each replay": partial(_masks_change, device)}
    for name, check in checks.items():
        yield _make(name, check)
    if device != "cpu":
        yield _suite()


def attainable(device: str) -> dict[str, float]:
    """Return the FLOP/s of a large matrix product, by number format, for the formats that the device supports."""
    import torch

    from alue_bench.measure.peak import attainable_flops_per_s

    formats = {"fp32": torch.float32, "bf16": torch.bfloat16}
    problems: list[str] = []
    rates = {
        name: best_effort(f"no rate in {name}", partial(attainable_flops_per_s, device, dtype), problems.append)
        for name, dtype in formats.items()
    }
    return {name: rate for name, rate in rates.items() if rate is not None}


def _make(name: str, check: Callable[[], tuple[bool | None, str]]) -> Check:
    """Make one check and return its result; an error counts as a failure."""
    try:
        with settings_restored():
            return Check(name, *check())
    except Exception as error:  # on unknown hardware, any error is a result
        return Check(name, False, cause_of(error))


def _start(arm: Arm, device: str) -> RandomStart:
    """Return the initial model and data for a training of eight steps that checks the device.

    The learning rate is high enough to change the loss visibly within these steps.
    """
    start = starting_point(arm, SMALL, device, rows=32, epochs=2)
    return replace(start, setup=replace(start.setup, lr=LEARNING_RATE))


def _without_dropout(start: RandomStart) -> RandomStart:
    """Return the same initial model and data without dropout, so that losses do not depend on random numbers."""
    from copy import deepcopy

    from torch import nn

    model = deepcopy(start.model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return replace(start, model=model)


def _trained(arm: Arm, device: str) -> list[float]:
    """Return the loss of each step of a training without dropout."""
    return list(train(_without_dropout(_start(arm, device)), arm, device_of(arm, device), 1, _ignore).losses)


def _ignore(done: int, total: int = 0) -> None:
    """Do nothing; the function is called after each training step."""


def _with_graphs(arm: Arm, device: str, tolerance: float) -> tuple[bool, str]:
    """Check that losses agree with and without CUDA graphs, in training runs without dropout on the same batches.

    Args:
        arm: The way of training.
        device: The name of the device.
        tolerance: The largest accepted difference between two losses.

    Returns:
        Whether the check passed, and a text with the largest difference.
    """
    off, on = (_trained(replace(arm, graphs=graphs), device) for graphs in ("off", "on"))
    return _equal(on, off, tolerance)


def _masks_change(device: str) -> tuple[bool, str]:
    """Check that replayed CUDA graphs draw new dropout masks at each step.

    The model is trained repeatedly on one batch with a learning rate near 0, so that only dropout changes the loss.
    """
    arm, replays = Arm(precision="fp32", graphs="on"), 6
    start = starting_point(arm, SMALL, device, rows=SMALL.batch_size or 1, epochs=replays)
    start = replace(start, setup=replace(start.setup, lr=1e-12))
    losses = train(start, arm, device_of(arm, device), 1, _ignore).losses
    different = len({f"{loss:.6f}" for loss in losses})
    return different == replays, f"{different} different losses in {replays} steps on the same texts"


def _equal(values: list[float], expected: list[float], tolerance: float) -> tuple[bool, str]:
    """Return whether two lists of losses agree within a tolerance, and a text with the largest difference."""
    gap = max(abs(value - reference) for value, reference in zip(values, expected, strict=True))
    passed = math.isfinite(gap) and gap <= tolerance
    return passed, f"losses differ by {gap:.1e} at most; {tolerance:.0e} is accepted"


def _lean_equals_library(device: str) -> tuple[bool, str]:
    """Check that our hand-written BERT layers give the same logits and gradients as transformers' modules.

    The comparison is made in fp32 without dropout.
    """
    import numpy as np
    import torch

    from alue_bench.data.batches import Padding, batches
    from alue_bench.training.forward import LibraryForward, choose_forward

    start = _without_dropout(_start(Arm(precision="fp32"), device))
    plan: FreezePlan = freeze_plan("full", EncoderShape(start.setup.layers, start.setup.hidden))
    batch = next(iter(batches(start.train, [np.arange(8)], Padding(0)))).to(device)
    results: list[tuple[torch.Tensor, torch.Tensor]] = []
    for make in (lambda stack: choose_forward(stack, torch.float32), LibraryForward):
        stack = start.fresh_stack(plan)
        stack.model.train()
        forward: Any = make(stack)
        logits = forward.logits(batch)
        loss: Any = torch.nn.functional.cross_entropy(logits, batch.targets)
        loss.backward()
        gradients = [p.grad.flatten() for p in stack.model.parameters() if p.grad is not None]
        results.append((logits.detach(), torch.cat(gradients)))
    gap = max(float((ours - library).abs().max() / library.abs().max()) for ours, library in zip(*results, strict=True))
    passed = math.isfinite(gap) and gap <= EXACT
    return passed, f"differ by {gap:.1e} of the largest value at most; {EXACT:.0e} is accepted"


def _suite() -> Check:
    """Run the test suite's GPU tests in another process, if the packages that they import are installed."""
    name = f"the suite's GPU tests ({', '.join(GPU_TESTS)})"
    if missing := [module for module in NEEDED_BY_TESTS if not _installed(module)]:
        return Check(name, None, f"not run: {', '.join(missing)} is missing")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", "gpu", *GPU_TESTS]
    try:
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=TESTS_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check(name, False, f"not done after {TESTS_LIMIT_S} s")
    last = next(iter(done.stdout.strip().splitlines()[-1:]), f"exit code {done.returncode}")
    passed = done.returncode == 0 if " passed" in last or " failed" in last else None  # None: all were skipped
    return Check(name, passed, last.strip("= "))


def _installed(module: str) -> bool:
    """Return whether a package is really installed; a substitute (see `bare_machine`) does not count."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # a stand-in in `sys.modules` has no spec
        return False
