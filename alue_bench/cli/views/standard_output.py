"""Standard output for our documents alone: what plugins and libraries print meanwhile goes to standard error.

A plugin prints through `sys.stdout`, through a logging handler that kept it, or from C to file descriptor 1. All three
are led to standard error; only `write_exactly` writes to the real standard output.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

STDOUT, STDERR = 1, 2


class KeptOutput(io.TextIOBase):
    """A stand-in for `sys.stdout`: hands prints to `sys.stderr`, and documents to the real output."""

    def __init__(self, real: TextIO) -> None:
        self.real = real
        self._descriptor: int | None = None
        if _descriptor_of(real) == STDOUT:  # in tests and notebooks, sys.stdout is another object
            real.flush()
            self._descriptor = os.dup(STDOUT)
            os.dup2(STDERR, STDOUT)

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()

    def fileno(self) -> int:
        return sys.stderr.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return sys.stderr.encoding

    def write_document(self, text: str) -> None:
        """Write to the real standard output, at once and whole: nothing is left in a buffer for the process's end."""
        if self._descriptor is None:
            self.real.write(text)
            self.real.flush()
            return
        left = memoryview(text.encode(self.real.encoding, self.real.errors or "strict"))
        while left:
            left = left[os.write(self._descriptor, left) :]

    def give_back(self) -> None:
        """Let file descriptor 1 be the real standard output again."""
        self.real.flush()  # what was printed through the object itself belongs to standard error
        if self._descriptor is not None:
            os.dup2(self._descriptor, STDOUT)
            os.close(self._descriptor)
            self._descriptor = None


def keep_for_documents(wanted: bool) -> None:
    """Keep standard output for documents from here to the end of the process, where that is wanted.

    To the end, because what a plugin prints when the interpreter exits would stand behind the document.
    """
    if wanted and not isinstance(sys.stdout, KeptOutput):
        sys.stdout = KeptOutput(sys.stdout)


@contextmanager
def prints_to_stderr() -> Iterator[None]:
    """Inside, whatever is printed goes to standard error: for the loading of plugins, whose code runs before it is
    known which command this is."""
    real, kept = sys.stdout, KeptOutput(sys.stdout)
    sys.stdout = kept
    try:
        yield
    finally:
        sys.stdout = real
        kept.give_back()


def write_exactly(text: str) -> None:
    """Write a text to standard output, character by character, also where that is kept for documents."""
    if isinstance(sys.stdout, KeptOutput):
        sys.stdout.write_document(text)
    else:
        sys.stdout.write(text)


def takes_any_letter() -> bool:
    """Return whether the encoding of standard output has all letters."""
    real = sys.stdout.real if isinstance(sys.stdout, KeptOutput) else sys.stdout
    return (getattr(real, "encoding", None) or "utf-8").lower().replace("_", "-").startswith("utf")


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # of a text in memory
        return None
