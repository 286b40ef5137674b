"""The file formats, as the publishers of the real files chose them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

Row = Sequence[str]


def tsv(rows: Iterable[Row], *, newline: str = "\n") -> bytes:
    """Tab-separated without quoting: a quotation mark in a text is just a character."""
    lines = []
    for row in rows:
        if any(mark in field for field in row for mark in "\t\r\n"):
            raise ValueError(f"a field of {row!r} holds a tab or a line break")
        lines.append("\t".join(row) + newline)
    return "".join(lines).encode("utf-8")


def comma_separated(rows: Iterable[Row]) -> bytes:
    """CSV with quotes where a field needs them, doubled inside."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8")
