"""The evaluation of a grid of freezing settings: heat maps of score and time, the Pareto front, a recommendation.

Everything here is a function of a table of finished runs, one row per run, with the columns

    repeat, fold                       optional: of a cross-validation, whose folds are averaged over like seeds
    task, model, strategy, seed        as recorded; the name of a strategy gives its cell in the grid
    lr, epochs, batch_size, max_length each value of one that varies has a grid of its own
    selection/dev_score                the dev score of the selected epoch, by which settings are chosen
    test/score                         the primary metric on the test split, which is reported
    runtime/train_s                    seconds of training; the frozen prefix is charged to every run that used it
    flops/train_vs_full                optional: training FLOPs relative to full fine-tuning, computed from shapes
    selection/trivial_score            optional: the dev score of a baseline that ignores the text
    selection/above_trivial_error      optional: standard error of the dev score's distance from the trivial score

and, for titles, `data_source` ("sample" or "real") and `primary_metric` where they are available.

Settings are chosen by the dev split and reported by the test split. The test scores take no part in the choice, so that
the reported loss is unbiased. The chosen setting's dev score is biased upwards, since it was chosen among many.

Where the reference's dev score is not significantly above the trivial score, nothing is recommended: see
`nothing_learnt`, and `alue_bench.evaluation.learning` for the test.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.cells import cell_of
from alue_bench.evaluation.learning import REMEDY, Learning, learning
from alue_bench.messages.figure_text import short
from alue_bench.planning.grid import DEFAULT_TOLERANCE, SETTINGS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCE = "full"
CLEARLY = 0.1
"""The share of operations that another setting must save against the fastest one before the measured times are
doubted."""
TRIVIAL, TRIVIAL_ERROR = "selection/trivial_score", "selection/above_trivial_error"
DEV, TEST, SECONDS, FLOPS = "selection/dev_score", "test/score", "runtime/train_s", "flops/train_vs_full"

# Okabe and Ito's colours, which can be distinguished without full colour vision.
MARK, FRONT, OTHERS, REFERENCE_COLOUR = "#D55E00", "#0072B2", "#9A9A9A", "#000000"
COLOUR_MAP = "cividis"
CHARACTER = 0.1
"""The width of a character of a title, in inches."""
LONGEST_TITLE = 200
"""The most characters of a title, which may take several lines."""
PARETO_WIDTH = 11.5
"""The width of the figure of the Pareto front, in inches."""


@dataclass(frozen=True)
class Group:
    """A grid: the runs of one task and model with one value of each hyper-parameter that varies."""

    task: str
    model: str
    settings: dict[str, float]
    """The hyper-parameters that vary in the table, with this group's values."""
    cells: pd.DataFrame
    """The table of the grid's strategies, from the function `cells`."""
    metric: str = "score"
    sample: bool = False
    """True if runs used the embedded sample data."""
    conditions: str = ""
    """Further conditions that distinguish the grid from others of the same task and model, in words."""

    @property
    def title(self) -> str:
        """The title for figures and tables."""
        settings = "".join(f", {name} {value:g}" for name, value in self.settings.items())
        said = f", {self.conditions}" if self.conditions else ""
        return f"{self.task}, {self.model}{settings}{said}{' [sample data]' if self.sample else ''}"

    @property
    def name(self) -> str:
        """The name for files."""
        return "-".join([self.task, self.model, *(f"{name}{value:g}" for name, value in self.settings.items())])


@dataclass(frozen=True)
class Recommendation:
    """A recommendation: the setting with the least measured training time whose dev score is within the tolerance."""

    strategy: str
    reference: str
    """The setting with which others are compared: `full` where it was run, otherwise the best one by dev score."""
    tolerance: float
    """The loss that counts as the same score, as a share of the reference's dev score."""
    dev_score: float
    dev_change: float
    """The change relative to the reference's dev score, which the choice depends on."""
    test_score: float
    test_change: float
    """The change relative to the reference's test score: the loss (negative) or gain to expect. The choice does not
    depend on it."""
    train_s: float
    saving: float
    """The share of the reference's training time that is saved."""
    candidates: int
    """The number of settings within the tolerance."""
    settings: int
    """The number of settings to choose from."""
    seeds: int
    left_out: int = 0
    """The number of further settings, which have runs that failed or have no score."""
    flops_share: float = math.nan
    """The training FLOPs as a share of full fine-tuning's; nan if not recorded."""
    fewest_flops: str = ""
    """The setting within the tolerance that needs clearly fewer operations than this one, so that measured times and
    counted operations disagree; empty if there is none."""
    fewest_flops_share: float = math.nan
    folds: int = 0
    """The number of folds that scores and times are means of; 0 without cross-validation."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values for JSON, with None for nan."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }

    def sentence(self) -> str:
        """Return the recommendation as a sentence."""
        seeds = "one seed" if self.seeds == 1 else f"mean of {self.seeds} seeds"
        if self.folds:
            seeds = f"mean of {self.folds} folds" + (f" with {self.seeds} seeds each" if self.seeds > 1 else "")
        return (
            f"{self.strategy}: test score {self.test_score:.3f}, {_change(self.test_change)} against {self.reference}; "
            f"{self.train_s:.1f} s of training, {self.saving:.0%} less. The fastest of {self.candidates} settings "
            f"(of {self.settings}) whose dev score is within {self.tolerance * 100:g}% of {self.reference}'s; "
            f"chosen by dev score, reported on test, {seeds}" + self._left_out() + self._doubt()
        )

    def _doubt(self) -> str:
        if not self.fewest_flops:
            return ""
        return (
            f"; but {self.fewest_flops} needs fewer operations ({self.fewest_flops_share:.0%} of full's against "
            f"{self.flops_share:.0%}): measured times may mislead if runs are short or the machine is busy"
        )

    def _left_out(self) -> str:
        if not self.left_out:
            return ""
        some = "one setting was" if self.left_out == 1 else f"{self.left_out} settings were"
        return f"; {some} left out, because runs failed or have no score"


def groups(runs: pd.DataFrame) -> Iterator[Group]:
    """Yield the grids of a table: tasks and models in its order, then by the values of hyper-parameters that vary.

    Runs without a score, as where constant predictions have no correlation, are left out of means.

    Args:
        runs: The table that the module's docstring describes.
    """
    if runs.empty:
        return
    varying = [name for name in SETTINGS if name in runs and runs[name].nunique() > 1]
    block = runs.groupby(["task", "model"], sort=False).ngroup()
    runs = runs.assign(block=block).sort_values(["block", *varying], kind="stable")
    for key, part in runs.groupby(["task", "model", *varying], sort=False):
        names = key if isinstance(key, tuple) else (key,)
        metrics = set(part["primary_metric"]) if "primary_metric" in part else set()
        yield Group(
            str(names[0]),
            str(names[1]),
            dict(zip(varying, map(float, names[2:]), strict=True)),
            cells(part),
            metric=metrics.pop() if len(metrics) == 1 else "score",
            sample="data_source" in part and (part["data_source"] == "sample").any(),
        )


def measured(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that have both scores and a time.

    There are none where one of the columns is missing, which happens where all its values are nan.
    """
    columns = [DEV, TEST, SECONDS]
    return runs[runs[columns].notna().all(axis="columns")] if set(columns) <= set(runs) else runs.iloc[:0]


def cells(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each strategy of a grid, with means over seeds.

    Args:
        runs: The runs of one grid.

    Returns:
        The columns strategy, bottom and top (missing where the strategy is no cell of the grid), dev_score, test_score,
        test_spread (standard deviation over seeds; nan for one seed), train_s, flops_share (nan if not recorded),
        seeds, folds (of a cross-validation, else 0), learning (dev scores against the trivial score; None if that was
        not recorded), and scoreless (the number of its runs that have no score or no time and are left out of the
        means).
    """
    import pandas as pd

    rows = []
    for strategy, part in runs.groupby("strategy", sort=False):
        complete = measured(part)
        learnt = _learning(part)
        if complete.empty and (strategy != REFERENCE or learnt is None):
            continue
        cell = cell_of(str(strategy))
        rows.append(
            {
                "strategy": str(strategy),
                "bottom": cell[0] if cell else None,
                "top": cell[1] if cell else None,
                "dev_score": complete[DEV].mean(),
                "test_score": complete[TEST].mean(),
                "test_spread": complete[TEST].std(),
                "train_s": complete[SECONDS].mean(),
                "flops_share": complete[FLOPS].mean() if FLOPS in complete else math.nan,
                "seeds": complete["seed"].nunique(),
                "folds": _folds(complete),
                "learning": learnt,
                "scoreless": len(part) - len(complete),
            }
        )
    columns = ["strategy", "bottom", "top", "dev_score", "test_score", "test_spread", "train_s", "flops_share", "seeds"]
    columns += ["folds", "learning", "scoreless"]
    return pd.DataFrame(rows, columns=columns).astype({"bottom": "Int64", "top": "Int64"})


def _folds(runs: pd.DataFrame) -> int:
    """Return the number of folds over all repeats; 0 without cross-validation."""
    if not {"repeat", "fold"} <= set(runs):
        return 0
    return len(runs[["repeat", "fold"]].dropna().drop_duplicates())


def _learning(runs: pd.DataFrame) -> Learning | None:
    """Judge the finished runs of a strategy against the trivial score, including those with an undefined score."""
    if not {DEV, TRIVIAL} <= set(runs):
        return None
    finished = runs[runs[SECONDS].notna()]
    errors = finished[TRIVIAL_ERROR] if TRIVIAL_ERROR in finished else [math.nan] * len(finished)
    scores, trivials, error = ([float(v) for v in column] for column in (finished[DEV], finished[TRIVIAL], errors))
    return learning(scores, trivials, error)


@dataclass(frozen=True)
class NothingLearnt:
    """The finding that a grid's reference did not learn, so that no setting can be recommended."""

    reference: str
    learning: Learning

    def sentence(self) -> str:
        """Return the finding as a sentence."""
        return f"{self.learning.sentence(self.reference, 'dev')}; no setting can be recommended; {REMEDY}"

    def as_dict(self) -> dict[str, Any]:
        """Return the values for JSON."""
        return {"reference": self.reference, **self.learning.as_dict()}


def nothing_learnt(cells: pd.DataFrame) -> NothingLearnt | None:
    """Return the finding that the reference did not learn.

    Returns:
        None if it has learnt something, or if the trivial score was not recorded.
    """
    reference = _reference(cells)
    if reference is None or reference["learning"] is None or reference["learning"].shown:
        return None
    return NothingLearnt(str(reference["strategy"]), reference["learning"])


def _reference(cells: pd.DataFrame) -> pd.Series[Any] | None:
    """Return the row of the reference: `full` where it was run, otherwise the setting with the best dev score."""
    full = cells[cells["strategy"] == REFERENCE]
    if len(full):
        return full.iloc[0]
    scored = cells[cells["dev_score"].notna() & (cells["scoreless"] == 0)]
    return None if scored.empty else scored.loc[scored["dev_score"].idxmax()]


def pareto_front(cells: pd.DataFrame, score: str = "dev_score") -> pd.DataFrame:
    """Return the cells that no other cell beats in both score and time, from the fastest to the slowest.

    Among cells with the same score and time, the first is kept.

    Args:
        cells: The table from `cells`.
        score: The column of the score.
    """
    on_front, best = [], -math.inf
    ordered = cells[cells[score].notna()].sort_values(["train_s", score], ascending=[True, False], kind="stable")
    for index, row in ordered.iterrows():
        if row[score] > best:
            best = row[score]
            on_front.append(index)
    return ordered.loc[on_front]


def within_tolerance(score: float, reference: float, tolerance: float) -> bool:
    """Return whether a score is below the reference by at most this share of the reference."""
    return score >= reference - tolerance * abs(reference) - 1e-12


def recommend(cells: pd.DataFrame, tolerance: float = DEFAULT_TOLERANCE) -> Recommendation | None:
    """Recommend the fastest setting whose dev score is within the tolerance, and the better one of equally fast ones.

    A setting whose run with some seed has no score is not recommended; only `full` still serves as the reference then.
    With one seed and many settings, some settings are within the tolerance by chance; `test_change` shows whether the
    score holds on the test split.

    Args:
        cells: The table from `cells`.
        tolerance: The loss that counts as the same score, as a share of the reference's dev score.

    Returns:
        None if no setting has a score, or if the reference did not learn.
    """
    known = cells[cells["dev_score"].notna()]
    scored = known[(known["scoreless"] == 0) | (known["strategy"] == REFERENCE)]
    reference = _reference(known)
    if scored.empty or reference is None or nothing_learnt(cells) is not None:
        return None
    within = scored[[within_tolerance(score, reference["dev_score"], tolerance) for score in scored["dev_score"]]]
    chosen = within.sort_values(["train_s", "dev_score"], ascending=[True, False], kind="stable").iloc[0]
    fewest = within.sort_values(["flops_share", "dev_score"], ascending=[True, False], kind="stable").iloc[0]
    disagree = bool(fewest["flops_share"] < (1 - CLEARLY) * chosen["flops_share"])
    return Recommendation(
        strategy=str(chosen["strategy"]),
        reference=str(reference["strategy"]),
        tolerance=tolerance,
        dev_score=float(chosen["dev_score"]),
        dev_change=_relative(chosen["dev_score"], reference["dev_score"]),
        test_score=float(chosen["test_score"]),
        test_change=_relative(chosen["test_score"], reference["test_score"]),
        train_s=float(chosen["train_s"]),
        saving=0.0 - _relative(chosen["train_s"], reference["train_s"]),
        candidates=len(within),
        settings=len(scored),
        seeds=int(chosen["seeds"]),
        folds=int(chosen["folds"]),
        left_out=len(known) - len(scored),
        flops_share=float(chosen["flops_share"]),
        fewest_flops=str(fewest["strategy"]) if disagree else "",
        fewest_flops_share=float(fewest["flops_share"]) if disagree else math.nan,
    )


def score_map(group: Group, recommended: Recommendation | None = None) -> Figure:
    """Draw the test score of each cell, as in the paper's figure 1."""
    return _heat_map(group, "test_score", f"{short(group.metric)} on test", recommended, best_is_high=True)


def runtime_map(group: Group, recommended: Recommendation | None = None) -> Figure:
    """Draw the training time of each cell, which the paper does not show."""
    return _heat_map(group, "train_s", "training time in seconds", recommended, best_is_high=False)


def pareto_figure(group: Group, recommended: Recommendation | None = None) -> Figure:
    """Draw dev score against training time with the Pareto front, and beside it the same settings' test scores."""
    figure = _figure(PARETO_WIDTH, 5.2)
    front = pareto_front(group.cells)
    left, right = figure.subplots(1, 2, sharex=True)
    _scatter(left, group, "dev_score", front, recommended)
    left.step(front["train_s"], front["dev_score"], where="post", color=FRONT, linewidth=1.2, zorder=1)
    left.set(
        title="dev: Pareto front and recommendation",
        xlabel="training time in seconds",
        ylabel=f"{short(group.metric)}, dev",
    )
    _scatter(right, group, "test_score", front, recommended)
    right.set(title="test: the same settings", xlabel="training time in seconds", ylabel=f"{short(group.metric)}, test")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    title = f"{group.title}: score against training time{_seeds(group.cells)}"
    figure.suptitle(_title(title, PARETO_WIDTH), fontsize=11)
    return figure


def _scatter(axes: Axes, group: Group, score: str, front: pd.DataFrame, recommended: Recommendation | None) -> None:
    others = group.cells[~group.cells["strategy"].isin(front["strategy"])]
    axes.scatter(others["train_s"], others[score], s=18, color=OTHERS, label="other settings", zorder=2)
    axes.scatter(front["train_s"], front[score], s=36, marker="D", color=FRONT, label="Pareto front", zorder=3)
    for strategy, marker, colour, size, label in (
        (REFERENCE, "s", REFERENCE_COLOUR, 60, REFERENCE),
        (recommended.strategy if recommended else "", "*", MARK, 260, "recommended"),
    ):
        one = group.cells[group.cells["strategy"] == strategy]
        if len(one):
            axes.scatter(one["train_s"], one[score], s=size, marker=marker, color=colour, label=label, zorder=4)
    named = dict.fromkeys([REFERENCE, *([recommended.strategy] if recommended else [])])
    for strategy in named:
        _label_points(axes, group.cells[group.cells["strategy"] == strategy], score, above=strategy != REFERENCE)
    axes.margins(x=0.1, y=0.1)
    axes.grid(alpha=0.3, linewidth=0.5)


def _label_points(axes: Axes, points: pd.DataFrame, score: str, *, above: bool) -> None:
    for _, row in points.iterrows():
        text = axes.annotate(
            f"{short(row['strategy'])} {row[score]:.3f}",
            (row["train_s"], row[score]),
            xytext=(-8, 12) if above else (0, -18),
            textcoords="offset points",
            ha="right" if above else "center",
            fontsize=9,
            fontweight="bold",
            zorder=5,
        )
        text.set_bbox({"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1})


def _heat_map(
    group: Group, column: str, label: str, recommended: Recommendation | None, *, best_is_high: bool
) -> Figure:
    """Draw a map of frozen bottom layers (upwards) and frozen top layers (to the right).

    The best cell, the recommended one and `full` are marked.
    """
    import numpy as np

    placed = group.cells[group.cells["bottom"].notna() & group.cells[column].notna()]
    if placed.empty:
        figure = _figure(5.0, 1.5)
        figure.text(
            0.5, 0.5, f"{short(group.title)}: no strategy is a pair of frozen bottom and top layers", ha="center"
        )
        return figure
    bottoms, tops = (sorted(int(n) for n in placed[name].unique()) for name in ("bottom", "top"))
    values = np.full((len(bottoms), len(tops)), math.nan)
    for _, row in placed.iterrows():
        values[bottoms.index(row["bottom"]), tops.index(row["top"])] = row[column]
    width, height = 2.6 + 0.62 * max(5, len(tops)), 1.9 + 0.5 * max(4, len(bottoms))
    figure = _figure(width, height)
    axes = figure.add_subplot()
    # In both maps, dark is bad and bright is good.
    image = axes.imshow(values, origin="lower", aspect="auto", cmap=COLOUR_MAP if best_is_high else f"{COLOUR_MAP}_r")
    axes.set_xticks(range(len(tops)), [str(n) for n in tops])
    axes.set_yticks(range(len(bottoms)), [str(n) for n in bottoms])
    axes.set(xlabel="frozen top layers", ylabel="frozen bottom layers")
    axes.set_title(_title(f"{group.title}: {label}{_seeds(group.cells)}", width), fontsize=11)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=label, shrink=0.9)
    _write_numbers(axes, values, image)
    marks = [(REFERENCE, REFERENCE_COLOUR, "--", REFERENCE)]
    best = placed.loc[placed[column].idxmax() if best_is_high else placed[column].idxmin()]
    marks.append((str(best["strategy"]), FRONT, ":", "highest" if best_is_high else "fastest"))
    if recommended is not None:
        marks.append((recommended.strategy, MARK, "-", f"recommended: {short(recommended.strategy)} (by dev score)"))
    _outline(axes, placed, marks, bottoms, tops)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(marks), frameon=False, fontsize=9)
    return figure


def _outline(
    axes: Axes,
    placed: pd.DataFrame,
    marks: Sequence[tuple[str, str, str, str]],
    bottoms: Sequence[int],
    tops: Sequence[int],
) -> None:
    """Draw a frame inside each marked cell, above a white one, so that it is visible on any colour."""
    from matplotlib.patches import Rectangle

    for inset, (strategy, colour, line, label) in zip((0.03, 0.09, 0.03), marks, strict=False):
        for _, row in placed[placed["strategy"] == strategy].iterrows():
            corner = tops.index(row["top"]) - 0.5 + inset, bottoms.index(row["bottom"]) - 0.5 + inset
            side = 1 - 2 * inset
            axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="white", linewidth=4.5, zorder=3))
            axes.add_patch(
                Rectangle(
                    corner,
                    side,
                    side,
                    fill=False,
                    edgecolor=colour,
                    linestyle=line,
                    linewidth=2.6,
                    label=label,
                    zorder=4,
                )
            )


def _write_numbers(axes: Axes, values: Any, image: Any) -> None:
    """Write each cell's number, dark on bright cells and bright on dark ones."""
    import numpy as np

    largest = np.nanmax(np.abs(values), initial=0.0)
    style = "{:.3f}" if largest <= 1 else "{:.2f}" if largest < 10 else "{:.1f}" if largest < 1000 else "{:.0f}"
    for (row, column), value in np.ndenumerate(values):
        if math.isnan(value):
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        bright = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
        text = style.format(value)
        text = text.replace("0.", ".", 1) if largest <= 1 else text
        axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color="black" if bright else "white")


def _title(text: str, width: float) -> str:
    """Return a title broken into lines that fit a figure of this width in inches."""
    return textwrap.fill(short(text, LONGEST_TITLE), int(width / CHARACTER))


def _figure(width: float, height: float) -> Figure:
    """Return a new figure, made without pyplot, which would keep it for the life of the process."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _seeds(cells: pd.DataFrame) -> str:
    for what in ("folds", "seeds"):
        most = int(cells[what].max()) if len(cells) else 0
        if most > 1:
            return f" (mean of {most} {what})"
    return ""


def _relative(value: float, reference: float) -> float:
    return float(value - reference) / abs(float(reference)) if reference else math.nan


def _change(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:+.1%}"
