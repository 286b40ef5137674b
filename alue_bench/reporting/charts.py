"""The report's figures: score against time, averages across tasks, learning curves, and scores of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from alue_bench.contract.matched_compute import FULL, matched_limit
from alue_bench.contract.probe import LayerScore
from alue_bench.messages.figure_text import shorten, shorten_names, shorten_title
from alue_bench.reporting.drawing import MUTED, PAPER, SERIES, Picture, line_styles, new_figure, style, to_svg
from alue_bench.reporting.numbers import number_with_noun

WIDTH = 4.3
"""The width in inches of a figure that is placed next to another figure. It is about 310 SVG units, so that the text is
readable on a phone."""
LABEL_ALL_UP_TO = 12
"""The largest number of points in a plot for which every point is labelled. In a plot with more points, only
`MAX_LABELLED` points of the Pareto front are labelled."""
MAX_LABELLED = 5
"""The number of points that are labelled in a plot with more than `LABEL_ALL_UP_TO` points."""


@dataclass(frozen=True)
class Point:
    """A point in a plot: a freezing strategy's mean score and training time in seconds.

    `score_half` and `time_half` are half the widths of their confidence intervals; None if there is only one seed.
    """

    name: str
    score: float
    time: float
    score_half: float | None = None
    time_half: float | None = None


def pareto(points: Sequence[Point], front: Sequence[str], *, name: str, metric: str, figure_title: str) -> Picture:
    """Draw a scatter plot of the strategies' scores against their training times.

    Args:
        points: One point for each strategy.
        front: The names of the strategies on the Pareto front, which no other strategy beats in both score and time.
        name: The picture's name for files and ids, unique on the report page.
        metric: The name of the scores' metric, for the label of the axis.
        figure_title: The title of the figure, such as the names of task and model.
    """
    order = {point.name: point for point in points}
    best = sorted((order[strategy] for strategy in front if strategy in order), key=lambda point: point.time)
    with style():
        figure = new_figure(WIDTH, 3.1)
        axes = figure.add_subplot()
        if len(points) > LABEL_ALL_UP_TO:
            axes.scatter([p.time for p in points], [p.score for p in points], s=12, color=SERIES[0], linewidths=0)
        else:
            for point, look in zip(points, line_styles([point.name for point in points]).values(), strict=True):
                axes.errorbar(
                    point.time,
                    point.score,
                    xerr=point.time_half,
                    yerr=point.score_half,
                    fmt=look["marker"],
                    color=look["color"],
                    markersize=6.5,
                    elinewidth=0.9,
                    capsize=2,
                    zorder=2 + (point.name in front),
                )
        matched = [point for point in points if matched_limit(point.name) is not None]
        axes.scatter(  # a ring around full fine-tuning with fewer steps, which frozen layers must beat
            [p.time for p in matched], [p.score for p in matched], s=110, facecolors="none", edgecolors=MUTED
        )
        axes.plot([p.time for p in best], [p.score for p in best], "--", color=MUTED, linewidth=1, zorder=1)
        axes.set_xlim(left=0)
        axes.margins(x=0.22, y=0.18)
        axes.set_xlim(left=0)
        left, right = axes.get_xlim()
        for point in points if len(points) <= LABEL_ALL_UP_TO else dict.fromkeys([*_evenly_chosen(best), *matched]):
            to_the_left = point.time > left + 0.66 * (right - left)
            axes.annotate(
                shorten(point.name),
                (point.time, point.score),
                xytext=(-7 if to_the_left else 7, 5),
                textcoords="offset points",
                ha="right" if to_the_left else "left",
                fontsize=8.5,
            )
        axes.set(xlabel="training time in seconds (lower is better)", ylabel=f"{shorten(metric)} (higher is better)")
        axes.set_title(shorten_title(figure_title))
        svg = to_svg(figure, name)
    listed = "; ".join(f"{p.name} {p.score:.3f} after {p.time:.1f} s" for p in points[:LABEL_ALL_UP_TO])
    more = f"; and {len(points) - LABEL_ALL_UP_TO} more" if len(points) > LABEL_ALL_UP_TO else ""
    return Picture(
        name,
        svg,
        alt=f"Scatter plot for {figure_title}: {metric} against training time. {listed}{more}. "
        f"Pareto front: {', '.join(p.name for p in best) or 'none'}."
        + (f" Ringed, {FULL} with fewer steps: {', '.join(p.name for p in matched)}." if matched else ""),
    )


def _evenly_chosen(points: Sequence[Point]) -> list[Point]:
    """Choose at most `MAX_LABELLED` points, evenly spread over the list, including the first and the last."""
    last = len(points) - 1
    return (
        [points[index] for index in sorted({round(last * part / (MAX_LABELLED - 1)) for part in range(MAX_LABELLED)})]
        if points
        else []
    )


def averages(values: Sequence[tuple[str, float]], *, name: str, figure_title: str, unit: str, digits: int) -> Picture:
    """Draw a bar chart of each strategy's mean score or mean training time over tasks.

    It corresponds to one half of figure 2 of Betka et al.

    Args:
        values: The pairs of (strategy, mean).
        name: The picture's name for files and ids, unique on the report page.
        figure_title: The title of the figure, such as the names of task and model.
        unit: The label of the axis, such as "mean test score". If it ends with "seconds", the bars have another colour.
        digits: The number of decimal places in the bars' labels.
    """
    seconds = unit.endswith("seconds")
    with style():
        figure = new_figure(WIDTH, 1.0 + 0.3 * len(values))
        axes = figure.add_subplot()
        positions = range(len(values))
        bars = axes.barh(positions, [number for _, number in values], height=0.62, color=SERIES[1 if seconds else 0])
        axes.bar_label(bars, labels=[f"{number:.{digits}f}" for _, number in values], padding=3, fontsize=8.5)
        axes.set_yticks(list(positions), shorten_names([strategy for strategy, _ in values]))
        axes.margins(x=0.18)
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        axes.set(xlabel=shorten_title(unit), title=shorten_title(figure_title))
        svg = to_svg(figure, name)
    listed = "; ".join(f"{strategy} {number:.{digits}f}" for strategy, number in values)
    return Picture(name, svg, alt=f"Bars for {figure_title}, {unit}: {listed}.")


def learning_curves(
    curves: Mapping[str, Sequence[Sequence[tuple[float, float]]]], *, name: str, metric: str, figure_title: str
) -> Picture:
    """Draw dev scores by epoch: for each strategy, a thin line for each seed and a thick line for the mean.

    Args:
        curves: The curves by strategy: for each seed, a sequence of (epoch, dev score).
        name: The picture's name for files and ids, unique on the report page.
        metric: The name of the scores' metric, for the label of the axis.
        figure_title: The title of the figure, such as the names of task and model.
    """
    from matplotlib.ticker import MaxNLocator

    with style():
        figure = new_figure(WIDTH, 3.0)
        axes = figure.add_subplot()
        ends, lines = [], []
        for name_shown, (strategy, look) in zip(
            shorten_names(list(curves)), line_styles(list(curves)).items(), strict=True
        ):
            seeds = curves[strategy]
            if len(seeds) > 1:
                for points in seeds:
                    axes.plot(*zip(*points, strict=True), color=look["color"], linewidth=0.6, alpha=0.45)
            mean = _mean_curve(seeds)
            if not mean:
                continue
            lines += axes.plot(*zip(*mean, strict=True), label=name_shown, linewidth=1.8, markersize=4.5, **look)
            ends.append(f"{strategy} ends at {mean[-1][1]:.3f}")
        axes.set(xlabel="epoch", ylabel=f"dev {shorten(metric)}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(shorten_title(figure_title))
        if ends:
            # The lines are passed explicitly, since matplotlib would leave out labels that begin with an underscore.
            axes.legend(lines, [str(line.get_label()) for line in lines], loc="best")
        svg = to_svg(figure, name)
    return Picture(name, svg, alt=f"Dev {metric} by epoch for {figure_title}: {'; '.join(ends) or 'no finite values'}.")


def layer_scores(seeds: Sequence[Sequence[LayerScore]], *, name: str, strategy: str, figure_title: str) -> Picture:
    """Draw the layer scores by which a strategy chose its layers: bars for means over runs, dots for single runs.

    If more than half of the runs chose a layer, its bar is filled. If there are several runs, the number above a bar is
    the number of runs that chose the layer.

    Args:
        seeds: For each run, the scores of all layers, from layer 0 upwards.
        name: The picture's name for files and ids, unique on the report page.
        strategy: The strategy's name.
        figure_title: The title of the figure, such as the names of task and model.
    """
    from matplotlib.ticker import MaxNLocator

    layers = range(len(seeds[0]))
    means = [fmean(run[layer].score for run in seeds) for layer in layers]
    times = [sum(not run[layer].frozen for run in seeds) for layer in layers]
    with style():
        figure = new_figure(WIDTH, 2.6)
        axes = figure.add_subplot()
        most = [2 * count > len(seeds) for count in times]
        bars = axes.bar(
            layers, means, width=0.7, color=[SERIES[0] if chosen else PAPER for chosen in most], edgecolor=SERIES[0],
            linewidth=1,
        )  # fmt: skip
        if len(seeds) > 1:
            for run in seeds:
                axes.scatter(
                    layers, [layer_score.score for layer_score in run], s=9, color=SERIES[1], linewidths=0, zorder=3
                )
            axes.bar_label(bars, labels=[str(count) if count else "" for count in times], padding=3, fontsize=8.5)
        axes.margins(y=0.16)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="x", visible=False)
        axes.set(xlabel="layer", ylabel=f"score by {shorten(strategy)}", title=shorten_title(figure_title))
        svg = to_svg(figure, name)
    scores_text = "; ".join(
        f"layer {layer} {mean:.3g}" + (f", chosen in {count}" if count else "")
        for layer, mean, count in zip(layers, means, times, strict=True)
    )
    return Picture(
        name,
        svg,
        alt=(
            f"Bars for {figure_title}: score of each layer by {strategy}, mean of "
            f"{number_with_noun(len(seeds), 'run')}. {scores_text}."
        ),
        caption=f"{strategy}: filled bars are the layers that {'most runs' if len(seeds) > 1 else 'the run'} chose",
    )


def _mean_curve(seeds: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Return the mean of the curves of several seeds, as pairs of (epoch, mean).

    The mean at each epoch is taken over the seeds that have a value at this epoch.
    """
    by_step: dict[float, list[float]] = {}
    for points in seeds:
        for step, value in points:
            by_step.setdefault(step, []).append(value)
    return [(step, sum(values) / len(values)) for step, values in sorted(by_step.items())]


def predicted_against_gold(values: Sequence[tuple[float, float]], *, name: str, figure_title: str) -> Picture:
    """Draw a scatter plot of a regression task's predictions against the gold values.

    Args:
        values: The pairs of (gold, predicted).
        name: The picture's name for files and ids, unique on the report page.
        figure_title: The title of the figure, such as the names of task and model.
    """
    with style():
        figure = new_figure(WIDTH, 3.3)
        axes = figure.add_subplot()
        gold, predicted = zip(*values, strict=True)
        axes.axline((0, 0), slope=1, color=MUTED, linewidth=0.9, linestyle="--")
        axes.scatter(gold, predicted, s=9, color=SERIES[0], alpha=0.5, linewidths=0)
        low, high = min(*gold, *predicted), max(*gold, *predicted)
        pad = 0.04 * (high - low or 1)
        axes.set(
            xlim=(low - pad, high + pad),
            ylim=(low - pad, high + pad),
            xlabel="gold",
            ylabel="predicted",
            title=shorten_title(figure_title),
        )
        svg = to_svg(figure, name)
    return Picture(
        name,
        svg,
        alt=(
            f"Scatter plot for {figure_title}: predicted against gold, {len(values)} test predictions; dashed line: "
            "equality."
        ),
    )
