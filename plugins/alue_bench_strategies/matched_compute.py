"""Full fine-tuning with fewer steps: with the FLOPs of another strategy, or with a share of the FLOPs of `full`.

`full@bottom3top4` trains everything with the FLOPs of `bottom3top4`, and `full@66%` with 66 % of the FLOPs of `full`.

Source: methods for efficient training are usually compared at equal compute; see Dehghani et al. 2022, "The Efficiency
Misnomer". The simplest way to save time is to train for fewer epochs; a method that saves time must be better than
this.

Cost: as many FLOPs as the name states. The FLOPs are computed from the model's shapes and the lengths of the train
texts; a frozen prefix is counted once, because its output is cached. Training ends after the nearest number of steps,
which may be within an epoch, and the model is then scored on the dev split. The learning rate decays to zero over these
steps.

When it does not help: if full fine-tuning reaches its best score after half of its epochs, training with fewer steps
loses nothing, and the comparison shows nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alue_bench import (
    ComputeLimit,
    EncoderShape,
    FreezePlan,
    Strategy,
    StrategyFamily,
    UsageError,
    matched_limit,
    matched_name,
)

_SHARE = re.compile(r"(\d{1,3})%", re.ASCII)


@dataclass(frozen=True)
class MatchedCompute(Strategy):
    """A strategy that trains everything, with a limited number of FLOPs."""

    limit: ComputeLimit
    """The FLOPs, as a share of those of full fine-tuning or as the name of another strategy."""

    @property
    def name(self) -> str:
        """The canonical name, such as "full@66%" or "full@bottom3top4"."""
        like = self.limit.like
        return matched_name(like if like is not None else f"{round(100 * self.limit.share)}%")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a plan that freezes nothing."""
        return FreezePlan(shape)

    def compute_limit(self) -> ComputeLimit:
        """Return the limit on the training FLOPs, which determines the number of steps."""
        return self.limit


def parse_matched(name: str) -> MatchedCompute | None:
    """Return the strategy for a name such as `full@66%` or `full@bottom3top4`, or None for a name of another form.

    Raises:
        UsageError: The share is not from 1 % to 99 %; or the @ is followed by a name that is no built-in strategy, or
            that does not reduce the compute, such as `full`.
    """
    limit = matched_limit(name)
    if limit is None:
        return None
    if (share := _SHARE.fullmatch(limit)) is not None:
        percent = int(share[1])
        if not 1 <= percent <= 99:
            raise UsageError(f"strategy {name!r}: the share of full's FLOPs must be from 1% to 99%; 100% is full")
        strategy = MatchedCompute(ComputeLimit(share=percent / 100))
        if strategy.name != name:
            raise UsageError(f"strategy {name!r} is written {strategy.name!r}")
        return strategy
    if limit in ("full", "none") or matched_limit(limit) is not None:
        raise UsageError(f"strategy {name!r} has no fewer FLOPs than full; name a strategy with frozen layers after @")
    return MatchedCompute(ComputeLimit(like=_built_in(name, limit)))


def _built_in(name: str, limit: str) -> str:
    """Return the canonical name of the built-in strategy that is named after the @.

    Args:
        name: The complete name, such as "full@bottom3top4", for the error message.
        limit: The text after the @.

    Raises:
        UsageError: There is no built-in strategy of this name.
    """
    from alue_bench_strategies import MODULES  # imported here, because this package imports the present module

    families: list[StrategyFamily] = [family for module in MODULES for family in module.FAMILIES]
    parsed = (family.parse(limit) for family in families)
    strategy = next((candidate for candidate in parsed if candidate is not None), None)
    if strategy is None:
        raise UsageError(
            f"strategy {name!r}: {limit!r} is no built-in strategy; name one after @, or give a share, such as full@66%"
        )
    return strategy.name


FAMILIES = (
    StrategyFamily(
        grammar="full@<P>%, full@<strategy>",
        title="Everything trains for fewer steps: with P percent of full's FLOPs, or as many as the strategy needs",
        source="Dehghani et al. 2022, The Efficiency Misnomer (comparison at equal compute)",
        examples=("full@66%", "full@bottom50%"),
        parse=parse_matched,
    ),
)
