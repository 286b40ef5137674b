"""The confirmation of a recommended setting: its loss on the test split, with seeds that took no part in the choice.

A setting is recommended partly because its runs were lucky, so that the test scores of these runs are too high on
average. The setting and the reference, usually `full` (full fine-tuning), are therefore run again with fresh seeds. The
difference of their test scores is the loss to expect. It is tested as in `alue-bench compare`.

Seeds whose runs went badly must not be dropped, since the loss would then be too low. If the predictions of a run are
constant, so that a correlation is undefined, the run counts with the trivial score (of a baseline without
a model). If a run failed, it has no score; its seed is reported, and there is no verdict in favour of the setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from alue_bench.evaluation.margins import Margins
from alue_bench.reporting.comparison import ComparisonBlock, LoadTargets, Verdict, compare
from alue_bench.reporting.numbers import decimal, percent, signed, signed_percent

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """The loss of a recommended setting on the test split, with seeds that took no part in the choice."""

    strategy: str
    reference: str
    seeds: tuple[int, ...]
    """The fresh seeds with which both settings ran; all fresh seeds if `difference` is None."""
    missing: tuple[int, ...] = ()
    """The fresh seeds with which a run of either setting failed or could not be read."""
    folds: int = 0
    """The number of folds over which the difference is a mean; 0 without cross-validation."""
    test_score: float | None = None
    """The mean test score of the recommended setting, over `seeds`; None if `difference` is None."""
    reference_score: float | None = None
    """The mean test score of the reference over the same seeds; None if `difference` is None."""
    difference: float | None = None
    """The difference of the mean test scores, in the unit of the metric. A loss is negative. None if the difference
    could not be computed, for which `reason` states why."""
    test_change: float | None = None
    """The difference as a share of the reference's test score; None if this score is 0 or `difference` is None."""
    low: float | None = None
    """The lower end of the 95 % confidence interval of the difference; None without a test, such as with one seed."""
    high: float | None = None
    loss_bound: float | None = None
    """The one-sided 95 % upper bound of the loss. None if there is no verdict, or if failed runs make the verdict less
    favourable."""
    margin: float | None = None
    """The margin (largest acceptable loss) in the unit of the metric; None if it cannot be computed."""
    verdict: str = str(Verdict.NOT_TESTED)
    reason: str = ""
    """The reason why there is no verdict, or why failed runs make the verdict inconclusive; otherwise empty."""
    saving: float | None = None
    """The training time that the setting saves in the fresh runs, as a share of the reference's training time. None if
    no seed (and fold) has the training times of both settings."""
    run_ids: tuple[str, ...] = ()
    """The MLflow ids of the fresh runs of both settings."""
    notes: tuple[str, ...] = ()
    """Sentences about runs that collapsed, failed or were left out."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values as a dict for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def change_text(self) -> str:
        """Return the difference of the test scores with its confidence interval, such as −0.009 (−0.021 to +0.003).

        The result is "unknown" if `difference` is None.
        """
        if self.difference is None:
            return "unknown"
        interval = "" if self.low is None or self.high is None else f" ({signed(self.low)} to {signed(self.high)})"
        return f"{signed(self.difference)}{interval}"

    def sentence(self) -> str:
        """Return the expected loss of score, and the verdict on it, as a sentence.

        If `difference` is None, the sentence states the reason instead.
        """
        if self.difference is None:
            return f"Not confirmed: {self.reason}"
        count = f"{len(self.seeds)} seed{'s' if len(self.seeds) != 1 else ''}"
        over = f"{count} on {self.folds} folds" if self.folds else count
        relative = "" if self.test_change is None else f", that is {signed_percent(self.test_change, 1)}"
        saving = "" if self.saving is None else f"; {percent(self.saving)} of the training time saved"
        return (
            f"Expected loss, from {over} that took no part in the choice: test score {decimal(self.test_score)} "
            f"against {decimal(self.reference_score)} of {self.reference}, a change of "
            f"{self.change_text()}{relative}{saving}. Verdict: "
            f"{self._verdict()}{''.join(f'; {note}' for note in self.notes)}"
        )

    def _verdict(self) -> str:
        margin = "" if self.margin is None else f" (margin {decimal(self.margin)})"
        if self.reason:
            return f"{self.verdict}, {self.reason}"
        if self.verdict == Verdict.INCONCLUSIVE and self.loss_bound is not None:
            return f"inconclusive, a loss up to {decimal(self.loss_bound)} is not excluded{margin}"
        return f"{self.verdict}{margin}"


def confirm_setting(
    frame: pd.DataFrame, load: LoadTargets, strategy: str, reference: str, *, margins: Margins, seeds: Sequence[int]
) -> Confirmation:
    """Compare a recommended setting with its reference in the runs with fresh seeds.

    If no difference can be computed, `Confirmation.reason` states why.

    Args:
        frame: The runs of both settings with the fresh seeds, for one task and model, as in `Results.frame`.
        load: The function that reads a run's test predictions.
        strategy: The recommended setting.
        reference: The setting with which the recommended setting is compared.
        margins: The margin (largest acceptable loss of score) for each metric.
        seeds: The fresh seeds with which both settings were meant to run.
    """
    runs = frame[frame["strategy"].isin([strategy, reference])]
    undefined = _undefined_notes(runs)
    runs = _with_undefined_as_trivial(runs)
    missing = _missing(runs, strategy, reference, seeds)
    unconfirmed = Confirmation(strategy=strategy, reference=reference, seeds=tuple(seeds), missing=missing)
    if set(runs["strategy"]) != {strategy, reference} or len(missing) == len(seeds):
        return _without(unconfirmed, "the runs with fresh seeds failed; run the same command again to repeat them")
    recorded = Margins(
        margins.default,
        tuple(metric_margin for metric_margin in margins.by_metric if f"test/{metric_margin[0]}" in runs),
    )
    blocks = [
        block
        for block in compare(runs, load, baseline=reference, margins=recorded).blocks
        if {strategy, reference} <= {row.strategy for row in block.rows}
    ]
    if len(blocks) != 1:
        return _without(unconfirmed, "the runs with fresh seeds of both settings are not comparable, see compare")
    confirmation = confirmation_in(blocks[0], strategy)
    if confirmation is None and runs["chosen_in"].notna().any():
        seen = ", ".join(map(str, seeds))
        return _without(
            unconfirmed,
            f"an earlier sweep or search has chosen {strategy} by its runs with seeds {seen}; a larger --confirm adds "
            "others",
        )
    if confirmation is None:
        return _without(unconfirmed, "the test scores of the runs with fresh seeds are undefined")
    notes = tuple(dict.fromkeys((*confirmation.notes, *undefined, *blocks[0].notes)))
    return _with_missing(replace(confirmation, notes=notes), missing, len(seeds))


def confirmation_in(block: ComparisonBlock, strategy: str) -> Confirmation | None:
    """Convert a comparison of a setting with the baseline to the confirmation of this setting.

    Args:
        block: The comparison, whose runs took no part in the choice of the setting.
        strategy: The setting to confirm, such as bottom3top4.

    Returns:
        The confirmation; None if the comparison does not compare the setting with the baseline, because one of them has
        no runs or no score.
    """
    row = next((row for row in block.rows if row.strategy == strategy), None)
    base = next((row for row in block.rows if row.strategy == block.baseline), None)
    if row is None or base is None or row.difference is None or row.difference.base_score is None:
        return None
    difference, test, score = row.difference, row.difference.test, row.difference.base_score
    collapsed = ((result.strategy, result.collapsed_text()) for result in (row, base))
    return Confirmation(
        strategy=strategy,
        reference=block.baseline,
        seeds=tuple(sorted(set(row.seeds) & set(base.seeds))),
        folds=block.folds and difference.seeds,
        test_score=score + difference.mean,
        reference_score=score,
        difference=difference.mean,
        test_change=difference.mean / abs(score) if score else None,
        low=test.difference - test.half_width if test else None,
        high=test.difference + test.half_width if test else None,
        loss_bound=difference.loss_bound,
        margin=block.margin_size,
        verdict=str(difference.verdict),
        reason=difference.reason,
        saving=-row.time_change.mean if row.time_change else None,
        run_ids=(*row.run_ids, *base.run_ids),
        notes=tuple(f"{name}: {text}" for name, text in collapsed if text),
    )


def _undefined_notes(frame: pd.DataFrame) -> list[str]:
    """Return a note for each strategy that has undefined scores."""
    return [
        f"{name}: {count} of {len(part)} test scores undefined (constant predictions), counted as the trivial score"
        for name, part in frame.groupby("strategy")
        if (count := int(part["score"].isna().sum()))
    ]


def _with_undefined_as_trivial(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with undefined scores of the primary metric replaced by the trivial score of the run.

    A score is undefined if it is the correlation of constant predictions. If no trivial score was recorded, it is 0.
    """
    undefined = 0.0
    trivial = frame["test/trivial_score"].fillna(undefined) if "test/trivial_score" in frame else undefined
    filled = frame
    for metric in frame["primary_metric"].dropna().unique():
        column, has_it = f"test/{metric}", frame["primary_metric"] == metric
        scores = frame[column] if column in frame else frame["score"].where(has_it)
        filled = filled.assign(**{column: scores.mask(has_it & scores.isna(), trivial)})
    return filled


def _missing(frame: pd.DataFrame, strategy: str, reference: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds with which at least one of two settings has no run.

    In a cross-validation, these are the seeds with which a setting has no run on at least one fold.
    """
    folds = frame[["repeat", "fold"]].drop_duplicates()
    runs = frame.drop_duplicates(["strategy", "seed", "repeat", "fold"])
    number = {key: len(part) for key, part in runs.groupby(["strategy", "seed"])}
    all_folds = len(folds)
    return tuple(
        seed for seed in seeds if any(number.get((name, seed), 0) < all_folds for name in (strategy, reference))
    )


def _with_missing(confirmation: Confirmation, missing: tuple[int, ...], number: int) -> Confirmation:
    """Add the missing seeds to a confirmation, and withdraw a verdict in favour of the setting.

    The failed runs might have had low scores. The remaining runs therefore show neither a gain nor a loss within the
    margin.

    Args:
        confirmation: The confirmation from the runs that did not fail.
        missing: The fresh seeds with which a run of either setting failed or could not be read.
        number: The number of all fresh seeds.
    """
    if not missing:
        return confirmation
    named = f"{len(missing)} of {number} fresh seeds failed or could not be read ({', '.join(map(str, missing))})"
    changed = replace(
        confirmation,
        missing=missing,
        notes=(*confirmation.notes, f"{named}; run the same command again to repeat them"),
    )
    if changed.verdict == Verdict.WORSE_WITHIN_MARGIN:
        return replace(changed, verdict=str(Verdict.WORSE), loss_bound=None)
    if changed.verdict in (Verdict.WITHIN_MARGIN, Verdict.BETTER):
        reason = "since the seeds that failed may have lost more"
        return replace(changed, verdict=str(Verdict.INCONCLUSIVE), loss_bound=None, reason=reason)
    return changed


def _without(confirmation: Confirmation, reason: str) -> Confirmation:
    return replace(confirmation, reason=reason)
