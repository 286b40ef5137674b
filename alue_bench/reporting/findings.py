"""Sentences and tables that state the results of a comparison, which was computed by the module `comparison`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from alue_bench.evaluation.intervals import Estimate
from alue_bench.evaluation.yardstick import yardstick_name
from alue_bench.reporting import comparison, grid
from alue_bench.reporting.comparison import Verdict
from alue_bench.reporting.comparison_table import loss_text, margin_text
from alue_bench.reporting.content import (
    Cell,
    Column,
    Findings,
    Item,
    Paragraph,
    ReportTable,
    Row,
    RowGroup,
    Sentence,
    Tone,
)
from alue_bench.reporting.fresh_runs import RecommendationRule, command_to_confirm
from alue_bench.reporting.numbers import (
    MISSING,
    count,
    decimal,
    number_with_noun,
    percent,
    seconds,
    signed,
    signed_percent,
)
from alue_bench.reporting.statements import (
    MAX_STATEMENTS,
    baseline_statement,
    counted,
    half_width_text,
    p_text,
    seeds_text,
    statement,
    statements,
)
from alue_bench.reporting.subjects import Subject
from alue_bench.reporting.time_cells import speed_up_cell, time_cell, time_remarks
from alue_bench.reporting.untuned import untuned_text

MAX_ROWS = 100
"""The largest number of strategies that a table lists for one task and model. If there are more, the table lists the
strategies with the best scores."""
CORRECTED = "; over folds that of the corrected resampled t-test (Nadeau & Bengio 2003)"
"""The text that is added to the explanation of confidence intervals if there are runs of a cross-validation."""


# Sentences ---------------------------------------------------------------------------------------------------------


def sentences(subjects: Sequence[Subject], rule: RecommendationRule) -> list[Item]:
    """Return sentences that state the result of each strategy, for each subject.

    A subject is the comparison of strategies for one task and model under one set of conditions. If it has more than
    `MAX_STATEMENTS` strategies besides the baseline, the only sentence is on the one strategy that is recommended by
    its dev score. The loss of this strategy is computed from runs that took no part in the recommendation.
    """
    return [Findings([_sentence(subject, rule) for subject in subjects])] if subjects else []


def _sentence(subject: Subject, rule: RecommendationRule) -> Sentence:
    block = subject.compared
    base, others = block.baseline_row, [row for row in block.rows if row.strategy != block.baseline]
    on_baseline = baseline_statement(block)
    if base is None or block.unlearnt is not None:
        return Sentence(subject.label, on_baseline, "bad" if base else "")
    if not others:
        text = f"Only {block.baseline} was run: {subject.metric} {_estimate(base.score)}. There is nothing to compare."
        return Sentence(subject.label, f"{text} {on_baseline}".rstrip())
    if len(others) <= MAX_STATEMENTS:
        tones = {_tone(row) for row in others}
        return Sentence(subject.label, " ".join(statements(block)), tones.pop() if len(tones) == 1 else "")
    counted_settings = number_with_noun(len(block.rows), "setting")
    if (unlearnt := grid.nothing_learnt(grid.cell_table(subject.runs))) is not None:
        return Sentence(subject.label, f"{counted_settings}; {unlearnt.sentence()}.")
    chosen = _recommended(subject, rule)
    if chosen is None:
        return Sentence(subject.label, f"{counted_settings}, but no scores to choose one by.")
    row = next((row for row in others if row.strategy == chosen), None)
    if row is None:
        within = f"{100 * rule.tolerance:g} %"
        text = f"Of {counted_settings}, none with a dev score within {within} of {chosen}'s is faster than it."
        return Sentence(subject.label, text)
    lead = f"Of {counted_settings} the dev split recommends {chosen}."
    fresh = rule.fresh(subject, chosen)
    if fresh is None:
        unknown = statement(replace(row, difference=None, unconfirmed=True), block)
        text = " ".join(part for part in (lead, unknown, on_baseline) if part)
        return Sentence(subject.label, f"{text} To confirm it: {command_to_confirm(subject, chosen)}")
    row = next(row for row in fresh.rows if row.strategy == chosen)
    text = f"{lead} With seeds that took no part in the choice, {statement(row, fresh)} {baseline_statement(fresh)}"
    return Sentence(subject.label, text.rstrip(), _tone(row))


def _recommended(subject: Subject, rule: RecommendationRule) -> str | None:
    """Return the fastest strategy whose dev score is below that of full fine-tuning by at most the tolerance.

    Test scores are not used.

    Returns:
        The strategy's name; None if no run has a dev score, a test score and a time, or if full fine-tuning learnt
        nothing.
    """
    recommendation = grid.recommend(grid.cell_table(grid.choosing_runs(subject.runs)), rule.tolerance)
    return recommendation.strategy if recommendation else None


def _tone(row: comparison.StrategyResult) -> Tone:
    if row.learnt_nothing:
        return "bad"
    if row.difference is None:
        return ""
    tones: dict[Verdict, Tone] = {Verdict.BETTER: "good", Verdict.WITHIN_MARGIN: "good", Verdict.WORSE: "bad"}
    return tones.get(row.difference.verdict, "")


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
        RowGroup(subject.label, [_score_row(row, subject) for row in _listed_strategies(subject)], _remark(subject))
        for subject in subjects
    ]
    remarks = time_remarks([row.times for subject in subjects for row in _listed_strategies(subject)])
    return [ReportTable("Scores and times", "task and model, strategy", columns, groups), *remarks, *_notes(subjects)]


def _score_row(row: comparison.StrategyResult, subject: Subject) -> Row:
    difference = row.difference
    baseline = row.strategy == subject.compared.baseline
    change = Cell("baseline" if baseline else MISSING, tone="muted")
    loss = Cell("", tone="muted")
    verdict = Cell("learnt nothing" if row.learnt_nothing else "", _tone(row))
    if difference is not None:
        half, block = difference.test.half_width if difference.test else None, subject.compared
        details = [_half(half, 3), _of_learnt(block.share_of_learnt(difference.mean))]
        change = Cell(signed(difference.mean), _tone(row), "; ".join(filter(None, details)))
        bound = difference.loss_bound
        loss = Cell(
            loss_text(difference),
            detail=_of_learnt(None if bound is None or bound <= 0 else block.share_of_learnt(bound)),
        )
        verdict = Cell(_short_verdict(row, difference), _tone(row), _explained(difference, block))
    time = row.time_change
    return Row(
        row.strategy,
        [
            _scored(row),
            change,
            loss,
            time_cell(_estimated(row.train_s, seconds), row.times),
            Cell(MISSING if baseline or time is None else signed_percent(time.mean), detail=_half_percent(time)),
            speed_up_cell(row.times),
            Cell(str(len(row.seeds)) if not row.folds else number_with_noun(row.folds, "fold")),
            verdict,
        ],
    )


def _scored(row: comparison.StrategyResult) -> Cell:
    cell = _estimated(row.score, lambda value: decimal(value))
    return replace(cell, detail="; ".join(filter(None, (cell.detail, row.collapsed_text()))))


def _of_learnt(share: float | None) -> str:
    return "" if share is None else f"{percent(share)} of learnt"


def _short_verdict(row: comparison.StrategyResult, difference: comparison.Difference) -> str:
    if row.learnt_nothing:
        return f"worse {difference.stars}, learnt nothing" if difference.verdict is Verdict.WORSE else "learnt nothing"
    words = {
        Verdict.BETTER: f"better {difference.stars}",
        Verdict.WORSE: f"worse {difference.stars}",
        Verdict.WORSE_WITHIN_MARGIN: f"{difference.verdict} {difference.stars}",
        Verdict.WITHIN_MARGIN: str(difference.verdict),
        Verdict.INCONCLUSIVE: str(difference.verdict),
        Verdict.TOO_FEW_SEEDS: counted(difference) if difference.seeds == 1 else f"{counted(difference)}: too few",
        Verdict.NOT_TESTED: "not tested",
        Verdict.NOTHING_LEARNT: "no verdict",
    }
    return words[difference.verdict].strip()


def _explained(difference: comparison.Difference, block: comparison.ComparisonBlock) -> str:
    """Return the text below a verdict in a table: the p-value or, if there is no verdict, the reason.

    If the verdict is inconclusive, the text also states how many seeds would show a loss of zero to be within the
    margin.
    """
    if difference.verdict in (Verdict.NOT_TESTED, Verdict.NOTHING_LEARNT):
        return difference.reason
    parts = [] if difference.p_corrected is None else [p_text(difference.p_corrected)]
    if difference.verdict is Verdict.INCONCLUSIVE and (needed := seeds_text(difference, block)):
        parts.append(needed)
    return "; ".join(parts)


def _remark(subject: Subject) -> str:
    trivial = subject.compared.trivial_score
    text = f"{subject.metric}"
    if trivial is not None:
        text += f"; trivial score (baseline without a model): {decimal(trivial)}"
    if subject.compared.tfidf_score is not None:
        text += f"; {yardstick_name(subject.metric)}: {decimal(subject.compared.tfidf_score)}"
    if len(subject.compared.rows) > 1 and (untuned := untuned_text(subject.compared.conditions["lr"])):
        text += f"; {untuned}"
    if any(row.difference and row.difference.loss_bound is not None for row in subject.compared.rows):
        text += f"; {margin_text(subject.compared)}"
    return f"{text}; {_number_of_listed(subject)}" if len(subject.compared.rows) > MAX_ROWS else text


def _number_of_listed(subject: Subject) -> str:
    return f"the best {MAX_ROWS} of {number_with_noun(len(subject.compared.rows), 'strategy', 'strategies')}"


def _listed_strategies(subject: Subject) -> Sequence[comparison.StrategyResult]:
    """Return the strategies to list in a table: the baseline and those with the best scores, at most `MAX_ROWS`.

    They keep the order of the comparison.
    """
    rows = subject.compared.rows
    if len(rows) <= MAX_ROWS:
        return rows
    scored = [row for row in rows if row.score is not None]
    best = sorted(scored, key=lambda row: -row.score.mean if row.score else 0.0)[: MAX_ROWS - 1]
    kept = {row.strategy for row in best} | {subject.compared.baseline}
    return [row for row in rows if row.strategy in kept]


def _notes(subjects: Sequence[Subject]) -> list[Item]:
    notes = [f"{subject.label}: {note}." for subject in subjects for note in subject.compared.notes]
    return (
        [Paragraph(" ".join(notes[:8]) + (f" And {len(notes) - 8} more." if len(notes) > 8 else ""))] if notes else []
    )


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
            [_cost_row(row, subject) for row in _listed_strategies(subject)],
            _number_of_listed(subject) if len(subject.compared.rows) > MAX_ROWS else "",
        )
        for subject in subjects
    ]
    return [ReportTable("Costs", "task and model, strategy", columns, groups)]


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
            Cell(MISSING if row.memory_mib is None else f"{row.memory_mib:.0f} MiB"),
            Cell(MISSING if row.energy_j is None else f"{row.energy_j:.0f} J"),
        ],
    )


def _estimated(value: Estimate | None, written: Callable[[float], str]) -> Cell:
    if value is None:
        return Cell("undefined", tone="muted")
    half = value.half_width
    return Cell(written(value.mean), detail="" if half is None else f"± {written(half)}")


def _half(value: float | None, digits: int) -> str:
    return "" if value is None else f"± {decimal(value, digits)}"


def _half_percent(value: Estimate | None) -> str:
    return "" if value is None or value.half_width is None else f"± {half_width_text(100 * value.half_width)}"


def _estimate(value: Estimate | None) -> str:
    if value is None:
        return "undefined"
    return decimal(value.mean) + ("" if value.half_width is None else f" ± {decimal(value.half_width)}")
