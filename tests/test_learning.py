"""A score is seldom judged above the trivial score where it is not, and is where it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from alue_bench.contract.task import Labels
from alue_bench.evaluation.learning import Learning, learning, trivial_score
from alue_bench.evaluation.metrics import metrics

BINARY = Labels.binary("no", "yes")
NUMBER = Labels.regression(0, 1)
TRAIN = np.array([0, 0, 1])


def judged(gold: Any, predicted: Any, labels: Labels, metric: str, train: Any = TRAIN) -> Learning:
    base = trivial_score(train, gold, predicted, labels, metric)
    verdict = learning([metrics(gold, predicted, labels)[metric]], [base.score], [base.error])
    assert verdict is not None
    return verdict


class TestOneSeed:
    def test_as_many_right_as_the_majority_label_is_above_it_in_one_of_twenty(self) -> None:
        """Predictions that do not go with the gold labels, right as often as the constant is."""
        rng = np.random.default_rng(3)
        above = 0
        for _ in range(300):
            gold = (rng.random(60) < 0.5).astype(int)
            above += judged(gold, (rng.random(60) < 0.5).astype(int), BINARY, "accuracy").has_learnt
        assert 0.01 < above / 300 < 0.11  # in 999 of 1,000 draws of a rate of 5 %

    @pytest.mark.parametrize("metric", ["pearson", "spearman"])
    def test_numbers_that_do_not_go_with_the_gold_ones_are_above_nothing(self, metric: str) -> None:
        rng = np.random.default_rng(4)
        verdicts = [judged(*rng.random((2, 50)), NUMBER, metric, rng.random(9)) for _ in range(300)]
        assert 0.01 < np.mean([one.has_learnt for one in verdicts]) < 0.11
        gold = rng.random(50)
        assert judged(gold, gold + 0.3 * rng.random(50), NUMBER, metric).has_learnt

    def test_the_majority_label_itself_is_not_above_it(self) -> None:
        gold = np.array([0] * 30 + [1] * 10)
        verdict = judged(gold, np.zeros(40, dtype=int), BINARY, "f1_macro")
        assert not verdict.has_learnt
        assert (verdict.score, verdict.bound) == (verdict.trivial, 0.0)
        one_found = np.zeros(40, dtype=int)
        one_found[-1] = 1  # which another test set need not hold
        assert not judged(gold, one_found, BINARY, "f1_macro").has_learnt
        assert judged(gold, np.where(np.arange(40) % 8 == 0, 1 - gold, gold), BINARY, "f1_macro").has_learnt

    def test_by_several_labels(self) -> None:
        rng = np.random.default_rng(5)
        labels = Labels.multilabel("a", "b", "c", threshold=0.25)
        gold = (rng.random((80, 3)) < 0.4).astype(int)
        noisy = np.where(rng.random(gold.shape) < 0.15, 1 - gold, gold)
        assert judged(gold, noisy, labels, "jaccard_samples", gold).has_learnt
        assert not judged(gold, np.ones_like(gold), labels, "jaccard_samples", gold).has_learnt


class TestSeveralSeeds:
    @pytest.mark.parametrize(
        ("scores", "above", "shown", "collapsed"),
        [
            ([0.9, 0.4, 0.4], 1, False, "2 of 3 seeds collapsed"),
            ([0.9, 0.4], 1, True, "1 of 2 seeds collapsed"),
            ([0.9, 0.9, 0.1], 2, True, "1 of 3 seeds collapsed"),
            ([0.42] * 5, 0, False, "5 of 5 seeds collapsed"),  # above the trivial score, but not by more than chance
            ([math.nan, 0.9, 0.9], 2, True, "1 of 3 seeds collapsed"),  # the correlation of a constant is undefined
            ([0.4], 0, False, "its only seed collapsed"),
            ([0.9] * 5, 5, True, ""),
        ],
    )
    def test_at_least_half_of_them_must_be_above_and_the_others_are_counted_as_collapsed(
        self, scores: list[float], above: int, shown: bool, collapsed: str
    ) -> None:
        verdict = learning(scores, [0.4] * len(scores), [0.02] * len(scores))
        assert verdict is not None
        assert (verdict.above, verdict.has_learnt, verdict.collapsed) == (above, shown, len(scores) - above)
        assert verdict.collapsed_text() == collapsed

    def test_more_seeds_do_not_make_up_for_few_examples(self) -> None:
        one, many = (learning([0.5] * seeds, [0.4] * seeds, [0.1] * seeds) for seeds in (1, 20))
        assert one is not None
        assert many is not None
        assert one.bound == pytest.approx(many.bound)
        assert not many.has_learnt

    def test_the_sentence_names_both_scores_and_what_chance_explains(self) -> None:
        said = {
            (0.4,): "full did not learn: its dev score 0.400 is not above the trivial score 0.400",
            (0.42,): "full did not learn: its dev score 0.420 is not above the trivial score 0.400 by more than chance "
            "(by up to 0.033)",
            (0.9, 0.4, 0.4): "full did not learn: its dev score 0.567 is above the trivial score 0.400 by more than "
            "chance with 1 of 3 seeds only",
        }
        for scores, expected in said.items():
            verdict = learning(scores, [0.4] * len(scores), [0.02] * len(scores))
            assert verdict is not None
            assert verdict.sentence("full", "dev") == expected

    def test_an_undefined_score_counts_as_the_trivial_one(self) -> None:
        verdict = learning([math.nan, math.nan], [0.0, 0.0], [math.nan, math.nan])
        assert verdict is not None
        assert (verdict.score, verdict.has_learnt) == (0.0, False)

    def test_what_was_not_recorded_is_not_judged(self) -> None:
        assert learning([0.5], [math.nan], [math.nan]) is None
        of_before = learning([0.5], [0.4], [math.nan])  # an older version recorded no standard error
        assert of_before is not None
        assert of_before.has_learnt
