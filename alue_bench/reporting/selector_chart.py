"""The figure of a ranking of selectors (strategies that choose their layers): mean regret, and regret on each task."""

from __future__ import annotations

from alue_bench.messages.figure_text import shorten_names, shorten_title
from alue_bench.reporting.charts import WIDTH
from alue_bench.reporting.drawing import MUTED, SERIES, Picture, new_figure, style, to_svg
from alue_bench.reporting.numbers import number_with_noun, signed_percent
from alue_bench.reporting.selector_ranking import RankedSelector, SelectorRanking

MAX_DRAWN = 40
"""The largest number of rows of the figure."""


def regrets(ranking: SelectorRanking, *, name: str) -> Picture:
    """Draw the mean regret of selectors with its interval, and the regret on each task as a small dot.

    Regret is the score that a selector loses against the best freezing setting that costs no more. First, each selector
    has a row with the mean over its numbers of layers. The rows for single numbers of layers follow. At most
    `MAX_DRAWN` rows are drawn.

    Args:
        ranking: The ranking of the selectors of one model.
        name: The picture's name for files and ids.
    """
    rows = [row for row in (*ranking.families, *ranking.rows) if row.regret][:MAX_DRAWN]
    of_all = sum(row.count is None for row in rows)
    with style():
        figure = new_figure(WIDTH, 1.2 + 0.24 * len(rows))
        axes = figure.add_subplot()
        axes.axvline(0, color=MUTED, linewidth=0.9, linestyle="--")
        axes.axhline(of_all - 0.5, color=MUTED, linewidth=0.6)
        for position, row in enumerate(rows):
            assert row.regret
            values, mean = list(row.regret.by_task.values()), row.regret.estimate
            axes.scatter([100 * value for value in values], [position] * len(values), s=8, color=MUTED, linewidths=0)
            axes.errorbar(
                100 * mean.mean,
                position,
                xerr=None if mean.half_width is None else 100 * mean.half_width,
                fmt="o" if row.count is None else "s",
                color=SERIES[0] if row.count is None else SERIES[1],
                markersize=5,
                elinewidth=1.3,
                capsize=2.5,
            )
        axes.set_yticks(range(len(rows)), shorten_names([_label(row) for row in rows]))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        title = f"Regret of selectors, {ranking.model}, {number_with_noun(len(ranking.tasks), 'task')}"
        axes.set(xlabel="regret, % of what full fine-tuning learnt", title=shorten_title(title))
        svg = to_svg(figure, name)
    listed = "; ".join(f"{_label(row)} {signed_percent(row.regret.estimate.mean, 1)}" for row in rows if row.regret)
    return Picture(name, svg, alt=f"Regret of each selector with its interval: {listed}.")


def _label(row: RankedSelector) -> str:
    return f"{row.family}, all" if row.count is None else row.name
