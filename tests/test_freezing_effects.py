"""The measured effect of freezing layers, and predictions for new tasks, against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alue_bench.evaluation.freezing_effects import freezing_effects, rank_correlation
from alue_bench.evaluation.new_task import correction, mean_prediction

LOSSES = (4.0, 1.0, 3.0, 2.0)
"""The score that freezing each of four layers costs in an additive world."""


def additive_grid(step: int) -> dict[tuple[int, int], float]:
    """The score of each cell of a model of four layers: 10 minus the losses of the frozen layers."""
    counts = range(0, 5, step)
    return {
        (bottom, top): 10 - sum(LOSSES[:bottom]) - sum(LOSSES[4 - top :])
        for bottom in counts
        for top in counts
        if bottom + top <= 4
    }


class TestFreezingEffects:
    def test_every_cell_recovers_the_loss_of_each_layer(self) -> None:
        effects = freezing_effects(additive_grid(1), 4)
        assert [effect.layers for effect in effects] == [(0,), (1,), (2,), (3,)]
        assert [effect.change for effect in effects] == pytest.approx([-loss for loss in LOSSES])
        # Layer 0 changes in bottom 0 -> 1 with tops 0 to 3, and in top 3 -> 4 with bottom 0.
        assert effects[0].pairs == 5

    def test_steps_of_two_give_blocks_with_the_mean_loss(self) -> None:
        effects = freezing_effects(additive_grid(2), 4)
        assert [effect.layers for effect in effects] == [(0, 1), (2, 3)]
        assert [effect.change for effect in effects] == pytest.approx([-2.5, -2.5])

    def test_the_effect_is_the_mean_over_pairs(self) -> None:
        """Freezing layer 0 costs 1 if layer 1 trains; freezing layer 1 costs 2, or 4 if layer 0 is frozen."""
        effects = freezing_effects({(0, 0): 9.0, (1, 0): 8.0, (2, 0): 4.0, (0, 1): 7.0}, 2)
        assert [(effect.change, effect.pairs) for effect in effects] == [(-1.0, 1), (-3.0, 2)]

    def test_layers_in_no_pair_belong_to_no_block(self) -> None:
        assert freezing_effects({(0, 0): 1.0}, 4) == []
        assert [effect.layers for effect in freezing_effects({(0, 0): 1.0, (1, 0): 0.5}, 4)] == [(0,)]


class TestRankCorrelation:
    def test_of_scores_in_the_order_of_the_losses_is_one(self) -> None:
        effects = freezing_effects(additive_grid(1), 4)
        assert rank_correlation(effects, (40, 10, 30, 20)) == pytest.approx(1)
        assert rank_correlation(effects, (-40, -10, -30, -20)) == pytest.approx(-1)

    def test_of_one_exchange_as_computed_by_hand(self) -> None:
        """The ranks 4, 1, 3, 2 and 3, 1, 4, 2 differ by 1 twice: 1 - 6 x 2 / (4 x 15)."""
        assert rank_correlation(freezing_effects(additive_grid(1), 4), (30, 10, 40, 20)) == pytest.approx(0.8)

    def test_a_block_has_the_mean_score_of_its_layers(self) -> None:
        grid = {cell: score - 0.5 * (cell[0] >= 2) for cell, score in additive_grid(2).items()}
        effects = freezing_effects(grid, 4)
        assert rank_correlation(effects, (9, 0, 2, 4)) == pytest.approx(1)  # means 4.5 and 3

    def test_is_undefined_without_differences(self) -> None:
        effects = freezing_effects(additive_grid(1), 4)
        assert math.isnan(rank_correlation(effects, (1, 1, 1, 1)))
        assert math.isnan(rank_correlation(effects[:1], (1, 2, 3, 4)))


class TestPrediction:
    def test_the_interval_as_computed_by_hand(self) -> None:
        """Mean 2, standard deviation 1, three values: 4.3027 x sqrt(4 / 3)."""
        told = mean_prediction([1.0, 2.0, 3.0])
        assert told.mean == pytest.approx(2)
        assert told.half_width == pytest.approx(4.302653 * math.sqrt(4 / 3), rel=1e-5)

    def test_covers_new_tasks_as_often_as_it_says(self) -> None:
        drawn = np.random.default_rng(0).normal(3.0, 2.0, (2000, 5))
        hits = 0
        for *known, new in drawn.tolist():
            low, high = mean_prediction(known).interval or (0.0, 0.0)
            hits += low <= new <= high
        assert hits / len(drawn) == pytest.approx(0.95, abs=0.015)

    def test_one_task_predicts_nothing(self) -> None:
        with pytest.raises(ValueError, match="at least 2"):
            mean_prediction([1.0])


class TestCorrection:
    def test_a_feature_that_determines_the_value_removes_the_error(self) -> None:
        features = np.array([[0.0, 1.0], [1.0, 3.0], [2.0, 8.0]])
        fitted = correction(np.array([5.0, 7.0]) + 3 * features, features)
        assert fitted.slope == pytest.approx(3)
        assert fitted.error == pytest.approx(0, abs=1e-12)
        assert fitted.helps

    def test_a_feature_without_relation_rarely_helps(self) -> None:
        """Values and features of a task have a part in common over settings, which makes chance relations likely."""
        rng = np.random.default_rng(0)
        fitted = []
        for _ in range(300):
            values, features = (rng.normal(size=(5, 1)) + 0.5 * rng.normal(size=(5, 10)) for _ in range(2))
            fitted.append(correction(values, features))
        smaller = np.mean([one.error < one.error_without for one in fitted])
        assert np.mean([one.helps for one in fitted]) < 0.15 < smaller < 0.3

    def test_a_constant_feature_changes_nothing(self) -> None:
        values = np.array([[1.0], [2.0], [6.0]])
        fitted = correction(values, np.ones((3, 1)))
        assert fitted.slope == 0
        assert not fitted.helps
        # Each task is predicted by the mean of the other two: 4, 3.5 and 1.5.
        assert fitted.error_without == pytest.approx(math.sqrt((3**2 + 1.5**2 + 4.5**2) / 3))
