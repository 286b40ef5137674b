"""Files on their way to a store: written to the folder for temporary files, or beside the spool where that is full."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import platformdirs

from alue_bench.contract.errors import StoreUnavailableError

VARIABLE = "ALUE_BENCH_STATE"


def state_folder() -> Path:
    """Where what must not be lost is kept: not with the cache, for it cannot be computed again for free."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else platformdirs.user_state_path("alue-bench")


def written_aside(stack: ExitStack, write: Callable[[Path], None]) -> tuple[Path, str]:
    """Let `write` fill a new folder, which is removed with the stack. Returns the folder, and a sentence where it could
    not be in the folder for temporary files.

    Raises StoreUnavailableError where there is room nowhere.
    """
    try:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alue-bench-")))
        write(folder)
        return folder, ""
    except OSError as error:
        sentence = (
            f"a run's files cannot be written to the folder for temporary files ({error.strerror or error}); "
            "make room there, or name another with TMPDIR"
        )
    spare = state_folder()
    try:
        spare.mkdir(parents=True, exist_ok=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scratch-", dir=spare)))
        write(folder)
    except OSError as error:
        raise StoreUnavailableError(
            f"{sentence}. Nor can they be written to {spare} ({error.strerror or error}); make room there, or choose "
            f"another folder with {VARIABLE}"
        ) from error
    return folder, f"{sentence}; they were written to {spare} instead"
