"""Writers of the file formats in which the official data sets are published."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

Row = Sequence[str]


def tsv(rows: Iterable[Row], *, newline: str = "\n") -> bytes:
    """Return rows as tab-separated values without quoting, so that a quotation mark is an ordinary character.

    Raises:
        ValueError: A field contains a tab or a line break.
    """
    lines = []
    for row in rows:
        if any(mark in field for field in row for mark in "\t\r\n"):
            raise ValueError(f"a field of {row!r} holds a tab or a line break")
        lines.append("\t".join(row) + newline)
    return "".join(lines).encode("utf-8")


def comma_separated(rows: Iterable[Row]) -> bytes:
    """Return rows as CSV; fields are quoted if necessary, and quotation marks inside them are doubled."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8")
