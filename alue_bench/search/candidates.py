"""What may be frozen, and what training it costs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from alue_bench.contract.errors import UsageError


@dataclass(frozen=True)
class Candidate:
    """A setting in question. Costs are shares of what one full fine-tuning costs."""

    name: str
    bottom: int
    """Frozen layers next to the embeddings."""
    top: int
    """Frozen layers next to the head."""
    cost: float
    """Of a run."""
    short_cost: float
    """Of a short run, with fewer epochs."""


@dataclass(frozen=True)
class Amount:
    """A difference of scores: a part of full fine-tuning's score, or absolute."""

    value: float
    relative: bool

    def of(self, score: float) -> float:
        """In units of the score."""
        return self.value * abs(score) if self.relative else self.value

    def __str__(self) -> str:
        return f"{self.value * 100:g}%" if self.relative else f"{self.value:g}"


def parse_amount(option: str, text: str) -> Amount:
    """`1%` is a part of full fine-tuning's score, `0.01` a difference of scores (one point of F1).

    Raises UsageError, naming the option, where the text is neither, or the amount is negative or 100 % and more.
    """
    value, in_per_cent = _number(text)
    if not value < 1:
        raise UsageError(
            f"{option} is {text!r}; it must be a part of full fine-tuning's score, such as 1%, or a difference of "
            "scores below 1, such as 0.01"
        )
    return Amount(value, relative=in_per_cent)


def parse_share(option: str, text: str) -> float:
    """`25%`, or `0.25`. Raises UsageError, naming the option, where the text is neither or not above 0."""
    value, _ = _number(text)
    if not value > 0:
        raise UsageError(f"{option} is {text!r}; it must be a share above 0, such as 25% or 0.25")
    return value


def _number(text: str) -> tuple[float, bool]:
    """The value of `25%` or `0.25`, and whether it was written in per cent; nan where it is neither."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", text)
    if match is None:
        return math.nan, False
    return float(match.group(1)) / (100 if match.group(2) else 1), bool(match.group(2))
