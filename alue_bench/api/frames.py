"""The storage of data frames as Parquet files, from which the examples of a task are read."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

from alue_bench.contract.errors import UsageError
from alue_bench.data.cache_folder import cache_folder


def is_frame(value: object) -> bool:
    """Return whether a value is a pandas data frame, or a table of the packages `datasets`, polars or pyarrow."""
    return hasattr(value, "to_pandas") or (hasattr(value, "to_parquet") and hasattr(value, "columns"))


def store_frame(frame: Any) -> Path:
    """Write a data frame to a Parquet file in the cache folder, and return the path of the file.

    The file's name contains a digest of the content. Equal data frames therefore give the same task, so that finished
    runs are reused.

    Args:
        frame: A value that `is_frame` accepts. Its index is not stored.

    Raises:
        UsageError: The frame has a column that Parquet cannot hold.
    """
    try:
        content = _parquet(frame)
    except (ValueError, TypeError) as error:  # pyarrow's errors are ValueErrors
        raise UsageError(f"the data frame cannot be stored: {error}; give each column values of one type") from error
    folder = cache_folder() / "frames"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"frame-{hashlib.sha256(content).hexdigest()[:12]}.parquet"
    if not path.exists():
        scratch = folder / f".{path.name}-{os.getpid()}"
        scratch.write_bytes(content)
        scratch.replace(path)
    return path


def _parquet(frame: Any) -> bytes:
    """Return a data frame as the content of a Parquet file. The class names of a data set of `datasets` are kept."""
    if type(frame).__module__.partition(".")[0] == "datasets":
        import datasets

        content = io.BytesIO()
        shown = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        try:
            frame.to_parquet(content)
        finally:
            if shown:
                datasets.enable_progress_bars()
        return content.getvalue()
    table = frame.to_pandas() if hasattr(frame, "to_pandas") else frame
    parquet: bytes = table.to_parquet(index=False)
    return parquet
