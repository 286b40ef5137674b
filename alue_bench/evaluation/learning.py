"""A test of whether a model has learnt anything: the comparison of its score with that of a baseline.

The baseline ignores the text and always predicts the same target, such as the majority class. For tags of words and for
answers in a text, it is a simple method that does read the text (`evaluation.tagging`, `evaluation.spans`). Its score
is called the trivial score.

A freezing setting is usually recommended because its score is as high as that of full fine-tuning. This means nothing
if full fine-tuning has learnt nothing. Reports therefore make such statements only if the compared models have learnt
something.

A model has learnt something if its score is significantly above the trivial score, in a one-sided test over examples at
the 5 % level. The test uses the jackknife standard error of the difference between the two scores on the same examples
(Efron & Tibshirani 1993, chapter 11); each run records this standard error. Runs with several seeds share their
examples, so that a mean over seeds has no smaller standard error. With several seeds, at least half of the models must
have learnt something. A confidence interval of the mean over seeds would answer another question: if one seed of three
fails completely, the interval reaches down to the trivial score, although two models have learnt.

A single run whose score is not significantly above the trivial score has *collapsed*. A run may collapse although runs
with other seeds learn: with few rows or a high learning rate, fine-tuning sometimes ends with a model that predicts the
same target for every text (Mosbach, Andriushchenko & Klakow 2021, arXiv 2006.04884). A mean over seeds hides this, so
reports state the number of collapsed seeds. If the test split is too small to show that a run has learnt something, the
run counts as collapsed, too.

If classes are rare, random guesses may have a higher macro-F1 than the constant baseline. A model that has learnt
something must exceed the trivial score, but a model that exceeds it has not always learnt something.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alue_bench.contract.task import Labels, TargetKind
from alue_bench.evaluation.additive import additive
from alue_bench.evaluation.intervals import LEVEL
from alue_bench.evaluation.metrics import metrics, trivial_metrics, trivial_predictions

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TrivialScore:
    """The score of a baseline without a model, on one split (the trivial score)."""

    score: float
    error: float
    """The standard error, over examples, of the difference between a model's score and this score; nan if unknown."""


def trivial_score(train: Array, gold: Array, predicted: Array, labels: Labels, metric: str) -> TrivialScore:
    """Return the trivial score on one split: the score of a baseline without a model.

    The result includes the standard error of the difference between the model's score and the trivial score.

    Args:
        train: The targets of the train split, in the form that `evaluation.metrics.metrics` takes.
        gold: The gold targets of the split, in the same form.
        predicted: The model's predictions for the split, in the same form.
        labels: The label space.
        metric: The name of a metric of `evaluation.metrics.metrics`.
    """
    baseline = trivial_predictions(train, len(gold), labels).astype(gold.dtype)
    score = trivial_metrics(train, gold, labels)[metric]
    return TrivialScore(score, _error(baseline, gold, predicted, labels, metric))


def trivial_score_of_tokens(
    baseline: Array, gold: Array, predicted: Array, labels: Labels, metric: str
) -> TrivialScore:
    """Return the score of a baseline for a task that tags words or extracts spans; see `trivial_score` for other tasks.

    Args:
        baseline: The predictions of the baseline (`evaluation.tagging.most_frequent_tags` or
            `evaluation.spans.first_words`).
        gold: The gold targets of the split, in the form that `evaluation.metrics.metrics` takes.
        predicted: The model's predictions for the split, in the same form.
        labels: The label space.
        metric: The name of a metric of `evaluation.metrics.metrics`.
    """
    score = metrics(gold, baseline, labels)[metric]
    return TrivialScore(score, _error(baseline, gold, predicted, labels, metric))


def _error(baseline: Array, gold: Array, predicted: Array, labels: Labels, metric: str) -> float:
    """Return the standard error, over examples, of a model's score minus the baseline's; nan for a single example."""
    import numpy as np

    if len(gold) < 2:
        return math.nan
    system = additive(metric, gold, predicted, labels)
    if system is None:  # a rank correlation: the standard error under the hypothesis of no correlation
        return 1 / math.sqrt(len(gold) - 1)
    values = system.pseudo_values()
    if labels.kind is not TargetKind.REGRESSION:  # a constant baseline's correlation counts as 0, without an error
        base = additive(metric, gold, baseline, labels)
        assert base is not None
        values = values - base.pseudo_values()
    if len(values) < 2:  # all questions are about one text
        return math.nan
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


@dataclass(frozen=True)
class Learning:
    """The comparison of a freezing setting's scores with the trivial score, over seeds.

    The trivial score is the score of a baseline without a model.
    """

    score: float
    """The mean score over seeds."""
    trivial: float
    """The mean score, over seeds, of the baseline without a model."""
    bound: float
    """The largest difference from the trivial score that would still not be significant, as a mean over seeds."""
    above: int
    """The number of seeds whose score is significantly above the score of the baseline without a model."""
    seeds: int
    """The number of seeds."""

    @property
    def has_learnt(self) -> bool:
        """True if the models of at least half of the seeds have learnt something."""
        return 2 * self.above >= self.seeds

    @property
    def collapsed(self) -> int:
        """The number of seeds whose score is not significantly above the trivial score."""
        return self.seeds - self.above

    def collapsed_text(self, over: str = "seed") -> str:
        """Format the number of seeds that collapsed, such as "2 of 5 seeds collapsed"; empty if none did.

        Args:
            over: The word for what the scores are averaged over: "seed", "fold", or "run" for both seeds and folds.
        """
        if not self.collapsed:
            return ""
        if self.seeds == 1:
            return f"its only {over} collapsed"
        return f"{self.collapsed} of {self.seeds} {over}s collapsed"

    def sentence(self, strategy: str, split: str, over: str = "seed") -> str:
        """Return a sentence stating that the models of a freezing setting did not learn anything.

        Args:
            strategy: The name of the freezing setting.
            split: The name of the split on which the scores were computed.
            over: The word for what the scores are averaged over: "seed" or "fold".
        """
        beginning = f"{strategy} did not learn: its {split} score {self.score:.3f} is"
        trivial = f"above the trivial score {self.trivial:.3f}"
        if self.above:
            return f"{beginning} {trivial} by more than chance with {self.above} of {self.seeds} {over}s only"
        chance = f" by more than chance (by up to {self.bound:.3f})" if self.score > self.trivial else ""
        return f"{beginning} not {trivial}{chance}"

    def as_dict(self) -> dict[str, float]:
        """Return the values of the comparison as a dict for JSON."""
        return {
            "score": self.score,
            "trivial_score": self.trivial,
            "by_chance": self.bound,
            "seeds_above": self.above,
            "seeds_collapsed": self.collapsed,
            "seeds": self.seeds,
        }


REMEDY = "try more data, more epochs or another --lr"
"""The advice to users if a model did not learn anything."""


def learning(scores: Sequence[float], trivials: Sequence[float], errors: Sequence[float]) -> Learning | None:
    """Compare the scores of a freezing setting with the trivial score, the score of a baseline without a model.

    Args:
        scores: The score for each seed. An undefined score, such as the correlation of constant predictions, counts as
            the trivial score.
        trivials: The trivial score for each seed; nan if it was not recorded.
        errors: The standard error, over examples, of the difference between the two scores, for each seed. A standard
            error that is undefined or was not recorded counts as 0.

    Returns:
        The comparison over the seeds whose trivial score was recorded; None if there are no such seeds.
    """
    from scipy.special import ndtri

    known = [
        (score if math.isfinite(score) else base, base, error if math.isfinite(error) else 0.0)
        for score, base, error in zip(scores, trivials, errors, strict=True)
        if math.isfinite(base)
    ]
    if not known:
        return None
    sure = float(ndtri(LEVEL))
    return Learning(
        score=statistics.fmean(score for score, _, _ in known),
        trivial=statistics.fmean(base for _, base, _ in known),
        bound=sure * statistics.fmean(error for _, _, error in known),
        above=sum(score - base > sure * error for score, base, error in known),
        seeds=len(known),
    )
