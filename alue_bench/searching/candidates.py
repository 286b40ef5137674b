"""The candidates of a search (freezing settings with their training costs), and the parsing of the search's options."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from alue_bench.contract.errors import UsageError


@dataclass(frozen=True)
class Candidate:
    """A candidate of a search: a freezing setting, or another strategy, with its training costs.

    Costs are FLOPs divided by the FLOPs of one full fine-tuning.
    """

    name: str
    """The name of the strategy, with the learning rate if the search chooses among several, such as "bottom3top4
    lr=3e-4"."""
    bottom: int
    """The number of frozen layers next to the embeddings."""
    top: int
    """The number of frozen layers next to the head."""
    cost: float
    """The cost of one run with the full number of epochs."""
    short_cost: float
    """The cost of a low-fidelity run, which has fewer epochs."""
    has_cell: bool = True
    """True if the numbers of frozen bottom and top layers describe the candidate, so that it has a place on the surface
    of losses over both numbers. Other strategies, such as adapters, have no place on the surface; their `bottom` and
    `top` are 0 and have no meaning."""
    rate: float | None = None
    """The learning rate, if the search chooses among several learning rates; otherwise None."""


@dataclass(frozen=True)
class Amount:
    """A difference of scores, given as a share of full fine-tuning's score or as an absolute number."""

    value: float
    """The share, such as 0.01 for 1%, or the absolute difference."""
    relative: bool
    """True if `value` is a share of full fine-tuning's score."""

    def of(self, score: float) -> float:
        """Return the amount as an absolute difference of scores.

        Args:
            score: The score of full fine-tuning.
        """
        return self.value * abs(score) if self.relative else self.value

    def __str__(self) -> str:
        """Return the amount in the notation that options accept, such as 1% or 0.01."""
        return f"{self.value * 100:g}%" if self.relative else f"{self.value:g}"


def parse_amount(option: str, text: str) -> Amount:
    """Parse the value of an option that is a difference of scores, such as 1% or 0.01.

    Args:
        option: The option's name, for the error message.
        text: `1%` for a share of full fine-tuning's score, or `0.01` for an absolute difference (one point of F1).

    Raises:
        UsageError: The text has neither form, or the amount is at least 1 (100 %). A negative number has neither form.
    """
    value, in_per_cent = _number(text)
    if not value < 1:
        raise UsageError(
            f"{option} is {text!r}; it must be a share of full fine-tuning's score, such as 1%, or a difference of "
            "scores below 1, such as 0.01"
        )
    return Amount(value, relative=in_per_cent)


def parse_share(option: str, text: str) -> float:
    """Parse the value of an option that is a share, such as 25% or 0.25.

    Args:
        option: The option's name, for the error message.
        text: `25%` or `0.25`.

    Raises:
        UsageError: The text has neither form, or the share is not above 0.
    """
    value, _ = _number(text)
    if not value > 0:
        raise UsageError(f"{option} is {text!r}; it must be a share above 0, such as 25% or 0.25")
    return value


def _number(text: str) -> tuple[float, bool]:
    """Parse a share such as `25%` or `0.25`.

    Returns:
        The value, such as 0.25 (nan if the text has neither form), and whether it was written in per cent.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(%?)\s*", text)
    if match is None:
        return math.nan, False
    return float(match.group(1)) / (100 if match.group(2) else 1), bool(match.group(2))
