"""The expected best dev score after a number of tuning runs.

Source: Dodge et al. 2019, Show Your Work: Improved Reporting of Experimental Results, section 3. With a small budget, a
strategy that needs many runs to find its best score is worse than a strategy that scores well with most hyper-parameter
values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def expected_best(scores: Sequence[float]) -> list[float]:
    """Return the expected best score after 1, 2, … n runs, each with one of the n tried combinations at random.

    With the sorted scores v_1 ≤ … ≤ v_n, the best of k draws with replacement is at most v_i with the probability
    (i / n)^k. Its expectation is the sum over i of v_i · ((i / n)^k − ((i − 1) / n)^k).

    Args:
        scores: The dev score of each tried combination of hyper-parameter values, [n]. A score that is undefined, or
            missing because the run failed, is nan; it counts as the lowest defined score.

    Returns:
        The expected best scores for budgets of 1 to n runs; empty if no score is defined.
    """
    defined = [score for score in scores if math.isfinite(score)]
    if not defined:
        return []
    ordered = sorted(score if math.isfinite(score) else min(defined) for score in scores)
    n = len(ordered)
    return [
        math.fsum(score * ((i / n) ** k - ((i - 1) / n) ** k) for i, score in enumerate(ordered, start=1))
        for k in range(1, n + 1)
    ]
