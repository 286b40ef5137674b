"""The corrected resampled t-test, for differences over the folds of a cross-validation.

The scores of J folds are not independent: any two folds share train examples and, if the cross-validation is repeated,
test examples too. The plain t-test assumes independent scores. It therefore underestimates the variance of the mean,
and finds differences where there are none. Nadeau and Bengio (2003, Inference for the Generalization Error, Machine
Learning 52, section 4) replace the factor 1/J of the variance by 1/J + n_test/n_train:

    t = mean(d) / sqrt((1/J + n_test/n_train) * s²),   J - 1 degrees of freedom

Here d are the differences of the J folds, s² is their variance, and n_test and n_train are the numbers of test and
train examples. Bouckaert and Frank (2004) recommend the same for repeated cross-validation. The correction assumes a
correlation between folds of n_test / (n_test + n_train). This is a rule of thumb: the true correlation is unknown and
cannot be estimated without bias. The test answers the question whether the difference would remain after training on
other examples of the same kind. It only needs the scores of the runs, not their predictions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alue_bench.evaluation.intervals import LEVEL, Estimate, loss_bound
from alue_bench.evaluation.significance import POWER


@dataclass(frozen=True, kw_only=True)
class ResampledTestResult:
    """The result of the corrected resampled t-test of whether the mean difference of scores over folds is zero."""

    difference: float
    """The mean difference over folds."""
    half_width: float
    """Half the width of the difference's confidence interval at the confidence level LEVEL."""
    p_value: float
    """The two-sided p-value; nan if all differences are the same and not zero."""
    degrees: int
    """The degrees of freedom."""
    folds: int
    """The number of folds, summed over all repeats of the cross-validation."""
    error: float
    """The corrected standard error of the mean difference."""

    @property
    def loss_bound(self) -> float:
        """The one-sided upper confidence bound, at the level LEVEL, of the loss of score (-`difference`)."""
        return loss_bound(self.difference, self.error, self.degrees)

    def detectable(self, *, tests: int = 1) -> float:
        """Return the smallest true difference that the test, with these folds, would find with the probability POWER.

        Args:
            tests: The number of tests. The significance level is divided by it, to correct for multiple testing.
        """
        from scipy.special import nctdtrinc, stdtrit

        if not self.error > 0:
            return 0.0
        bound = stdtrit(self.degrees, 1 - (1 - LEVEL) / tests / 2)
        return float(nctdtrinc(self.degrees, 1 - POWER, bound)) * self.error


def corrected_resampled_test(differences: Sequence[float], test_share: float) -> ResampledTestResult:
    """Test whether the mean difference over folds is zero, by the corrected resampled t-test.

    Args:
        differences: The difference of two scores in each fold, [folds].
        test_share: The number of test examples of a fold divided by the number of its train examples.

    Raises:
        ValueError: There are fewer than two folds.
    """
    from scipy.special import stdtr, stdtrit

    folds, mean, error = len(differences), *_mean_and_error(differences, test_share)
    certain = math.nan if mean else 1.0
    return ResampledTestResult(
        difference=mean,
        half_width=float(stdtrit(folds - 1, (1 + LEVEL) / 2)) * error,
        p_value=float(2 * stdtr(folds - 1, -abs(mean) / error)) if error > 0 else certain,
        degrees=folds - 1,
        folds=folds,
        error=error,
    )


def estimate_over_folds(values: Sequence[float], test_share: float) -> Estimate | None:
    """Return the mean of the finite values over folds with its corrected interval; None if no value is finite.

    Args:
        values: The score of each fold, [folds].
        test_share: The number of test examples of a fold divided by the number of its train examples.
    """
    from scipy.special import stdtrit

    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return Estimate(finite[0], None, 1) if finite else None
    mean, error = _mean_and_error(finite, test_share)
    return Estimate(mean, float(stdtrit(len(finite) - 1, (1 + LEVEL) / 2)) * error, len(finite))


def _mean_and_error(values: Sequence[float], test_share: float) -> tuple[float, float]:
    """Return the mean of the values over folds, and the mean's corrected standard error.

    Args:
        values: The value of each fold, [folds].
        test_share: The number of test examples of a fold divided by the number of its train examples.
    """
    import numpy as np

    if len(values) < 2:
        raise ValueError(f"{len(values)} folds have no variance; at least two are needed")
    variance = float(np.var(values, ddof=1))
    return float(np.mean(values)), math.sqrt((1 / len(values) + test_share) * variance)
