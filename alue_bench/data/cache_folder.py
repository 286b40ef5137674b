"""The cache folder, which holds data that can be computed again, such as token ids and outputs of frozen layers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

from alue_bench.contract.errors import UnavailableError

CACHE_VARIABLE = "ALUE_BENCH_CACHE"
"""The environment variable with the path of the cache folder."""


def cache_folder() -> Path:
    """Return the cache folder: the value of `ALUE_BENCH_CACHE`, or a folder in the user's general cache folder."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else platformdirs.user_cache_path("alue-bench")


def check_cache_folder() -> None:
    """Raise UnavailableError if the cache folder cannot be created or written."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # permissions alone do not reveal a disk that is mounted read-only
            pass
    except OSError as error:
        raise UnavailableError(
            f"the cache folder {folder} is not writable ({error.strerror}); choose another with {CACHE_VARIABLE}"
        ) from error
