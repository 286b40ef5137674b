"""Helpers for calls into transformers: silenced log messages and one-line errors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from alue_bench.contract.formats import excerpt


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' warnings, log messages and progress bars inside the `with` block.

    The silenced messages report conditions that are intended in alue-bench, such as a newly initialised head.
    """
    import logging

    import transformers

    bars = transformers.utils.logging.is_progress_bar_enabled()
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.utils.logging.set_verbosity(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def short_message(error: BaseException) -> str:
    """Return the first non-empty line of an error's message, or the name of the error's type if there is none."""
    lines = (line.strip() for line in str(error).splitlines())
    text = next((line for line in lines if line), type(error).__name__)
    return excerpt(text, quote=False, max_length=300)
