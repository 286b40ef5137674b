"""Helpers to start processes for a benchmark: modules of this checkout, and the program `alue-bench`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
ALUE_BENCH = (sys.executable, "-c", "from alue_bench.cli.main import main; main()")
"""The first words of a command line that runs `alue-bench`, even if its script is not on PATH."""


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with the code of this checkout on Python's search path.

    Args:
        **variables: Environment variables to add or replace.
    """
    paths = [str(REPOSITORY), str(REPOSITORY / "plugins"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | variables
