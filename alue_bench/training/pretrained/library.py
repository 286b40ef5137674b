"""Calls into transformers: its chatter off, its errors in one line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from alue_bench.contract.formats import shown


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep the library's advice (on newly initialised heads, say) off the terminal: here it is meant so."""
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


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says something, else the error's type."""
    lines = (line.strip() for line in str(error).splitlines())
    text = next((line for line in lines if line), type(error).__name__)
    return shown(text, quote=False, most=300)
