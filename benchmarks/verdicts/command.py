"""The choice of the part that `python -m benchmarks.verdicts` simulates.

    python -m benchmarks.verdicts [PART] [options]

Without a part, the verdicts of `compare` are simulated. `python -m benchmarks.verdicts PART --help` lists the options.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

PARTS = ("comparisons", "searches", "sweeps")
"""The names of the parts. Each one is a module of this package with a function `main`; the first one is the default."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the part of this benchmark that the first argument names, or the default part, and return the exit code.

    Args:
        arguments: The command-line arguments; None means those of this process (`sys.argv`).
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    part, rest = (given[0], given[1:]) if given[:1] and given[0] in PARTS else (PARTS[0], given)
    code: int = import_module(f"benchmarks.verdicts.{part}").main(rest)
    return code
