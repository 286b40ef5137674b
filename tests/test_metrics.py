"""Scores against numbers worked out by hand."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, matthews_corrcoef

from alue_bench import Labels, TargetKind
from alue_bench.contract.task import METRICS
from alue_bench.evaluation.metrics import metrics, trivial_metrics
from alue_bench.evaluation.predictions import decide, predictions_table, probabilities

BINARY = Labels.binary("no", "yes")
THREE = Labels.multiclass("a", "b", "c")
SEVERAL = Labels.multilabel("joy", "fear", threshold=0.25)
NUMBER = Labels.regression(0.0, 1.0)

# gold no no no yes yes, predicted no no yes yes no:
# yes: 1 right, 1 invented, 1 missed: F1 1/2;  no: 2 right, 1 invented, 1 missed: F1 2/3.
GOLD, PREDICTED = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0])


class TestClassification:
    def test_binary(self) -> None:
        assert metrics(GOLD, PREDICTED, BINARY) == pytest.approx(
            {
                "accuracy": 3 / 5,
                "f1_macro": (1 / 2 + 2 / 3) / 2,
                "f1_micro": 3 / 5,
                "f1_weighted": (2 * 1 / 2 + 3 * 2 / 3) / 5,
                "f1_class_no": 2 / 3,
                "f1_class_yes": 1 / 2,
                "mcc": (1 * 2 - 1 * 1) / math.sqrt(2 * 2 * 3 * 3),
            }
        )

    def test_a_class_that_is_neither_gold_nor_predicted_is_left_out(self) -> None:
        scores = metrics(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), THREE)
        assert "f1_class_c" not in scores
        assert scores["f1_macro"] == scores["f1_micro"] == scores["f1_weighted"] == scores["accuracy"] == 1

    def test_a_class_that_is_only_predicted_counts(self) -> None:
        """a: 1 right, 1 missed: F1 2/3. b: 1 right. c: invented once: F1 0."""
        scores = metrics(np.array([0, 0, 1]), np.array([0, 2, 1]), THREE)
        assert scores["f1_class_c"] == 0
        assert scores["f1_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)

    @given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
    def test_are_scikit_learns_to_the_last_bit(self, pairs: list[tuple[int, int]]) -> None:
        gold, predicted = (np.array(side) for side in zip(*pairs, strict=True))
        scores = metrics(gold, predicted, Labels.multiclass(*"abcde"))
        every = {"labels": range(5), "zero_division": np.nan}
        for average in ("macro", "micro", "weighted"):
            assert scores[f"f1_{average}"] == f1_score(gold, predicted, average=average, **every), average
            # Shared tasks and leaderboards do not name the labels.
            of_present = f1_score(gold, predicted, average=average, zero_division=0.0)
            assert scores[f"f1_{average}"] == pytest.approx(of_present, abs=1e-12), average
        per_class = [scores.get(f"f1_class_{name}", math.nan) for name in "abcde"]
        np.testing.assert_array_equal(per_class, f1_score(gold, predicted, average=None, **every))
        assert scores["accuracy"] == accuracy_score(gold, predicted)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert scores["mcc"] == matthews_corrcoef(gold, predicted)

    def test_one_class_alone_has_an_f1_but_no_correlation(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scores = metrics(np.zeros(4, dtype=int), np.zeros(4, dtype=int), BINARY)
        assert (scores["f1_macro"], scores["accuracy"], scores["mcc"]) == (1, 1, 0)

    def test_a_constant_prediction_has_no_correlation_with_anything(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scores = metrics(GOLD, np.zeros(5, dtype=int), BINARY)
        assert scores["mcc"] == 0
        assert scores["f1_class_yes"] == 0
        assert scores["f1_macro"] == pytest.approx((2 * 3 / (2 * 3 + 2)) / 2)

    def test_all_are_what_the_task_page_promises(self) -> None:
        for labels in (BINARY, THREE):
            assert set(METRICS[labels.kind]) <= metrics(GOLD, PREDICTED, labels).keys()

    def test_each_label_has_an_f1_of_its_own_under_its_name(self) -> None:
        labels = Labels.multiclass("C+", "C#", "a/b:د")
        scores = metrics(np.array([0, 1, 2, 1]), np.array([0, 1, 2, 2]), labels)
        assert [round(scores[f"f1_class_{name}"], 3) for name in labels.names] == [1.0, 0.667, 0.667]


class TestSeveralLabels:
    GOLD = np.array([[1, 0], [1, 1], [0, 0], [0, 0]])
    PREDICTED = np.array([[1, 1], [1, 1], [0, 0], [0, 1]])

    def test_by_hand(self) -> None:
        # joy: 2 right: 1.  fear: 1 right, 2 invented, 0 missed: 2 / (2 + 2) = 1/2.
        # Jaccard: 1/2, 1, 1 (nothing there, nothing said), 0.
        assert metrics(self.GOLD, self.PREDICTED, SEVERAL) == pytest.approx(
            {
                "accuracy": 2 / 4,
                "f1_macro": (1 + 1 / 2) / 2,
                "f1_micro": 2 * 3 / (2 * 3 + 2),
                "f1_weighted": (2 * 1 + 1 * 1 / 2) / 3,
                "f1_class_joy": 1,
                "f1_class_fear": 1 / 2,
                "jaccard_samples": (1 / 2 + 1 + 1 + 0) / 4,
            }
        )

    @given(st.lists(st.tuples(*[st.integers(0, 1)] * 6), min_size=1, max_size=20))
    def test_are_scikit_learns_to_the_last_bit(self, rows: list[tuple[int, ...]]) -> None:
        gold, predicted = np.array(rows)[:, :3], np.array(rows)[:, 3:]
        scores = metrics(gold, predicted, Labels.multilabel(*"abc"))
        for average in ("macro", "micro", "weighted"):
            expected = f1_score(gold, predicted, average=average, zero_division=np.nan)
            np.testing.assert_equal(scores[f"f1_{average}"], expected, average)
        assert scores["accuracy"] == accuracy_score(gold, predicted)
        assert scores["jaccard_samples"] == jaccard_score(gold, predicted, average="samples", zero_division=1.0)

    def test_an_example_without_labels_predicted_without_any_is_right(self) -> None:
        nothing = np.zeros((3, 2), dtype=int)
        assert metrics(nothing, nothing, SEVERAL)["jaccard_samples"] == 1

    def test_a_label_of_no_example_is_left_out_and_perfect_answers_score_1(self) -> None:
        gold = np.array([[1, 0], [1, 0], [0, 0]])
        scores = metrics(gold, gold, SEVERAL)
        assert "f1_class_fear" not in scores
        assert (scores["f1_macro"], scores["f1_micro"], scores["f1_weighted"]) == (1, 1, 1)

    def test_without_any_label_gold_or_predicted_f1_is_undefined(self) -> None:
        nothing = np.zeros((3, 2), dtype=int)
        scores = metrics(nothing, nothing, SEVERAL)
        assert all(math.isnan(scores[f"f1_{average}"]) for average in ("macro", "micro", "weighted"))
        assert metrics(nothing, 1 - nothing, SEVERAL)["f1_weighted"] == 0

    def test_a_label_is_predicted_above_the_threshold_of_its_task(self) -> None:
        logit = math.log(0.25 / 0.75)  # the logit of 0.25
        assert decide(np.array([[logit + 0.01, logit - 0.01]]), SEVERAL).tolist() == [[1, 0]]


class TestRegression:
    def test_by_hand(self) -> None:
        # Deviations of gold -1.5 -.5 .5 1.5, of predicted -1.75 -.75 .25 2.25: 6.5 / sqrt(5 · 8.75).
        scores = metrics(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 5.0]), NUMBER)
        assert scores == pytest.approx({"pearson": 6.5 / math.sqrt(5 * 8.75), "spearman": 1.0})

    @pytest.mark.parametrize("constant", ["gold", "predicted"])
    def test_a_constant_has_an_undefined_correlation_and_no_warning(self, constant: str) -> None:
        sides = {"gold": np.array([1.0, 2.0, 3.0]), "predicted": np.array([1.0, 2.0, 3.0])} | {constant: np.ones(3)}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scores = metrics(sides["gold"], sides["predicted"], NUMBER)
        assert all(math.isnan(value) for value in scores.values())


class TestTrivialPredictor:
    def test_it_says_the_most_frequent_label_of_train_not_of_test(self) -> None:
        scores = trivial_metrics(np.array([1, 1, 0]), np.array([0, 0, 0, 1]), BINARY)
        assert scores["accuracy"] == pytest.approx(1 / 4)
        assert scores["f1_macro"] == pytest.approx((2 * 1 / (2 + 3)) / 2)

    def test_for_several_labels_it_says_those_more_frequent_than_the_tasks_threshold(self) -> None:
        """A label that two train examples of five have is said: above a quarter, though most do not have it."""
        train = np.array([[1, 0], [1, 0], [0, 1], [0, 0], [0, 0]])
        scores = trivial_metrics(train, np.array([[1, 0], [0, 1], [1, 1]]), SEVERAL)
        assert scores["jaccard_samples"] == pytest.approx((1 + 0 + 1 / 2) / 3)

    def test_it_explains_nothing_of_a_number(self) -> None:
        train, gold = np.array([0.1, 0.9]), np.array([0.1, 0.5, 0.9])
        assert trivial_metrics(train, gold, NUMBER) == {"pearson": 0.0, "spearman": 0.0}


class TestPredictions:
    def test_names_and_probabilities(self) -> None:
        table = predictions_table(["x", "y"], np.array([0, 2]), np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), THREE)
        assert (table.ids, table.gold, table.predicted) == (["x", "y"], ["a", "c"], ["a", "b"])
        assert table.columns == ("a", "b", "c")
        assert table.scores[0] == pytest.approx(np.exp([2, 0, 0]) / np.exp([2, 0, 0]).sum())

    def test_several_labels_are_written_with_spaces(self) -> None:
        table = predictions_table(["x"], np.array([[1, 1]]), np.array([[5.0, -5.0]]), SEVERAL)
        assert (table.gold, table.predicted) == (["joy fear"], ["joy"])

    def test_a_number_is_its_own_score(self) -> None:
        table = predictions_table(["x"], np.array([0.25], dtype="float32"), np.array([[0.5]]), NUMBER)
        assert (table.gold, table.predicted, table.scores.tolist()) == ([0.25], [0.5], [[0.5]])
        assert json.dumps(table.predicted)  # plain numbers, not numpy's

    def test_probabilities_of_large_logits_are_finite(self) -> None:
        for labels in (BINARY, SEVERAL):
            assert np.isfinite(probabilities(np.array([[1000.0, -1000.0]]), labels)).all()


def test_every_kind_of_target_has_metrics() -> None:
    assert METRICS.keys() == set(TargetKind)
