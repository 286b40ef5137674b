"""Sentences and tables that state the results of a comparison, which was computed by the module `comparison`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from alue_bench.evaluation.intervals import Estimate
from alue_bench.evaluation.learning import REMEDY
from alue_bench.evaluation.yardstick import yardstick_name
from alue_bench.planning.grid import DEFAULT_TOLERANCE
from alue_bench.reporting import comparison, grid
from alue_bench.reporting.comparison import Verdict
from alue_bench.reporting.comparison_table import inconclusive_text, loss_text, margin_text, seeds_text
from alue_bench.reporting.content import Cell, Column, Findings, Item, Paragraph, Row, RowGroup, Sentence, Table, Tone
from alue_bench.reporting.numbers import (
    NONE,
    count,
    percent,
    plain,
    seconds,
    several,
    signed,
    signed_percent,
)
from alue_bench.reporting.subjects import Subject
from alue_bench.reporting.time_cells import speed_up_cell, time_cell, time_remarks
from alue_bench.reporting.untuned import untuned_text

SAID = 3
"""The largest number of strategies that a sentence names. If there are more, the sentence names only the strategy that
is recommended by its dev score."""
MOST_ROWS = 100
"""The largest number of strategies that a table lists for one task and model. If there are more, the table lists the
strategies with the best scores."""
UNITS: Mapping[str, str] = {
    "accuracy": "accuracy points",
    "pearson": "points of Pearson's correlation",
    "spearman": "points of Spearman's correlation",
    "mcc": "points of Matthews' coefficient",
    "jaccard_samples": "Jaccard points",
}
"""The words for hundredths of a metric, as in "0.8 accuracy points". For metrics that are not listed, the function
`_points` makes the words."""


CORRECTED = "; over folds that of the corrected resampled t-test (Nadeau & Bengio 2003)"
"""The text that is added to the explanation of confidence intervals if there are runs of a cross-validation."""


# Sentences ---------------------------------------------------------------------------------------------------------


def sentences(subjects: Sequence[Subject]) -> list[Item]:
    """Return a list of sentences with the results, one for each subject.

    A subject is the comparison of strategies for one task and model under one set of conditions.
    """
    return [Findings([_sentence(subject) for subject in subjects])] if subjects else []


def _sentence(subject: Subject) -> Sentence:
    block = subject.compared
    base = next((row for row in block.rows if row.strategy == block.baseline), None)
    others = [row for row in block.rows if row.strategy != block.baseline]
    if base is None:
        text = f"No run of {block.baseline} under these conditions, so {_listed(others)} cannot be compared with it."
        return Sentence(subject.label, text)
    if not others:
        text = f"Only {block.baseline} was run: {subject.metric} {_estimate(base.score)}. There is nothing to compare."
        return Sentence(subject.label, text)
    if block.unlearnt is not None:
        return _of_nothing_learnt(subject, others)
    spoken, before = others, ""
    if len(others) > SAID:
        chosen = _recommended(subject)
        if (unlearnt := grid.nothing_learnt(grid.cells(subject.runs))) is not None:
            return Sentence(subject.label, f"{several(len(block.rows), 'setting')}; {unlearnt.sentence()}.")
        if chosen is None:
            text = f"{several(len(block.rows), 'setting')}, but no scores to choose one by."
            return Sentence(subject.label, text)
        spoken = [row for row in others if row.strategy == chosen]
        before = f"Of {several(len(block.rows), 'setting')} the dev split recommends {chosen}: it "
        if not spoken:
            within = f"{100 * DEFAULT_TOLERANCE:.0f} %"
            text = (
                f"Of {len(block.rows)} settings, none with a dev score within {within} of {chosen}'s is faster than it."
            )
            return Sentence(subject.label, text)
    clauses = [_clause(row, subject, against=place == 0) for place, row in enumerate(spoken)]
    tones = {_tone(row.difference) for row in spoken}
    text = "; ".join(clauses)
    text = before + (text.removeprefix(f"{spoken[0].strategy} ") if before else text)
    return Sentence(subject.label, f"{text}.", tones.pop() if len(tones) == 1 else "")


def _of_nothing_learnt(subject: Subject, others: Sequence[comparison.StrategyResult]) -> Sentence:
    """Return a sentence that says that the baseline learnt nothing.

    The sentence also names strategies in `others` that are better or worse than the baseline.
    """
    block = subject.compared
    assert block.unlearnt is not None
    unlearnt = block.unlearnt.sentence(block.baseline, "test", block.replicate)
    said = f"{unlearnt}, so that no strategy can be said to keep its score"
    different = [row for row in others if row.difference and row.difference.verdict in (Verdict.BETTER, Verdict.WORSE)]
    clauses = [_clause(row, subject, against=place == 0) for place, row in enumerate(different[:SAID])]
    return Sentence(subject.label, f"{'; '.join([said, *clauses, REMEDY])}.")


def _recommended(subject: Subject) -> str | None:
    """Return the fastest strategy whose dev score is close to that of full fine-tuning. Test scores are not used.

    Returns:
        The strategy's name; None if no run has a dev score, a test score and a time, or if full fine-tuning learnt
        nothing.
    """
    recommendation = grid.recommend(grid.cells(subject.runs))
    return recommendation.strategy if recommendation else None


def _clause(row: comparison.StrategyResult, subject: Subject, *, against: bool) -> str:
    """Return a clause that compares a strategy's training time and score with the baseline's.

    An example: bottom3top4 saves 38 % ± 2 of the training time and costs 0.4 ± 0.9 F1 points (1 % of what full learnt)
    against full: within the margin of 2.0 F1 points (the loss is at most 1.4).

    Args:
        row: The strategy's result.
        subject: The comparison of strategies that the sentence is about.
        against: Whether to add the name of the baseline, as in "against full".
    """
    baseline = f" against {subject.compared.baseline}" if against else ""
    difference = row.difference
    if difference is None:
        return f"{row.strategy} {_time(row.time_change)}{baseline}; a score is undefined, so scores do not compare"
    half = difference.test.half_width if difference.test else None
    share = subject.compared.of_learnt(difference.mean)
    learnt = "" if share is None else f" ({percent(abs(share))} of what {subject.compared.baseline} learnt)"
    return (
        f"{row.strategy} {_time(row.time_change)} and {_points(difference.mean, half, subject.metric)}{learnt}"
        f"{baseline}: {_verdict(difference, subject)}"
    )


def _time(change: Estimate | None) -> str:
    if change is None:
        return "has no training time to compare"
    half = "" if change.half_width is None else f" ± {_few_digits(100 * change.half_width)}"
    if change.half_width is not None and abs(change.mean) <= change.half_width:
        return f"does not clearly change the training time ({signed_percent(change.mean)}{half})"
    size = f"{abs(100 * change.mean):.0f} %{half}"
    return f"saves {size} of the training time" if change.mean < 0 else f"takes {size} more training time"


def _points(mean: float, half: float | None, metric: str) -> str:
    """Return a phrase for a difference of scores in hundredths, such as "costs 0.8 ± 0.3 F1 points".

    Args:
        mean: The mean difference; negative if the score is lower than the baseline's.
        half: Half the width of the confidence interval; None if there is no interval.
        metric: The metric of the scores.
    """
    size = f"{abs(100 * mean):.1f}{'' if half is None else f' ± {100 * half:.1f}'} {_unit(metric)}"
    if _is_nothing(mean):
        return f"changes the score by {size}"
    return f"costs {size}" if mean < 0 else f"gains {size}"


def _unit(metric: str) -> str:
    """Return the words for hundredths of a metric, such as "F1 points"."""
    return UNITS.get(metric, "F1 points" if metric.startswith("f1_") else f"points of {metric}")


def _is_nothing(mean: float) -> bool:
    """Return whether a difference of scores is so small that it is rounded to zero when it is printed."""
    return abs(100 * mean) < 0.05


def _few_digits(value: float) -> str:
    """Return half the width of an interval as text, with as few digits as are meaningful, such as 12, 2 or 0.3."""
    return f"{value:.0f}" if value >= 1 else f"{value:.1f}"


def _verdict(difference: comparison.Difference, subject: Subject) -> str:
    """Return a phrase with the verdict on a difference, and the numbers on which it rests."""
    p = "" if difference.p_corrected is None else f" ({_p(difference.p_corrected)})"
    size, bound, unit = subject.compared.margin_size, difference.loss_bound, f" {_unit(subject.metric)}"
    if difference.verdict in (Verdict.BETTER, Verdict.WORSE):
        return f"{difference.verdict}{p}"
    if difference.verdict is Verdict.INCONCLUSIVE:
        margin = "" if size is None else f" (margin {100 * size:.1f})"
        return f"{inconclusive_text(difference, scale=100, unit=unit)}{margin}"
    if difference.verdict in (Verdict.WITHIN_MARGIN, Verdict.WORSE_WITHIN_MARGIN):
        assert size is not None
        assert bound is not None
        worse = f"worse{p}, but " if difference.verdict is Verdict.WORSE_WITHIN_MARGIN else ""
        most = f"the loss is at most {100 * bound:.1f}" if bound > 0 else "a loss is excluded"
        return f"{worse}within the margin of {100 * size:.1f}{unit} ({most})"
    if difference.verdict is Verdict.TOO_FEW_SEEDS:
        counted = _counted(difference)
        few = "so it may be due to chance" if difference.seeds == 1 else "too few for a verdict"
        return f"{counted}, {few}"
    return f"not tested, since {difference.reason}" if difference.reason else "not tested"


def _counted(difference: comparison.Difference) -> str:
    """Return a text with the number of seeds or folds behind a difference, such as "one seed" or "5 folds"."""
    what = "fold" if difference.over_folds else "seed"
    return f"one {what}" if difference.seeds == 1 else f"{difference.seeds} {what}s"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _tone(difference: comparison.Difference | None) -> Tone:
    if difference is None:
        return ""
    tones: dict[Verdict, Tone] = {Verdict.BETTER: "good", Verdict.WITHIN_MARGIN: "good", Verdict.WORSE: "bad"}
    return tones.get(difference.verdict, "")


def _listed(rows: Sequence[comparison.StrategyResult]) -> str:
    names = [row.strategy for row in rows[:SAID]]
    more = f" and {len(rows) - SAID} more" if len(rows) > SAID else ""
    return ", ".join(names) + more


# Tables ------------------------------------------------------------------------------------------------------------


def score_table(subjects: Sequence[Subject]) -> list[Item]:
    """Return a table with each strategy's score, training time, differences from the baseline, and verdict on them."""
    if not subjects:
        return []
    folds = {bool(subject.compared.folds) for subject in subjects}
    over = " or ".join(word for word, is_fold in (("seeds", False), ("folds", True)) if is_fold in folds)
    corrected = CORRECTED if True in folds else ""
    columns = [
        Column("score", explained=f"mean over {over}; ± half-width of its 95 % t-interval{corrected}"),
        Column(
            "Δ score",
            explained=f"change against the baseline over common {over}; ± half-width of its 95 % interval{corrected}; "
            "and the change as a share of what the baseline learnt, that is, of its score minus the trivial score",
        ),
        Column("loss up to", explained="one-sided 95 % bound of the loss, for each strategy on its own"),
        Column("training", explained="training time, including the frozen prefix"),
        Column("Δ time", explained="relative change against the baseline, seed by seed"),
        Column("speed-up", explained="geometric mean over pairs of runs of one session, with its 95 % interval"),
        Column(over),
        Column(
            "verdict",
            number=False,
            explained="better or worse after Holm's correction; within the margin if the bound of the loss is below it",
        ),
    ]
    groups = [
        RowGroup(subject.label, [_score_row(row, subject) for row in _shown(subject)], _remark(subject))
        for subject in subjects
    ]
    remarks = time_remarks([row.times for subject in subjects for row in _shown(subject)])
    return [Table("Scores and times", "task and model, strategy", columns, groups), *remarks, *_notes(subjects)]


def _score_row(row: comparison.StrategyResult, subject: Subject) -> Row:
    difference = row.difference
    baseline = row.strategy == subject.compared.baseline
    change = Cell("baseline" if baseline else NONE, tone="muted")
    verdict = loss = Cell("", tone="muted")
    if difference is not None:
        half, block = difference.test.half_width if difference.test else None, subject.compared
        details = [_half(half, 3), _of_learnt(block.of_learnt(difference.mean))]
        change = Cell(signed(difference.mean), _tone(difference), "; ".join(filter(None, details)))
        bound = difference.loss_bound
        loss = Cell(
            loss_text(difference), detail=_of_learnt(None if bound is None or bound <= 0 else block.of_learnt(bound))
        )
        verdict = Cell(_short_verdict(difference), _tone(difference), _explained(difference, block))
    time = row.time_change
    return Row(
        row.strategy,
        [
            _estimated(row.score, lambda value: plain(value)),
            change,
            loss,
            time_cell(_estimated(row.train_s, seconds), row.times),
            Cell(NONE if baseline or time is None else signed_percent(time.mean), detail=_half_percent(time)),
            speed_up_cell(row.times),
            Cell(str(len(row.seeds)) if not row.folds else several(row.folds, "fold")),
            verdict,
        ],
    )


def _of_learnt(share: float | None) -> str:
    return "" if share is None else f"{percent(share)} of learnt"


def _short_verdict(difference: comparison.Difference) -> str:
    words = {
        Verdict.BETTER: f"better {difference.stars}",
        Verdict.WORSE: f"worse {difference.stars}",
        Verdict.WORSE_WITHIN_MARGIN: f"{difference.verdict} {difference.stars}",
        Verdict.WITHIN_MARGIN: str(difference.verdict),
        Verdict.INCONCLUSIVE: str(difference.verdict),
        Verdict.TOO_FEW_SEEDS: _counted(difference) if difference.seeds == 1 else f"{_counted(difference)}: too few",
        Verdict.NOT_TESTED: "not tested",
        Verdict.NOTHING_LEARNT: "no verdict",
    }
    return words[difference.verdict].strip()


def _explained(difference: comparison.Difference, block: comparison.ComparisonBlock) -> str:
    """Return the text below a verdict in a table: the p-value or, if there is no verdict, the reason.

    If the verdict is inconclusive, the text also has the number of seeds that would settle it without a loss.
    """
    if difference.verdict in (Verdict.NOT_TESTED, Verdict.NOTHING_LEARNT):
        return difference.reason
    parts = [] if difference.p_corrected is None else [_p(difference.p_corrected)]
    if difference.verdict is Verdict.INCONCLUSIVE and (needed := seeds_text(difference, block)):
        parts.append(needed)
    return "; ".join(parts)


def _remark(subject: Subject) -> str:
    trivial = subject.compared.trivial_score
    said = f"{subject.metric}" + ("" if trivial is None else f"; trivial score (ignores the text): {plain(trivial)}")
    if subject.compared.tfidf_score is not None:
        said += f"; {yardstick_name(subject.metric)}: {plain(subject.compared.tfidf_score)}"
    if len(subject.compared.rows) > 1 and (untuned := untuned_text(subject.compared.conditions["lr"])):
        said += f"; {untuned}"
    if any(row.difference and row.difference.loss_bound is not None for row in subject.compared.rows):
        said += f"; {margin_text(subject.compared)}"
    return f"{said}; {_cut(subject)}" if len(subject.compared.rows) > MOST_ROWS else said


def _cut(subject: Subject) -> str:
    return f"the best {MOST_ROWS} of {several(len(subject.compared.rows), 'strategy', 'strategies')}"


def _shown(subject: Subject) -> Sequence[comparison.StrategyResult]:
    """Return the strategies to list in a table: the baseline and those with the best scores, at most `MOST_ROWS`.

    Their order is that of the comparison.
    """
    rows = subject.compared.rows
    if len(rows) <= MOST_ROWS:
        return rows
    scored = [row for row in rows if row.score is not None]
    best = sorted(scored, key=lambda row: -row.score.mean if row.score else 0.0)[: MOST_ROWS - 1]
    kept = {row.strategy for row in best} | {subject.compared.baseline}
    return [row for row in rows if row.strategy in kept]


def _notes(subjects: Sequence[Subject]) -> list[Item]:
    said = [f"{subject.label}: {note}." for subject in subjects for note in subject.compared.notes]
    return [Paragraph(" ".join(said[:8]) + (f" And {len(said) - 8} more." if len(said) > 8 else ""))] if said else []


def cost_table(subjects: Sequence[Subject]) -> list[Item]:
    """Return a table with each strategy's costs: trainable parameters, FLOPs, training time, memory and energy."""
    if not subjects:
        return []
    columns = [
        Column("trained", explained="trainable parameters"),
        Column("share", explained="of all parameters"),
        Column("FLOPs", explained="of training, computed from shapes"),
        Column("relative to full"),
        Column("training"),
        Column("peak memory", explained="of the GPU, or of the process if there is no GPU"),
        Column("energy", explained="of the GPU, or of the processor if there is no GPU; empty without a counter"),
    ]
    groups = [
        RowGroup(
            subject.label,
            [_cost_row(row, subject) for row in _shown(subject)],
            _cut(subject) if len(subject.compared.rows) > MOST_ROWS else "",
        )
        for subject in subjects
    ]
    return [Table("Costs", "task and model, strategy", columns, groups)]


def _cost_row(row: comparison.StrategyResult, subject: Subject) -> Row:
    runs = subject.runs
    # Parameters and FLOPs follow from the strategy, and are therefore the same for every seed.
    first = runs.iloc[int((runs["run_id"] == row.run_ids[0]).to_numpy().argmax())]
    return Row(
        row.strategy,
        [
            Cell(count(first.get("params/trainable"))),
            Cell(percent(row.trainable_share)),
            Cell(count(first.get("flops/train"))),
            Cell(percent(row.flops_share)),
            _estimated(row.train_s, seconds),
            Cell(NONE if row.memory_mib is None else f"{row.memory_mib:.0f} MiB"),
            Cell(NONE if row.energy_j is None else f"{row.energy_j:.0f} J"),
        ],
    )


def _estimated(value: Estimate | None, written: Callable[[float], str]) -> Cell:
    if value is None:
        return Cell("undefined", tone="muted")
    half = value.half_width
    return Cell(written(value.mean), detail="" if half is None else f"± {written(half)}")


def _half(value: float | None, digits: int) -> str:
    return "" if value is None else f"± {plain(value, digits)}"


def _half_percent(value: Estimate | None) -> str:
    return "" if value is None or value.half_width is None else f"± {_few_digits(100 * value.half_width)}"


def _estimate(value: Estimate | None) -> str:
    if value is None:
        return "undefined"
    return plain(value.mean) + ("" if value.half_width is None else f" ± {plain(value.half_width)}")
