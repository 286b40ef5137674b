"""The report of the sweep benchmark: the seconds of all cells together and of each cell."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.tables import Sheet, number, span
from benchmarks.timing.cells import BASE, SEPARATE, SHARED
from benchmarks.timing.comparison import Summary, ratio, summary
from benchmarks.timing.measuring import Measurement

KEPT = {SHARED: "in one store", SEPARATE: "each its own", BASE: "at every step"}
"""The entry of the report's column "prefixes" for each way of training: where the outputs of frozen bottom layers are
stored, or when they are computed."""


@dataclass(frozen=True)
class Total:
    """The seconds that one way of training needs for all cells together, summarised over repetitions."""

    way: str
    seconds: Summary
    prefix_s: Summary
    """The part of the seconds spent on computing the outputs of frozen bottom layers."""


def totals(measurements: Sequence[Measurement], ways: Sequence[str]) -> list[Total]:
    """Return, for each way of training, the seconds of the whole sweep: the sum over all its training runs.

    The sums of the repetitions are summarised by their median, minimum and maximum.
    """

    def sums(way: str, name: str) -> Summary:
        by_repetition: dict[int, float] = {}
        for measurement in measurements:
            if measurement.way == way:
                by_repetition[measurement.repetition] = by_repetition.get(measurement.repetition, 0.0) + getattr(
                    measurement, name
                )
        added = summary(by_repetition.values())
        assert added is not None
        return added

    return [Total(way, sums(way, "seconds"), sums(way, "prefix_s")) for way in ways]


def against(sums: Sequence[Total], way: str) -> dict[str, float | None]:
    """Return the median seconds of each way of training divided by those of `way`.

    The values are None if `way` was not measured.
    """
    base = next((total.seconds for total in sums if total.way == way), None)
    return {total.way: ratio(total.seconds, base) for total in sums}


def document(sums: Sequence[Total]) -> dict[str, Any]:
    """Return all values of the table of `total_sheet`, for the `--json` file."""
    return {
        "totals": [
            {
                "way": total.way,
                "median_s": total.seconds.median,
                "min_s": total.seconds.low,
                "max_s": total.seconds.high,
                "median_prefix_s": total.prefix_s.median,
                "against_separate": against(sums, SEPARATE)[total.way],
                "against_trainer": against(sums, BASE)[total.way],
            }
            for total in sums
        ]
    }


def total_sheet(sums: Sequence[Total], cells: int, precision: str) -> Sheet:
    """Return the table of the seconds of each way of training, summed over cells; `cells` is the number of cells."""
    separate, trainer = against(sums, SEPARATE), against(sums, BASE)
    return Sheet(
        title=f"{cells} cells, {precision}: seconds of training, prefixes included",
        columns=("way", "prefixes", "median s", "min–max", "for prefixes", f"÷ {SEPARATE}", f"÷ {BASE}"),
        rows=tuple(
            (
                total.way,
                KEPT[total.way],
                number(total.seconds.median, ".2f"),
                span(total.seconds, ".2f"),
                number(total.prefix_s.median, ".2f"),
                number(separate[total.way], ".2f"),
                number(trainer[total.way], ".2f"),
            )
            for total in sums
        ),
    )


def cell_sheet(measurements: Sequence[Measurement], cells: Mapping[str, str], ways: Sequence[str]) -> Sheet:
    """Return the table of the median seconds of each cell with each way of training.

    Args:
        measurements: The measurements.
        cells: The strategy that freezes the bottom N and the top M layers, by the cell's name "N,M".
        ways: The ways of training.
    """

    def median(strategy: str, way: str, name: str) -> str:
        values = [getattr(m, name) for m in measurements if (m.strategy, m.way) == (strategy, way)]
        return number(statistics.median(values), ".2f")

    return Sheet(
        title="Median seconds of each cell",
        columns=("cell", "strategy", *ways, *(f"{way}: prefix" for way in (SHARED, SEPARATE))),
        rows=tuple(
            (
                *(cell, strategy),
                *(median(strategy, way, "seconds") for way in ways),
                *(median(strategy, way, "prefix_s") for way in (SHARED, SEPARATE)),
            )
            for cell, strategy in cells.items()
        ),
    )


def closing_line(sums: Sequence[Total]) -> str:
    """Return a sentence on the time of a sweep relative to separate runs and to `Trainer`."""
    of = {total.way: total for total in sums}
    parts = [
        f"One sweep takes {number(against(sums, SEPARATE)[SHARED], '.2f')} of the time of separate runs, "
        f"and {number(ratio(of[SHARED].prefix_s, of[SEPARATE].prefix_s), '.2f')} of their time on prefixes"
    ]
    if BASE in of:
        parts.append(f"{number(against(sums, BASE)[SHARED], '.2f')} of the time of {BASE}")
    return "; ".join(parts) + "."
