"""The tables of the GPU benchmark's report: goals, checks, measurements, extrapolated sweep, missing measurements."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.arms import BEST, ENGINE, WAYS
from benchmarks.gpu.catalogue import Item
from benchmarks.gpu.extrapolation import Sweep, extrapolated
from benchmarks.gpu.goals import JUDGED_ON, goals, ratios, timings
from benchmarks.gpu.record import ATTAINABLE, DONE, NOT_DONE, PARTLY, Record
from benchmarks.gpu.sizes import TASKS
from benchmarks.machine import described
from benchmarks.tables import Sheet, number, span
from benchmarks.timing.comparison import summary

if TYPE_CHECKING:
    from benchmarks.gpu.worker import Work

MS, PER_THOUSAND = 1000, 1000


def dry_run_sheet(work: Work, minutes: float) -> Sheet:
    """Return a table of the planned measurements: their estimated seconds, and the minutes until each one ends.

    Args:
        work: The planned measurements.
        minutes: The available time, which the title shows.
    """
    rows, sum_s = [], 0.0
    for item in work.items:
        estimate = item.estimate(work.scale, accelerated=work.accelerated)
        sum_s += estimate
        rows.append((item.name, item.question, number(estimate, ".0f"), number(sum_s / 60, ".1f")))
    where = "BERT-base on an H200" if work.accelerated else "tiny sizes on a CPU"
    return Sheet(
        title=f"Estimates for {where}; {minutes:g} min are given",
        columns=("measurement", "question", "s", "min until its end"),
        rows=tuple(rows),
    )


def all_sheets(record: Record, items: Sequence[Item]) -> list[Sheet]:
    """Return all tables for which there are results."""
    sheets = [goal_sheet(record)]
    for item in items:
        if record.entry(item)["results"]:
            make = {"checks": check_sheet, "kernels": kernel_sheet, "whole": whole_sheet, "steps": step_sheet}
            sheets.append(make[item.kind](record, item))
    if swept := sweeps(record):
        sheets.append(sweep_sheet(swept))
    if missing := missing_sheet(record, items):
        sheets.append(missing)
    return sheets


def goal_sheet(record: Record) -> Sheet:
    """Return the table of speed goals, whose verdicts are given only on the GPU for which the goals are set."""
    judged = JUDGED_ON in str(record.hardware.get("accelerator", ""))
    words = {True: "met", False: "missed", None: "not measured"}

    def verdict(met: bool | None) -> str:
        return words[met] if judged or met is None else "not judged on this device"

    return Sheet(
        title="Goals for BERT-base in bf16 on an H200",
        columns=("goal", "verdict", "target", "measured"),
        rows=tuple(
            (
                goal.text,
                verdict(goal.met),
                f"{'≥' if goal.at_least else '≤'} {goal.target:g}",
                number(goal.value, ".0f" if goal.target > 100 else ".2f"),
            )
            for goal in goals(record)
        ),
    )


def check_sheet(record: Record, item: Item) -> Sheet:
    """Return the table of the results of the device checks."""
    words = {True: "passed", False: "FAILED", None: "not made"}
    results = record.entry(item)["results"]
    return Sheet(
        title=f"{item.name}: {item.question}",
        columns=("check", "result", "detail"),
        rows=tuple((result["arm"], words[result["passed"]], result["said"]) for result in results),
    )


def step_sheet(record: Record, item: Item) -> Sheet:
    """Return the table of a measurement that times training steps.

    Ratios to the first arm are computed within each round, from examples per second.
    """
    first = item.arms[0].name
    attainable = record.content.get(ATTAINABLE, {})

    def row(arm: str) -> tuple[str, ...]:
        done = timings(record, item.name, arm)
        speed = summary(result["examples_per_s"] for result in done)
        step_s = statistics.median(result["step_s"] for result in done)
        slower = summary(1 / value for value in ratios(record, item.name, arm, first, "examples_per_s"))
        peaks = [result["peak_mib"] for result in done if result["peak_mib"] is not None]
        joules = [
            result["step_j"] / (result["examples_per_s"] * result["step_s"]) for result in done if result["step_j"]
        ]
        flops = attainable.get(done[0]["settings"]["precision"])
        used = done[0]["flops_per_step"] / step_s / flops if flops else None
        return (
            *(arm, str(len(done)), number(speed.median if speed else None, ".0f"), span(speed, ".0f")),
            *(number(step_s * MS, ".2f"), number(slower.median if slower else None, ".2f"), span(slower, ".2f")),
            *(number(used, ".0%"), number(max(peaks, default=None), ".0f")),
            number(statistics.median(joules) * PER_THOUSAND if joules else None, ".1f"),
            str(max(result["graphs"] for result in done)),
        )

    return Sheet(
        title=f"{item.name}: {item.question}",
        columns=(
            *("arm", "rounds", "examples/s", "min–max", "ms a step", "time ÷ first", "min–max"),
            *("of one large product", "peak MiB of device", "J for 1,000 examples", "graphs"),
        ),
        rows=tuple(row(arm.name) for arm in item.arms if timings(record, item.name, arm.name)),
    )


def whole_sheet(record: Record, item: Item) -> Sheet:
    """Return the table of a measurement that times whole training runs, which are as long as a real training."""
    first = item.arms[0].name

    def row(arm: str) -> tuple[str, ...]:
        done = timings(record, item.name, arm)
        seconds = summary(result["training_s"] for result in done)
        slower = summary(ratios(record, item.name, arm, first, "training_s"))
        return (
            *(arm, str(len(done)), number(seconds.median if seconds else None, ".2f"), span(seconds, ".2f")),
            number(statistics.median(result["prefix_s"] for result in done), ".2f"),
            number(slower.median if slower else None, ".2f"),
            number(statistics.median(result["examples_per_s"] for result in done), ".0f"),
        )

    return Sheet(
        title=f"{item.name}: {item.question}",
        columns=("arm", "rounds", "s", "min–max", "of them for prefixes", "time ÷ first", "examples/s"),
        rows=tuple(row(arm.name) for arm in item.arms if timings(record, item.name, arm.name)),
    )


def kernel_sheet(record: Record, item: Item) -> Sheet:
    """Return the table of kernels, copies and launches per training step; on a CPU, of operations."""
    kernels = "operations" if record.tiny else "kernels"
    return Sheet(
        title=f"{item.name}: {item.question}",
        columns=("arm", "", f"{kernels} a step", "copies and fills", "launches", "ms in kernels"),
        rows=tuple(
            (
                *(result["arm"], "", number(result["kernels"], ".0f"), number(result["copies"], ".0f")),
                *(number(result["launches"], ".0f"), number(result["busy_s"] * MS, ".2f")),
            )
            for result in record.entry(item)["results"]
        ),
    )


def sweeps(record: Record) -> list[Sweep]:
    """Return the extrapolated time of a sweep over freezing strategies for each measured way of training."""
    extrapolations = []
    done = record.items.get("sweep", {}).get("results", ())
    for way in (ENGINE, BEST, BEST.replace("trainer", "loop")):
        cells: dict[str, list[dict[str, Any]]] = {}
        for result in done:
            if result["settings"]["way"] == way:
                cells.setdefault(result["settings"]["strategy"], []).append(result)
        step_s = {name: statistics.median(result["step_s"] for result in of_cell) for name, of_cell in cells.items()}
        rows = TASKS["mdd"].rows
        whole_prefix = statistics.median(
            result["prefix_s"] / result["rows"] * rows
            for result in cells.get("head-only", [{"prefix_s": 0.0, "rows": 1}])
        )
        batch_size = next((result["settings"]["batch_size"] for result in done), 1)
        swept = extrapolated(way, step_s, steps=rows / batch_size, prefix_s=whole_prefix, stores=way == ENGINE)
        extrapolations += [swept] if swept else []
    return extrapolations


def sweep_sheet(swept: Sequence[Sweep]) -> Sheet:
    """Return a table of the extrapolated times of a sweep over freezing strategies."""
    least = next((sweep for sweep in swept if sweep.way == ENGINE), swept[0])
    return Sheet(
        title="Extrapolated: training all 91 cells on MDD, 10 epochs, without loading, scoring and recording",
        columns=("way", "timed cells", "minutes", "of them for prefixes", "time ÷ first", "largest error of the model"),
        rows=tuple(
            (
                *(sweep.way, str(sweep.timed_cells), number((sweep.seconds + sweep.prefix_s) / 60, ".1f")),
                number(sweep.prefix_s / 60, ".1f"),
                number((sweep.seconds + sweep.prefix_s) / (least.seconds + least.prefix_s), ".2f"),
                number(sweep.largest_error, ".0%"),
            )
            for sweep in swept
        ),
    )


def missing_sheet(record: Record, items: Sequence[Item]) -> Sheet | None:
    """Return a table of measurements that are not done and arms that failed, with reasons; None if there are none."""
    rows = []
    for item in items:
        entry = record.entry(item)
        if entry["state"] != DONE:
            state = PARTLY if entry["results"] else NOT_DONE
            rows.append((item.name, state, entry.get("why") or "the time was used up"))
        rows += [(f"{item.name}: {arm}", "failed", why) for arm, why in entry["problems"].items()]
    return Sheet("Not done", ("measurement", "state", "reason"), tuple(rows)) if rows else None


def closing_lines(record: Record, items: Sequence[Item]) -> list[str]:
    """Return sentences that explain the tables, and a line with command, date, hardware and libraries."""
    settings = record.head["settings"]
    ways = {arm.way for item in items for arm in item.arms}
    libraries = ", ".join(f"{name} {version}" for name, version in settings["libraries"].items() if version)
    lines = ["The sizes are tiny, so that the times say nothing."] if record.tiny else []
    lines += [
        "Random weights, token ids and labels. Each time is that of the second of two epochs, except in `whole`. "
        "A ratio compares two trainings of the same round; the table shows medians. The share of one large product is "
        "the model FLOPs utilisation: the operations that a step needs, without padding, per second, relative to the "
        "rate of a large matrix product in the same number format. The last column counts the batch shapes whose step "
        "was replayed as a CUDA graph.",
        "; ".join(f"{way}: {WAYS[way]}" for way in WAYS if way in ways) + ".",
    ]
    if any(way.startswith("loop") for way in ways):
        lines.append(
            "accelerate is missing, so that Trainer cannot run: loop-… is a plain loop with the settings of trainer-…, "
            "and does less in a step than Trainer."
        )
    return [*lines, f"`{record.head['command']}`, {record.head['date']}; {described(record.hardware)}; {libraries}."]


def results(record: Record, items: Sequence[Item]) -> dict[str, Any]:
    """Return the values that the tables derive from the results: goals, medians and the extrapolated sweep."""
    return {
        "goals": [asdict(goal) | {"met": goal.met} for goal in goals(record)],
        "medians": {
            item.name: {
                arm.name: {
                    name: statistics.median(result[name] for result in done)
                    for name in ("examples_per_s", "step_s", "training_s", "prefix_s")
                }
                for arm in item.arms
                if item.kind in ("steps", "whole") and (done := timings(record, item.name, arm.name))
            }
            for item in items
        },
        "sweep": [asdict(sweep) for sweep in sweeps(record)],
    }
