"""Margins of non-inferiority: the largest loss of score with which a strategy still counts as good as the baseline.

The test is the one used in clinical trials (Piaggio et al. 2012, JAMA 308): a strategy is *within the margin* if the
one-sided 95 % bound of its loss is below the margin. A margin has one of three units:

- the metric's own: 0.01 is one point of F1, and so is 1pt;
- a share of the baseline's score: 1%;
- a share of what the baseline learnt, which is its score minus the trivial score: 5% of learnt. The trivial score is
  the score of a baseline without a model.

The last two are computed from the baseline's mean score, which is treated as known exactly. If another seed changes
this score by 1.8 points, a margin of 5 % changes by 0.09 points, which is far less than the variation of the bound.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from alue_bench.contract.errors import UsageError
from alue_bench.contract.formats import excerpt


class MarginUnit(StrEnum):
    """The unit of a margin, as written after the number; empty for the unit of the metric."""

    METRIC = ""
    SCORE = "%"
    LEARNT = "% of learnt"


@dataclass(frozen=True)
class Margin:
    """A loss of score: a number in the unit of the metric, or a share of the baseline's score or of what it learnt."""

    value: float
    """The loss in the unit of the metric, or the share as a number between 0 and 1."""
    unit: MarginUnit = MarginUnit.METRIC

    def size(self, score: float, trivial: float | None) -> float | None:
        """Return the margin in the unit of the metric.

        Args:
            score: The baseline's mean score.
            trivial: The score of a baseline without a model (the trivial score); None if it is not known.

        Returns:
            The margin. None if the margin is a share of what was learnt, but the trivial score is not known or the
            baseline's score is not above it.
        """
        if self.unit is MarginUnit.METRIC:
            return self.value
        if self.unit is MarginUnit.SCORE:
            return self.value * abs(score)
        return None if trivial is None or score <= trivial else self.value * (score - trivial)

    def __str__(self) -> str:
        """Return the margin in the notation that the option accepts, such as 0.01, 1% or 5% of learnt."""
        return f"{self.value:g}" if self.unit is MarginUnit.METRIC else f"{100 * self.value:g}{self.unit}"


@dataclass(frozen=True)
class Margins:
    """The margin for each metric."""

    default: Margin
    """The margin for metrics that are not in `by_metric`."""
    by_metric: tuple[tuple[str, Margin], ...] = ()
    """Pairs of a metric, such as "f1_macro", and its margin."""

    def of(self, metric: str) -> Margin:
        """Return the margin for a metric, whose name may begin with "test/"."""
        return dict(self.by_metric).get(metric.removeprefix("test/"), self.default)

    def of_recorded(self, metrics: Collection[str]) -> Margins:
        """Return a copy that has margins only for recorded metrics, and the default margin.

        Args:
            metrics: The names of the recorded metrics, such as "test/f1_macro".
        """
        return Margins(self.default, tuple(pair for pair in self.by_metric if f"test/{pair[0]}" in metrics))

    def __str__(self) -> str:
        """Return the margins in the notation that the option accepts, such as 1%,pearson=0.02."""
        return ",".join([str(self.default), *(f"{metric}={margin}" for metric, margin in self.by_metric)])


AMOUNT = re.compile(r"([0-9]*\.?[0-9]+)\s*(pt|%|%\s*of\s+learnt)?", re.ASCII)
"""The notation of a margin. The groups are the number and the unit, which may be missing."""


def parse_margins(text: str, default: Margin) -> Margins:
    """Parse the value of the option --margin.

    Args:
        text: One margin for all metrics (`0.01`, `1pt`, `1%`, `5% of learnt`), margins for single metrics
            (`f1_macro=0.01,pearson=0.02`), or both (`1%,pearson=0.02`).
        default: The margin for metrics that the text does not name; used if the text has no margin for all metrics.

    Raises:
        UsageError: The text has none of these forms, gives a margin twice, or a margin is not above 0 and below 1
            (100 points, 100 %).
    """
    margins: dict[str, Margin] = {}
    for part in text.split(","):
        metric, equals, amount = (word.strip() for word in part.rpartition("="))
        metric = metric.removeprefix("test/")
        margin = _amount(amount)
        if margin is None or (equals and not metric):
            raise UsageError(
                f"--margin is {excerpt(text)}, where {excerpt(part.strip())} is no margin; write a loss between 0 and "
                "1 in the unit of the metric (0.01 or 1pt is one point of F1), a share of the baseline's score (1%) or "
                "of what it learnt (5% of learnt), or one for each metric (f1_macro=0.01,pearson=0.02)"
            )
        if metric in margins:
            raise UsageError(
                f"--margin is {excerpt(text)}, which has two margins for {metric or 'all metrics'}; leave one out"
            )
        margins[metric] = margin
    return Margins(margins.pop("", default), tuple(margins.items()))


def _amount(text: str) -> Margin | None:
    """Return the margin that a text such as "1%" denotes; None if the text has another form or is out of range."""
    match = AMOUNT.fullmatch(text)
    if match is None:
        return None
    value, unit = float(match[1]), match[2] or ""
    margin = (
        Margin(value / 100 if unit == "pt" else value)
        if unit in ("", "pt")
        else Margin(value / 100, MarginUnit.SCORE if unit == "%" else MarginUnit.LEARNT)
    )
    return margin if 0 < margin.value < 1 else None
