"""Texts in figures, as written: no formula, no TeX, no warning where a font lacks a letter.

Every figure is drawn and saved inside `literal_text`. matplotlib makes some texts, such as those of ticks, only while
it saves; outside they would be read as mathematics: `$` begins a formula in which `_`, `^` and a backslash mean
something.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from alue_bench.messages.display import one_line

SETTINGS = {"text.parse_math": False, "text.usetex": False, "axes.formatter.use_mathtext": False}
LONGEST_NAME = 28
"""Characters of a name in a figure; longer ones would leave no room for the figure."""
LONGEST_TITLE = 2 * LONGEST_NAME


@contextmanager
def literal_text(settings: dict[str, Any] | None = None) -> Iterator[None]:
    """Let matplotlib draw and save texts as they are written; `settings` are further ones of matplotlib's."""
    import matplotlib as mpl

    with mpl.rc_context({**(settings or {}), **SETTINGS}), warnings.catch_warnings():
        # A letter that no font has is drawn as a box, which everyone who uses such letters knows.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
        yield


def short(name: str, most: int = LONGEST_NAME) -> str:
    """Return a name as a figure shows it: on one line, cut where it is longer than `most` characters."""
    name = one_line(name)
    return name if len(name) <= most else f"{name[: most - 1]}…"


def short_title(text: str) -> str:
    """Return a title as a figure shows it, which has the figure's width."""
    return short(text, LONGEST_TITLE)


def short_names(names: Sequence[str]) -> list[str]:
    """Return the names as `short` does; those that are alike when cut are told apart by a number at their end."""
    cut = [short(name) for name in names]
    alike = Counter(cut)
    return [
        f"{name[: LONGEST_NAME - 1 - len(str(number))]}…{number}" if alike[name] > 1 else name
        for number, name in enumerate(cut, start=1)
    ]
