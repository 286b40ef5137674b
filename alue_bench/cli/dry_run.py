"""The output of `--dry-run`: a plan and its estimated cost on this machine, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from alue_bench.contract.registry import Registry
from alue_bench.cost.time import CostEstimate, estimate_plan
from alue_bench.planning.build import Plan
from alue_bench.studies.confirmation import ConfirmingSeeds
from alue_bench.studies.invocation import Invocation
from alue_bench.studies.search import PlannedSearch
from alue_bench.views.streams import Streams

LONG_YARDSTICK_S = 10.0
"""The time in seconds from which on the estimate mentions the yardsticks (TF-IDF baselines). A shorter time is left
out."""


def show_plan(
    invocation: Invocation,
    plan: Plan,
    extra: Mapping[str, Any] | None = None,
    lines: Sequence[str] = (),
    confirming: ConfirmingSeeds | None = None,
) -> int:
    """Show a plan's estimated cost on stderr; with --json, also print the plan and the estimate on stdout.

    Args:
        invocation: The call of the command that would execute the plan without --dry-run.
        plan: The plan.
        extra: Further keys of the JSON output, with their values; None for none.
        lines: Lines of text to show below the estimate.
        confirming: The fresh seeds with which a sweep confirms its recommendations, to show the largest cost of the
            confirming runs; None if the command confirms nothing.

    Returns:
        The exit code.

    Raises:
        UsageError: The plan has no runs, and no runs were left out because of missing files.
    """
    if not plan.absent:
        invocation.check(plan)
    streams = invocation.streams
    estimate = _estimate(plan, invocation.study.registry, streams)
    confirmation_lines, values = [], {}
    if confirming is not None and confirming.seeds:
        flops, seconds = confirming.cost_at_most(estimate)
        confirmation_lines = [
            f"  with the confirmation: at most {confirming.most_runs} runs more, {_cost(flops, seconds)}"
        ]
        values = {"confirmation": {"runs_at_most": confirming.most_runs, "flops": flops, "seconds": seconds}}
    _print_lines([*describe(estimate), *confirmation_lines, *lines], streams)
    streams.document({**invocation.planned_document(plan), **(extra or {}), "estimate": estimate.as_dict() | values})
    return 0


def show_search_costs(planned: PlannedSearch, streams: Streams) -> int:
    """Show the largest possible time of one or more searches: their budgets and the cost of their confirmations.

    Args:
        planned: The searches and their first runs.
        streams: The output streams.

    Returns:
        The exit code.
    """
    searches = planned.searches
    runs = [run for search in searches for run in search.grid.runs.values()]
    estimate = _estimate(replace(planned.plan, runs=runs), planned.invocation.study.registry, streams)
    shares = {
        (search.task, search.model): search.share(search.question.budget + search.confirmation_cost)
        for search in searches
    }
    at_most = None
    if len(estimate.runs) == len(runs):
        at_most = estimate.seconds(here=True, part=lambda run: shares[run.task, run.model])
    time = "unknown time" if at_most is None else f"at most about {duration(at_most)}"
    _print_lines([f"estimate: {time}, one run after the other ({estimate.hardware})", *_basis_lines(estimate)], streams)
    document = estimate.as_dict()
    basis = {name: document[name] for name in ("note", "hardware", "speeds_flops_per_s", "problems")}
    streams.document(
        {
            "searches": [search.as_dict(search.decision()) for search in searches],
            "estimate": basis | {"seconds_at_most": at_most},
        }
    )
    return 0


def _estimate(plan: Plan, registry: Registry, streams: Streams) -> CostEstimate:
    streams.stderr.print("timing a few training steps for the estimate ...", style="dim")
    return estimate_plan(plan, registry)


def _print_lines(lines: Sequence[str], streams: Streams) -> None:
    for line in lines:
        streams.stderr.print(line)


def describe(estimate: CostEstimate) -> list[str]:
    """Return lines of text that describe an estimate.

    The lines state the cost of the runs that this machine can execute, the cost of the runs whose files are missing,
    and what the estimate is based on, such as the speed of a few training steps.
    """
    here, absent = (sum(run.here == side for run in estimate.runs) for side in (True, False))
    cost = {side: _cost(estimate.flops(here=side), estimate.seconds(here=side)) for side in (True, False)}
    lines = [
        f"estimate: {here} {_number_of_runs(here)} can be done here: {cost[True]} ({estimate.hardware})"
        if here
        else "estimate: no run can be done here"
    ]
    if absent:
        lines.append(
            f"  {absent} {_number_of_runs(absent)} more with models that are missing here: {cost[False]} "
            f"(published shapes, text lengths by the tokenizer of {estimate.lengths_of})"
        )
    if estimate.without_data:
        lines.append(
            f"  {estimate.without_data} {_number_of_runs(estimate.without_data)} of tasks whose data is missing: cost "
            "unknown"
        )
    return [*lines, *_basis_lines(estimate)]


def _basis_lines(estimate: CostEstimate) -> list[str]:
    """Return lines that state what an estimate is based on and leaves out, and why parts of it are unknown."""
    lines = []
    if estimate.speeds:
        speeds = ", ".join(f"{speed / 1e9:,.1f}" for speed in estimate.speeds)
        lines.append(
            f"  extrapolated from {speeds} GFLOP/s in a few training steps just now; finished runs and cached states "
            "are not subtracted"
        )
    if estimate.yardstick_s >= LONG_YARDSTICK_S:
        lines.append(
            f"  about {duration(estimate.yardstick_s)} more for TF-IDF with logistic or ridge regression, once for "
            "each task; --no-yardstick leaves it out"
        )
    if estimate.upper_bound:
        lines.append("  an upper bound: early stopping (--patience) may end runs before their last epoch")
    return [*lines, *(f"  {problem}" for problem in estimate.problems)]


def _number_of_runs(number: int) -> str:
    return "run" if number == 1 else "runs"


def _cost(flops: float | None, seconds: float | None) -> str:
    counted = "unknown FLOPs" if flops is None else f"{flops:.3g} FLOPs"
    return f"{counted}, {'unknown time' if seconds is None else f'about {duration(seconds)}'}"


def duration(seconds: float) -> str:
    """Format an estimated duration with few digits: "40 s", "12 min", "3.5 h", "12 days"."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size or (unit == "min" and seconds >= 90):
            count = seconds / size
            return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
    return f"{max(seconds, 1):.0f} s"
