"""The evaluation of a grid of freezing settings: heat maps of score and time, Pareto front and recommended setting.

A grid varies the number of frozen bottom layers and the number of frozen top layers. Each pair (bottom, top) is a
freezing setting, also called a cell of the grid. Everything in this module is computed from a table of finished runs,
one row per run, with the columns

    repeat, fold                       optional: indices in a cross-validation; folds are averaged like seeds
    task, model, strategy, seed        as recorded; a strategy such as bottom3top4 is named after its setting
    lr, epochs, batch_size, max_length hyper-parameters; each combination of values has a separate grid
    selection/dev_score                the dev score of the selected epoch; settings are chosen by it
    test/score                         the primary metric on the test split; it is only reported
    runtime/train_s                    seconds of training, including the computation of cached frozen bottom layers
    flops/train_vs_full                optional: training FLOPs relative to full fine-tuning, computed from shapes
    selection/trivial_score            optional: the dev score of a baseline without a model
    selection/above_trivial_error      optional: standard error of the dev score's distance from the trivial score

and, for titles, `data_source` ("sample" or "real") and `primary_metric` where they are available.

One of many settings is recommended by its dev score, and partly because its runs were lucky. Lucky runs have higher
scores on dev and on test. The test scores of these runs would therefore underestimate the loss; it is estimated from
runs with fresh seeds instead (`reporting.confirmation`).

If the dev score of the reference (`full`, with no frozen layers) is not significantly above the trivial score, no
setting is recommended: see `nothing_learnt`, and `alue_bench.evaluation.learning` for the test. A setting that has
learnt nothing is never recommended.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from alue_bench.contract.cells import cell_of
from alue_bench.contract.matched_compute import matched_limit
from alue_bench.evaluation.grid_noise import noise_of_neighbours, noise_over_seeds
from alue_bench.evaluation.learning import REMEDY, Learning, learning
from alue_bench.messages.figure_text import shorten
from alue_bench.planning.grid import DEFAULT_TOLERANCE, SETTING_AXES
from alue_bench.reporting.choosing_runs import REFERENCE

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from alue_bench.reporting.confirmation import Confirmation

CLEAR_SAVING = 0.1
"""The share of FLOPs that another setting must save against the fastest setting, before the report states that measured
times and counted FLOPs disagree."""
EQUAL_TIME_SHARE = 0.1
"""The largest difference in training time, as a share, between settings that count as equally fast."""
MAX_NAMED = 8
"""The largest number of settings that a sentence names."""
TRIVIAL, TRIVIAL_ERROR = "selection/trivial_score", "selection/above_trivial_error"
DEV, TEST, SECONDS, FLOPS = "selection/dev_score", "test/score", "runtime/train_s", "flops/train_vs_full"
NUMERIC_COLUMNS = ("seed", "repeat", "fold", DEV, TEST, SECONDS, FLOPS, TRIVIAL, TRIVIAL_ERROR)
"""The columns with numbers in a table of runs, from which the results of the settings are computed."""

# Okabe and Ito's colours, which can be distinguished without full colour vision.
MARK, FRONT, OTHERS, REFERENCE_COLOUR = "#D55E00", "#0072B2", "#9A9A9A", "#000000"
COLOUR_MAP = "cividis"
CHARACTER_WIDTH = 0.1
"""The approximate width of a character of a title, in inches."""
LONGEST_TITLE = 200
"""The largest number of characters of a title, which may have several lines."""
PARETO_WIDTH = 11.5
"""The width of the figure of the Pareto front, in inches."""


@dataclass(frozen=True)
class GridResults:
    """The results of freezing settings (numbers of frozen bottom and top layers) for one task and model.

    All runs have the same hyper-parameters.
    """

    task: str
    model: str
    settings: dict[str, float]
    """The hyper-parameters that distinguish this grid from other grids of the same table of runs, with their values."""
    cells: pd.DataFrame
    """The table from the function `cell_table`, with one row for each freezing strategy."""
    metric: str = "score"
    sample: bool = False
    """True if at least one run used the embedded sample data."""
    conditions: str = ""
    """A text with further conditions that distinguish this grid from other grids of the same task and model."""

    @property
    def title(self) -> str:
        """The title of figures and tables that show these results."""
        settings = "".join(f", {name} {value:g}" for name, value in self.settings.items())
        conditions = f", {self.conditions}" if self.conditions else ""
        return f"{self.task}, {self.model}{settings}{conditions}{' [sample data]' if self.sample else ''}"

    @property
    def name(self) -> str:
        """The name of this grid, for use in file names."""
        return "-".join([self.task, self.model, *(f"{name}{value:g}" for name, value in self.settings.items())])


@dataclass(frozen=True)
class Recommendation:
    """A recommended freezing setting: the fastest one whose dev score is at most a tolerance below the reference's.

    The reference is `full` (full fine-tuning) if it was run, otherwise the setting with the best dev score.
    """

    strategy: str
    reference: str
    """The setting with which all other settings are compared: `full` (full fine-tuning) if it was run, otherwise the
    setting with the best dev score."""
    tolerance: float
    """The largest accepted loss of dev score, as a share of the reference's dev score."""
    dev_score: float
    dev_change: float
    """The relative change of the dev score against the reference. It is too high on average, because the setting was
    chosen by its dev score."""
    train_s: float
    saving: float
    """The saved training time, as a share of the reference's training time."""
    candidates: int
    """The number of settings whose loss of dev score is at most the tolerance."""
    settings: int
    """The number of settings among which the recommended one was chosen."""
    seeds: int
    left_out: int = 0
    """The number of settings that were not considered, because some of their runs failed or have no score."""
    flops_share: float = math.nan
    """The training FLOPs of the recommended setting, as a share of those of full fine-tuning; nan if not recorded."""
    fewest_flops: str = ""
    """Another setting within the tolerance that needs clearly fewer FLOPs than `strategy`, so that measured times and
    counted FLOPs disagree; empty if there is none."""
    fewest_flops_share: float = math.nan
    """The FLOPs of the setting `fewest_flops`, as a share of those of full fine-tuning; nan if there is no such
    setting."""
    folds: int = 0
    """The number of folds that scores and times are averaged over; 0 without cross-validation."""
    unlearnt: int = 0
    """The number of settings that were not considered, because they have learnt nothing."""
    standard_error: float = math.nan
    """The standard error of the difference between the dev scores of two settings; nan if it cannot be estimated."""
    alternatives: tuple[str, ...] = ()
    """The other settings that these runs cannot distinguish from `strategy`, the fastest first: their dev score is
    lower by at most `standard_error`, and training takes at most a tenth longer."""
    confirmation: Confirmation | None = None
    """The loss on the test split with fresh seeds; None if the setting was not run with fresh seeds."""

    @property
    def is_reference(self) -> bool:
        """True if the recommended setting is the reference itself, so that there is nothing to confirm."""
        return self.strategy == self.reference

    def as_dict(self) -> dict[str, Any]:
        """Return the values as a dict for JSON, with None for nan."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        } | {
            "alternatives": list(self.alternatives),
            "confirmation": self.confirmation.as_dict() if self.confirmation else None,
        }

    def sentences(self) -> list[str]:
        """Return sentences on the recommended setting, on the settings that are as good, and on the loss to expect."""
        return [
            sentence for sentence in (self.sentence(), self.alternatives_sentence(), self.loss_sentence()) if sentence
        ]

    def alternatives_sentence(self) -> str:
        """Return a sentence that lists the settings which these runs cannot distinguish from the recommended one.

        The sentence is empty if there are no such settings.
        """
        if math.isnan(self.standard_error):
            return "One seed and so few settings do not show which other settings are as good"
        if not self.alternatives:
            return ""
        return (
            f"Not distinguishable from {self.strategy} by these runs: {_joined_names(self.alternatives)} (dev score "
            f"lower by at most {self.standard_error:.3f}, one standard error; training at most a tenth longer)"
        )

    def loss_sentence(self) -> str:
        """Return a sentence on how much test score the recommended setting is expected to lose against the reference.

        The reference is full fine-tuning or, if the grid has no run of it, the setting with the best dev score. The
        sentence is empty if the reference itself is recommended.
        """
        if self.confirmation is not None:
            return self.confirmation.sentence()
        if self.is_reference:
            return ""
        return (
            f"The loss to expect is not known: {self.strategy} was chosen among {self.settings} settings by these "
            "runs, so that its scores are too high on average. The same sweep with --confirm 3, and not with both "
            "--init-seed and --data-seed, runs it with fresh seeds"
        )

    def sentence(self) -> str:
        """Return the recommendation as a sentence, without the loss to expect."""
        seeds = "one seed" if self.seeds == 1 else f"mean of {self.seeds} seeds"
        if self.folds:
            seeds = f"mean of {self.folds} folds" + (f" with {self.seeds} seeds each" if self.seeds > 1 else "")
        return (
            f"{self.strategy}, the fastest of {self.candidates} settings (of {self.settings}) whose dev score is "
            f"within {self.tolerance * 100:g}% of {self.reference}'s ({seeds}); {self.train_s:.1f} s of training, "
            f"{self.saving:.0%} less" + self._left_out() + self._doubt()
        )

    def _doubt(self) -> str:
        if not self.fewest_flops:
            return ""
        return (
            f"; but {self.fewest_flops} needs fewer FLOPs ({self.fewest_flops_share:.0%} of full's against "
            f"{self.flops_share:.0%}): measured times may mislead if runs are short or the machine is busy"
        )

    def _left_out(self) -> str:
        text = ""
        for number, why in ((self.left_out, "runs failed or have no score"), (self.unlearnt, "it learnt nothing")):
            settings_were = "one setting was" if number == 1 else f"{number} settings were"
            why = why if number == 1 else why.replace("it learnt", "they learnt")
            text += f"; {settings_were} left out, because {why}" if number else ""
        return text


def grids_of(runs: pd.DataFrame) -> Iterator[GridResults]:
    """Yield the results of each grid, that is, of the runs with the same task, model and hyper-parameters.

    Tasks and models are in the order of the table. The grids of a task and model are sorted by the hyper-parameters in
    which they differ. Runs without a score do not enter means. A score is missing, for example, if predictions are
    constant, so that their correlation is undefined.

    Args:
        runs: The table of finished runs that the module's docstring describes.
    """
    if runs.empty:
        return
    varying = [name for name in SETTING_AXES if name in runs and runs[name].nunique() > 1]
    block = runs.groupby(["task", "model"], sort=False).ngroup()
    runs = runs.assign(block=block).sort_values(["block", *varying], kind="stable")
    for key, part in runs.groupby(["task", "model", *varying], sort=False):
        names = key if isinstance(key, tuple) else (key,)
        metrics = set(part["primary_metric"]) if "primary_metric" in part else set()
        yield GridResults(
            str(names[0]),
            str(names[1]),
            dict(zip(varying, map(float, names[2:]), strict=True)),
            cell_table(part),
            metric=metrics.pop() if len(metrics) == 1 else "score",
            sample="data_source" in part and (part["data_source"] == "sample").any(),
        )


def measured_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that have a dev score, a test score and a training time.

    The result is empty if one of these columns is missing. A column is missing if no run has a value.
    """
    columns = [DEV, TEST, SECONDS]
    return runs[runs[columns].notna().all(axis="columns")] if set(columns) <= set(runs) else runs.iloc[:0]


def cell_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a table with one row for each freezing strategy, with means over seeds and folds.

    A strategy has no row if none of its runs has a dev score, a test score and a time. The exception is `full` if its
    trivial score was recorded, since the row then shows whether `full` has learnt anything.

    Args:
        runs: Runs with the same task, model and hyper-parameters, in the form that the module's docstring describes.

    Returns:
        A table with the columns

        - strategy
        - bottom, top: numbers of frozen layers; missing if the strategy is not defined by these two numbers
        - dev_score, test_score, train_s: means
        - test_spread: standard deviation of the test score over runs; nan for one run
        - flops_share: training FLOPs as a share of those of full fine-tuning; nan if not recorded
        - seeds, folds: numbers of different seeds and folds; folds is 0 without cross-validation
        - learning: the comparison of the dev scores with the trivial score, which is the score of a baseline without
          a model; None if the trivial score was not recorded
        - scoreless: number of runs that are left out of the means, because they have no score or no time
        - dev_error: standard error of a setting's mean dev score, the same for all settings; nan if it cannot be
          estimated
    """
    import numpy as np
    import pandas as pd

    # Numpy arrays, since selecting a part of the data frame takes a hundred times as long as computing its means.
    numbers = {name: _numbers(runs, name) for name in NUMERIC_COLUMNS}
    is_complete = ~(np.isnan(numbers[DEV]) | np.isnan(numbers[TEST]) | np.isnan(numbers[SECONDS]))
    row_indices = runs.groupby("strategy", sort=False).indices
    rows = []
    for strategy in runs["strategy"].dropna().unique():
        of_strategy = {name: values[row_indices[strategy]] for name, values in numbers.items()}
        is_used = is_complete[row_indices[strategy]]
        used = {name: values[is_used] for name, values in of_strategy.items()}
        learnt = _learning(of_strategy)
        if not is_used.any() and (strategy != REFERENCE or learnt is None):
            continue
        cell = cell_of(str(strategy))
        rows.append(
            {
                "strategy": str(strategy),
                "bottom": cell[0] if cell else None,
                "top": cell[1] if cell else None,
                "dev_score": _mean(used[DEV]),
                "test_score": _mean(used[TEST]),
                "test_spread": float(used[TEST].std(ddof=1)) if is_used.sum() > 1 else math.nan,
                "train_s": _mean(used[SECONDS]),
                "flops_share": _mean(used[FLOPS][~np.isnan(used[FLOPS])]),
                "seeds": len({seed for seed in used["seed"].tolist() if not math.isnan(seed)}),
                "folds": _folds(used),
                "learning": learnt,
                "scoreless": len(is_used) - int(is_used.sum()),
            }
        )
    columns = ["strategy", "bottom", "top", "dev_score", "test_score", "test_spread", "train_s", "flops_share", "seeds"]
    columns += ["folds", "learning", "scoreless"]
    table = pd.DataFrame(rows, columns=columns).astype({"bottom": "Int64", "top": "Int64"})
    return table.assign(dev_error=_dev_error(measured_runs(runs)))


def _dev_error(runs: pd.DataFrame) -> float:
    """Estimate the standard error of a setting's mean dev score.

    A seed's common effect on all settings is removed first, since it does not change their order. Only seeds (and
    folds) with which at least half of the settings ran are used. If there is one such seed, the error is estimated from
    the differences between neighbouring settings of the grid. Return nan if there are too few runs.
    """
    replicate = [name for name in ("seed", "repeat", "fold") if name in runs]
    if runs.empty:
        return math.nan
    table = runs.assign(replicate=runs.groupby(replicate, dropna=False).ngroup()).pivot_table(
        index="strategy", columns="replicate", values=DEV, aggfunc="last"
    )
    table = table.loc[:, table.notna().mean() >= 0.5].dropna()
    if not table.shape[1]:
        return math.nan
    if table.shape[1] > 1:
        noise = noise_over_seeds(table.to_numpy())
    else:
        placed = {cell: float(score) for name, (score,) in table.iterrows() if (cell := cell_of(str(name)))}
        noise = noise_of_neighbours(placed)
    return math.nan if noise is None else noise / math.sqrt(table.shape[1])


def choosing_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs whose seed (and fold) is one with which at least half of the settings ran.

    A sweep runs the recommended setting and `full` again with further seeds, to confirm the recommendation. If these
    runs were included, the means of these two settings would be over more seeds than the means of the other settings.
    If no seed qualifies, all runs are returned.
    """
    replicate = [name for name in ("seed", "repeat", "fold") if name in runs]
    settings = runs.groupby(replicate, dropna=False)["strategy"].transform("nunique")
    chosen = runs[2 * settings >= runs["strategy"].nunique()]
    return chosen if len(chosen) else runs


def collapsed_sentence(cells: pd.DataFrame) -> str:
    """Return a sentence that lists the settings with collapsed runs.

    A run has collapsed if its dev score is not significantly above that of a baseline without a model.

    Args:
        cells: The table from the function `cell_table`.

    Returns:
        The sentence; empty if no run collapsed.
    """
    counts = {}
    for _, row in cells.iterrows():
        learnt = row["learning"]
        if learnt is not None and learnt.collapsed:
            counts[str(row["strategy"])] = f"{learnt.collapsed} of {learnt.seeds}"
    if not counts:
        return ""
    named = _joined_names([f"{name} ({count})" for name, count in counts.items()])
    return f"Runs whose dev score is not significantly above the trivial score, by setting: {named}; {REMEDY}"


def _numbers(runs: pd.DataFrame, name: str) -> np.ndarray[Any, Any]:
    """Return a column of a table of runs as float64, with nan for missing values and for a missing column."""
    import numpy as np

    if name not in runs:
        return np.full(len(runs), math.nan)
    return np.asarray(runs[name].to_numpy("float64", na_value=math.nan))


def _mean(values: np.ndarray[Any, Any]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _folds(runs: Mapping[str, np.ndarray[Any, Any]]) -> int:
    """Return the number of folds, counted over all repeats of the cross-validation; 0 without cross-validation."""
    pairs = zip(runs["repeat"].tolist(), runs["fold"].tolist(), strict=True)
    return len({pair for pair in pairs if not any(map(math.isnan, pair))})


def _learning(runs: Mapping[str, np.ndarray[Any, Any]]) -> Learning | None:
    """Test whether a strategy's runs have learnt anything, by comparing their dev scores with the trivial score.

    The trivial score is the dev score of a baseline without a model. Finished runs with an undefined score are
    included. Return None if the trivial score was not recorded.
    """
    import numpy as np

    finished = ~np.isnan(runs[SECONDS])
    return learning(*(runs[name][finished].tolist() for name in (DEV, TRIVIAL, TRIVIAL_ERROR)))


@dataclass(frozen=True)
class NothingLearnt:
    """The result that the reference setting has learnt nothing, so that no freezing setting can be recommended.

    The reference is `full` (full fine-tuning) if it was run, otherwise the setting with the best dev score.
    """

    reference: str
    learning: Learning

    def sentence(self) -> str:
        """Return a sentence that states this result."""
        return f"{self.learning.sentence(self.reference, 'dev')}; no setting can be recommended; {REMEDY}"

    def as_dict(self) -> dict[str, Any]:
        """Return this result as a dict for JSON."""
        return {"reference": self.reference, **self.learning.as_dict()}


def nothing_learnt(cells: pd.DataFrame) -> NothingLearnt | None:
    """Test whether the reference setting, usually `full` (full fine-tuning), has learnt nothing.

    Args:
        cells: The table from the function `cell_table`.

    Returns:
        The result of the test; None if the reference has learnt something, or if the trivial score (of a baseline
          without a model) was not recorded.
    """
    reference = _reference(cells)
    if reference is None or reference["learning"] is None or reference["learning"].has_learnt:
        return None
    return NothingLearnt(str(reference["strategy"]), reference["learning"])


def _reference(cells: pd.DataFrame) -> pd.Series[Any] | None:
    """Return the row of the reference setting: `full` if it was run, otherwise the setting with the best dev score.

    Return None if `full` was not run and no setting has a score for each of its runs.
    """
    full = cells[cells["strategy"] == REFERENCE]
    if len(full):
        return full.iloc[0]
    scored = cells[cells["dev_score"].notna() & (cells["scoreless"] == 0)]
    return None if scored.empty else scored.loc[scored["dev_score"].idxmax()]


def pareto_front(cells: pd.DataFrame, score: str = "dev_score") -> pd.DataFrame:
    """Return the settings that no other setting beats in both score and time, from the fastest to the slowest.

    If several settings have the same score and time, only the first of them is returned.

    Args:
        cells: The table from the function `cell_table`.
        score: The column with the score, such as test_score.
    """
    on_front, best = [], -math.inf
    ordered = cells[cells[score].notna()].sort_values(["train_s", score], ascending=[True, False], kind="stable")
    for index, row in ordered.iterrows():
        if row[score] > best:
            best = row[score]
            on_front.append(index)
    return ordered.loc[on_front]


def within_tolerance(score: float, reference: float, tolerance: float) -> bool:
    """Return whether a score is at least `reference` minus `tolerance`, which is a share of `reference`."""
    return score >= reference - tolerance * abs(reference) - 1e-12


def recommend(cells: pd.DataFrame, tolerance: float = DEFAULT_TOLERANCE) -> Recommendation | None:
    """Recommend the fastest setting whose dev score is at most a tolerance below the dev score of full fine-tuning.

    If full fine-tuning was not run, the setting with the best dev score takes its place as the reference.

    If several settings are equally fast, the one with the best dev score is recommended. A setting that has learnt
    nothing (its dev score is not significantly above the trivial score) is not considered. A setting with a run that
    has no score is not considered either, unless it is `full`. With one seed and many settings, some settings are
    within the tolerance by chance; runs with fresh seeds show whether the score holds.

    Args:
        cells: The table from the function `cell_table`.
        tolerance: The largest accepted loss of dev score, as a share of the reference's dev score.

    Returns:
        The recommendation; None if no setting has a score, or if the reference setting has learnt nothing.
    """
    known = cells[cells["dev_score"].notna()]
    complete = known[(known["scoreless"] == 0) | (known["strategy"] == REFERENCE)]
    scored = complete[[learnt is None or learnt.has_learnt for learnt in complete["learning"]]]
    reference = _reference(known)
    if scored.empty or reference is None or nothing_learnt(cells) is not None:
        return None
    within = scored[[within_tolerance(score, reference["dev_score"], tolerance) for score in scored["dev_score"]]]
    chosen = within.sort_values(["train_s", "dev_score"], ascending=[True, False], kind="stable").iloc[0]
    fewest = within.sort_values(["flops_share", "dev_score"], ascending=[True, False], kind="stable").iloc[0]
    error = math.sqrt(2) * float(chosen["dev_error"])
    as_good = scored["dev_score"] >= chosen["dev_score"] - (0.0 if math.isnan(error) else error)
    as_fast = scored["train_s"] <= (1 + EQUAL_TIME_SHARE) * chosen["train_s"]
    similar = scored[as_good & as_fast & (not math.isnan(error))].sort_values("train_s", kind="stable")
    disagree = bool(fewest["flops_share"] < (1 - CLEAR_SAVING) * chosen["flops_share"])
    return Recommendation(
        strategy=str(chosen["strategy"]),
        reference=str(reference["strategy"]),
        tolerance=tolerance,
        dev_score=float(chosen["dev_score"]),
        dev_change=_relative(chosen["dev_score"], reference["dev_score"]),
        train_s=float(chosen["train_s"]),
        saving=0.0 - _relative(chosen["train_s"], reference["train_s"]),
        candidates=len(within),
        settings=len(scored),
        seeds=int(chosen["seeds"]),
        folds=int(chosen["folds"]),
        left_out=len(known) - len(complete),
        unlearnt=len(complete) - len(scored),
        standard_error=error,
        alternatives=tuple(str(name) for name in similar["strategy"] if name != chosen["strategy"]),
        flops_share=float(chosen["flops_share"]),
        fewest_flops=str(fewest["strategy"]) if disagree else "",
        fewest_flops_share=float(fewest["flops_share"]) if disagree else math.nan,
    )


def score_map(group: GridResults, recommended: Recommendation | None = None) -> Figure:
    """Draw a heat map of each setting's test score, as in figure 1 of the paper by Betka et al."""
    return _heat_map(group, "test_score", f"{shorten(group.metric)} on test", recommended, best_is_high=True)


def runtime_map(group: GridResults, recommended: Recommendation | None = None) -> Figure:
    """Draw a heat map of each setting's training time."""
    return _heat_map(group, "train_s", "training time in seconds", recommended, best_is_high=False)


def pareto_figure(group: GridResults, recommended: Recommendation | None = None) -> Figure:
    """Draw two scatter plots against training time: dev scores with their Pareto front, and test scores."""
    figure = _figure(PARETO_WIDTH, 5.2)
    front = pareto_front(group.cells)
    left, right = figure.subplots(1, 2, sharex=True)
    _scatter(left, group, "dev_score", front, recommended)
    left.step(front["train_s"], front["dev_score"], where="post", color=FRONT, linewidth=1.2, zorder=1)
    left.set(
        title="dev: Pareto front and recommendation",
        xlabel="training time in seconds",
        ylabel=f"{shorten(group.metric)}, dev",
    )
    _scatter(right, group, "test_score", front, recommended)
    right.set(
        title="test: the same settings", xlabel="training time in seconds", ylabel=f"{shorten(group.metric)}, test"
    )
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    title = f"{group.title}: score against training time{_seeds(group.cells)}{_confirmed(recommended)}"
    figure.suptitle(_title(title, PARETO_WIDTH), fontsize=11)
    return figure


def _scatter(
    axes: Axes, group: GridResults, score: str, front: pd.DataFrame, recommended: Recommendation | None
) -> None:
    others = group.cells[~group.cells["strategy"].isin(front["strategy"])]
    axes.scatter(others["train_s"], others[score], s=18, color=OTHERS, label="other settings", zorder=2)
    axes.scatter(front["train_s"], front[score], s=36, marker="D", color=FRONT, label="Pareto front", zorder=3)
    for strategy, marker, colour, size, label in (
        (REFERENCE, "s", REFERENCE_COLOUR, 60, REFERENCE),
        (recommended.strategy if recommended else "", "*", MARK, 260, "recommended"),
    ):
        point = group.cells[group.cells["strategy"] == strategy]
        if len(point):
            axes.scatter(point["train_s"], point[score], s=size, marker=marker, color=colour, label=label, zorder=4)
    matched = group.cells[[matched_limit(name) is not None for name in group.cells["strategy"]]]
    if len(matched):
        label = f"{REFERENCE} with fewer steps"
        axes.scatter(matched["train_s"], matched[score], s=60, marker="s", facecolors="none", label=label, zorder=4,
                     edgecolors=REFERENCE_COLOUR)  # fmt: skip
    named = dict.fromkeys([REFERENCE, *matched["strategy"], *([recommended.strategy] if recommended else [])])
    for strategy in named:
        _label_points(axes, group.cells[group.cells["strategy"] == strategy], score, above=strategy != REFERENCE)
    axes.margins(x=0.1, y=0.1)
    axes.grid(alpha=0.3, linewidth=0.5)


def _label_points(axes: Axes, points: pd.DataFrame, score: str, *, above: bool) -> None:
    for _, row in points.iterrows():
        text = axes.annotate(
            f"{shorten(row['strategy'])} {row[score]:.3f}",
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
    group: GridResults, column: str, label: str, recommended: Recommendation | None, *, best_is_high: bool
) -> Figure:
    """Draw a heat map, with more frozen bottom layers upwards and more frozen top layers to the right.

    The best setting, the recommended setting and `full` (full fine-tuning) are marked.

    Args:
        group: The results to draw.
        column: The column of `group.cells` whose values are shown as colours.
        label: The name of the values for the title and the colour bar.
        recommended: The recommended setting; None if there is none.
        best_is_high: True if high values are good, so that the best setting has the highest value; False if low values
            are good.
    """
    import numpy as np

    placed = group.cells[group.cells["bottom"].notna() & group.cells[column].notna()]
    if placed.empty:
        figure = _figure(5.0, 1.5)
        figure.text(
            0.5, 0.5, f"{shorten(group.title)}: no strategy is a pair of frozen bottom and top layers", ha="center"
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
    confirmed = _confirmed(recommended) if column == "test_score" else ""
    axes.set_title(_title(f"{group.title}: {label}{_seeds(group.cells)}{confirmed}", width), fontsize=11)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label=label, shrink=0.9)
    _write_numbers(axes, values, image)
    marks = [(REFERENCE, REFERENCE_COLOUR, "--", REFERENCE)]
    best = placed.loc[placed[column].idxmax() if best_is_high else placed[column].idxmin()]
    marks.append((str(best["strategy"]), FRONT, ":", "highest" if best_is_high else "fastest"))
    if recommended is not None:
        marks.append((recommended.strategy, MARK, "-", f"recommended: {shorten(recommended.strategy)} (by dev score)"))
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
    """Draw a frame inside the marked cells of a heat map.

    Each frame lies on a wider white frame, so that it is visible on any colour.

    Args:
        axes: The axes of the heat map.
        placed: The rows of the table of settings that the heat map shows.
        marks: The frames: (strategy, colour, line style, label in the legend).
        bottoms: The numbers of frozen bottom layers, in the order of the map's rows.
        tops: The numbers of frozen top layers, in the order of the map's columns.
    """
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
    """Write each value into its cell of a heat map, in black on bright colours and in white on dark colours.

    Args:
        axes: The axes of the heat map.
        values: The values as a matrix, with nan for an empty cell.
        image: The image of the values that `axes.imshow` returned, whose colours decide between black and white.
    """
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
    """Break a title into lines that fit into a figure of the given width, in inches."""
    return textwrap.fill(shorten(text, LONGEST_TITLE), int(width / CHARACTER_WIDTH))


def _figure(width: float, height: float) -> Figure:
    """Return a new figure of the given size in inches.

    It is created without pyplot, which would keep the figure in memory until the process ends.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _confirmed(recommended: Recommendation | None) -> str:
    """Return the part of a title that states the confirmed change of the test score; empty if there is none."""
    if recommended is None or recommended.confirmation is None or recommended.confirmation.difference is None:
        return ""
    confirmation = recommended.confirmation
    seeds = f"{len(confirmation.seeds)} fresh seed{'s' if len(confirmation.seeds) != 1 else ''}"
    pair = f"{shorten(confirmation.strategy)} against {shorten(confirmation.reference)}"
    return f"; {pair}: {confirmation.change_text()} on test with {seeds}"


def _joined_names(names: Sequence[str]) -> str:
    """Join names with commas; a long list is shortened, such as "a, b and 3 more"."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _seeds(cells: pd.DataFrame) -> str:
    for what in ("folds", "seeds"):
        most = int(cells[what].max()) if len(cells) else 0
        if most > 1:
            return f" (mean of {most} {what})"
    return ""


def _relative(value: float, reference: float) -> float:
    return float(value - reference) / abs(float(reference)) if reference else math.nan
