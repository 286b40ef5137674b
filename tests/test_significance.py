"""The statistics against known cases: nothing is found where nothing is, what is planted is found, and the quick way to
a metric gives scikit-learn's number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from alue_bench.contract.task import Labels
from alue_bench.evaluation.additive import Additive, additive
from alue_bench.evaluation.intervals import cohens_d, estimate, holm, probability_of_improvement
from alue_bench.evaluation.metrics import metrics
from alue_bench.evaluation.significance import (
    POWER,
    approximate_randomisation,
    crossed_test,
    crossed_test_of,
    detectable,
    paired_bootstrap,
    power,
    seeds_needed,
)

SIMULATIONS = 400
LOW, HIGH = (float(binom.ppf(q, SIMULATIONS, 0.05)) / SIMULATIONS for q in (0.0005, 0.9995))
"""Between these lies the rate of a 5 % test in 999 of 1,000 suites."""
BINARY, THREE = Labels.binary("no", "yes"), Labels.multiclass("a", "b", "c")


def answers(rng: np.random.Generator, gold: Any, strength: Any, labels: int) -> Any:
    """Right where the strength, of the model and for the example, beats a fresh draw."""
    wrong = (gold + rng.integers(1, labels, len(gold))) % labels
    return np.where(strength + rng.standard_normal(len(gold)) > 0, gold, wrong)


def seeded_runs(
    rng: np.random.Generator,
    gold: Any,
    metric: str,
    labels: Labels,
    *,
    seeds: int,
    strength: float = 1.0,
    of_examples: Any = 0.0,
    seed_sd: float = 0.0,
) -> list[Additive]:
    """Models that differ by seed, on examples that differ in difficulty."""
    systems = []
    for _ in range(seeds):
        predicted = answers(rng, gold, strength + seed_sd * rng.standard_normal() + of_examples, len(labels.names))
        system = additive(metric, gold, predicted, labels)
        assert system is not None
        systems.append(system)
    return systems


class TestNothingIsFoundWhereNothingIs:
    @pytest.mark.parametrize("seeds", [3, 5])
    @pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
    def test_by_the_crossed_test_in_about_one_of_twenty(self, metric: str, seeds: int) -> None:
        """Two strategies that are the same: seeds vary, examples vary in difficulty, and more so for each system."""
        rng = np.random.default_rng(5)
        gold = rng.choice(3, 200, p=(0.6, 0.2, 0.2))
        rejected = 0
        for _ in range(SIMULATIONS):
            shared = rng.standard_normal(200)
            ours, theirs = (
                seeded_runs(
                    rng,
                    gold,
                    metric,
                    THREE,
                    seeds=seeds,
                    of_examples=shared + 0.5 * rng.standard_normal(200),
                    seed_sd=0.25,
                )
                for _ in range(2)
            )
            rejected += crossed_test(ours, theirs).p_value < 0.05
        assert LOW <= rejected / SIMULATIONS <= HIGH

    def test_where_seeds_do_not_matter_the_crossed_test_is_careful(self) -> None:
        """A negative variance is taken for none, so the test errs to the safe side."""
        rng = np.random.default_rng(6)
        gold = rng.integers(0, 2, 150)
        rejected = 0
        for _ in range(400):
            ours, theirs = (seeded_runs(rng, gold, "accuracy", BINARY, seeds=3) for _ in range(2))
            rejected += crossed_test(ours, theirs).p_value < 0.05
        assert rejected / 400 <= HIGH

    def test_what_counting_seeds_times_examples_would_find(self) -> None:
        """Why the crossed test is there: examples alone say nothing of other seeds."""
        rng = np.random.default_rng(7)
        gold = rng.integers(0, 2, 400)
        fooled = rejected = 0
        for _ in range(200):
            ours, theirs = (seeded_runs(rng, gold, "accuracy", BINARY, seeds=3, seed_sd=0.5) for _ in range(2))
            fooled += approximate_randomisation(ours, theirs, resamples=200) < 0.05
            rejected += crossed_test(ours, theirs).p_value < 0.05
        assert fooled / 200 > 0.6
        assert rejected / 200 < 0.12

    @pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
    def test_by_the_tests_over_examples_in_about_one_of_twenty(self, metric: str) -> None:
        rng = np.random.default_rng(8)
        randomised = bootstrapped = 0
        for number in range(SIMULATIONS):
            gold = rng.integers(0, 3, 300)
            of_examples = rng.standard_normal(300)
            ours, theirs = (seeded_runs(rng, gold, metric, THREE, seeds=1, of_examples=of_examples) for _ in range(2))
            randomised += approximate_randomisation(ours, theirs, resamples=199, seed=number) < 0.05
            low, high = paired_bootstrap(ours, theirs, resamples=200, seed=number).interval
            bootstrapped += not low <= 0 <= high
        # The randomisation test is exact, and cannot be below by more than its steps; the bootstrap is approximate.
        assert LOW - 0.01 <= randomised / SIMULATIONS <= HIGH
        assert LOW <= bootstrapped / SIMULATIONS <= HIGH + 0.02


class TestWhatIsPlantedIsFound:
    def test_a_large_difference_by_every_test(self) -> None:
        rng = np.random.default_rng(1)
        gold = rng.integers(0, 3, 500)
        better, worse = (
            seeded_runs(rng, gold, "f1_macro", THREE, seeds=3, strength=strength, seed_sd=0.05)
            for strength in (1.2, 0.6)
        )
        test = crossed_test(better, worse)
        assert test.p_value < 0.01
        assert test.difference - test.half_width > 0
        assert approximate_randomisation(better, worse, resamples=999) == pytest.approx(0.001)
        for resample_seeds in (False, True):
            bootstrap = paired_bootstrap(better, worse, resamples=1000, resample_seeds=resample_seeds)
            assert 0 < bootstrap.interval[0] < bootstrap.difference < bootstrap.interval[1]
            assert bootstrap.p_value < 0.01
        # The two directions say the same.
        back = crossed_test(worse, better)
        assert (back.difference, back.p_value) == (-test.difference, test.p_value)

    def test_the_variance_components_that_were_planted(self) -> None:
        rng = np.random.default_rng(2)
        seeds, examples = 200, 400
        table = (
            0.3
            + 0.2 * rng.standard_normal((seeds, 1))
            + 0.5 * rng.standard_normal((1, examples))
            + rng.standard_normal((seeds, examples))
        )
        test = crossed_test_of(table.mean(axis=1), table)
        assert test.seed_variance == pytest.approx(0.04, rel=0.25)
        assert test.example_variance == pytest.approx(0.25, rel=0.25)
        assert test.residual_variance == pytest.approx(1.0, rel=0.05)
        assert test.difference == pytest.approx(table.mean())
        assert test.seed_share is not None
        assert 0.1 < test.seed_share < 0.5

    def test_its_interval_holds_the_truth_as_often_as_it_says(self) -> None:
        rng = np.random.default_rng(3)
        missed = 0
        for _ in range(SIMULATIONS):
            table = (
                0.1 + 0.1 * rng.standard_normal((4, 1)) + rng.standard_normal((1, 100)) + rng.standard_normal((4, 100))
            )
            test = crossed_test_of(table.mean(axis=1), table)
            missed += abs(test.difference - 0.1) > test.half_width
        assert LOW <= missed / SIMULATIONS <= HIGH

    def test_the_number_of_seeds_that_is_said_to_do_it_does(self) -> None:
        """Power by simulation, with the components that the number was computed from."""
        rng = np.random.default_rng(4)

        def table(seeds: int, mean: float) -> Any:
            return (
                mean
                + 0.08 * rng.standard_normal((seeds, 1))
                + 0.3 * rng.standard_normal((1, 300))
                + rng.standard_normal((seeds, 300))
            )

        large = table(400, 0.1)
        test = crossed_test_of(large[:3].mean(axis=1), large[:3])
        known = crossed_test_of(large.mean(axis=1), large)
        test = type(test)(**{**vars(test), **{name: vars(known)[name] for name in vars(known) if "variance" in name}})
        needed = seeds_needed(test, 0.1)
        assert needed is not None
        assert needed > 3
        assert power(test, 0.1, needed) >= POWER > power(test, 0.1, needed - 1)
        hits = 0
        for _ in range(500):
            drawn = table(needed, 0.1)
            hits += crossed_test_of(drawn.mean(axis=1), drawn).p_value < 0.05
        assert hits / 500 == pytest.approx(POWER, abs=0.07)
        assert power(test, detectable(test), 3) == pytest.approx(POWER, abs=0.01)
        assert detectable(test, tests=10) > detectable(test)

    def test_no_number_of_seeds_makes_a_test_set_larger(self) -> None:
        rng = np.random.default_rng(9)
        table = 0.01 + rng.standard_normal((1, 50)) + 0.1 * rng.standard_normal((5, 50))
        assert seeds_needed(crossed_test_of(table.mean(axis=1), table), 0.01) is None


class TestWhatCannotBeTested:
    def test_one_seed_or_one_example(self) -> None:
        for shape in ((1, 10), (10, 1)):
            with pytest.raises(ValueError, match="at least two of each"):
                crossed_test_of(np.zeros(shape[0]), np.zeros(shape))

    def test_the_same_predictions(self) -> None:
        gold = np.array([0, 1, 0, 1])
        one = additive("accuracy", gold, np.array([0, 1, 1, 1]), BINARY)
        assert one is not None
        test = crossed_test([one, one], [one, one])
        assert (test.difference, test.p_value, test.half_width) == (0, 1, 0)
        assert approximate_randomisation([one], [one], resamples=50) == 1
        assert paired_bootstrap([one], [one], resamples=50).p_value == 1


class TestIntervals:
    @pytest.mark.parametrize("number", [2, 3, 5, 10])
    def test_cover_the_truth_as_often_as_they_say(self, number: int) -> None:
        rng = np.random.default_rng(number)
        missed = 0
        for values in rng.normal(0.7, 0.02, (SIMULATIONS, number)):
            interval = estimate(list(values))
            assert interval is not None
            assert interval.interval is not None
            missed += not interval.interval[0] <= 0.7 <= interval.interval[1]
        assert LOW <= missed / SIMULATIONS <= HIGH

    def test_of_one_value_of_none_and_of_undefined_ones(self) -> None:
        one = estimate([0.5])
        assert one is not None
        assert (one.mean, one.half_width, one.interval, one.values) == (0.5, None, None, 1)
        assert estimate([]) is None
        assert estimate([float("nan")]) is None
        assert estimate([float("nan"), 0.5]) == one

    def test_effect_sizes(self) -> None:
        assert cohens_d([1.0, 2.0, 3.0]) == pytest.approx(2.0)
        assert cohens_d([1.0]) is None
        assert cohens_d([1.0, 1.0]) is None
        assert cohens_d([0.3 - 0.2, 0.4 - 0.3, 0.9 - 0.8]) is None
        assert probability_of_improvement([2, 3], [1, 1]) == 1
        assert probability_of_improvement([1, 3], [2, 2]) == 0.5
        assert probability_of_improvement([1], [1]) == 0.5


class TestHolm:
    def test_a_known_case(self) -> None:
        """Worked by hand: 4 × 0.005, 3 × 0.01, 2 × 0.03, then not below the one before."""
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
        assert holm([]) == []

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
    def test_never_smaller_in_the_same_order_and_between_none_and_bonferroni(self, values: list[float]) -> None:
        corrected = np.array(holm(values))
        given_ = np.array(values)
        assert (corrected >= given_).all()
        assert (corrected <= np.minimum(1, given_ * len(values)) + 1e-15).all()
        assert (np.diff(corrected[np.argsort(given_, kind="stable")]) >= 0).all()

    def test_the_chance_of_any_false_finding_stays_below_the_level(self) -> None:
        rng = np.random.default_rng(11)
        wrong = sum(min(holm(list(p))) < 0.05 for p in rng.random((SIMULATIONS, 8)))
        assert wrong / SIMULATIONS <= HIGH


# The quick way to a metric --------------------------------------------------------------------------------------

CLASS_METRICS = ("accuracy", "f1_macro", "f1_micro", "f1_weighted", "mcc", "f1_class_a", "f1_class_c")


@st.composite
def classified(draw: st.DrawFn) -> tuple[Any, Any]:
    pairs = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
    return np.array([gold for gold, _ in pairs]), np.array([predicted for _, predicted in pairs])


@given(classified())
@settings(max_examples=20)
def test_equals_scikit_learn_with_labels_that_never_occur(case: tuple[Any, Any]) -> None:
    expected = metrics(*case, THREE)
    for name in CLASS_METRICS:
        metric = additive(name, *case, THREE)
        assert metric is not None
        assert metric.score == pytest.approx(expected.get(name, np.nan), abs=1e-12, nan_ok=True), name
        one_by_one = Additive(metric.parts, metric.value)
        np.testing.assert_array_equal(metric.pseudo_values(), one_by_one.pseudo_values(), err_msg=name)


@given(st.lists(st.tuples(*[st.booleans()] * 6), min_size=1, max_size=30))
@settings(max_examples=15)
def test_equals_scikit_learn_with_several_labels(rows: list[tuple[bool, ...]]) -> None:
    marks = np.array(rows, dtype="int64")
    labels = Labels.multilabel("a", "b", "c")
    expected = metrics(marks[:, :3], marks[:, 3:], labels)
    for name in ("accuracy", "jaccard_samples", "f1_macro", "f1_micro", "f1_weighted", "f1_class_b"):
        metric = additive(name, marks[:, :3], marks[:, 3:], labels)
        assert metric is not None
        assert metric.score == pytest.approx(expected.get(name, np.nan), abs=1e-12, nan_ok=True), name


def test_resamples_without_a_class_score_as_the_same_examples_do() -> None:
    """One of four classes has a single example: a third of all resamples are without it."""
    rng = np.random.default_rng(21)
    labels = Labels.multiclass("a", "b", "c", "d")
    gold = np.array([0] * 12 + [1] * 8 + [2])
    predicted = np.where(rng.random(21) < 0.7, gold, 0)
    for name in ("f1_macro", "f1_weighted", "f1_micro", "f1_class_c", "f1_class_d"):
        metric = additive(name, gold, predicted, labels)
        assert metric is not None
        for _ in range(6):
            drawn = rng.integers(0, 21, 21)
            expected = metrics(gold[drawn], predicted[drawn], labels).get(name, np.nan)
            assert float(metric.value(metric.parts[drawn].sum(axis=0))) == pytest.approx(expected, nan_ok=True), name


def test_resamples_on_which_the_metric_is_undefined_are_no_evidence_of_a_difference() -> None:
    """F1 of a class with one example: where that is not drawn, the resample says nothing. Ours never finds the class,
    theirs does; of the resamples that say anything, each shows the whole difference."""
    gold = np.array([0] * 20 + [2])
    ours, theirs = np.zeros(21, dtype=int), gold
    values, base = (additive("f1_class_c", gold, predicted, THREE) for predicted in (ours, theirs))
    assert values is not None
    assert base is not None
    test = paired_bootstrap([values], [base], resamples=2000)
    assert test.interval == (-1.0, -1.0)
    same = paired_bootstrap([base], [base], resamples=2000)
    assert same.p_value == 1.0
    assert approximate_randomisation([base], [base], resamples=200) == 1.0


def test_equals_scipy_for_pearson_far_from_zero() -> None:
    rng = np.random.default_rng(0)
    gold = 1e4 + rng.standard_normal(100)
    predicted = gold + rng.standard_normal(100)
    labels = Labels.regression(0, 1e6)
    metric = additive("pearson", gold, predicted, labels)
    assert metric is not None
    assert metric.score == pytest.approx(metrics(gold, predicted, labels)["pearson"], rel=1e-9)
    assert additive("spearman", gold, predicted, labels) is None
    constant = additive("pearson", gold, np.ones(100), labels)
    assert constant is not None
    assert np.isnan(constant.score)


@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "f1_weighted", "mcc"])
def test_leaving_out_and_drawing_again_equal_scikit_learn(name: str) -> None:
    rng = np.random.default_rng(12)
    gold = rng.integers(0, 3, 60)
    predicted = answers(rng, gold, 1.0, 3)
    metric = additive(name, gold, predicted, THREE)
    assert metric is not None
    pseudo = metric.pseudo_values()
    whole = metrics(gold, predicted, THREE)[name]
    for place in (0, 17, 59):
        kept = np.arange(60) != place
        assert pseudo[place] == pytest.approx(60 * whole - 59 * metrics(gold[kept], predicted[kept], THREE)[name])
    if name == "accuracy":
        assert pseudo == pytest.approx((gold == predicted).astype(float))
    drawn = rng.integers(0, 60, 60)
    again = metric.value(metric.parts[drawn].sum(axis=0))
    assert again == pytest.approx(metrics(gold[drawn], predicted[drawn], THREE)[name])
