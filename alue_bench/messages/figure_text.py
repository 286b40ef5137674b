"""Literal texts in matplotlib figures: names are shown as they are, not interpreted as formulas or TeX.

Every figure must be both drawn and saved inside `literal_text`, because matplotlib creates some texts, such as tick
labels, only when it saves a figure. Outside `literal_text`, the character `$` would begin a formula.
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
"""The largest number of characters of a name in a figure; longer names would leave no space for the figure."""
LONGEST_TITLE = 2 * LONGEST_NAME
"""The largest number of characters of a title in a figure."""


@contextmanager
def literal_text(settings: dict[str, Any] | None = None) -> Iterator[None]:
    """Make matplotlib draw texts literally, not as formulas or TeX, inside a `with` block.

    Args:
        settings: Further settings (rcParams) of matplotlib for the block.
    """
    import matplotlib as mpl

    with mpl.rc_context({**(settings or {}), **SETTINGS}), warnings.catch_warnings():
        # matplotlib warns of letters that no font contains, and draws them as boxes. The boxes are visible enough.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
        yield


def shorten(name: str, max_length: int = LONGEST_NAME) -> str:
    """Return a name on one line, cut to at most `max_length` characters, for use in a figure."""
    name = one_line(name)
    return name if len(name) <= max_length else f"{name[: max_length - 1]}…"


def shorten_title(text: str) -> str:
    """Return a title on one line, cut to at most `LONGEST_TITLE` characters, for use in a figure."""
    return shorten(text, LONGEST_TITLE)


def shorten_names(names: Sequence[str]) -> list[str]:
    """Return each name shortened by `shorten`; where shortened names would be equal, a number is put at their end."""
    cut = [shorten(name) for name in names]
    alike = Counter(cut)
    return [
        f"{name[: LONGEST_NAME - 1 - len(str(number))]}…{number}" if alike[name] > 1 else name
        for number, name in enumerate(cut, start=1)
    ]
