"""Texts from outside, made fit to be shown: titles, labels, folders, causes of errors, whatever they are made of.

Only what would steer the place where a text is shown is escaped; all else stays as it is written.
"""

from __future__ import annotations

import hashlib
import re

_STEERING = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # controls: colours, cursor movements, bells; not allowed in XML either
    "\u2028\u2029"  # line and paragraph separators
    "\u202a-\u202e\u2066-\u2069"  # embeddings, overrides and isolates of direction, which reorder what follows
    "\ud800-\udfff"  # halves of surrogate pairs: bytes of a file name that are no UTF-8
    "\ufffe\uffff"
    "]"
)
LONGEST_FILE_NAME = 200
"""Bytes of a file name; file systems take 255, and some of them are for endings and for scratch files beside."""
DIGEST = 10
"""Hexadecimal digits of a digest that keeps shortened names apart."""


def visible(text: str) -> str:
    """Return the text with all escaped that steers a terminal or that XML does not allow; line feeds stay."""
    return _STEERING.sub(lambda found: found[0] if found[0] == "\n" else _escaped(found[0]), text)


def one_line(text: str) -> str:
    """Return the text as `visible` does, on one line: line feeds are escaped too."""
    return _STEERING.sub(lambda found: _escaped(found[0]), text)


def file_name(stem: str, ending: str = "") -> str:
    """Return a name for a file: the stem with its ending, where need be escaped and shortened.

    Different stems never give the same name: whatever is left out is replaced by a digest of the whole stem.
    """
    safe = one_line(stem).replace("/", "-").replace("\\", "-")
    room = LONGEST_FILE_NAME - len(ending.encode())
    if safe == stem and len(safe.encode()) <= room:
        return stem + ending
    digest = hashlib.sha256(stem.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]
    kept = safe.encode()[: room - DIGEST - 1].decode(errors="ignore")
    return f"{kept}-{digest}{ending}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
