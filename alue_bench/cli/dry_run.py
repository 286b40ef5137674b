"""`--dry-run`: the plan and what it would cost here, for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alue_bench.cli.invocation import Invocation, Streams
from alue_bench.estimate import Estimate, estimate_plan
from alue_bench.plan import Plan
from alue_bench.plugins import Registry


def show_plan(
    plan: Plan, registry: Registry, invocation: Invocation, streams: Streams, more: Mapping[str, Any] | None = None
) -> int:
    """The estimate on stderr; with --json the whole document on stdout, and `more` in it. Returns the exit code.

    Raises UsageError where there is nothing that could be run, here or with files that are missing.
    """
    if not plan.absent:
        invocation.check(plan)
    streams.talk.print("timing a few training steps, to estimate ...", style="dim", markup=False)
    estimate = estimate_plan(plan, registry)
    for line in describe(estimate):
        streams.talk.print(line, markup=False, highlight=False, soft_wrap=True)
    streams.document({**invocation.planned_document(plan), **(more or {}), "estimate": estimate.as_dict()})
    return 0


def describe(estimate: Estimate) -> list[str]:
    """A line for each thing that one should know before starting."""
    here, absent = (sum(run.here == side for run in estimate.runs) for side in (True, False))
    lines = [
        f"estimate: {here} {_runs(here)} can be done here: {_cost(estimate, here=True)} ({estimate.hardware})"
        if here
        else "estimate: no run can be done here as things are"
    ]
    if absent:
        lines.append(
            f"  {absent} {_runs(absent)} more with the models that are missing: {_cost(estimate, here=False)} "
            f"(shapes as published, lengths by the tokeniser of {estimate.lengths_of})"
        )
    if estimate.without_data:
        lines.append(
            f"  {estimate.without_data} {_runs(estimate.without_data)} of tasks whose data is missing: cost unknown"
        )
    if estimate.speeds:
        speeds = ", ".join(f"{speed / 1e9:,.1f}" for speed in estimate.speeds)
        lines.append(
            f"  a guess from {speeds} GFLOP/s in a few training steps just now; finished runs and cached states, which "
            "are not done again, are not subtracted"
        )
    return [*lines, *(f"  {problem}" for problem in estimate.problems)]


def _runs(number: int) -> str:
    return "run" if number == 1 else "runs"


def _cost(estimate: Estimate, *, here: bool) -> str:
    flops, seconds = estimate.flops(here=here), estimate.seconds(here=here)
    counted = "unknown FLOPs" if flops is None else f"{flops:.3g} FLOPs"
    return f"{counted}, {'unknown time' if seconds is None else f'about {duration(seconds)}'}"


def duration(seconds: float) -> str:
    """No more exact than a guess is: "40 s", "12 min", "3.5 h", "12 days"."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size or (unit == "min" and seconds >= 90):
            count = seconds / size
            return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
    return f"{max(seconds, 1):.0f} s"
