"""The report's figures of results across tasks: changes with their intervals, and performance profiles."""

from __future__ import annotations

from collections.abc import Sequence

from alue_bench.messages.figure_text import shorten_names, shorten_title
from alue_bench.reporting.across_tasks import AcrossTasks, StrategyAcross
from alue_bench.reporting.charts import WIDTH
from alue_bench.reporting.drawing import MUTED, SERIES, Picture, line_styles, new_figure, style, to_svg
from alue_bench.reporting.numbers import percent, signed

MAX_DRAWN = 16
"""The largest number of strategies in a figure of changes."""
MAX_CURVES = 7
"""The largest number of strategies in a performance profile, which is the number of colours in `SERIES`."""


def changes(result: AcrossTasks, *, name: str, figure_title: str) -> Picture:
    """Draw each strategy's mean change of score over tasks, with its interval, and the changes on single tasks as dots.

    The changes are against the baseline, which has no row itself.

    Args:
        result: The results across tasks.
        name: The picture's name for files and ids, unique on the report page.
        figure_title: The title of the figure.
    """
    rows = [row for row in result.rows if row.change][:MAX_DRAWN]
    with style():
        figure = new_figure(WIDTH, 1.1 + 0.32 * len(rows))
        axes = figure.add_subplot()
        axes.axvline(0, color=MUTED, linewidth=0.9, linestyle="--")
        for position, row in enumerate(rows):
            assert row.change
            mean = row.change.mean
            axes.scatter(list(row.changes.values()), [position] * len(row.changes), s=8, color=MUTED, linewidths=0)
            axes.errorbar(
                mean.mean,
                position,
                xerr=mean.half_width,
                fmt="o",
                color=SERIES[0],
                markersize=6,
                elinewidth=1.4,
                capsize=3,
            )
        axes.set_yticks(range(len(rows)), shorten_names([row.strategy for row in rows]))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.set(
            xlabel=f"change of the score against {shorten_title(result.baseline)}", title=shorten_title(figure_title)
        )
        svg = to_svg(figure, name)
    listed = "; ".join(f"{row.strategy} {_mean_with_interval(row)}" for row in rows)
    return Picture(name, svg, alt=f"Mean change over tasks with its interval, for {figure_title}: {listed}.")


def _mean_with_interval(row: StrategyAcross) -> str:
    assert row.change
    half = row.change.mean.half_width
    return signed(row.change.mean.mean) + ("" if half is None else f" ± {half:.3f}")


def profile(result: AcrossTasks, *, name: str, figure_title: str) -> Picture:
    """Draw the performance profiles: the share of tasks (y) on which a strategy is within a distance (x) of the best.

    On a task, a strategy is within a distance of the best if its score is at most this far below the best score.

    Args:
        result: The results across tasks.
        name: The picture's name for files and ids, unique on the report page.
        figure_title: The title of the figure.
    """
    rows = _leading(result.rows)
    with style():
        figure = new_figure(WIDTH, 3.0)
        axes = figure.add_subplot()
        names = shorten_names([row.strategy for row in rows])
        percentages = [100 * distance for distance in result.distances]
        lines = []
        for look, row in zip(line_styles([row.strategy for row in rows]).values(), rows, strict=True):
            lines += axes.plot(percentages, [100 * share for share in row.profile], linewidth=1.6, markersize=5, **look)
        unit = "what was learnt" if result.relative else "the metric"
        axes.set(xlabel=f"distance from the best strategy, % of {unit}", ylabel="% of tasks", ylim=(-4, 104))
        axes.set_title(shorten_title(figure_title))
        axes.legend(lines, names, loc="best")
        svg = to_svg(figure, name)
    listed = "; ".join(f"{row.strategy} {', '.join(percent(share) for share in row.profile)}" for row in rows)
    distances = ", ".join(percent(distance) for distance in result.distances)
    return Picture(
        name,
        svg,
        alt=f"Performance profile for {figure_title}: share of tasks within {distances} of the best: {listed}.",
    )


def _leading(rows: Sequence[StrategyAcross]) -> list[StrategyAcross]:
    """Return the strategies to draw: the baseline, and those that are often close to the best; at most MAX_CURVES.

    A strategy is often close to the best if the sum of its shares of tasks, over all distances, is large.
    """
    best = sorted(rows[1:], key=lambda row: -sum(row.profile))[: MAX_CURVES - 1]
    return [row for row in rows if row is rows[0] or row in best]
