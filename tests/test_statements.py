"""The sentence on a strategy says what was shown, with its numbers, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from alue_bench.evaluation.intervals import Estimate
from alue_bench.evaluation.learning import Learning, learning
from alue_bench.evaluation.margins import Margin
from alue_bench.evaluation.ratios import Ratio
from alue_bench.evaluation.significance import CrossedTestResult
from alue_bench.reporting.comparison import ComparisonBlock, Difference, StrategyResult, Verdict
from alue_bench.reporting.statements import MAX_STATEMENTS, baseline_statement, statement, statements
from alue_bench.reporting.training_times import TimeComparison

TEST = CrossedTestResult(
    difference=-0.004, half_width=0.009, error=0.0041, p_value=0.3, degrees=12.0, seeds=3, examples=500,
    seed_variance=0.0, example_variance=0.0, residual_variance=0.0,
)  # fmt: skip
SAME_SESSION: Mapping[str, Any] = {"change": Estimate(-0.38, 0.02, 3), "ratios": (1.6, 1.6, 1.6)}


def learnt(*scores: float) -> Learning | None:
    return learning(scores, [0.4] * len(scores), [0.02] * len(scores))


def result(strategy: str, difference: Difference | None = None, **more: Any) -> StrategyResult:
    times = TimeComparison(
        **{
            "speed_up": Ratio(1.6, None, 3),
            "within_sessions": True,
            "reused": 0,
            **SAME_SESSION,
            **more.pop("times", {}),
        }
    )
    values: dict[str, Any] = {
        "seeds": (42, 43, 44), "run_ids": ("a", "b", "c"), "score": Estimate(0.8, 0.01, 3), "train_s": None,
        "time_change": times.change, "speed_up": None, "trainable_share": None, "flops_share": None,
        "memory_mib": None, "energy_j": None, "freeze": None, "learning": learnt(0.8, 0.8, 0.8), "times": times,
    }  # fmt: skip
    return StrategyResult(strategy=strategy, difference=difference, **(values | more))


def block(*rows: StrategyResult, margin: float = 0.02) -> ComparisonBlock:
    return ComparisonBlock(
        task="oold", model="mini", metric="test/f1_macro", baseline="full", conditions={"folds": None}, differing=(),
        trivial_score=0.4, margin=Margin(margin), rows=rows, notes=(),
    )  # fmt: skip


def of(verdict: Verdict, mean: float = -0.004, **more: Any) -> Difference:
    return Difference(mean=mean, seeds=more.pop("seeds", 3), verdict=verdict, **{"test": TEST, **more})


LOWER = "its macro-F1 is 0.4 ± 0.9 points lower than full's"


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        pytest.param(
            of(Verdict.WITHIN_MARGIN, loss_bound=0.0138, p_corrected=0.3),
            "its macro-F1 is within 2 points of full's (upper bound of the loss: 1.4 points, 3 % of what full learnt).",
            id="within the margin",
        ),
        pytest.param(
            of(Verdict.WITHIN_MARGIN, loss_bound=-0.001, p_corrected=0.06),
            "its macro-F1 is within 2 points of full's (a loss is excluded).",
            id="within the margin, no loss",
        ),
        pytest.param(
            of(Verdict.WORSE_WITHIN_MARGIN, loss_bound=0.011, p_corrected=0.012),
            f"{LOWER} (p = 0.012), but within 2 points of it (upper bound of the loss: 1.1 points, 3 % of what full "
            "learnt).",
            id="worse, within the margin",
        ),
        pytest.param(
            of(Verdict.WORSE, -0.04, loss_bound=0.05, p_corrected=0.0004),
            "its macro-F1 is 4.0 ± 0.9 points lower than full's, 10 % of what full learnt (p < 0.001).",
            id="worse",
        ),
        pytest.param(
            of(Verdict.BETTER, 0.02, loss_bound=-0.01, p_corrected=0.04),
            "its macro-F1 is 2.0 ± 0.9 points higher than full's, 5 % of what full learnt (p = 0.040).",
            id="better",
        ),
        pytest.param(
            of(Verdict.INCONCLUSIVE, loss_bound=0.031, p_corrected=1.0, seeds_within_margin=9),
            f"{LOWER}, inconclusive: a loss up to 3.1 points (8 % of what full learnt) is not excluded (margin: 2 "
            "points); a loss of zero needs about 9 seeds to be shown within the margin.",
            id="inconclusive",
        ),
        pytest.param(
            of(Verdict.INCONCLUSIVE, 0.0001, loss_bound=1.2, p_corrected=1.0, seeds_within_margin=3),
            "its macro-F1 is that of full (a difference of 0.0 ± 0.9 points), inconclusive: no loss is excluded "
            "(margin: 2 points).",
            id="inconclusive, no bound",
        ),
        pytest.param(
            of(Verdict.TOO_FEW_SEEDS, -0.03, seeds=1, test=None),
            "its macro-F1 is 3.0 points lower than full's with one seed, which may be due to chance.",
            id="one seed",
        ),
        pytest.param(
            of(Verdict.TOO_FEW_SEEDS, seeds=2), f"{LOWER} with 2 seeds, too few for a verdict.", id="two seeds"
        ),
        pytest.param(
            of(Verdict.NOT_TESTED, test=None, reason="predictions are missing"),
            "its macro-F1 is 0.4 points lower than full's, not tested: predictions are missing.",
            id="not tested",
        ),
        pytest.param(None, "its macro-F1 is undefined, so scores do not compare.", id="undefined"),
    ],
)  # fmt: skip
def test_each_verdict_has_its_sentence(difference: Difference | None, said: str) -> None:
    row = result("bottom3top4", difference)
    time = "bottom3top4 trains in 62 ± 2 % of the time of full (same session, 3 runs)"
    assert statement(row, block(result("full"), row)) == f"{time}; {said}"


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (
            {"change": Estimate(-0.38, None, 3), "within_sessions": False},
            "trains in 62 % of the time of full, but in another session, so the machine may explain it",
        ),
        (
            {"change": Estimate(-0.01, 0.034, 3)},
            "does not clearly change the training time (99 ± 3 % of full's; same session, 3 runs)",
        ),
        (
            {"change": Estimate(0.2, None, 1), "ratios": (0.8,)},
            "trains in 120 % of the time of full (same session, 1 run)",
        ),
        ({"change": None, "ratios": ()}, "has no training time to compare"),
    ],
)  # fmt: skip
def test_a_time_is_said_with_the_session_it_holds_for(times: Mapping[str, Any], said: str) -> None:
    row = result("top4", of(Verdict.WITHIN_MARGIN, loss_bound=0.01), times=times)
    assert statement(row, block(result("full"), row)).startswith(f"top4 {said}; its macro-F1 is within")


def test_a_strategy_that_learnt_nothing_keeps_no_score() -> None:
    row = result("top4", of(Verdict.NOTHING_LEARNT), learning=learnt(0.41, 0.42, 0.9))
    assert statement(row, block(result("full"), row)).endswith(
        "; it did not learn: its test score 0.577 is above the trivial score 0.400 by more than chance with 1 of 3 "
        "seeds only."
    )


def test_collapsed_seeds_are_counted() -> None:
    row = result("top4", of(Verdict.WORSE, -0.04, p_corrected=0.03), learning=learnt(0.4, 0.9, 0.9))
    full = result("full", learning=learnt(0.9, 0.9, 0.41))
    said = statements(block(full, row))
    assert said[0] == "full: 1 of 3 seeds collapsed to the trivial score."
    assert said[1].endswith("(p = 0.030); 1 of 3 seeds collapsed to the trivial score.")


def test_of_a_baseline_that_learnt_nothing_only_this_is_said_and_what_to_change() -> None:
    full = result("full", learning=learnt(0.41, 0.42, 0.4))
    rows = [result(name, of(Verdict.NOTHING_LEARNT)) for name in ("top1", "top2")]
    assert statements(block(full, *rows)) == [
        "full did not learn: its test score 0.410 is not above the trivial score 0.400 by more than chance (by up to "
        "0.033), so there is no verdict on any strategy; above the trivial score: top1, top2; try more data, more "
        "epochs or another --lr."
    ]


def test_no_sentence_without_the_baseline_or_on_very_many_strategies() -> None:
    row = result("top4")
    assert statements(block(row)) == []
    assert baseline_statement(block(row)).startswith("No run of full under these conditions")
    many = [
        result(f"top{number}", of(Verdict.WITHIN_MARGIN, loss_bound=0.01)) for number in range(1, MAX_STATEMENTS + 2)
    ]
    assert statements(block(result("full"), *many)) == []
