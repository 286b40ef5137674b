"""The names of full fine-tuning with a limited number of FLOPs (matched compute), such as `full@bottom3top4`.

A strategy that freezes layers saves time. So does full fine-tuning with fewer steps. To show that freezing itself is
worth something, a frozen strategy is compared with full fine-tuning that is given the same number of FLOPs:

    full@bottom3top4    as many FLOPs as bottom3top4, for the same task, model and hyper-parameters
    full@66%            66 % of the FLOPs of full fine-tuning with all epochs

The names are part of the contract, because the reports ask for these strategies: alue-bench asks the plugins for them
in the same way as for any other strategy.
"""

from __future__ import annotations

from alue_bench.contract.cells import cell_name

FULL = cell_name((0, 0))
"""The name of full fine-tuning."""
MARK = "@"
"""The character between the name of full fine-tuning and the number of FLOPs."""


def matched_name(limit: str) -> str:
    """Return the name of full fine-tuning with as many FLOPs as `limit`: the name of a strategy, or a share as 66%."""
    return f"{FULL}{MARK}{limit}"


def matched_to(name: str) -> str | None:
    """Return the strategy or the share in the name of full fine-tuning with limited FLOPs; None for any other name."""
    full, mark, limit = name.partition(MARK)
    return limit if full == FULL and mark and limit else None
