"""The names of full fine-tuning with a limited number of FLOPs (matched compute), such as `full@bottom3top4`.

A strategy that freezes layers saves time, but so does full fine-tuning with fewer steps. A fair comparison gives full
fine-tuning the same number of FLOPs as the strategy that freezes layers:

    full@bottom3top4    as many FLOPs as bottom3top4, for the same task, model and hyper-parameters
    full@66%            66 % of the FLOPs of full fine-tuning with all epochs

The names are part of the contract between alue-bench and its plugins: the reports form such names, and a plugin must
provide the strategies with these names.
"""

from __future__ import annotations

from alue_bench.contract.cells import cell_name

FULL = cell_name((0, 0))
"""The name of full fine-tuning."""
SEPARATOR = "@"
"""The character between the name of full fine-tuning and the limit of its FLOPs."""


def matched_name(limit: str) -> str:
    """Return the name of full fine-tuning with a limited number of FLOPs, such as "full@bottom3top4".

    Args:
        limit: The name of the strategy that determines the number of FLOPs, such as "bottom3top4", or a share of the
            FLOPs of full fine-tuning, such as "66%".
    """
    return f"{FULL}{SEPARATOR}{limit}"


def matched_limit(name: str) -> str | None:
    """Return the limit in a name of full fine-tuning with a limited number of FLOPs.

    The result is "bottom3top4" for "full@bottom3top4", "66%" for "full@66%", and None for a name of any other form.
    """
    full, mark, limit = name.partition(SEPARATOR)
    return limit if full == FULL and mark and limit else None
