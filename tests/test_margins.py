"""The option --margin: what it accepts, what it means, and that the verdicts by it are right as often as they say."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from conftest import CommandLine

from alue_bench.contract.errors import UsageError
from alue_bench.evaluation.margins import Margin, Margins, MarginUnit, parse_margins
from alue_bench.evaluation.resampled import corrected_resampled_test
from alue_bench.evaluation.significance import POWER, CrossedTestResult, crossed_test_of, seeds_within_margin
from alue_bench.reporting.comparison import DEFAULT_MARGIN, Verdict, verdict_of
from benchmarks.verdicts.comparisons import MOST_ERROR, WITHIN, World, main, simulate

SCORE, LEARNT = MarginUnit.SCORE, MarginUnit.LEARNT


@pytest.mark.parametrize(
    ("text", "margins"),
    [
        ("0.01", Margins(Margin(0.01))),
        ("1pt", Margins(Margin(0.01))),
        (" 1 % ", Margins(Margin(0.01, SCORE))),
        ("5% of learnt", Margins(Margin(0.05, LEARNT))),
        (
            "f1_macro=.02, test/pearson=2%",
            Margins(DEFAULT_MARGIN, (("f1_macro", Margin(0.02)), ("pearson", Margin(0.02, SCORE)))),
        ),
        ("2pt,mcc=5%  of  learnt", Margins(Margin(0.02), (("mcc", Margin(0.05, LEARNT)),))),
    ],
)  # fmt: skip
def test_a_margin_is_read_and_written_in_one_notation(text: str, margins: Margins) -> None:
    assert parse_margins(text, DEFAULT_MARGIN) == margins
    assert parse_margins(str(margins), DEFAULT_MARGIN) == margins
    assert [margins.of(f"test/{metric}") for metric, _ in margins.by_metric] == [one for _, one in margins.by_metric]
    assert margins.of("accuracy") == margins.default


@pytest.mark.parametrize(
    "text", ["", "0", "1", "-1%", "100%", "1 point", "0,01", "=1%", "a=", "1%,", "5% of score", "nan"]
)
def test_what_is_no_margin_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(UsageError, match=rf"^--margin is '{re.escape(text)}', where .* is no margin; write a loss"):
        parse_margins(text, DEFAULT_MARGIN)


@pytest.mark.parametrize("text", ["1%,2%", "mcc=1%,mcc=2%"])
def test_two_margins_for_one_metric_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"has two margins for (all metrics|mcc); leave one out"):
        parse_margins(text, DEFAULT_MARGIN)


def test_its_size_depends_on_the_baseline() -> None:
    assert Margin(0.02).size(0.8, None) == 0.02
    assert Margin(0.02, SCORE).size(-0.5, None) == pytest.approx(0.01)
    assert Margin(0.1, LEARNT).size(0.8, 0.3) == pytest.approx(0.05)
    assert Margin(0.1, LEARNT).size(0.8, None) is Margin(0.1, LEARNT).size(0.3, 0.3) is None


def test_over_folds_the_bound_has_the_corrected_variance() -> None:
    test = corrected_resampled_test([-0.01, -0.02, -0.03, -0.02, -0.02], 0.25)
    assert test.loss_bound == pytest.approx(0.02 + 2.1318 * test.error, rel=1e-4)  # t with 4 degrees of freedom, 95 %
    for margin, verdict in ((0.01, Verdict.WORSE), (0.05, Verdict.WORSE_WITHIN_MARGIN)):
        assert verdict_of(test, 0.01, margin) is verdict
    assert verdict_of(test, 0.2, 0.05) is Verdict.WITHIN_MARGIN
    assert verdict_of(test, 0.2, test.loss_bound) is verdict_of(test, 0.2, None) is Verdict.INCONCLUSIVE


def test_the_number_of_seeds_shows_a_loss_of_zero_as_often_as_it_says() -> None:
    import numpy as np

    observed = CrossedTestResult(
        difference=-0.01, half_width=0.1, error=0.02, p_value=0.5, degrees=2, seeds=3, examples=1000,
        seed_variance=0.018**2, example_variance=0.2**2, residual_variance=0.4**2,
    )  # fmt: skip
    needed = seeds_within_margin(observed, 0.03)
    assert needed is not None
    shown = next(simulate(World(), needed, 0.03, 300)).rate(*WITHIN)
    assert shown == pytest.approx(POWER, abs=0.08)
    assert seeds_within_margin(observed, 0.005) is None
    # Of this margin of dozens of standard errors, scipy does not know the probability for some numbers of seeds.
    precise = replace(observed, examples=500, seed_variance=1e-5, example_variance=0.01, residual_variance=0.01)
    assert seeds_within_margin(precise, 0.2) == 3
    nothing = np.zeros((3, 5))
    assert seeds_within_margin(crossed_test_of(nothing[:, 0], nothing), 0.01) == 3


def test_within_the_margin_is_said_too_often_of_no_number_of_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    """Few simulations: the benchmark has thousands. Their error is below the accepted one by three standard errors."""
    for seeds in (3, 10):
        zero, half, at, twice = simulate(World(examples=100), seeds, 0.06, 200)
        assert at.rate(*WITHIN) <= MOST_ERROR + 3 * (0.05 * 0.95 / 200) ** 0.5
        assert zero.rate(*WITHIN) > half.rate(*WITHIN) > at.rate(*WITHIN) >= twice.rate(*WITHIN)
    assert main(["--simulations", "20", "--seeds", "3", "--examples", "50", "--margin", "1"]) == 0
    assert "error at the margin: at most" in capsys.readouterr().out
    assert main(["--seeds", "2"]) == 2


def test_a_run_refuses_a_margin_for_a_metric_that_no_planned_task_has(alue_bench: CommandLine) -> None:
    said = alue_bench("run", "--sample", "-t", "svreg", "--margin", "mcc=1pt")
    assert said.code == 2
    assert "--margin mcc=0.01: no planned task has this metric; there are pearson, spearman" in said.err
