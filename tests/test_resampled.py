"""The corrected resampled t-test: against published numbers, and its level in a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from alue_bench.evaluation.resampled import corrected_resampled_test, estimate_over_folds


def test_it_agrees_with_the_published_example_of_scikit_learn() -> None:
    """Its "Statistical comparison of models using grid search": ten times ten folds of 100 rows, two classifiers.

    The uncorrected t-value is 2.611; corrected it is 0.750, with a one-sided p-value of 0.227.
    """
    spread = np.random.default_rng(0).normal(size=100)
    spread = (spread - spread.mean()) / spread.std(ddof=1)
    differences = spread + 2.611 / math.sqrt(100)
    assert stats.ttest_1samp(differences, 0).statistic == pytest.approx(2.611)
    test = corrected_resampled_test([*differences], test_share=10 / 90)
    assert test.difference / test.error == pytest.approx(0.750, abs=5e-4)
    assert test.p_value / 2 == pytest.approx(0.227, abs=5e-4)
    assert (test.degrees, test.folds) == (99, 100)


def test_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, variance 1; a half as many test rows as train rows; two degrees of freedom."""
    test = corrected_resampled_test([1.0, 2.0, 3.0], 0.5)
    error = math.sqrt(1 / 3 + 1 / 2)
    assert (test.difference, test.error) == (2.0, pytest.approx(error))
    assert test.half_width == pytest.approx(4.302653 * error, rel=1e-6)  # the 97.5 % quantile of t with 2 degrees
    estimate = estimate_over_folds([1.0, 2.0, 3.0, math.nan], 0.5)
    assert estimate is not None
    assert (estimate.mean, estimate.half_width, estimate.values) == (2.0, pytest.approx(test.half_width), 3)
    assert test.detectable() > test.half_width
    assert math.isnan(corrected_resampled_test([0.5, 0.5], 0.1).p_value)
    assert corrected_resampled_test([0.0, 0.0], 0.1).p_value == 1.0
    with pytest.raises(ValueError, match="1 folds have no variance"):
        corrected_resampled_test([1.0], 0.1)


@pytest.mark.parametrize(("folds", "repeats"), [(5, 1), (5, 4)])
def test_its_level_is_kept_where_that_of_the_plain_test_is_not(folds: int, repeats: int) -> None:
    """Two nearest-mean classifiers, each of its own feature; both features are as good, so that none is better."""
    rows, worlds = 40, 600
    rng = np.random.default_rng(1)
    labels = np.tile([0, 1], rows // 2)
    features = rng.normal(size=(worlds, 2, rows)) + 0.8 * labels
    differences = []
    for _ in range(repeats):
        part = rng.permuted(np.tile(np.arange(folds), (worlds, rows // folds)), axis=1)
        for fold in range(folds):
            test = part == fold
            means = [
                np.where((~test & (labels == label))[:, None], features, 0.0).sum(-1)
                / (~test & (labels == label)).sum(-1)[:, None]
                for label in (0, 1)
            ]
            near = np.abs(features - means[1][..., None]) < np.abs(features - means[0][..., None])
            right = ((near == labels) & test[:, None]).sum(-1) / test.sum(-1)[:, None]
            differences.append(right[:, 0] - right[:, 1])
    table = np.stack(differences, axis=1)
    rejected = np.mean([corrected_resampled_test([*row], 1 / (folds - 1)).p_value < 0.05 for row in table])
    plain = np.mean(stats.ttest_1samp(table, 0, axis=1).pvalue < 0.05)
    assert rejected < 0.07
    assert plain > 2 * rejected
    assert repeats == 1 or plain > 0.2
