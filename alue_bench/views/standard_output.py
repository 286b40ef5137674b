"""Protection of standard output, on which commands write documents such as JSON, from prints of plugins.

A plugin or library may print through `sys.stdout`, through a logging handler that holds a reference to it, or from C to
file descriptor 1. All three kinds of prints are redirected to standard error. Only `write_exactly` writes to the real
standard output.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

STDOUT, STDERR = 1, 2


class RedirectedStdout(io.TextIOBase):
    """A replacement for `sys.stdout` that sends prints to standard error.

    Only a command's document, such as JSON, is written to the real standard output.
    """

    def __init__(self, real: TextIO) -> None:
        """Prepare to replace `real`, the real standard output.

        If `real` writes to file descriptor 1, the descriptor is redirected to standard error.
        """
        self.real = real
        self._descriptor: int | None = None
        if _descriptor_of(real) == STDOUT:  # in tests and notebooks, sys.stdout writes elsewhere
            real.flush()
            self._descriptor = os.dup(STDOUT)
            os.dup2(STDERR, STDOUT)

    def write(self, text: str) -> int:
        """Write a string to standard error."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Flush standard error."""
        sys.stderr.flush()

    def isatty(self) -> bool:
        """Return whether standard error is a terminal."""
        return sys.stderr.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of standard error."""
        return sys.stderr.fileno()

    def writable(self) -> bool:
        """Return True: the stream can be written."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of standard error."""
        return sys.stderr.encoding

    def write_document(self, text: str) -> None:
        """Write a string to the real standard output and flush it."""
        if self._descriptor is None:
            self.real.write(text)
            self.real.flush()
            return
        left = memoryview(text.encode(self.real.encoding, self.real.errors or "strict"))
        while left:
            left = left[os.write(self._descriptor, left) :]

    def restore(self) -> None:
        """Undo the redirection of file descriptor 1 to standard error."""
        self.real.flush()  # text that was printed through `real` directly still goes to standard error
        if self._descriptor is not None:
            os.dup2(self._descriptor, STDOUT)
            os.close(self._descriptor)
            self._descriptor = None


def reserve_stdout_for_documents(wanted: bool) -> None:
    """If `wanted`, reserve standard output for the command's document, such as JSON, from now on.

    Prints then go to standard error until the process ends. A plugin may print even when the interpreter exits, and
    this text must not follow the document.
    """
    if wanted and not isinstance(sys.stdout, RedirectedStdout):
        sys.stdout = RedirectedStdout(sys.stdout)


@contextmanager
def prints_to_stderr() -> Iterator[None]:
    """Redirect prints from standard output to standard error inside the `with` block.

    Plugins are loaded in such a block, because they may print before it is known whether the command will write a
    document, such as JSON, to standard output.
    """
    real, kept = sys.stdout, RedirectedStdout(sys.stdout)
    sys.stdout = kept
    try:
        yield
    finally:
        sys.stdout = real
        kept.restore()


def write_exactly(text: str) -> None:
    """Write a string unchanged to the real standard output, even if prints are being redirected to standard error.

    Prints are redirected while standard output is reserved for a command's document, such as JSON.
    """
    if isinstance(sys.stdout, RedirectedStdout):
        sys.stdout.write_document(text)
    else:
        sys.stdout.write(text)


def can_encode_all_characters() -> bool:
    """Return whether the encoding of standard output can represent all characters."""
    real = sys.stdout.real if isinstance(sys.stdout, RedirectedStdout) else sys.stdout
    return (getattr(real, "encoding", None) or "utf-8").lower().replace("_", "-").startswith("utf")


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # a stream in memory has none
        return None
