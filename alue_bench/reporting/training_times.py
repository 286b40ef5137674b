"""The comparison of training times, by pairs of runs of one session.

The speed of a machine changes from day to day: by other programs, heat, drivers, a virtual machine's neighbours. Times
are therefore compared within a session if possible. A session is one execution of a command on one machine. A pair
consists of a strategy's run and the baseline's run with the same seed in the same session. If there is no such pair,
because the runs were made by different commands, the ratio of the times is shown without an interval and with a mark
(`ACROSS_SESSIONS_MARK`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alue_bench.evaluation.intervals import LEVEL, Estimate, estimate
from alue_bench.evaluation.ratios import Ratio, geometric_mean
from alue_bench.reporting.numbers import decimal

ACROSS_SESSIONS_MARK = "§"
"""The mark of a time that is compared with a time of another session."""
REUSED_OUTPUTS_MARK = "°"
"""The mark of a training time that contains the recorded cost of stored outputs of frozen layers."""
TRAIN_S = "runtime/train_s"

Run = Mapping[Any, Any]
"""A row of the frame of runs: one run's values by column."""


@dataclass(frozen=True, kw_only=True)
class TimeComparison:
    """The training times of a strategy's runs, compared with those of the baseline's runs with the same seeds."""

    change: Estimate | None
    """The mean relative change of the time against the baseline; −0.3 is 30 % less. None without a pair of times."""
    speed_up: Ratio | None
    """The geometric mean of the baseline's time divided by the strategy's; None without a pair of times."""
    ratios: tuple[float, ...]
    """The baseline's time divided by the strategy's, for each pair."""
    within_sessions: bool
    """True if there is at least one pair whose two runs are of the same session (one execution of a command on one
    machine); only such pairs are used. False if there is none. All pairs are then used, without an interval."""
    reused: int
    """The number of the strategy's runs that read the outputs of frozen layers from the cache. Their training time
    contains the seconds that computing these outputs took, possibly in another session."""

    @property
    def across_sessions(self) -> bool:
        """True if times of different sessions are compared."""
        return bool(self.ratios) and not self.within_sessions


def compare_times(runs: Sequence[Run], pairs: Iterable[tuple[Run, Run]]) -> TimeComparison:
    """Compare the training times of a strategy with those of the baseline.

    Args:
        runs: The strategy's runs.
        pairs: Pairs of a run of the strategy and the baseline's run with the same seed (and fold).
    """
    timed = [(ours, base) for ours, base in pairs if _is_time(ours.get(TRAIN_S)) and _is_time(base.get(TRAIN_S))]
    same = [(ours, base) for ours, base in timed if (session := _session(ours)) and session == _session(base)]
    ratios = tuple(float(base[TRAIN_S]) / float(ours[TRAIN_S]) for ours, base in same or timed)
    change, speed_up = estimate([1 / ratio - 1 for ratio in ratios]), geometric_mean(ratios)
    if not same:
        change = change and Estimate(change.mean, None, change.values)
        speed_up = speed_up and Ratio(speed_up.mean, None, speed_up.values)
    return TimeComparison(
        change=change,
        speed_up=speed_up,
        ratios=ratios,
        within_sessions=bool(same),
        reused=sum(run.get("runtime/prefix_reused") == 1 for run in runs),
    )


def _is_time(value: object) -> bool:
    return isinstance(value, float | int) and math.isfinite(value) and value > 0


def _session(run: Run) -> str | None:
    """Return the session of a run; None if it was not recorded."""
    session = run.get("session")  # a missing value is pandas' NA
    return session if isinstance(session, str) else None


def train_mark(times: TimeComparison | None) -> str:
    """Return the mark to print after a training time, with a leading space; empty if no mark applies."""
    return f" {REUSED_OUTPUTS_MARK}" if times and times.reused else ""


def session_mark(times: TimeComparison | None) -> str:
    """Return the mark to print after a change of time or a speed-up, with a leading space; empty if no mark applies."""
    return f" {ACROSS_SESSIONS_MARK}" if times and times.across_sessions else ""


def ratio_text(ratio: Ratio | None) -> str:
    """Return a speed-up with its interval as text, such as "1.62× [1.58, 1.66]"; empty for None."""
    if ratio is None:
        return ""
    bounds = "" if ratio.interval is None else f" [{decimal(ratio.interval[0], 2)}, {decimal(ratio.interval[1], 2)}]"
    return f"{decimal(ratio.mean, 2)}×{bounds}"


def time_legend(compared: Sequence[TimeComparison | None], *, marks_only: bool = False) -> list[str]:
    """Return the lines of a legend that explain the speed-ups and the marks of the training times that are shown.

    Args:
        compared: The comparisons of training times.
        marks_only: Whether to explain only the marks.
    """
    times = [comparison for comparison in compared if comparison is not None]
    lines = []
    if not marks_only and any(comparison.speed_up for comparison in times):
        lines.append(
            "Δ time, speed-up: pairs of runs with the same seed from one session, that is, one command on one "
            f"machine. Speed-up: geometric mean, [{LEVEL:.0%} t-interval of the logarithms]."
        )
    if any(comparison.across_sessions for comparison in times):
        lines.append(
            f"{ACROSS_SESSIONS_MARK} the runs are of different sessions, in which the machine may not have been "
            "equally fast, so that there is no interval. One command with all strategies and --rerun compares times."
        )
    if any(comparison.reused for comparison in times):
        lines.append(
            f"{REUSED_OUTPUTS_MARK} runs read the outputs of frozen layers from the cache. Their time contains the "
            "seconds that computing these took, possibly in another session."
        )
    return lines


def time_record(times: TimeComparison | None) -> dict[str, Any]:
    """Return a comparison of training times as a flat dict for CSV and JSON, with None for missing values."""
    interval = times.speed_up.interval if times and times.speed_up else None
    return {
        "speed_up_low": interval[0] if interval else None,
        "speed_up_high": interval[1] if interval else None,
        "times_of_one_session": times.within_sessions if times and times.ratios else None,
        "prefixes_reused": times.reused if times else None,
    }
