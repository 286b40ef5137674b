"""Sentences that state the result of each strategy: training time, loss of score, and the verdict with its evidence.

    bottom3top4 trains in 62 ± 2 % of the time of full (same session, 3 runs); its macro-F1 is within 2 points of full's
    (upper bound of the loss: 1.4 points, 3 % of what full learnt).

Tables, the report and the end of `run` show the same sentences.
"""

from __future__ import annotations

from collections.abc import Mapping

from alue_bench.evaluation.learning import REMEDY
from alue_bench.reporting.comparison import ComparisonBlock, Difference, StrategyResult, Verdict
from alue_bench.reporting.numbers import number_with_noun, percent

MAX_STATEMENTS = 3
"""The largest number of strategies besides the baseline that get a sentence each. If a set of comparable runs has more,
none of them gets one."""
METRICS: Mapping[str, str] = {
    "f1_macro": "macro-F1",
    "f1_micro": "micro-F1",
    "f1_weighted": "weighted F1",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
    "mcc": "Matthews coefficient",
    "jaccard_samples": "Jaccard score",
}
"""The names of metrics in sentences; a metric that is not listed has its own name."""


def statements(block: ComparisonBlock) -> list[str]:
    """Return the sentences on a set of comparable runs: one on the baseline if needed, then one for each strategy.

    If there are more than `MAX_STATEMENTS` strategies besides the baseline, or if the baseline learnt nothing, only the
    sentence on the baseline is returned. Without a run of the baseline there is no sentence.
    """
    if block.baseline_row is None:
        return []
    on_baseline = baseline_statement(block)
    others = [row for row in block.rows if row.strategy != block.baseline]
    if block.unlearnt is not None or len(others) > MAX_STATEMENTS:
        others = []
    return [*([on_baseline] if on_baseline else []), *(statement(row, block) for row in others)]


def baseline_statement(block: ComparisonBlock) -> str:
    """Return a sentence on the baseline: that it is missing, learnt nothing, or that some of its seeds collapsed.

    The sentence is empty if there is nothing to say.
    """
    row, baseline = block.baseline_row, block.baseline
    if row is None:
        return f"No run of {baseline} under these conditions, so no strategy can be compared with it."
    if block.unlearnt is not None:
        text = f"{block.unlearnt.sentence(baseline, 'test', block.replicate)}, so there is no verdict on any strategy"
        learnt = [
            result.strategy for result in block.rows if result.learning is not None and result.learning.has_learnt
        ]
        others = f"; above the trivial score: {', '.join(learnt[:MAX_STATEMENTS])}" if learnt else ""
        more = f" and {len(learnt) - MAX_STATEMENTS} more" if len(learnt) > MAX_STATEMENTS else ""
        return f"{text}{others}{more}; {REMEDY}."
    return f"{baseline}: {_collapsed(row)}." if row.collapsed else ""


def statement(row: StrategyResult, block: ComparisonBlock) -> str:
    """Return the sentence on a strategy: its training time and its score, compared with those of the baseline.

    Args:
        row: The strategy's result.
        block: The set of comparable runs to which the result belongs.
    """
    return f"{row.strategy} {_time(row, block)}; {_score(row, block)}."


def _time(row: StrategyResult, block: ComparisonBlock) -> str:
    times = row.times
    if times is None or times.change is None:
        return "has no training time to compare"
    change, base = times.change, block.baseline
    half = "" if change.half_width is None else f" ± {half_width_text(100 * change.half_width)}"
    share = f"{100 * (1 + change.mean):.0f}{half} %"
    if times.across_sessions:
        return f"trains in {share} of the time of {base}, but in another session, so the machine may explain it"
    runs = f"same session, {number_with_noun(len(times.ratios), 'run')}"
    if change.half_width is not None and abs(change.mean) <= change.half_width:
        return f"does not clearly change the training time ({share} of {base}'s; {runs})"
    return f"trains in {share} of the time of {base} ({runs})"


def _score(row: StrategyResult, block: ComparisonBlock) -> str:
    """Return the clause on a strategy's score, with the verdict and the values that support it."""
    difference, metric = row.difference, metric_name(block.metric)
    if row.unconfirmed:
        return f"it was chosen by these runs, so the change of its {metric} is not known before fresh seeds confirm it"
    if difference is None:
        return f"its {metric} is undefined, so scores do not compare"
    if row.learnt_nothing and difference.verdict is not Verdict.WORSE:
        assert row.learning is not None
        return row.learning.sentence("it", "test", block.replicate)
    text = f"its {metric} {_verdict(difference, block)}"
    return f"{text}; {_collapsed(row)}" if row.collapsed else text


def _verdict(difference: Difference, block: ComparisonBlock) -> str:
    size, bound, base = block.margin_size, difference.loss_bound, block.baseline
    verdict, observed = difference.verdict, _observed(difference, block)
    p = "" if difference.p_corrected is None else f" ({p_text(difference.p_corrected)})"
    if verdict in (Verdict.BETTER, Verdict.WORSE):
        return f"is {', '.join(filter(None, (observed, _of_learnt(difference.mean, block))))}{p}"
    if verdict in (Verdict.WITHIN_MARGIN, Verdict.WORSE_WITHIN_MARGIN):
        assert size is not None
        assert bound is not None
        most = "a loss is excluded"
        if bound > 0:
            most = f"upper bound of the loss: {', '.join(filter(None, (_points(bound), _of_learnt(bound, block))))}"
        if verdict is Verdict.WITHIN_MARGIN:
            return f"is within {_points(size)} of {base}'s ({most})"
        return f"is {observed}{p}, but within {_points(size)} of it ({most})"
    if verdict is Verdict.INCONCLUSIVE:
        needed = seeds_text(difference, block)
        margin = "" if size is None else f" (margin: {_points(size)})"
        return f"is {observed}, {inconclusive_text(difference, block)}{margin}{f'; {needed}' if needed else ''}"
    if verdict is Verdict.TOO_FEW_SEEDS:
        few = "which may be due to chance" if difference.seeds == 1 else "too few for a verdict"
        return f"is {observed} with {counted(difference)}, {few}"
    return f"is {observed}, not tested{f': {difference.reason}' if difference.reason else ''}"


def _observed(difference: Difference, block: ComparisonBlock) -> str:
    """Format the observed difference, such as "0.4 ± 0.9 points lower than full's"."""
    half = f" ± {100 * difference.test.half_width:.1f}" if difference.test else ""
    if abs(100 * difference.mean) < 0.05:  # it would be shown as zero
        return f"that of {block.baseline} (a difference of 0.0{half} points)"
    word = "lower" if difference.mean < 0 else "higher"
    return f"{abs(100 * difference.mean):.1f}{half} points {word} than {block.baseline}'s"


def inconclusive_text(difference: Difference, block: ComparisonBlock) -> str:
    """Describe the losses that are not excluded, for a difference on which the verdict is inconclusive."""
    bound = difference.loss_bound or 0.0
    if bound <= 0:  # only if the margin is not known
        return "inconclusive: a loss is excluded, but the margin is not known and no gain is shown"
    if bound >= 1:  # scores are at most 1, so that a larger loss is impossible
        return "inconclusive: no loss is excluded"
    share = _of_learnt(bound, block)
    return f"inconclusive: a loss up to {_points(bound)}{f' ({share})' if share else ''} is not excluded"


def seeds_text(difference: Difference, block: ComparisonBlock) -> str:
    """Format the number of seeds that would probably show a strategy that loses nothing to be within the margin.

    The result is empty if the margin is not known, if the difference is over folds, and if the difference was already
    computed from this number of seeds or more. If more seeds do not help, the result states that more test examples are
    needed.
    """
    if difference.over_folds or block.margin_size is None:
        return ""
    if difference.seeds_within_margin is None:
        return "a loss of zero needs more test examples, not seeds, to be shown within the margin"
    if difference.seeds_within_margin <= difference.seeds:
        return ""
    return f"a loss of zero needs about {difference.seeds_within_margin} seeds to be shown within the margin"


def counted(difference: Difference) -> str:
    """Format the number of seeds or folds from which a difference was computed, such as "one seed" or "5 folds"."""
    what = "fold" if difference.over_folds else "seed"
    return f"one {what}" if difference.seeds == 1 else f"{difference.seeds} {what}s"


def p_text(value: float) -> str:
    """Return a p-value as text, such as "p = 0.012" or "p < 0.001"."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def metric_name(metric: str) -> str:
    """Return the name of a metric in a sentence, such as "macro-F1" for test/f1_macro."""
    name = metric.removeprefix("test/")
    return METRICS.get(name, name)


def half_width_text(value: float) -> str:
    """Return half the width of an interval as text, with as few digits as are meaningful, such as 12, 2 or 0.3."""
    return f"{value:.0f}" if value >= 1 else f"{value:.1f}"


def _of_learnt(size: float, block: ComparisonBlock) -> str:
    """Format a difference as a share of what the baseline learnt; empty if that is not known."""
    share = block.share_of_learnt(size)
    return "" if share is None else f"{percent(abs(share))} of what {block.baseline} learnt"


def _points(size: float) -> str:
    """Format the size of a difference between two scores in points: 0.008 becomes "0.8 points"."""
    shown = f"{100 * size:.1f}".removesuffix(".0") if 100 * size >= 0.05 else f"{100 * size:.1g}"
    return f"{shown} point{'' if shown == '1' else 's'}"


def _collapsed(row: StrategyResult) -> str:
    return f"{row.collapsed_text()} to the trivial score"
