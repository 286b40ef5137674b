"""The comparison of freezing strategies with a baseline strategy, computed from a frame of finished runs.

The table in the terminal, the HTML page and the export only show the values that this module computes.

Runs are compared only if everything except strategy and seed is the same: task, model, examples, data source, protocol
(the division into splits), hyper-parameters, hardware, number format, version of alue-bench. A set of runs that can be
compared is called a *block* (`ComparisonBlock`).

The runs of a cross-validation form one block if the same examples were divided into the same number of folds. Their
scores are averaged over the seeds of each fold, and differences over folds are tested by `evaluation.resampled`.

Each strategy is tested twice. The two-sided test of superiority, corrected for the number of comparisons, shows whether
the strategy is better or worse than the baseline. The one-sided test of non-inferiority, not corrected, shows whether
its loss is within a margin (`evaluation.margins`). `verdict_of` combines the two results.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from alue_bench.contract.errors import AlueBenchError, UsageError
from alue_bench.evaluation.additive import Additive, additive
from alue_bench.evaluation.intervals import Estimate, cohens_d, estimate, holm, probability_of_improvement
from alue_bench.evaluation.learning import Learning, learning
from alue_bench.evaluation.margins import Margin, Margins, MarginUnit
from alue_bench.evaluation.predictions import GoldAndPredicted
from alue_bench.evaluation.resampled import ResampledTestResult, corrected_resampled_test, estimate_over_folds
from alue_bench.evaluation.significance import (
    MIN_SEEDS,
    CrossedTestResult,
    approximate_randomisation,
    crossed_test_of,
    detectable,
    paired_bootstrap,
    seeds_needed,
    seeds_within_margin,
)
from alue_bench.evaluation.yardstick import yardstick_name
from alue_bench.planning.grid import DEFAULT_TOLERANCE
from alue_bench.reporting.choosing_runs import REFERENCE, without_choosing_runs
from alue_bench.reporting.probe_rows import with_copies_for_each_probe
from alue_bench.reporting.training_times import TimeComparison, compare_times
from alue_bench.tracking.reading import is_on_this_machine

if TYPE_CHECKING:
    import pandas as pd

BASELINE = REFERENCE
"""The strategy with which the others are compared by default."""
DEFAULT_MARGIN = Margin(DEFAULT_TOLERANCE, MarginUnit.SCORE)
"""The margin if none is given: the loss that `sweep` and `search` tolerate by default."""
LEVELS = (0.001, 0.01, 0.05)
"""The significance levels that are shown as three stars, two stars and one star."""

CONDITIONS = (
    "data_source",
    "protocol",
    "train_digest",
    "dev_digest",
    "test_digest",
    "folds",
    "model_digest",
    "hardware",
    "device",
    "precision",
    "epochs",
    "batch_size",
    "lr",
    "max_length",
    "other_hyper",
    "version",
)
"""The columns of the frame of runs that must have equal values, besides task and model, in runs that are compared.

The use of CUDA graphs is not among them, because alue-bench decides on it for each run by measured times."""

LoadTargets = Callable[[str, bool], GoldAndPredicted]
"""A function that takes a run's id and whether an example may have several labels, and returns the gold and predicted
labels of the test examples, such as `tracking.reading.read_targets`. It is called in several threads at once for runs
whose artifacts are on another machine."""

READER_THREADS = 4
"""The number of threads that download predictions from another machine. Files of this machine are read in one thread:
more would mostly wait for Python's global lock."""


Run = dict[Any, Any]
"""A row of the frame of runs: one run's values by column."""


class Verdict(StrEnum):
    """The conclusion about the difference between a strategy's score and the baseline's."""

    BETTER = "better"
    WORSE = "worse"
    WORSE_WITHIN_MARGIN = "worse, within the margin"
    """The strategy is significantly worse, and its loss is significantly below the margin."""
    WITHIN_MARGIN = "within the margin"
    """No difference was found, and the loss is significantly below the margin. This does not show that there is no
    loss."""
    INCONCLUSIVE = "inconclusive"
    """Neither test is significant. A loss up to `Difference.loss_bound` is not excluded. This bound is not below the
    margin, or the margin is not known."""
    TOO_FEW_SEEDS = "too few seeds"
    NOT_TESTED = "not tested"
    NOTHING_LEARNT = "nothing learnt"
    """The baseline learnt nothing, so that no difference from its score means anything; or the strategy learnt nothing,
    so that it cannot be said to keep the baseline's score. A strategy that learnt nothing may still be worse."""


SIGNIFICANT = (Verdict.BETTER, Verdict.WORSE, Verdict.WORSE_WITHIN_MARGIN)
"""The verdicts with a significant difference, for which the p-value is shown as stars."""


def verdict_of(test: CrossedTestResult | ResampledTestResult, p_corrected: float, margin: float | None) -> Verdict:
    """Return the verdict on a difference.

    Args:
        test: The test of the difference.
        p_corrected: The two-sided p-value, corrected for the number of comparisons.
        margin: The margin in the unit of the metric; None if it is not known.
    """
    found, within = p_corrected < max(LEVELS), margin is not None and test.loss_bound < margin
    if found and test.difference > 0:
        return Verdict.BETTER
    if found:
        return Verdict.WORSE_WITHIN_MARGIN if within else Verdict.WORSE
    return Verdict.WITHIN_MARGIN if within else Verdict.INCONCLUSIVE


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference between a strategy's score and the baseline's, over the seeds or folds with which both ran."""

    mean: float
    seeds: int
    """The number of seeds with which both ran; in a cross-validation the number of common folds over all repeats."""
    base_score: float | None = None
    """The baseline's mean score over the seeds or folds from which `mean` is computed."""
    verdict: Verdict
    reason: str = ""
    """The reason why there is no verdict on the difference; empty if there is a verdict."""
    test: CrossedTestResult | ResampledTestResult | None = None
    """The result of the significance test: the confidence interval, the p-value before correction and, if the test is
    over seeds, the variance components. None if there is only one seed or fold, or if a test over seeds has no usable
    predictions."""
    p_corrected: float | None = None
    """The p-value after Holm's correction for all tested differences of the comparison."""
    loss_bound: float | None = None
    """The one-sided 95 % upper confidence bound of the loss, in the unit of the metric. A negative bound shows a gain.
    None if there is no verdict. It is not corrected for the number of comparisons."""
    seeds_within_margin: int | None = None
    """The number of seeds with which the test would probably show a strategy that loses nothing to be within the
    margin. The number may be `seeds` or fewer, since the observed loss is not zero. None if the verdict is not
    `INCONCLUSIVE`, if the margin is not known, if no reasonable number suffices, and in a cross-validation."""
    cohens_d: float | None = None
    improvement: float | None = None
    """The share of pairs of a run of the strategy and a run of the baseline, with any seeds, in which the strategy's
    score is higher; ties count half. In a cross-validation, pairs of folds are counted. None without common seeds or
    folds."""
    seeds_needed: int | None = None
    """The number of seeds with which the test would probably detect a difference as large as the observed one. None if
    a difference was found, if no test was possible, if the verdict is `NOTHING_LEARNT`, if no reasonable number
    suffices, and in a cross-validation."""
    detectable: float | None = None
    """The smallest true difference that the test would find with a probability of 80 %, with the existing seeds or
    folds. None if a difference was found, if no test was possible, and if the verdict is `NOTHING_LEARNT`."""
    p_examples: float | None = None
    """The p-value of an approximate randomisation test over examples; None if `compare` was called without `resamples`.
    It holds only for these trained models, since it ignores the variation over seeds."""
    bootstrap: tuple[float, float] | None = None
    """The confidence interval from a paired bootstrap over examples; None if `compare` was called without `resamples`.
    It holds only for these trained models, since it ignores the variation over seeds."""
    over_folds: bool = False
    """True if the difference is a mean over the folds of a cross-validation."""

    @property
    def stars(self) -> str:
        """One, two or three stars for a corrected p-value below 0.05, 0.01 or 0.001.

        They are empty if the verdict is not in `SIGNIFICANT`.
        """
        if self.verdict not in SIGNIFICANT or self.p_corrected is None:
            return ""
        return "*" * sum(self.p_corrected < level for level in LEVELS)


@dataclass(frozen=True, kw_only=True)
class StrategyResult:
    """A strategy's mean score and costs, which a row of a table shows."""

    strategy: str
    seeds: tuple[int, ...]
    """The seeds of the runs; in a cross-validation, where several folds have the same seed, each seed once."""
    run_ids: tuple[str, ...]
    """The ids of the runs from which the result is computed."""
    score: Estimate | None
    """The mean score over seeds or folds, with its confidence interval; None if every score is undefined."""
    difference: Difference | None
    """The difference from the baseline's score. None for the baseline itself, if either score is undefined, and if the
    strategy or the baseline only has runs that were used to choose it."""
    train_s: Estimate | None
    time_change: Estimate | None
    """The relative change of the training time against the baseline, as a mean over pairs of runs with the same seed
    (and fold); −0.3 is 30 % less. None for the baseline itself, and without such a pair."""
    speed_up: float | None
    """The geometric mean, over the same pairs of runs as for `time_change`, of the baseline's training time divided by
    the strategy's; None as for `time_change`."""
    trainable_share: float | None
    """The trainable parameters, as a share of all parameters; None if that was not recorded."""
    flops_share: float | None
    """The training FLOPs, as a share of the training FLOPs of full fine-tuning; None if they were not recorded."""
    memory_mib: float | None
    """The peak memory in MiB: of the GPU or, if that was not recorded, of the process; None if neither was."""
    energy_j: float | None
    """The energy in joules: of the GPU or, if that was not recorded, of the processor; None if neither was."""
    freeze: tuple[int, int, int] | None
    """The numbers of frozen bottom layers and of frozen top layers, and 1 if the embeddings are frozen, else 0. None if
    that was not recorded, or if a strategy that chooses its layers chose different ones in its runs."""
    learning: Learning | None = None
    """The comparison of the strategy's scores with the trivial score, that of a baseline without a model. None
    if that was not recorded, or if the compared metric is not the task's primary metric."""
    folds: int = 0
    """The number of folds that were run, over all repeats of the cross-validation; 0 without cross-validation."""
    times: TimeComparison | None = None
    """The comparison of training times; `time_change` and `speed_up` are taken from it."""
    left_out: tuple[str, ...] = ()
    """The ids of further runs of the strategy, which were used to choose it and do not enter any value here."""
    unconfirmed: bool = False
    """True if there is no difference because the strategy or the baseline only has runs that were used to choose it."""

    @property
    def replicates(self) -> int:
        """The number of values over which the mean score is taken: folds or, without cross-validation, seeds."""
        return self.folds or len(self.seeds)

    @property
    def learnt_nothing(self) -> bool:
        """True if it is known that fewer than half of the runs have learnt anything (`evaluation.learning`)."""
        return self.learning is not None and not self.learning.has_learnt

    @property
    def collapsed(self) -> int:
        """The number of runs whose score is not significantly above that of a baseline without a model."""
        return 0 if self.learning is None else self.learning.collapsed

    def collapsed_text(self) -> str:
        """Format the number of runs that collapsed, such as "2 of 5 seeds collapsed"; empty if none did."""
        over = "seed" if not self.folds else "fold" if self.folds == len(self.run_ids) else "run"
        return "" if self.learning is None else self.learning.collapsed_text(over)


@dataclass(frozen=True, kw_only=True)
class ComparisonBlock:
    """The comparison of strategies for one task and model under one set of conditions, such as hyper-parameters."""

    task: str
    model: str
    metric: str
    """The name in MLflow of the metric that is compared, such as test/f1_macro."""
    baseline: str
    conditions: Mapping[str, Any]
    """The value that all runs have for each column in `CONDITIONS`; None for a value that was not recorded."""
    differing: tuple[str, ...]
    """The conditions that differ between the comparisons for this task and model, so that a heading must name them."""
    trivial_score: float | None
    """The score of a baseline without a model; None if it was not recorded, or if `metric` is not the task's
    primary metric."""
    tfidf_score: float | None = None
    """The score of a linear model on TF-IDF features (`evaluation.yardstick`); None as for `trivial_score`."""
    margin: Margin
    """The margin: the largest loss of score that counts as acceptable."""
    rows: tuple[StrategyResult, ...]
    """The results of the strategies: first the baseline, then all others, ordered by name (bottom3 before bottom10)."""
    notes: tuple[str, ...]
    low_fidelity: bool = False
    """True if all runs are low-fidelity runs of a hyper-parameter search, which have fewer epochs, so that no strategy
    may be recommended because of them."""
    split_descriptions: Mapping[str, str] = field(default_factory=dict)
    """A phrase that describes the examples of each split, such as their number. The key is the condition that holds the
    digest of the split's examples, such as "train_digest". The digest's first digits are added if the number alone does
    not distinguish two sets of examples."""

    @property
    def margin_size(self) -> float | None:
        """The margin in the unit of the metric; None if it cannot be computed, such as without the baseline's score."""
        score = self._baseline_score
        if score is None:
            return self.margin.value if self.margin.unit is MarginUnit.METRIC else None
        return self.margin.size(score, self.trivial_score)

    @property
    def learnt(self) -> float | None:
        """The baseline's mean score minus `trivial_score`; None if it learnt nothing or either score is not known."""
        score, trivial = self._baseline_score, self.trivial_score
        if score is None or trivial is None or self.unlearnt is not None or score <= trivial:
            return None
        return score - trivial

    def share_of_learnt(self, difference: float | None) -> float | None:
        """Return a difference of scores as a share of what the baseline learnt; None if that is not known."""
        return None if difference is None or self.learnt is None else difference / self.learnt

    @property
    def baseline_row(self) -> StrategyResult | None:
        """The result of the baseline strategy; None if it has no run under these conditions."""
        return next((row for row in self.rows if row.strategy == self.baseline), None)

    @property
    def unlearnt(self) -> Learning | None:
        """The comparison of the baseline strategy's scores with the trivial score, if the strategy learnt nothing.

        None if it learnt something, or if this is not known.
        """
        row = self.baseline_row
        return row.learning if row is not None and row.learnt_nothing else None

    @property
    def _baseline_score(self) -> float | None:
        row = self.baseline_row
        return row.score.mean if row is not None and row.score is not None else None

    @property
    def folds(self) -> int:
        """The number of folds into which the examples are divided; 0 without cross-validation."""
        return int(self.conditions["folds"] or 0)

    @property
    def replicate(self) -> str:
        """The word for the units over which means and tests are computed: "fold" or "seed"."""
        return "fold" if self.folds else "seed"

    @property
    def sample(self) -> bool:
        """True if the runs used the embedded sample data."""
        return bool(self.conditions["data_source"] == "sample")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The result of comparing runs: a block for each set of comparable runs, sorted by task, model and conditions."""

    blocks: tuple[ComparisonBlock, ...]
    tested: int
    """The number of tested differences, for which Holm's correction is applied."""


def compare(
    frame: pd.DataFrame,
    load: LoadTargets,
    *,
    baseline: str = BASELINE,
    metric: str | None = None,
    margins: Margins | None = None,
    resamples: int = 0,
) -> Comparison:
    """Compare freezing strategies with a baseline strategy.

    Args:
        frame: The finished runs, as in `tracking.reading.Results.frame`, or some of its rows.
        load: The function that reads a run's test predictions.
        baseline: The strategy with which all other strategies are compared.
        metric: The metric, such as "f1_micro"; tasks without it are left out. None for each task's primary metric.
        margins: The margin (largest acceptable loss of score) for each metric; None for `DEFAULT_MARGIN`.
        resamples: The number of resamples of the tests over examples alone (approximate randomisation and bootstrap); 0
            leaves these tests out.

    Raises:
        UsageError: No run has the metric, or a metric that `margins` names.
    """
    import pandas as pd

    margins = margins or Margins(DEFAULT_MARGIN)
    column = f"test/{metric.removeprefix('test/')}" if metric else None
    if column:
        _check_recorded(frame, column, f"--metric {metric}")
    for name, margin in margins.by_metric:
        _check_recorded(frame, f"test/{name}", f"--margin {name}={margin}")
    frame = with_copies_for_each_probe(_with_rows_of_all_folds(frame))
    blocks: list[ComparisonBlock] = []
    for (task, model), of_both in frame.groupby(["task", "model"], sort=True):
        if column and not of_both[column].notna().any():
            continue
        groups = [
            (_without_missing(values), part)
            for values, part in of_both.groupby(list(CONDITIONS), dropna=False, sort=True)
        ]
        differing = tuple(
            name for place, name in enumerate(CONDITIONS) if len({values[place] for values, _ in groups}) > 1
        )
        split_descriptions = {
            name: _split_descriptions(of_both, name) for name in ("train_digest", "dev_digest", "test_digest")
        }
        for values, part in groups:
            conditions = dict(zip(CONDITIONS, values, strict=True))
            primary = f"test/{part['primary_metric'].iloc[-1]}" if pd.notna(part["primary_metric"].iloc[-1]) else ""
            used = column or primary or "test/score"
            blocks.append(
                _block(
                    part,
                    load,
                    task=str(task),
                    model=str(model),
                    metric=used,
                    primary=used in (primary, "test/score"),
                    baseline=baseline,
                    conditions=conditions,
                    differing=differing,
                    split_descriptions={
                        name: told[conditions[name]] for name, told in split_descriptions.items() if conditions[name]
                    },
                    margin=margins.of(used),
                    resamples=resamples,
                )
            )
    return _with_corrected_p_values(blocks)


def describe_conditions(block: ComparisonBlock) -> str:
    """Describe the conditions that distinguish a block from the other blocks of its task and model.

    A block is a set of comparable runs. If it is the only one of its task and model, the description is empty; but
    low-fidelity runs of a search, which have fewer epochs, are always mentioned.
    """
    import json

    parts = ["low-fidelity runs of a search (no answer rests on them)"] if block.low_fidelity else []
    for name in block.differing:
        value = block.conditions[name]
        if name == "other_hyper" and isinstance(value, str):
            parts.append(", ".join(f"{key} {setting}" for key, setting in json.loads(value).items()))
        elif name in block.split_descriptions:
            parts.append(f"{CONDITION_WORDS[name]} {block.split_descriptions[name]}")
        elif name.endswith("_digest"):
            parts.append(f"{CONDITION_WORDS[name]} {str(value)[:6] if value else 'not recorded'}")
        else:
            parts.append(f"{CONDITION_WORDS.get(name, name)} {'not recorded' if value is None else value}")
    return "; ".join(parts)


CONDITION_WORDS: Mapping[str, str] = {
    "data_source": "data",
    "train_digest": "train rows",
    "dev_digest": "dev rows",
    "test_digest": "test rows",
    "model_digest": "weights",
    "batch_size": "batch size",
    "max_length": "max length",
    "other_hyper": "settings",
    "version": "alue-bench",
}
"""The words in headings for the columns in `CONDITIONS`; a column that is not listed is shown by its name."""


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that orders names by the size of the numbers in them: bottom3 comes before bottom10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def all_rows(comparison: Comparison) -> Iterator[tuple[ComparisonBlock, StrategyResult]]:
    """Yield the result of every strategy in every set of comparable runs, as pairs of (block, result)."""
    return ((block, row) for block in comparison.blocks for row in block.rows)


# How ---------------------------------------------------------------------------------------------------------------


def _check_recorded(frame: pd.DataFrame, column: str, option: str) -> None:
    """Raise UsageError if there are runs, and none of them has a value of a metric.

    Args:
        frame: The runs.
        column: The column of the metric, such as test/f1_micro.
        option: The command-line option that names the metric, with its value, for the error message.
    """
    if len(frame) and not (column in frame.columns and frame[column].notna().any()):
        known = ", ".join(sorted(name.removeprefix("test/") for name in frame.columns if name.startswith("test/")))
        raise UsageError(f"{option}: no run has it; there are {known}")


def _without_missing(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return the values with missing ones replaced by None, since pandas' NA does not even equal itself."""
    import pandas as pd

    return tuple(None if pd.isna(value) else value for value in values)


def _with_rows_of_all_folds(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with one digest for the examples of all folds of a cross-validation.

    This digest replaces the digests of the splits. Otherwise the runs of different folds could not be compared, since
    the splits of each fold have different examples.
    """
    pooled = frame["folds_digest"].fillna("unknown").where(frame["folds"].notna())
    if pooled.isna().all():
        return frame
    return frame.assign(
        **{name: frame[name].mask(pooled.notna(), pooled) for name in ("train_digest", "dev_digest", "test_digest")}
    )


def _split_descriptions(runs: pd.DataFrame, digest_name: str) -> dict[str, str]:
    """Return a phrase for each distinct set of examples that the runs used as a split, keyed by the set's digest.

    The phrase is the number of examples. The digest's first digits are added if another set has the same number of
    examples, or if the number was not recorded.

    Args:
        runs: The runs of one task and model.
        digest_name: The column with the digests of the split's examples, such as train_digest.
    """
    column = f"data/{digest_name.removesuffix('_digest')}_rows"
    if column not in runs.columns:
        return {digest: f"(set {digest[:6]})" for digest in runs[digest_name].dropna().unique()}
    numbers = {str(digest): number for digest, number in runs.groupby(digest_name)[column].max().items()}
    often = Counter(numbers.values())
    descriptions = {}
    for digest, number in numbers.items():
        words = [] if math.isnan(number) else [f"{number:.0f}"]
        if not words or often[number] > 1:
            words.append(f"(set {digest[:6]})")
        descriptions[digest] = " ".join(words)
    return descriptions


@dataclass(frozen=True)
class _Influence:
    """The contribution of each test example to a run's score, for the significance tests."""

    system: Additive
    pseudo_values: Any
    """The contribution of each example, as jackknife pseudo-values `[examples]`."""
    ids: Any
    """The ids of the examples `[examples]`."""

    def of_score(self, score: float) -> Any:
        """Return the contributions `[examples]` to a run's score.

        If a run's predictions are constant, their correlation is undefined, whichever example is left out, so that all
        pseudo-values are nan. Every example then contributes `score`. In a confirmation, this is the trivial score.
        """
        import numpy as np

        undefined = np.isnan(self.pseudo_values).all()
        return np.full(len(self.pseudo_values), score) if undefined else self.pseudo_values


class _Influences:
    """A reader of runs' test predictions, which computes each example's contribution to a run's score.

    One object serves the runs of one task and model that can be compared. It caches the contributions for the
    baseline's runs, since every strategy is compared with them. The contributions for other runs are not cached, since
    together they might not fit into memory.
    """

    def __init__(self, load: LoadTargets, metric: str, readers: Executor | None, *, multilabel: bool) -> None:
        """Store the function that reads predictions, and the metric.

        Args:
            load: The function that reads a run's test predictions.
            metric: The metric's name, with or without "test/".
            readers: The threads that read predictions; None to read them one after the other.
            multilabel: Whether an example may have several labels.
        """
        self._load, self._metric, self._multilabel = load, metric.removeprefix("test/"), multilabel
        self._readers = readers
        self._cache: dict[str, _Influence | str] = {}

    def of(self, run_id: str) -> _Influence | str:
        """Return the contribution of each example to a run's score, or the reason why it cannot be computed."""
        try:
            targets = self._load(run_id, self._multilabel)
        except AlueBenchError as error:
            return str(error)
        system = additive(self._metric, targets.gold, targets.predicted, targets.labels)
        if system is None:
            return f"there is no test of {self._metric} over examples"
        return _Influence(system, system.pseudo_values(), targets.ids)

    def of_each(self, run_ids: Iterable[str]) -> list[_Influence | str]:
        """Call `of` for each run, and return the results in the order of the runs."""
        return [*map(self.of, run_ids)] if self._readers is None else [*self._readers.map(self.of, run_ids)]

    def of_baseline(self, run_id: str) -> _Influence | str:
        if run_id not in self._cache:
            self._cache[run_id] = self.of(run_id)
        return self._cache[run_id]


def _block(
    part: pd.DataFrame,
    load: LoadTargets,
    *,
    task: str,
    model: str,
    metric: str,
    primary: bool,
    baseline: str,
    conditions: Mapping[str, Any],
    differing: tuple[str, ...],
    split_descriptions: Mapping[str, str],
    margin: Margin,
    resamples: int,
) -> ComparisonBlock:
    notes = []
    # Runs that differ only in a plugin's version have different fingerprints, and may have different scores.
    replicate = ["strategy", "init_seed", "data_seed", "repeat", "fold"]
    kept = part.drop_duplicates(replicate, keep="last").sort_values(["seed", "repeat", "fold"])
    if len(kept) < len(part):
        notes.append(f"{len(part) - len(kept)} runs made with an older version of a plugin are left out")
    versions = sorted(set(kept["versions"].dropna()))
    if len(versions) > 1 and (varying := _varying(versions)):
        notes.append(f"library versions differ between runs: {varying}")
    by_strategy: dict[str, list[Run]] = {}
    every_run = kept.to_dict("records")
    for run in every_run:
        by_strategy.setdefault(str(run["strategy"]), []).append(run)
    compared, choosing = without_choosing_runs(by_strategy)
    notes += choosing.notes(by_strategy, baseline)
    by_strategy = compared
    base = by_strategy.get(baseline)
    if base is None:
        notes.append(f"no run of {baseline} under these conditions, so changes cannot be computed")
    multilabel = "test/jaccard_samples" in part.columns and bool(part["test/jaccard_samples"].notna().any())
    downloaded = not part["artifact_uri"].map(is_on_this_machine).all()
    with ThreadPoolExecutor(READER_THREADS) as readers:
        influences = _Influences(load, metric, readers if downloaded else None, multilabel=multilabel)
        rows = tuple(
            replace(
                _row(name, by_strategy[name], None if name == baseline else base, metric, influences, resamples),
                learning=_learning(by_strategy[name], metric) if primary else None,
            )
            for name in sorted(by_strategy, key=lambda name: (name != baseline, natural_order(name)))
        )
    rows = tuple(
        replace(row, difference=None, unconfirmed=True) if choosing.explains(row.strategy, baseline) else row
        for row in (replace(row, left_out=choosing.left_out.get(row.strategy, ())) for row in rows)
    )
    for row in rows:
        runs = by_strategy[row.strategy]
        undefined = len(runs) - len(_column(runs, metric))
        if 0 < undefined < len(runs):
            notes.append(f"{row.strategy}: {undefined} of {len(runs)} scores are undefined and left out")
    trivial = _column(base or every_run, "test/trivial_score") if primary else []
    tfidf = _mean(_column(every_run, "test/tfidf_score")) if primary else None
    if (below := yardstick_remark(tfidf, next((row for row in rows if row.strategy == baseline), None), metric)) != "":
        notes.append(below)
    return ComparisonBlock(
        task=task,
        model=model,
        metric=metric,
        baseline=baseline,
        conditions=conditions,
        differing=differing,
        # Folds have different test rows and so different trivial scores; seeds have the same.
        trivial_score=(_mean(trivial) if conditions["folds"] else trivial[0]) if trivial else None,
        tfidf_score=tfidf,
        margin=margin,
        rows=rows,
        notes=tuple(notes),
        low_fidelity=bool(kept["first_look"].notna().all()),
        split_descriptions=split_descriptions,
    )


def yardstick_remark(tfidf: float | None, baseline: StrategyResult | None, metric: str) -> str:
    """Return a sentence that says that a linear model scores above the baseline strategy; empty if it does not.

    Args:
        tfidf: The score of the linear model on TF-IDF features; None if it was not recorded.
        baseline: The result of the baseline strategy; None if it has no runs.
        metric: The metric of the scores.
    """
    if tfidf is None or baseline is None or baseline.score is None or baseline.score.mean >= tfidf:
        return ""
    return (
        f"{baseline.strategy}'s score {baseline.score.mean:.3f} is below the {tfidf:.3f} of {yardstick_name(metric)}, "
        "which needs no encoder"
    )


def _learning(runs: Sequence[Run], metric: str) -> Learning | None:
    """Test whether runs have learnt anything: compare their scores with the trivial score (baseline without a model).

    Return None if the trivial score was not recorded.

    Runs of older versions of alue-bench did not record the standard error of the difference, which is then nan.
    """
    columns = (metric, "test/trivial_score", "test/above_trivial_error")
    return learning(*([float(run.get(name, math.nan)) for run in runs] for name in columns))


def _varying(versions: Sequence[str]) -> str:
    """List the packages whose version differs between runs, with all their versions; empty if there are none.

    Args:
        versions: The recorded package versions of each run, such as "torch 2.13.0, mlflow 3.1".
    """
    by_package: dict[str, set[str]] = {}
    for text in versions:
        for entry in text.split(", "):
            name, _, version = entry.rpartition(" ")
            by_package.setdefault(name, set()).add(version)
    varying = {name: sorted(versions_of) for name, versions_of in by_package.items() if len(versions_of) > 1}
    return ", ".join(f"{name} {' and '.join(versions_of)}" for name, versions_of in varying.items())


def _row(
    strategy: str,
    runs: Sequence[Run],
    base: Sequence[Run] | None,
    metric: str,
    influences: _Influences,
    resamples: int,
) -> StrategyResult:
    pairs = paired_runs(runs, base or ())
    times = compare_times(runs, pairs)
    by_fold, seeds = _by_fold(runs, metric), tuple(int(run["seed"]) for run in runs)
    scores = [*by_fold.values()] if by_fold else _column(runs, metric)
    return StrategyResult(
        strategy=strategy,
        seeds=tuple(dict.fromkeys(seeds)) if by_fold else seeds,
        run_ids=tuple(run["run_id"] for run in runs),
        score=estimate_over_folds(scores, _test_share(runs)) if by_fold else estimate(scores),
        difference=None if base is None else _difference(pairs, runs, base, metric, influences, resamples),
        train_s=estimate(_column(runs, "runtime/train_s")),
        time_change=times.change,
        speed_up=times.speed_up.mean if times.speed_up else None,
        trainable_share=_mean(_column(runs, "params/trainable_share")),
        flops_share=_mean(_column(runs, "flops/train_vs_full")),
        memory_mib=_mean(_column(runs, "memory/device_peak_mib") or _column(runs, "memory/process_peak_mib")),
        energy_j=_mean(_column(runs, "energy/gpu_j") or _column(runs, "energy/cpu_j")),
        freeze=_freeze(runs),
        folds=len(by_fold),
        times=times,
    )


def _freeze(runs: Sequence[Run]) -> tuple[int, int, int] | None:
    """Return `StrategyResult.freeze`; None if it was not recorded, or if the runs chose different layers."""
    freezing = {
        _without_missing(run[name] for name in ("freeze_bottom", "freeze_top", "freeze_embeddings")) for run in runs
    }
    bottom, top, embeddings = freezing.pop()
    if freezing or None in (bottom, top, embeddings):
        return None
    return int(bottom), int(top), int(embeddings)


def _by_fold(runs: Sequence[Run], metric: str) -> dict[tuple[int, int], float]:
    """Return the mean of a metric over the seeds of each fold, keyed by (repeat, fold) of the cross-validation.

    A mean is nan if no seed has a finite value. The result is empty without cross-validation.
    """
    by_fold: dict[tuple[int, int], list[float]] = {}
    for run in runs:
        fold = _fold_of(run)
        if fold is not None:
            by_fold.setdefault(fold, []).extend(_column([run], metric))
    return {fold: mean if (mean := _mean(values)) is not None else math.nan for fold, values in by_fold.items()}


def _fold_of(run: Run) -> tuple[int, int] | None:
    """Return the numbers of a run's repeat and fold in the cross-validation; None without cross-validation."""
    repeat, fold = _without_missing((run["repeat"], run["fold"]))
    return None if fold is None else (int(repeat), int(fold))


def _test_share(runs: Sequence[Run]) -> float:
    """Return the total number of test examples in all folds, divided by the total number of train examples.

    If the runs did not record these numbers, the result is 1 / (folds - 1), as if there were no dev split.
    """
    test, train = (sum(_column(runs, f"data/{split}_rows")) for split in ("test", "train"))
    return test / train if test and train else 1 / (int(runs[0]["folds"]) - 1)


def _column(runs: Sequence[Run], name: str) -> list[float]:
    """Return the runs' values in a column, without missing and infinite ones."""
    return [float(run[name]) for run in runs if name in run and math.isfinite(run[name])]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def paired_runs(runs: Sequence[Run], base: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Return pairs of a strategy's run and the baseline's run (from `base`) with the same seeds and fold.

    Runs of the strategy without a corresponding run of the baseline are left out. The order is that of `runs`.
    """
    keyed = {(run["init_seed"], run["data_seed"], _fold_of(run)): run for run in base}
    keys = [(run["init_seed"], run["data_seed"], _fold_of(run)) for run in runs]
    return [(run, keyed[key]) for run, key in zip(runs, keys, strict=True) if key in keyed]


def _difference(
    pairs: Sequence[tuple[Run, Run]],
    runs: Sequence[Run],
    base: Sequence[Run],
    metric: str,
    influences: _Influences,
    resamples: int,
) -> Difference | None:
    scores, base_scores = _column(runs, metric), _column(base, metric)
    if not scores or not base_scores:
        return None
    finite = [(a, b) for a, b in pairs if math.isfinite(a[metric]) and math.isfinite(b[metric])]
    over_folds = _fold_of(runs[0]) is not None
    if not finite:
        return Difference(
            mean=sum(scores) / len(scores) - sum(base_scores) / len(base_scores),
            seeds=0,
            base_score=sum(base_scores) / len(base_scores),
            verdict=Verdict.NOT_TESTED,
            reason=f"it has no {'fold and seed' if over_folds else 'seed'} in common with the baseline",
        )
    if over_folds:
        return _difference_over_folds(finite, metric)
    by_seed = [a[metric] - b[metric] for a, b in finite]
    difference = Difference(
        mean=sum(by_seed) / len(by_seed),
        seeds=len(by_seed),
        base_score=sum(b[metric] for _, b in finite) / len(finite),
        verdict=Verdict.NOT_TESTED,
        cohens_d=cohens_d(by_seed),
        improvement=probability_of_improvement([a[metric] for a, _ in finite], [b[metric] for _, b in finite]),
    )
    if len(finite) == 1 and not resamples:
        return replace(difference, verdict=Verdict.TOO_FEW_SEEDS, reason=_too_few(1))
    loaded = influences.of_each(a["run_id"] for a, _ in finite)
    base_loaded = [influences.of_baseline(b["run_id"]) for _, b in finite]
    problem = _problem([*loaded, *base_loaded])
    if problem:
        return replace(difference, reason=problem)
    of_strategy = [one for one in loaded if isinstance(one, _Influence)]
    of_baseline = [one for one in base_loaded if isinstance(one, _Influence)]
    if resamples:
        systems, baselines = [one.system for one in of_strategy], [one.system for one in of_baseline]
        difference = replace(
            difference,
            p_examples=approximate_randomisation(systems, baselines, resamples=resamples),
            bootstrap=paired_bootstrap(systems, baselines, resamples=resamples).interval,
        )
    if len(finite) == 1:
        return replace(difference, verdict=Verdict.TOO_FEW_SEEDS, reason=_too_few(1))
    import numpy as np

    table = np.stack(
        [
            ours.of_score(a[metric]) - theirs.of_score(b[metric])
            for ours, theirs, (a, b) in zip(of_strategy, of_baseline, finite, strict=True)
        ]
    )
    if table.shape[1] < 2 or not np.isfinite(table).all():
        return replace(difference, reason="the metric is undefined when an example is left out")
    test = crossed_test_of(np.array(by_seed), table)
    if len(finite) < MIN_SEEDS:
        return replace(difference, test=test, verdict=Verdict.TOO_FEW_SEEDS, reason=_too_few(len(finite)))
    return replace(difference, test=test, verdict=Verdict.INCONCLUSIVE)


def _difference_over_folds(pairs: Sequence[tuple[Run, Run]], metric: str) -> Difference:
    """Return the difference between a strategy's score and the baseline's, over the folds of a cross-validation.

    The score of a fold is the mean over the seeds with which both strategies ran on this fold.

    Args:
        pairs: The pairs of a strategy's and the baseline's run with the same fold and seeds, whose scores are finite.
        metric: The metric's name.
    """
    runs, base = [a for a, _ in pairs], [b for _, b in pairs]
    scores, base_scores = _by_fold(runs, metric), _by_fold(base, metric)
    differences = [scores[fold] - base_scores[fold] for fold in scores]
    difference = Difference(
        mean=sum(differences) / len(differences),
        seeds=len(differences),
        base_score=sum(base_scores[fold] for fold in scores) / len(scores),
        verdict=Verdict.TOO_FEW_SEEDS if len(differences) < MIN_SEEDS else Verdict.INCONCLUSIVE,
        reason=_too_few(len(differences), "fold") if len(differences) < MIN_SEEDS else "",
        cohens_d=cohens_d(differences),
        improvement=probability_of_improvement([*scores.values()], [*base_scores.values()]),
        over_folds=True,
    )
    if len(differences) < 2:
        return difference
    return replace(difference, test=corrected_resampled_test(differences, _test_share(runs)))


def _too_few(number: int, unit: str = "seed") -> str:
    return f"{number} {unit}{'s' if number > 1 else ''} in common with the baseline; a verdict needs {MIN_SEEDS}"


def _problem(loaded: Sequence[_Influence | str]) -> str:
    """Return the reason why the predictions of runs cannot be compared; empty if they can.

    Args:
        loaded: For each run, the contributions of the examples to its score, or the reason why there are none.
    """
    for one in loaded:
        if isinstance(one, str):
            return one
    first = loaded[0]
    for one in loaded[1:]:
        if isinstance(one, _Influence) and isinstance(first, _Influence) and not one.ids.equals(first.ids):
            return "the runs predicted different examples"
    return ""


def _with_corrected_p_values(blocks: Sequence[ComparisonBlock]) -> Comparison:
    """Return the comparison with Holm's correction applied to all tests, and with the verdicts on all differences."""
    tests = [
        (place, row.strategy, row.difference.test.p_value)
        for place, block in enumerate(blocks)
        for row in block.rows
        if block.unlearnt is None  # there is no verdict, and so nothing to correct for
        if row.difference and row.difference.test and row.difference.verdict is Verdict.INCONCLUSIVE
    ]
    usable = [test for test in tests if math.isfinite(test[2])]
    corrected = {
        (place, strategy): p for (place, strategy, _), p in zip(usable, holm([p for *_, p in usable]), strict=True)
    }
    return Comparison(
        blocks=tuple(
            replace(
                block,
                rows=tuple(
                    _with_verdict(row, corrected.get((place, row.strategy)), len(usable), block) for row in block.rows
                ),
            )
            for place, block in enumerate(blocks)
        ),
        tested=len(usable),
    )


def _with_verdict(row: StrategyResult, p_corrected: float | None, tests: int, block: ComparisonBlock) -> StrategyResult:
    """Return a strategy's result with the verdict on its difference from the baseline filled in.

    Args:
        row: The result, with the test of its difference.
        p_corrected: The p-value after correction; None if there is none.
        tests: The number of tests for which the p-value was corrected.
        block: The set of comparable runs to which the result belongs.
    """
    learnt = block.unlearnt is None and not row.learnt_nothing
    # A margin limits the loss of what was learnt, and means nothing if nothing was learnt.
    judged = _tested_difference(row, p_corrected, tests, block.margin_size if learnt else None)
    difference = judged.difference
    if learnt or difference is None:
        return judged
    if block.unlearnt is None and difference.verdict in (Verdict.WORSE, Verdict.TOO_FEW_SEEDS):
        return judged
    who = f"{block.baseline} did" if block.unlearnt is not None else "it did"
    nothing = replace(
        difference,
        verdict=Verdict.NOTHING_LEARNT,
        reason=f"{who} not learn",
        loss_bound=None,
        detectable=None,
        seeds_needed=None,
        seeds_within_margin=None,
    )
    return replace(judged, difference=nothing)


def _tested_difference(
    row: StrategyResult, p_corrected: float | None, tests: int, margin: float | None
) -> StrategyResult:
    difference = row.difference
    if difference is None or difference.test is None:
        return row
    if difference.verdict is Verdict.INCONCLUSIVE and p_corrected is None:
        what = "folds" if isinstance(difference.test, ResampledTestResult) else "seeds and examples"
        reason = f"all {what} agree to the last digit, so no test applies"
        return replace(row, difference=replace(difference, verdict=Verdict.NOT_TESTED, reason=reason))
    test = difference.test
    if p_corrected is not None:
        verdict = verdict_of(test, p_corrected, margin)
        difference = replace(difference, verdict=verdict, p_corrected=p_corrected, loss_bound=test.loss_bound)
    if difference.verdict in SIGNIFICANT:
        return replace(row, difference=difference)
    if isinstance(test, ResampledTestResult):
        return replace(row, difference=replace(difference, detectable=test.detectable(tests=max(1, tests))))
    judged_by = margin if difference.verdict is Verdict.INCONCLUSIVE else None
    difference = replace(
        difference,
        seeds_needed=seeds_needed(test, difference.mean, tests=max(1, tests)),
        detectable=detectable(test, tests=max(1, tests)),
        seeds_within_margin=seeds_within_margin(test, judged_by) if judged_by is not None else None,
    )
    return replace(row, difference=difference)
