"""Full fine-tuning with fewer steps: as many FLOPs as a frozen strategy needs, or a share of its own.

Source: comparisons at equal compute are the rule for efficient training; see Dehghani et al. 2022, The Efficiency
Misnomer. Fewer epochs are the simplest way to save time, and a method that saves time must beat them.

Cost: that of the strategy or share in the name. The FLOPs of both are computed from the model's shapes and the lengths
of the train texts; the frozen prefix counts once. The training ends after the nearest number of steps, which may be
within an epoch, and is then scored on dev. The learning rate decays to zero over these steps.

When it does not help: a task that full fine-tuning has learnt after half of its epochs leaves nothing to compare.
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

    @property
    def name(self) -> str:
        """The canonical name, such as "full@66%" or "full@bottom3top4"."""
        like = self.limit.like
        return matched_name(like if like is not None else f"{round(100 * self.limit.share)}%")

    def freeze_plan(self, shape: EncoderShape) -> FreezePlan:
        """Return a plan that freezes nothing."""
        return FreezePlan(shape)

    def compute_limit(self) -> ComputeLimit:
        """Return the limit that the name states."""
        return self.limit


def parse_matched(name: str) -> MatchedCompute | None:
    """Return the strategy that a name such as `full@66%` or `full@bottom3top4` stands for, or None for other names."""
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
    """Return the canonical name of the built-in strategy in a limit; raise UsageError if there is none.

    Args:
        name: The whole name, for the message.
        limit: The text after the mark.
    """
    from alue_bench_strategies import MODULES  # which imports this module

    families: list[StrategyFamily] = [family for module in MODULES for family in module.FAMILIES]
    parsed = (family.parse(limit) for family in families)
    strategy = next((one for one in parsed if one is not None), None)
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
