"""Temporary folders for files that are about to be written to an MLflow store.

The folders are created in the system's folder for temporary files or, if its disk is full, in alue-bench's own folder
for data that must not be lost.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import platformdirs

from alue_bench.contract.errors import StoreUnavailableError

STATE_VARIABLE = "ALUE_BENCH_STATE"


def state_folder() -> Path:
    """Return the folder for data that must not be lost, such as results that are not in the MLflow store yet.

    The environment variable ALUE_BENCH_STATE names it. The default is the system's folder for such data, for example
    ~/.local/state/alue-bench on Linux.
    """
    given = os.environ.get(STATE_VARIABLE)
    return Path(given) if given else platformdirs.user_state_path("alue-bench")


def write_to_temporary_folder(stack: ExitStack, write: Callable[[Path], None]) -> tuple[Path, str]:
    """Create a temporary folder, and call `write` to fill it.

    Args:
        stack: The context manager whose end removes the folder.
        write: The function that fills the folder. If it raises OSError, for example because the disk is full, it is
            called again with a different folder, below `state_folder()`.

    Returns:
        The folder; and a sentence that tells the user why the files are below `state_folder()`, which is empty if they
        are in the system's folder for temporary files.

    Raises:
        StoreUnavailableError: Neither folder can be written, for example because both disks are full.
    """
    try:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alue-bench-")))
        write(folder)
        return folder, ""
    except OSError as error:
        sentence = (
            f"a run's files cannot be written to the folder for temporary files ({error.strerror or error}); free some "
            "space there, or name another with TMPDIR"
        )
    spare = state_folder()
    try:
        spare.mkdir(parents=True, exist_ok=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scratch-", dir=spare)))
        write(folder)
    except OSError as error:
        raise StoreUnavailableError(
            f"{sentence}. Nor can they be written to {spare} ({error.strerror or error}); free some space there, or "
            f"choose another folder with {STATE_VARIABLE}"
        ) from error
    return folder, f"{sentence}; they were written to {spare} instead"
